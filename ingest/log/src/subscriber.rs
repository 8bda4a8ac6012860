//! From topic to reader: the records of the partitions that this process has been given, a run of
//! one partition at a time.
//!
//! What passes through: raw records, copied once out of librdkafka's buffers.
//!
//! Guaranteed: a run continues exactly where the run before it ended, within one assignment. Where
//! an assignment begins is the reader's to say, by [`StartOffsets`]; the offsets that are committed
//! to Kafka's group are for its tools to look at, and are never read. What is held in memory is
//! bounded by [`Bounds`], so that a backlog of any size costs no more memory than a short one.
//!
//! A rebalance is a [`Delivery`] like any other: the reader drops what it has not yet committed, and
//! goes on from what follows.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use ruam_event::record::Record;
use ruam_event::{DatasetId, OffsetRange, Partition, Position, Records};

use crate::error::LogError;
use crate::native;
use crate::topics::{Log, TopicLayout, held, log_line};

/// How many records are taken with one look at the clock.
const AT_HAND: usize = 256;

/// Tells where to begin with partitions that have just been given to this process; none where they
/// have never been read.
pub type StartOffsets = Box<dyn Fn(&[Partition]) -> Result<Vec<Option<i64>>, LogError> + Send + Sync>;

/// How much is read ahead and handed over at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most records of a run.
    pub records: usize,
    /// The most bytes of a run.
    pub bytes: usize,
    /// How long a run waits for more records.
    pub linger: Duration,
    /// How much librdkafka reads ahead, in kilobytes.
    pub prefetch_kbytes: usize,
}

/// Partitions, and the offset that each begins at.
pub type Assignment = Vec<(Partition, i64)>;

/// What a subscriber hands over.
#[derive(Debug)]
pub enum Delivery {
    /// These partitions, and no others, are this process' from now on, each from its offset. What
    /// was handed over before and is not committed will come again, here or elsewhere.
    Assigned(Assignment),
    /// The next records of one partition.
    Records(Box<Records>),
}

/// Reads the topic of one dataset.
pub struct Subscriber {
    consumer: BaseConsumer<Assignments>,
    layout: TopicLayout,
    dataset: DatasetId,
    bounds: Bounds,
    /// Whether the records are signed.
    are_signed: bool,
    runs: BTreeMap<i32, Run>,
}

/// A run that is being collected.
struct Run {
    records: Records,
    since: Instant,
}

/// Answers librdkafka when partitions are given and taken.
struct Assignments {
    layout: TopicLayout,
    dataset: DatasetId,
    starts: StartOffsets,
    /// The last assignment, until it is handed over.
    news: Mutex<Option<Result<Assignment, LogError>>>,
}

impl ClientContext for Assignments {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AllBrokersDown)) {
            tracing::warn!(dataset = %self.dataset, "no broker can be reached; reading goes on when one can");
        } else {
            tracing::debug!(%error, reason, "librdkafka");
        }
    }
}

impl ConsumerContext for Assignments {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let news = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, partitions),
            _ => consumer.unassign().map(|()| Vec::new()).map_err(|source| self.failed(source)),
        };
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(news);
    }
}

impl Assignments {
    fn take_news(&self) -> Option<Result<Assignment, LogError>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn failed(&self, source: KafkaError) -> LogError {
        LogError::Read { dataset: self.dataset.clone(), source }
    }

    fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        given: &TopicPartitionList,
    ) -> Result<Vec<(Partition, i64)>, LogError> {
        let partition = |index| Partition { topic: self.layout.topic.clone(), index };
        let partitions: Vec<_> = given.elements().iter().map(|element| partition(element.partition())).collect();
        let starts = (self.starts)(&partitions)?;
        let mut assignment = TopicPartitionList::new();
        let mut assigned = Vec::new();
        for (partition, start) in partitions.into_iter().zip(starts) {
            let held = held(consumer, &partition.topic.name, partition.index)?;
            let start = self.check_start(&partition, start.unwrap_or(held.start), held)?;
            assignment
                .add_partition_offset(&partition.topic.name, partition.index, Offset::Offset(start))
                .map_err(|source| self.failed(source))?;
            assigned.push((partition, start));
        }
        consumer.assign(&assignment).map_err(|source| self.failed(source))?;
        Ok(assigned)
    }

    fn check_start(&self, partition: &Partition, wanted: i64, held: OffsetRange) -> Result<i64, LogError> {
        if (held.start..=held.end).contains(&wanted) {
            return Ok(wanted);
        }
        Err(LogError::OffsetOutOfRange { dataset: self.dataset.clone(), partition: partition.clone(), wanted, held })
    }
}

impl Subscriber {
    /// Joins those who read a dataset's topic into one lake, which share its partitions: `reader`
    /// names the lake, so that another lake on the same log gets every record too. `instance` names
    /// this installation: when it starts again it takes its own place back at once, and whoever
    /// still runs under its name is fenced off.
    ///
    /// # Errors
    /// Where the settings do not make a client.
    pub fn open(
        log: &Log,
        dataset: &DatasetId,
        layout: TopicLayout,
        reader: &str,
        instance: &str,
        bounds: Bounds,
        starts: StartOffsets,
    ) -> Result<Self, LogError> {
        let mut config = log.client();
        config
            .set("group.id", format!("ruam.{dataset}.{reader}"))
            .set("group.instance.id", instance)
            .set("partition.assignment.strategy", "range")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("session.timeout.ms", "10000")
            // A reader may wait long for a lake that is away; it is alive all the same.
            .set("max.poll.interval.ms", "3600000")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", "1048576")
            .set("queued.min.messages", "1000000")
            .set("queued.max.messages.kbytes", bounds.prefetch_kbytes.to_string());
        let context = Assignments { layout: layout.clone(), dataset: dataset.clone(), starts, news: Mutex::new(None) };
        let consumer: BaseConsumer<Assignments> = log.create(&config, context)?;
        consumer
            .subscribe(&[&layout.topic.name])
            .map_err(|source| LogError::Read { dataset: dataset.clone(), source })?;
        Ok(Self { consumer, layout, dataset: dataset.clone(), bounds, are_signed: false, runs: BTreeMap::new() })
    }

    /// The same subscriber, which hands over the records' signatures as well if they have some.
    pub fn signed(self, are_signed: bool) -> Self {
        Self { are_signed, ..self }
    }

    /// What comes next; none where nothing has come within `patience`. Blocks.
    ///
    /// # Errors
    /// Where reading cannot go on; the subscriber is of no further use then.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Delivery>, LogError> {
        let mut now = Instant::now();
        let deadline = now + patience;
        loop {
            if let Some(run) = self.take_ripe(now) {
                return Ok(Some(Delivery::Records(Box::new(run))));
            }
            if now >= deadline {
                return Ok(None);
            }
            let begun = self.runs.values().filter(|run| !run.records.is_empty());
            let ripe = begun.map(|run| run.since + self.bounds.linger).fold(deadline, Instant::min);
            let mut wait = ripe.saturating_duration_since(now);
            // What is at hand is taken together, with one look at the clock.
            for _ in 0..AT_HAND {
                let polled = self.consumer.poll(wait).transpose();
                // The callback of a rebalance runs within the poll; what it says comes before records.
                if let Some(news) = self.consumer.context().take_news() {
                    drop(polled);
                    return Ok(Some(self.begin(news?)));
                }
                if !wait.is_zero() {
                    (now, wait) = (Instant::now(), Duration::ZERO);
                }
                match polled {
                    Ok(None) => break,
                    Ok(Some(message)) => {
                        if let Some(run) = self.runs.get_mut(&message.partition()) {
                            run.push(&message, self.are_signed, now);
                            if run.is_full(&self.bounds) {
                                break;
                            }
                        }
                    }
                    Err(error) => self.judge(error)?,
                }
            }
            now = Instant::now();
        }
    }

    /// Begins with an assignment; what was collected for the one before is dropped.
    fn begin(&mut self, assigned: Assignment) -> Delivery {
        let run = |(partition, start): &(Partition, i64)| {
            (partition.index, Run { records: Records::new(partition.clone(), *start), since: Instant::now() })
        };
        self.runs = assigned.iter().map(run).collect();
        Delivery::Assigned(assigned)
    }

    /// A run that is full, or that has waited long enough.
    fn take_ripe(&mut self, now: Instant) -> Option<Records> {
        let bounds = self.bounds;
        let run = self.runs.values_mut().find(|run| run.is_ripe(&bounds, now))?;
        let next = Records::new(run.records.partition.clone(), run.records.range.end);
        Some(std::mem::replace(&mut run.records, next))
    }

    /// Passes over what librdkafka mends by itself.
    fn judge(&self, error: KafkaError) -> Result<(), LogError> {
        let dataset = self.dataset.clone();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::Fatal) => Err(LogError::Fenced { dataset }),
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::PollExceeded,
            ) => Err(LogError::Read { dataset, source: error }),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => Err(LogError::Fenced { dataset }),
            _ => {
                tracing::debug!(%error, %dataset, "librdkafka will try again");
                Ok(())
            }
        }
    }

    /// Tells Kafka's tools how far the reader is. Nothing depends on it.
    pub fn show_progress(&self, offsets: &[(i32, i64)]) {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            let _ = list.add_partition_offset(&self.layout.topic.name, *partition, Offset::Offset(*offset));
        }
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, dataset = %self.dataset, "the group's offsets could not be shown");
        }
    }
}

impl Run {
    fn push(&mut self, message: &BorrowedMessage<'_>, are_signed: bool, now: Instant) {
        if self.records.is_empty() {
            self.since = now;
        }
        let headers = native::headers(message);
        let header = |name| headers.and_then(|headers| headers.last(name));
        self.records.push(Record {
            offset: message.offset(),
            arrived: message.timestamp().to_millis().unwrap_or(0),
            key: message.key(),
            value: message.payload(),
            id: header(c"ce_id"),
            position: header(c"ce_sequence").and_then(Position::parse),
        });
        if are_signed {
            self.records.sign(header(c"ce_signature"));
        }
    }

    fn is_full(&self, bounds: &Bounds) -> bool {
        self.records.len() >= bounds.records || self.records.bytes() >= bounds.bytes
    }

    fn is_ripe(&self, bounds: &Bounds, now: Instant) -> bool {
        !self.records.is_empty() && (self.is_full(bounds) || now.saturating_duration_since(self.since) >= bounds.linger)
    }
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber")
            .field("dataset", &self.dataset)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}
