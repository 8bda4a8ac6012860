//! What came last into a topic, by the names that its senders gave it: so a gateway that starts again knows what it
//! has stored.

use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use ruam_event::Position;

use crate::error::LogError;
use crate::native;
use crate::publisher::{EventName, WAIT};
use crate::topics::{Log, Logging, REQUEST_TIMEOUT, TopicLayout, held};

/// How much is read ahead, in KiB.
const AHEAD: &str = "16384";

/// Reads the last `count` records of each partition that are there now, in the order of their offsets. Blocks.
/// Records without a name or a position are left out.
///
/// # Errors
/// Where the log does not answer.
pub fn recent(
    log: &Log,
    layout: &TopicLayout,
    count: usize,
    each: &mut dyn FnMut(Position, EventName<'_>),
) -> Result<(), LogError> {
    let topic = &layout.topic.name;
    let failed = |source| LogError::Topic { operation: "read the end of", topic: topic.clone(), source };
    let mut config = log.client();
    config.set("enable.partition.eof", "true").set("enable.auto.commit", "false").set("auto.offset.reset", "error");
    config.set("group.id", format!("ruam.recent.{}", std::process::id())).set("queued.max.messages.kbytes", AHEAD);
    let reader: BaseConsumer<Logging> = log.create(&config, Logging)?;
    for partition in 0..layout.partitions {
        let range = held(&reader, topic, partition)?;
        if range.is_empty() {
            continue;
        }
        let from = range.end.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX)).max(range.start);
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Offset(from)).map_err(failed)?;
        reader.assign(&assignment).map_err(failed)?;
        read(&reader, range.end, each).map_err(failed)?;
    }
    Ok(())
}

/// Reads what is assigned, to before `end`.
fn read(
    reader: &BaseConsumer<Logging>,
    end: i64,
    each: &mut dyn FnMut(Position, EventName<'_>),
) -> Result<(), KafkaError> {
    let mut heard = Instant::now();
    while heard.elapsed() < REQUEST_TIMEOUT {
        match reader.poll(WAIT) {
            Some(Ok(message)) => {
                heard = Instant::now();
                if let Some(headers) = native::headers(&message) {
                    let text = |name| headers.last(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
                    let position = headers.last(c"ce_sequence").and_then(Position::parse);
                    if let (Some(position), Some(source), Some(id)) = (position, text(c"ce_source"), text(c"ce_id")) {
                        each(position, EventName { source, id });
                    }
                }
                if message.offset() + 1 >= end {
                    return Ok(());
                }
            }
            // The last offsets may hold no records (a transaction's end).
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Err(KafkaError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::OperationTimedOut))
}
