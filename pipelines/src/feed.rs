//! A source into its topic: connector, lease and publisher, wired.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ruam_connectors::{Feed as SourceFeed, Overrides};
use ruam_event::Position;
use ruam_log::{Lease, Log, Publisher};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::fault::{FlowError, rest};
use crate::meter::Meter;
use crate::specs::Dataset;

/// How many events are asked for at a time.
const BITE: usize = 1000;
/// How often the lease is looked after and the source told what is safe.
const EVERY: Duration = Duration::from_secs(1);

/// Feeds one dataset's topic from its source.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) dataset: Dataset,
    pub(crate) log: Log,
    /// The installation's name, by which the broker knows its lease again.
    pub(crate) installation: String,
    pub(crate) overrides: Overrides,
    /// The most events a second; none where the source may go as fast as it can.
    pub(crate) rate: Option<u32>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) stop: CancellationToken,
    pub(crate) runtime: Handle,
}

impl Feed {
    /// Feeds until the source ends and then holds the lease until it is stopped.
    ///
    /// # Errors
    /// Where the flow cannot go on; it may be run again.
    pub(crate) fn run(&self) -> Result<(), FlowError> {
        let spec = &self.dataset.spec;
        let Some(mut source) = ruam_connectors::open(spec, &self.overrides)? else { return Ok(()) };
        let lease = self.runtime.block_on(Lease::take(&self.log, spec.id(), &self.installation))?;
        let layout = self.runtime.block_on(self.log.ensure_topic(&spec.topic(), spec.partitions()))?;
        let mut publisher = Publisher::open(&self.log, spec, layout)?;
        source.open(publisher.replay_after())?;
        self.meter.set_trouble("connector", None);
        let stopped = || self.stop.is_cancelled();
        let mut pace = Pace::new(self.rate);
        let mut looked_after = Instant::now();
        loop {
            if stopped() {
                return Ok(publisher.flush(&stopped).or_else(stopped_on_purpose)?);
            }
            let SourceFeed::Events(events) = source.next(pace.bite())? else { break };
            for event in &events {
                let sent = publisher
                    .publish(event, &stopped)
                    .or_else(|error| stopped_on_purpose(error).map(|()| Default::default()))?;
                self.meter.published.fetch_add(sent.records, Ordering::Relaxed);
                self.meter.repeated.fetch_add(sent.repeated, Ordering::Relaxed);
                pace.count(sent.records);
            }
            if looked_after.elapsed() > EVERY {
                looked_after = Instant::now();
                lease.check()?;
                self.release(&publisher, source.as_mut(), events.last().map(|event| event.position))?;
            }
            if pace.wait(&self.stop, &publisher)? {
                return Ok(());
            }
        }
        publisher.flush(&stopped)?;
        self.meter.fed.store(true, Ordering::Release);
        // Whoever else wants to feed this dataset is still to be refused.
        while !rest(&self.stop, EVERY) {
            lease.check()?;
        }
        Ok(())
    }

    /// Lets the source forget what is safe in the log.
    fn release(
        &self,
        publisher: &Publisher,
        source: &mut dyn ruam_connectors::Source,
        last: Option<Position>,
    ) -> Result<(), FlowError> {
        if let Some(last) = last {
            publisher.flush(&|| self.stop.is_cancelled()).or_else(stopped_on_purpose)?;
            source.release(last)?;
        }
        Ok(())
    }
}

fn stopped_on_purpose(error: ruam_log::LogError) -> Result<(), ruam_log::LogError> {
    match error {
        ruam_log::LogError::Stopped => Ok(()),
        error => Err(error),
    }
}

/// Holds a source to a rate.
struct Pace {
    rate: Option<u32>,
    begun: Instant,
    events: u64,
}

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        Self { rate, begun: Instant::now(), events: 0 }
    }

    /// How many events to take at a time: at a rate, as many as come in a twentieth of a second.
    fn bite(&self) -> usize {
        self.rate.map_or(BITE, |rate| (rate as usize / 20).clamp(1, BITE))
    }

    fn count(&mut self, events: u64) {
        self.events += events;
    }

    /// Waits until it is time for more; says whether it was stopped.
    fn wait(&self, stop: &CancellationToken, publisher: &Publisher) -> Result<bool, FlowError> {
        let Some(rate) = self.rate else { return Ok(stop.is_cancelled()) };
        let due = self.begun + Duration::from_secs_f64(self.events as f64 / f64::from(rate.max(1)));
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() || stop.is_cancelled() {
                return Ok(stop.is_cancelled());
            }
            // The producer sends while the source waits.
            publisher.idle(left.min(Duration::from_millis(20)))?;
        }
    }
}
