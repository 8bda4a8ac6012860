//! From source to topic, exactly once, without Kafka transactions.
//!
//! What passes through: a source's events in the order of their positions, each into the partition
//! of its key, with its position in a header.
//!
//! How it holds:
//! - Within a run, librdkafka's idempotent producer keeps each partition's order and stores a batch
//!   once, however often it is sent. A message never times out, and a message that the broker
//!   refuses for good stops the producer; so no later event of a partition gets in before an
//!   earlier one.
//! - Between runs, a new publisher reads the last record of each partition. The source replays from
//!   wherever it must; an event at or below the position found in its own partition is there
//!   already and is left out. That is exact, because positions grow within a partition and the
//!   partition of a key does not change (the number of partitions is checked).
//! - A truncation concerns every partition and is published to each. An update that gives a row another
//!   key concerns the partitions of both: the old one's gets a delete at the same position.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use ruam_event::change::Op;
use ruam_event::envelope::WrittenChange;
use ruam_event::{Change, ChangeEvent, DatasetId, DatasetSpec, Occurrence, OldRow, Position, Row, envelope};

use crate::deliveries::{HeardProducer, Outstanding, Receipt};
use crate::error::LogError;
use crate::native;
use crate::partitioner::partition_of;
use crate::topics::{Log, Logging, REQUEST_TIMEOUT, TopicLayout, held};

/// librdkafka's default for `message.max.bytes`.
const DEFAULT_MAX_BYTES: usize = 1_000_000;
/// How long one wait for librdkafka lasts, before stopping is looked for.
pub(crate) const WAIT: Duration = Duration::from_millis(50);
/// The same where there is no room for more records, of which there may be some at any moment.
const SHORT_WAIT: Duration = Duration::from_millis(1);
/// After so many records it is looked whether one before has failed.
const CHECK_EVERY: u32 = 100;

/// Publishes the events of one dataset.
pub struct Publisher {
    producer: HeardProducer,
    /// What the records hold that are published now.
    outstanding: Arc<Outstanding>,
    dataset: DatasetId,
    key: Vec<String>,
    layout: TopicLayout,
    max_bytes: usize,
    /// The position of the last event of each partition.
    last: Vec<Option<Position>>,
    /// What events are called that their source does not name.
    source: String,
    id: String,
    /// Buffers, kept from event to event.
    key_bytes: Vec<u8>,
    left_key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
    /// Records since it was last looked whether any has failed.
    unchecked: u32,
}

/// What an event is called where its sender names it: CloudEvents' `id`, which is unique within its `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventName<'a> {
    /// Who or what made it.
    pub source: &'a str,
    /// Its name there.
    pub id: &'a str,
}

/// An event of a sender of its own, whose row is written already.
#[derive(Clone, Copy, Debug)]
pub struct WrittenEvent<'a> {
    /// Where it stands in the order of the dataset's events.
    pub position: Position,
    /// When it happened, in microseconds since 1970-01-01 UTC, if its sender says.
    pub time: Option<i64>,
    /// What happened.
    pub change: &'a WrittenChange,
    /// What its sender calls it.
    pub name: EventName<'a>,
    /// Its signature, with what is signed, if it has one.
    pub signature: Option<&'a str>,
}

/// What is told of an event beside its rows.
#[derive(Clone, Copy)]
struct Told<'a> {
    event: Occurrence,
    /// None: its position.
    name: Option<EventName<'a>>,
    signature: Option<&'a str>,
}

/// What a publisher has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Records that were handed to the producer.
    pub records: u64,
    /// Records that were in the log already.
    pub repeated: u64,
}

impl Publisher {
    /// Opens the dataset's topic for publishing, and reads how far it is. Blocks.
    ///
    /// # Errors
    /// Where the log does not answer, or holds records that are not the connector's.
    pub fn open(log: &Log, spec: &DatasetSpec, layout: TopicLayout) -> Result<Self, LogError> {
        let last = (0..layout.partitions)
            .map(|partition| last_position(log, spec.id(), &layout, partition))
            .collect::<Result<_, _>>()?;
        let mut config: ClientConfig = log.client();
        config
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            // Never: a message that is given up would leave a gap that a later one closes over.
            .set("message.timeout.ms", "0")
            // No flush cuts this short.
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.kbytes", "32768");
        let max_bytes =
            config.get("message.max.bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(DEFAULT_MAX_BYTES);
        let producer = HeardProducer::new(log, &config, spec.id())?;
        Ok(Self {
            producer,
            outstanding: Arc::default(),
            dataset: spec.id().clone(),
            key: spec.key(),
            layout,
            max_bytes,
            last,
            source: envelope::source_of(spec.id()),
            id: String::new(),
            key_bytes: Vec::new(),
            left_key_bytes: Vec::new(),
            value_bytes: Vec::new(),
            unchecked: 0,
        })
    }

    /// The position after which the source has to replay: everything up to it is in the log.
    /// None: from its beginning.
    pub fn replay_after(&self) -> Option<Position> {
        self.last.iter().copied().min().flatten()
    }

    /// The greatest position of an event that is in the log, or was handed to it. None where the log holds none, be it
    /// that there was none or that it has been deleted since.
    pub fn newest(&self) -> Option<Position> {
        self.last.iter().copied().max().flatten()
    }

    /// Publishes an event, unless it is in the log already. Blocks while the log is slower than
    /// the source; `stop` is asked now and then.
    ///
    /// # Errors
    /// Where the event cannot be published, or publishing has failed before; the publisher is of no
    /// further use then.
    pub fn publish(&mut self, event: &ChangeEvent, stop: &dyn Fn() -> bool) -> Result<Sent, LogError> {
        let mut sent = Sent::default();
        if event.change.op() == Op::Truncate {
            self.key_bytes.clear();
            for partition in 0..self.layout.partitions {
                self.send_event(event, partition, &mut sent, stop)?;
            }
        } else {
            let partition = self.partition_of(event)?;
            if let Change::Update { old, .. } = &event.change
                && let Some((row, left)) = self.left_behind(old).filter(|(_, left)| *left != partition)
            {
                let delete = ChangeEvent { change: Change::Delete(OldRow::Key(row.clone())), ..*event };
                std::mem::swap(&mut self.key_bytes, &mut self.left_key_bytes);
                self.send_event(&delete, left, &mut sent, stop)?;
                std::mem::swap(&mut self.key_bytes, &mut self.left_key_bytes);
            }
            self.send_event(event, partition, &mut sent, stop)?;
        }
        Ok(sent)
    }

    /// The same for an event whose row is written already. Where it is too large ([`LogError::TooLarge`]), nothing of
    /// it has been sent, and others can be published in its place.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_written(&mut self, event: WrittenEvent<'_>, stop: &dyn Fn() -> bool) -> Result<Sent, LogError> {
        let WrittenEvent { position, time, change, name, signature } = event;
        self.key_bytes.clear();
        self.key_bytes.extend_from_slice(change.key());
        let (partition, mut sent) = (self.partition_at(position), Sent::default());
        if self.is_new(position, partition, &mut sent) {
            let event = Occurrence { op: change.op(), position, source_time: time };
            self.value_bytes.clear();
            change.encode(&self.dataset, event, &mut self.value_bytes);
            self.send(Told { event, name: Some(name), signature }, partition, stop)?;
        }
        Ok(sent)
    }

    /// The row before an update, and the partition of its key, if the source tells it; that key is left in a buffer of
    /// its own. Where an update has left it, that partition gets a delete: what came before of the key is there, and
    /// nothing orders one partition before another.
    fn left_behind<'e>(&mut self, old: &'e OldRow) -> Option<(&'e Row, i32)> {
        self.left_key_bytes.clear();
        let row = old.row().filter(|_| !self.key.is_empty())?;
        let has_key = envelope::encode_key(row, &self.key, &mut self.left_key_bytes);
        has_key.then(|| (row, partition_of(&self.left_key_bytes, self.layout.partitions)))
    }

    /// The partition of an event's key, which is left in the buffer.
    fn partition_of(&mut self, event: &ChangeEvent) -> Result<i32, LogError> {
        self.key_bytes.clear();
        let has_key = self.key.is_empty()
            || event.change.row().is_some_and(|row| envelope::encode_key(row, &self.key, &mut self.key_bytes));
        if !has_key {
            return Err(LogError::NoKey { dataset: self.dataset.clone(), position: event.position });
        }
        Ok(self.partition_at(event.position))
    }

    /// The partition of the key in the buffer; an event without one is spread by its position.
    fn partition_at(&self, position: Position) -> i32 {
        match self.key_bytes.is_empty() {
            true => partition_of(&position.to_text(), self.layout.partitions),
            false => partition_of(&self.key_bytes, self.layout.partitions),
        }
    }

    /// Whether an event is not in its partition yet; one that is counts as repeated.
    fn is_new(&self, position: Position, partition: i32, sent: &mut Sent) -> bool {
        let last = self.last.get(partition as usize).copied().flatten();
        let is_new = last.is_none_or(|last| position > last);
        *if is_new { &mut sent.records } else { &mut sent.repeated } += 1;
        is_new
    }

    /// Sends an event, whose key is in the buffer, unless its partition has it already.
    fn send_event(
        &mut self,
        event: &ChangeEvent,
        partition: i32,
        sent: &mut Sent,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), LogError> {
        if !self.is_new(event.position, partition, sent) {
            return Ok(());
        }
        self.value_bytes.clear();
        envelope::encode(&self.dataset, event, &mut self.value_bytes);
        self.send(Told { event: event.occurrence(), name: None, signature: None }, partition, stop)
    }

    /// Sends the key and the value in the buffers.
    fn send(
        &mut self,
        Told { event, name, signature }: Told<'_>,
        partition: i32,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), LogError> {
        let size = self.key_bytes.len() + self.value_bytes.len() + signature.map_or(0, str::len) + 512;
        if size > self.max_bytes {
            let (dataset, position, limit) = (self.dataset.clone(), event.position, self.max_bytes);
            return Err(LogError::TooLarge { dataset, position, size, limit });
        }
        let name = name.unwrap_or_else(|| {
            envelope::write_id(event.position, &mut self.id);
            EventName { source: &self.source, id: &self.id }
        });
        let mut headers = Some(OwnedHeaders::new_with_capacity(envelope::ATTRIBUTES));
        let mut add = |key: &'static str, value: &[u8]| {
            headers = headers.take().map(|headers| headers.insert(Header { key, value: Some(value) }));
        };
        envelope::attributes(name.source, name.id, event, &mut add);
        if let Some(signature) = signature {
            add(envelope::SIGNATURE_HEADER, signature.as_bytes());
        }
        let mut record = BaseRecord::with_opaque_to(&self.layout.topic.name, self.outstanding.clone())
            .partition(partition)
            .payload(&self.value_bytes);
        record.headers = headers;
        if !self.key_bytes.is_empty() {
            record = record.key(&self.key_bytes);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.hear(SHORT_WAIT);
                    self.check()?;
                    if stop() {
                        return Err(LogError::Stopped);
                    }
                }
                Err((source, _)) => return Err(self.failed(source)),
            }
        }
        if let Some(last) = self.last.get_mut(partition as usize) {
            *last = Some(event.position);
        }
        self.unchecked += 1;
        if self.unchecked < CHECK_EVERY {
            return Ok(());
        }
        self.unchecked = 0;
        self.check()
    }

    /// A receipt for the records that have been published since the last receipt.
    pub fn receipt(&mut self) -> Receipt {
        Receipt(std::mem::take(&mut self.outstanding))
    }

    /// Waits until everything that was published is acknowledged, but no longer than a time.
    pub fn settle(&self, time: Duration) {
        self.producer.settle(time);
    }

    /// Waits until everything that was published is acknowledged.
    ///
    /// # Errors
    /// Where something was refused, or it was stopped.
    pub fn flush(&self, stop: &dyn Fn() -> bool) -> Result<(), LogError> {
        while !self.producer.settle(WAIT) {
            self.check()?;
            if stop() {
                return Err(LogError::Stopped);
            }
        }
        self.check()
    }

    /// Whether all goes well with what was published.
    ///
    /// # Errors
    /// Where something was refused.
    pub fn check(&self) -> Result<(), LogError> {
        self.producer.failure().map_or(Ok(()), |source| Err(self.failed(source)))
    }

    fn failed(&self, source: KafkaError) -> LogError {
        LogError::Publish { dataset: self.dataset.clone(), source }
    }
}

/// The position of the last event in a partition.
///
/// The very last offset may hold no record (a transaction's end) so that the search steps back.
fn last_position(
    log: &Log,
    dataset: &DatasetId,
    layout: &TopicLayout,
    partition: i32,
) -> Result<Option<Position>, LogError> {
    let failed = |source| LogError::Topic { operation: "read the end of", topic: layout.topic.name.clone(), source };
    let mut config = log.client();
    config.set("enable.partition.eof", "true").set("enable.auto.commit", "false").set("auto.offset.reset", "error");
    config.set("group.id", format!("ruam.end.{}", std::process::id()));
    let reader: BaseConsumer<Logging> = log.create(&config, Logging)?;
    let name = &layout.topic.name;
    let range = held(&reader, name, partition)?;
    if range.is_empty() {
        return Ok(None);
    }
    let mut back = 1;
    loop {
        let from = (range.end - back).max(range.start);
        let last = last_record(&reader, name, partition, from, range.end).map_err(failed)?;
        match last {
            Some(Some(position)) => return Ok(Some(position)),
            Some(None) => return Err(LogError::ForeignRecords { dataset: dataset.clone(), topic: name.clone() }),
            None if from == range.start => return Ok(None),
            None => back *= 10,
        }
    }
}

/// The last record from `from` to before `end`, if there is one, and its position, if it has one.
fn last_record(
    reader: &BaseConsumer<Logging>,
    topic: &str,
    partition: i32,
    from: i64,
    end: i64,
) -> Result<Option<Option<Position>>, KafkaError> {
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(from))?;
    reader.assign(&assignment)?;
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let mut last = None;
    while Instant::now() < deadline {
        match reader.poll(WAIT) {
            Some(Ok(message)) => {
                let position = native::headers(&message).and_then(|headers| headers.last(c"ce_sequence"));
                last = Some(position.and_then(Position::parse));
                if message.offset() + 1 >= end {
                    return Ok(last);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("dataset", &self.dataset).field("last", &self.last).finish_non_exhaustive()
    }
}
