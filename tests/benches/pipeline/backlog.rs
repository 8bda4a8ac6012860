//! A topic full of events that nobody has read yet, and how long `ruam` takes to read it.

use std::time::{Duration, Instant};

use crate::peak_mb;
use anyhow::{Context, Result, ensure};
use ruam_connectors::{Feed, Surroundings};
use ruam_event::{ChangeEvent, DatasetSpec};
use ruam_tests::installation::unique;
use ruam_tests::{Broker, Installation, datasets};
use tokio::runtime::Runtime;

/// How long draining may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A topic with unread events, and the installation that is to read it.
pub struct Backlog {
    installation: Installation,
    topic: ruam_tests::backlog::Backlog,
    runtime: Runtime,
}

/// What reading it took.
pub struct Drained {
    /// How many events.
    pub events: u64,
    /// The most memory that the process had at a time.
    pub peak_mb: u64,
    time: Duration,
}

impl Drained {
    /// From the start of the process to the last commit.
    pub fn events_a_second(&self) -> f64 {
        self.events as f64 / self.time.as_secs_f64()
    }
}

/// The file of a dataset whose topic somebody else has filled.
fn without_source(dataset: &str, topic: &str) -> Result<String> {
    let mut spec: toml::Table = toml::from_str(&datasets::text(dataset, Some(topic))?)?;
    spec.remove("source");
    Ok(toml::to_string(&spec)?)
}

/// Calls for each of a number of a dataset's events.
pub fn for_each_event(spec: &DatasetSpec, events: u64, mut each: impl FnMut(&ChangeEvent) -> Result<()>) -> Result<()> {
    // The generated sources share a total; of ten times as many, each has enough.
    let surroundings = Surroundings { generated_total: Some(events * 10), ..Surroundings::default() };
    let mut source = ruam_connectors::open(spec, &surroundings)?.context("a source")?;
    source.open(None)?;
    let mut left = events;
    while left > 0 {
        let Feed::Events(next) = source.next(1000)? else { anyhow::bail!("the source ended {left} events early") };
        for event in next.iter().take(usize::try_from(left)?) {
            each(event)?;
            left -= 1;
        }
    }
    Ok(())
}

impl Backlog {
    /// Publishes a number of a dataset's events.
    pub fn fill(broker: Broker, dataset: &str, events: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let installation = Installation::empty(broker)?;
        let topic = unique();
        installation.write_spec(dataset, &without_source(dataset, &topic)?)?;
        let spec = datasets::spec(dataset, Some(&topic))?;
        let filled =
            ruam_tests::backlog::Backlog::publish(&runtime, (&installation, broker), spec.clone(), |publish| {
                for_each_event(&spec, events, publish)
            })?;
        Ok(Self { installation, topic: filled, runtime })
    }

    /// Starts `ruam up` and waits until its table has everything.
    pub fn drain(self) -> Result<Drained> {
        let lake = self.installation.data_dir().join("lake");
        let begun = Instant::now();
        let mut up = self.installation.start(&["up", "--only", "workers"])?;
        self.topic.wait(&self.runtime, &lake.to_string_lossy(), &mut up, PATIENCE)?;
        let time = begun.elapsed();
        let peak_mb = peak_mb(up.id())?;
        let (status, said) = up.interrupt(PATIENCE)?;
        ensure!(status.success(), "{said}");
        self.installation.succeed(&["verify"])?;
        Ok(Drained { events: self.topic.events, peak_mb, time })
    }
}
