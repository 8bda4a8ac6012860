//! One live instance per source.
//!
//! A lease is the membership of a consumer group that has one partition to give: whoever holds the
//! partition holds the lease, and the broker takes it from a holder that is not heard of for ten
//! seconds. The holder keeps it while others come and go (`cooperative-sticky`); an installation
//! that starts again after a crash takes its own lease back at once (`group.instance.id`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use ruam_event::DatasetId;

use crate::error::LogError;
use crate::topics::{Log, REQUEST_TIMEOUT, log_line};

/// The topic whose one partition is given out; it holds no records.
const TOPIC: &str = "ruam.leases";

/// The right to publish from a source, as long as it is held.
pub struct Lease {
    consumer: BaseConsumer<Holder>,
    dataset: DatasetId,
    group: String,
}

#[derive(Debug, Default)]
struct Holder {
    /// Whether the partition is ours, as of the last rebalance.
    held: Mutex<Option<bool>>,
}

impl ClientContext for Holder {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Holder {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // The consumer is not asked here: while it closes, it would not answer any more.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *held == Some(true);
        *held = Some(match rebalance {
            Rebalance::Assign(given) => before || given.count() > 0,
            Rebalance::Revoke(taken) => before && taken.count() == 0,
            Rebalance::Error(_) => false,
        });
    }
}

impl Lease {
    /// Takes the right to publish a dataset's source to a topic. Waits at most as long as a holder
    /// that has died may be silent.
    ///
    /// # Errors
    /// Where another process holds it.
    pub async fn take(log: &Log, dataset: &DatasetId, topic: &str, instance: &str) -> Result<Self, LogError> {
        let group = format!("ruam.source.{topic}");
        log.ensure_topic(TOPIC, 1).await?;
        let mut config = log.client();
        config
            .set("group.id", &group)
            .set("group.instance.id", instance)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "latest");
        let consumer: BaseConsumer<Holder> = log.create(&config, Holder::default())?;
        let dataset = dataset.clone();
        let taken = tokio::task::spawn_blocking(move || {
            consumer.subscribe(&[TOPIC]).map_err(|source| LogError::Publish { dataset: dataset.clone(), source })?;
            let lease = Self { consumer, dataset, group };
            lease.wait()?;
            Ok(lease)
        });
        taken.await.unwrap_or(Err(LogError::Stopped))
    }

    fn wait(&self) -> Result<(), LogError> {
        // A holder that died without a word is dropped after its session, so that much is waited
        // for before its lease is called taken.
        let deadline = Instant::now() + Duration::from_secs(13);
        loop {
            self.poll()?;
            match self.state() {
                Some(true) => return Ok(()),
                _ if Instant::now() < deadline => {}
                Some(false) => return Err(LogError::Held { dataset: self.dataset.clone(), holder: self.holder() }),
                None => {
                    let source = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
                    return Err(LogError::Publish { dataset: self.dataset.clone(), source });
                }
            }
        }
    }

    fn state(&self) -> Option<bool> {
        *self.consumer.context().held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the client, which keeps the lease alive, and checks that it is still held. To be
    /// called at least every few seconds.
    ///
    /// # Errors
    /// Where the lease was lost.
    pub fn check(&self) -> Result<(), LogError> {
        self.poll()?;
        if self.state() == Some(true) {
            return Ok(());
        }
        Err(LogError::Held { dataset: self.dataset.clone(), holder: self.holder() })
    }

    fn poll(&self) -> Result<(), LogError> {
        match self.consumer.poll(Duration::from_millis(50)) {
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::Fatal) => Err(LogError::Held {
                    dataset: self.dataset.clone(),
                    holder: "the same installation, started again".to_owned(),
                }),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Who holds it, as the broker knows them.
    fn holder(&self) -> String {
        let Ok(groups) = self.consumer.fetch_group_list(Some(&self.group), REQUEST_TIMEOUT) else {
            return "unknown".to_owned();
        };
        let own = format!("ruam-{}", std::process::id());
        let members = groups.groups().iter().flat_map(|group| group.members());
        let others: Vec<_> = members
            .filter(|member| member.client_id() != own)
            .map(|member| format!("client {} at {}", member.client_id(), member.client_host()))
            .collect();
        if others.is_empty() { "unknown".to_owned() } else { others.join(", ") }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("dataset", &self.dataset).finish_non_exhaustive()
    }
}
