//! Any record of a topic that others fill: each becomes a row, a reject, or is left out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ruam_event::envelope::avro::AvroSchemas;
use ruam_event::record::{Record, Records};
use ruam_event::{Partition, Topic, TopicId};
use ruam_fuzz::TRANSFORMS;

fuzz_target!(|sent: Vec<(Option<&[u8]>, Option<&[u8]>)>| {
    let topic = Topic { name: "t".to_owned(), id: TopicId::default() };
    let mut records = Records::new(Partition { topic: topic.into(), index: 0 }, 0);
    for (offset, (key, value)) in (0..).zip(sent) {
        records.push(Record { offset, arrived: 0, key, value, id: None, position: None });
    }
    for transform in TRANSFORMS.iter() {
        let normalised = transform.apply(&records, &AvroSchemas::default()).expect("columns");
        let became = normalised.rows.num_rows() - normalised.left + normalised.rejects.num_rows() + normalised.filtered as usize;
        assert_eq!(became, records.len());
    }
});
