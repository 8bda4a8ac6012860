//! What can go wrong with the log, and what to do about it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use ruam_event::{Classify, DatasetId, Fault, OffsetRange, Partition, Position, TopicId};

/// An error of the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No broker answers.
    #[error(
        "no Kafka broker answers at {servers}: {source}. Start it, or correct log.bootstrap_servers; nothing is lost meanwhile"
    )]
    Unreachable {
        /// The addresses that were tried.
        servers: String,
        /// What the client says.
        source: KafkaError,
    },
    /// A client could not be made from its settings.
    #[error("the settings of the log do not work: {source}. Correct [log.properties]")]
    Settings {
        /// What the client says.
        source: KafkaError,
    },
    /// A request about a topic failed.
    #[error("cannot {operation} topic `{topic}`: {source}")]
    Topic {
        /// What was being done.
        operation: &'static str,
        /// The topic.
        topic: String,
        /// What the client says.
        source: KafkaError,
    },
    /// A topic does not have the partitions that its dataset declares.
    #[error(
        "topic `{topic}` has {found} partitions and the dataset declares {declared}. Events of one key would change their partition and with it their order: write topic.partitions = {found} into the dataset's file"
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// How many it has.
        found: i32,
        /// How many it should have.
        declared: i32,
    },
    /// A topic was deleted and created anew.
    #[error(
        "topic `{topic}` is not the one that `{dataset}` was reading: it was deleted and created anew (id {before}, now {now}). If that was meant, run `ruam resume {dataset} --from beginning`"
    )]
    Recreated {
        /// The dataset.
        dataset: DatasetId,
        /// The topic.
        topic: String,
        /// The id that it had.
        before: TopicId,
        /// The id that it has.
        now: TopicId,
    },
    /// The records that come next are not in the log any more, or not yet.
    #[error(
        "`{dataset}` has read {partition} up to offset {wanted}, and the log holds {held}. {}",
        if *wanted < held.start { "Records were deleted before they were read; to accept that gap, run `ruam resume` with the dataset and `--from beginning`" }
        else { "The log is older than the table; restore the log, or run `ruam resume` with the dataset and `--from end`" }
    )]
    OffsetOutOfRange {
        /// The dataset.
        dataset: DatasetId,
        /// The partition.
        partition: Partition,
        /// The next offset.
        wanted: i64,
        /// What the log holds.
        held: OffsetRange,
    },
    /// Another process has taken this one's place.
    #[error(
        "another process reads `{dataset}` under this installation's name and has taken over. Stop one of the two, or give each its own data directory"
    )]
    Fenced {
        /// The dataset.
        dataset: DatasetId,
    },
    /// Another process publishes from the same source.
    #[error("another process already publishes `{dataset}` ({holder}). One may run at a time: stop it first")]
    Held {
        /// The dataset.
        dataset: DatasetId,
        /// Who it is, as far as the broker knows.
        holder: String,
    },
    /// An event does not fit into a record.
    #[error(
        "the event of `{dataset}` at position {position} has {size} bytes and the log takes {limit}. Raise message.max.bytes in [log.properties] and at the broker, or correct it at the source; nothing after it is published meanwhile"
    )]
    TooLarge {
        /// The dataset.
        dataset: DatasetId,
        /// Where it stands in its source.
        position: Position,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// An event has no key, and its dataset needs one.
    #[error(
        "the event of `{dataset}` at position {position} has no value in every key column. Correct it at the source; nothing after it is published meanwhile"
    )]
    NoKey {
        /// The dataset.
        dataset: DatasetId,
        /// Where it stands in its source.
        position: Position,
    },
    /// Records of somebody else lie in a topic that a connector fills.
    #[error(
        "topic `{topic}` ends with records that the connector of `{dataset}` did not write. Let the connector have a topic of its own: set topic.name in the dataset's file"
    )]
    ForeignRecords {
        /// The dataset.
        dataset: DatasetId,
        /// The topic.
        topic: String,
    },
    /// Publishing failed in a way that the client cannot mend by itself.
    #[error("publishing `{dataset}` failed: {source}")]
    Publish {
        /// The dataset.
        dataset: DatasetId,
        /// What the client says.
        source: KafkaError,
    },
    /// There can be no more threads.
    #[error(
        "publishing `{dataset}` needs a thread, and there can be no more: {source}. Raise the limit of tasks of this process"
    )]
    Thread {
        /// The dataset.
        dataset: DatasetId,
        /// What the system says.
        source: std::io::Error,
    },
    /// Reading failed in a way that the client cannot mend by itself.
    #[error("reading `{dataset}` failed: {source}")]
    Read {
        /// The dataset.
        dataset: DatasetId,
        /// What the client says.
        source: KafkaError,
    },
    /// The place to start from could not be had.
    #[error("cannot tell where to read `{dataset}` on from: {source}")]
    Start {
        /// The dataset.
        dataset: DatasetId,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What that asks for.
        fault: Fault,
    },
    /// The registry of schemas does not answer.
    #[error(
        "the schema registry at {url} does not answer: {problem}. Start it, or correct registry.url in ruam.toml; nothing is lost meanwhile"
    )]
    RegistryUnreachable {
        /// Its address.
        url: String,
        /// What happened instead.
        problem: String,
    },
    /// The registry of schemas cannot be used as it is.
    #[error("the schema registry{}: {problem}. {remedy}", if url.is_empty() { String::new() } else { format!(" at {url}") })]
    Registry {
        /// Its address; none where that is what is wrong.
        url: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// The task was cut off.
    #[error("the work on the log was cut off")]
    Stopped,
}

impl Classify for LogError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. }
            | Self::RegistryUnreachable { .. }
            | Self::Read { .. }
            | Self::Thread { .. }
            | Self::Stopped => Fault::Transient,
            Self::Topic { source, .. } | Self::Publish { source, .. } => match source.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed
                    | RDKafkaErrorCode::MessageSizeTooLarge
                    | RDKafkaErrorCode::InvalidReplicationFactor
                    | RDKafkaErrorCode::PolicyViolation,
                ) => Fault::Operator,
                _ => Fault::Transient,
            },
            Self::Start { fault, .. } => *fault,
            Self::Registry { .. }
            | Self::Settings { .. }
            | Self::PartitionCount { .. }
            | Self::Recreated { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::Fenced { .. }
            | Self::Held { .. }
            | Self::TooLarge { .. }
            | Self::NoKey { .. }
            | Self::ForeignRecords { .. } => Fault::Operator,
        }
    }
}
