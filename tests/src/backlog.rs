//! Events in the topic of an installation that is not running, as an agency's connector would have left
//! them, and the wait until its tables have them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ruam_event::{ChangeEvent, DatasetSpec, Partition};
use ruam_lake::{Lake, TableKind, TableName};
use ruam_log::embedded::{EmbeddedBroker, EmbeddedSettings};
use ruam_log::{Publisher, TopicLayout};
use tokio::runtime::Runtime;

use crate::broker::log_at;
use crate::{Broker, Installation, Process};

/// How often it is looked how far a table is.
const LOOK: Duration = Duration::from_millis(100);

/// A topic with events.
#[derive(Debug)]
pub struct Backlog {
    /// The dataset that they are of.
    pub spec: DatasetSpec,
    /// Where they are.
    pub layout: TopicLayout,
    /// How many they are.
    pub events: u64,
}

impl Backlog {
    /// Publishes events of a dataset, each of which is handed to what `events` is given.
    ///
    /// # Errors
    /// Where the broker cannot be had, or an event not be published.
    pub fn publish(
        runtime: &Runtime,
        (installation, broker): (&Installation, Broker),
        spec: DatasetSpec,
        events: impl FnOnce(&mut dyn FnMut(&ChangeEvent) -> Result<()>) -> Result<()>,
    ) -> Result<Self> {
        // The first command makes the data directory, which the log then lies in.
        installation.succeed(&["status"])?;
        let embedded = match broker {
            Broker::Kafka => None,
            Broker::Embedded => {
                let dir = installation.data_dir().join("log");
                Some(runtime.block_on(EmbeddedBroker::start(&dir, EmbeddedSettings::default()))?)
            }
        };
        let servers = match &embedded {
            Some(broker) => broker.address().to_string(),
            None => broker.servers()?.context("Kafka")?,
        };
        let log = log_at(servers);
        let layout = runtime.block_on(log.ensure_topic(&spec.topic(), spec.partitions()))?;
        let mut publisher = Publisher::open(&log, &spec, layout.clone())?;
        let mut count = 0;
        events(&mut |event| {
            count += 1;
            publisher.publish(event, &|| false)?;
            Ok(())
        })?;
        publisher.flush(&|| false)?;
        drop(publisher);
        if let Some(broker) = embedded {
            runtime.block_on(broker.stop());
        }
        Ok(Self { spec, layout, events: count })
    }

    /// Waits until the table in a lake has all of them, while the program works.
    ///
    /// # Errors
    /// Where that takes longer than `patience`, or the program ends.
    pub fn wait(&self, runtime: &Runtime, lake: &str, up: &mut Process, patience: Duration) -> Result<()> {
        let lake = Lake::open(lake, &BTreeMap::new())?;
        let table = TableName::new(self.spec.id(), TableKind::Rows);
        let partitions: Vec<_> =
            (0..self.layout.partitions).map(|index| Partition { topic: self.layout.topic.clone(), index }).collect();
        let begun = Instant::now();
        loop {
            let progress = runtime.block_on(lake.progress(&table, None, &partitions))?;
            let read: u64 = progress.iter().flatten().map(|progress| progress.records()).sum();
            if read == self.events {
                return Ok(());
            }
            ensure!(begun.elapsed() < patience, "{read} of {} events after {patience:?}:\n{}", self.events, up.said());
            ensure!(up.run_for(LOOK), "ended by itself:\n{}", up.said());
        }
    }
}
