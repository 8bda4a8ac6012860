//! The log as a whole: where it is, and which topics it has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{FromClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use ruam_event::{DatasetId, OffsetRange, Secret, Topic};

use crate::error::LogError;
use crate::native;

/// How long a broker may take to answer a question about itself.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Where the log is, and how to get in.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Addresses of brokers to begin with.
    pub bootstrap_servers: String,
    /// Settings of librdkafka: security.protocol, sasl.username and the like.
    pub properties: BTreeMap<String, Secret>,
    /// How many copies a topic gets that is created; -1 is the broker's default.
    pub replication: i32,
}

/// A topic and how it is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicLayout {
    /// The topic.
    pub topic: Arc<Topic>,
    /// How many partitions it has.
    pub partitions: i32,
}

/// The log.
#[derive(Clone)]
pub struct Log {
    settings: Arc<LogSettings>,
    /// The client that asks about topics; made when it is first needed, and kept.
    asker: Arc<Mutex<Option<Asker>>>,
}

type Asker = Arc<BaseConsumer<Logging>>;

/// Passes what librdkafka says on to the program's own log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Logging;

pub(crate) fn log_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "librdkafka: {line}")
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::debug!(facility, "librdkafka: {line}"),
        _ => tracing::trace!(facility, "librdkafka: {line}"),
    }
}

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl rdkafka::consumer::ConsumerContext for Logging {}

impl Log {
    /// The log at the given place. Nothing is connected yet.
    pub fn new(settings: LogSettings) -> Self {
        Self { settings: Arc::new(settings), asker: Arc::default() }
    }

    /// The addresses that it is reached at.
    pub fn servers(&self) -> &str {
        &self.settings.bootstrap_servers
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.settings.bootstrap_servers);
        config.set("client.id", format!("ruam-{}", std::process::id()));
        // A broker that comes back is found again soon, and one that stays away is not hammered.
        config.set("reconnect.backoff.ms", "100").set("reconnect.backoff.max.ms", "5000");
        for (key, value) in &self.settings.properties {
            config.set(key, value.reveal());
        }
        config
    }

    pub(crate) fn create<C: ClientContext, T: rdkafka::config::FromClientConfigAndContext<C>>(
        &self,
        config: &ClientConfig,
        context: C,
    ) -> Result<T, LogError> {
        config.create_with_context(context).map_err(|source| LogError::Settings { source })
    }

    fn asker(&self) -> Result<Asker, LogError> {
        let mut asker = self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asker) = &*asker {
            return Ok(asker.clone());
        }
        let made: Asker = Arc::new(self.create(&self.client(), Logging)?);
        *asker = Some(made.clone());
        Ok(made)
    }

    /// Waits until a broker answers.
    ///
    /// # Errors
    /// Where none has within the time.
    pub async fn reach(&self, patience: Duration) -> Result<(), LogError> {
        let log = self.clone();
        blocking(move || {
            let asker = log.asker()?;
            // A topic that does not exist is asked for, so that a cluster with many is not listed.
            let answer = asker.fetch_metadata(Some("ruam.reach"), patience);
            answer.map(|_| ()).map_err(|source| LogError::Unreachable { servers: log.servers().to_owned(), source })
        })
        .await
    }

    /// A topic, if it exists.
    ///
    /// # Errors
    /// Where the broker does not say.
    pub async fn topic(&self, name: &str) -> Result<Option<TopicLayout>, LogError> {
        let (log, name) = (self.clone(), name.to_owned());
        blocking(move || log.find_topic(&*log.asker()?, &name)).await
    }

    fn find_topic(&self, asker: &BaseConsumer<Logging>, name: &str) -> Result<Option<TopicLayout>, LogError> {
        let failed = |source| LogError::Topic { operation: "look up", topic: name.to_owned(), source };
        let metadata =
            asker.fetch_metadata(Some(name), REQUEST_TIMEOUT).map_err(|source| match source.rdkafka_error_code() {
                Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut) => {
                    LogError::Unreachable { servers: self.servers().to_owned(), source }
                }
                _ => failed(source),
            })?;
        let Some(found) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
        match found.error().map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
            Some(code) => return Err(failed(KafkaError::MetadataFetch(code))),
            None => {}
        }
        let partitions = i32::try_from(found.partitions().len()).unwrap_or(i32::MAX);
        let id = native::topic_id(asker.client(), name, timeout_ms()).map_err(failed)?;
        Ok(Some(TopicLayout { topic: Arc::new(Topic { name: name.to_owned(), id }), partitions }))
    }

    /// Whether a topic is still the one that it was: not deleted, and not created anew since.
    ///
    /// # Errors
    /// Where it is not, or the broker does not say.
    pub async fn check_identity(&self, dataset: &DatasetId, topic: &Arc<Topic>) -> Result<(), LogError> {
        let (log, topic, dataset) = (self.clone(), topic.clone(), dataset.clone());
        blocking(move || {
            let now = native::topic_id(log.asker()?.client(), &topic.name, timeout_ms());
            let now =
                now.map_err(|source| LogError::Topic { operation: "look up", topic: topic.name.clone(), source })?;
            if now == topic.id {
                return Ok(());
            }
            Err(LogError::Recreated { dataset, topic: topic.name.clone(), before: topic.id, now })
        })
        .await
    }

    /// A topic with so many partitions, created if it does not exist.
    ///
    /// # Errors
    /// Where it cannot be created, or exists with another number of partitions.
    pub async fn ensure_topic(&self, name: &str, partitions: i32) -> Result<TopicLayout, LogError> {
        let found = match self.topic(name).await? {
            Some(found) => found,
            None => self.create_topic(name, partitions).await?,
        };
        if found.partitions == partitions {
            return Ok(found);
        }
        Err(LogError::PartitionCount { topic: name.to_owned(), found: found.partitions, declared: partitions })
    }

    async fn create_topic(&self, name: &str, partitions: i32) -> Result<TopicLayout, LogError> {
        let failed = |source| LogError::Topic { operation: "create", topic: name.to_owned(), source };
        let admin = self.admin()?;
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(self.settings.replication));
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let results = admin.create_topics([&topic], &options).await.map_err(failed)?;
        for result in results {
            match result {
                // Another process was quicker.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
            }
        }
        // A cluster needs a moment until every broker knows the topic.
        for _ in 0..100 {
            if let Some(found) = self.topic(name).await?.filter(|found| found.partitions == partitions) {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(failed(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut)))
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, LogError> {
        AdminClient::from_config(&self.client()).map_err(|source| LogError::Settings { source })
    }

    /// What each partition of a topic holds.
    ///
    /// # Errors
    /// Where the broker does not say.
    pub async fn held(&self, layout: &TopicLayout) -> Result<Vec<OffsetRange>, LogError> {
        let (log, layout) = (self.clone(), layout.clone());
        blocking(move || {
            let asker = log.asker()?;
            (0..layout.partitions).map(|partition| held(&*asker, &layout.topic.name, partition)).collect()
        })
        .await
    }
}

fn timeout_ms() -> i32 {
    i32::try_from(REQUEST_TIMEOUT.as_millis()).unwrap_or(i32::MAX)
}

/// What a partition holds.
pub(crate) fn held<C: rdkafka::consumer::ConsumerContext>(
    asker: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Result<OffsetRange, LogError> {
    let (start, end) = asker.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).map_err(|source| LogError::Topic {
        operation: "read the offsets of",
        topic: topic.to_owned(),
        source,
    })?;
    Ok(OffsetRange { start, end })
}

/// Runs librdkafka's blocking calls off the async executor.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(LogError::Stopped))
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("settings", &self.settings).finish_non_exhaustive()
    }
}
