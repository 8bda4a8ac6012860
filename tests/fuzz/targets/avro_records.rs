//! Any bytes as a record in Avro, by any schema, and by that of a change event.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ruam_event::envelope::avro::{AvroSchema, unframe};
use ruam_event::envelope::{RowSink, Scalar};

const ENVELOPE: &str = r#"{"type":"record","name":"Envelope","fields":[
    {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
        {"name":"id","type":"long"},
        {"name":"day","type":["null",{"type":"int","connect.name":"io.debezium.time.Date"}]},
        {"name":"amount","type":["null",{"type":"bytes","scale":2,"precision":9,"logicalType":"decimal"}]},
        {"name":"tags","type":["null",{"type":"array","items":["null","string"]},{"type":"map","values":"double"}]},
        {"name":"feeling","type":{"type":"enum","name":"mood","symbols":["good","bad"]}}]}]},
    {"name":"after","type":["null","Value"]},
    {"name":"source","type":{"type":"record","name":"Source","fields":[{"name":"ts_ms","type":"long"}]}},
    {"name":"op","type":"string"}]}"#;

static SCHEMA: LazyLock<AvroSchema> = LazyLock::new(|| AvroSchema::parse(ENVELOPE).expect("a schema"));

struct Forget;

impl RowSink for Forget {
    fn column(&mut self, _: &str, _: Scalar<'_>) {}
}

fuzz_target!(|sent: (&str, &[u8])| {
    let (schema, bytes) = sent;
    let _ = unframe(bytes);
    let any = AvroSchema::parse(schema).ok();
    for schema in any.iter().chain([&*SCHEMA]) {
        if let Ok(decoded) = schema.decode(bytes, &mut Forget)
            && let Some(before) = decoded.before
        {
            let _ = schema.decode_before(before, &mut Forget);
        }
        let _ = schema.decode_row(bytes, &mut Forget);
    }
});
