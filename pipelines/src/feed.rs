//! A source into its topic: connector, lease and publisher, wired.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ruam_connectors::{Feed as SourceFeed, Source, Surroundings};
use ruam_log::{Lease, Log, LogError, Publisher};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::fault::{FlowError, rest};
use crate::meter::Meter;
use crate::specs::Dataset;

/// How many events are asked for at a time.
const BITE: usize = 1000;
/// How often the lease is looked after and the source told what is safe.
const EVERY: Duration = Duration::from_secs(1);
/// How long what was taken from a source may take to reach the log once this is stopped.
const GRACE: Duration = Duration::from_secs(5);

/// Feeds one dataset's topic from its source.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) dataset: Dataset,
    pub(crate) log: Log,
    /// The installation's name, by which the broker knows its lease again.
    pub(crate) installation: String,
    pub(crate) surroundings: Surroundings,
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
        let Some(mut source) = ruam_connectors::open(spec, &self.surroundings)? else { return Ok(()) };
        let topic = spec.topic();
        let lease = self.runtime.block_on(Lease::take(&self.log, spec.id(), &topic, &self.installation))?;
        let layout = self.runtime.block_on(self.log.ensure_topic(&topic, spec.partitions()))?;
        let mut publisher = Publisher::open(&self.log, spec, layout)?;
        source.open(publisher.replay_after())?;
        self.meter.set_trouble("connector", None);
        let has_ended = match self.pump(source.as_mut(), &mut publisher, &lease) {
            Err(FlowError::Log(LogError::Stopped)) => false,
            result => result.map(|()| true)?,
        };
        // What was taken from the source gets the time to reach the log; if it does not, it is taken
        // again at the next start.
        let finishing = Instant::now();
        let out_of_time = || self.stop.is_cancelled() && finishing.elapsed() > GRACE;
        match publisher.flush(&out_of_time) {
            Err(LogError::Stopped) => return Ok(()),
            result => result?,
        }
        if has_ended {
            self.meter.fed.store(true, Ordering::Release);
            // Whoever else wants to feed this dataset is still to be refused.
            while !rest(&self.stop, EVERY) {
                lease.check()?;
            }
        }
        Ok(())
    }

    /// Brings events from the source to the publisher until the source ends.
    ///
    /// # Errors
    /// [`LogError::Stopped`] where it was stopped before: then no event follows one that was not
    /// published.
    fn pump(&self, source: &mut dyn Source, publisher: &mut Publisher, lease: &Lease) -> Result<(), FlowError> {
        let stopped = || self.stop.is_cancelled();
        let mut pace = Pace::new(self.rate);
        let (mut looked_after, mut unreleased) = (Instant::now(), None);
        loop {
            let events = match source.next(pace.bite())? {
                SourceFeed::Events(events) => events,
                SourceFeed::Idle => Vec::new(),
                SourceFeed::Ended => return Ok(()),
            };
            for event in &events {
                let sent = publisher.publish(event, &stopped)?;
                self.meter.published.fetch_add(sent.records, Ordering::Relaxed);
                self.meter.repeated.fetch_add(sent.repeated, Ordering::Relaxed);
                pace.count(sent.records);
            }
            unreleased = events.last().map(|last| last.position).or(unreleased);
            if looked_after.elapsed() > EVERY {
                looked_after = Instant::now();
                lease.check()?;
                if let Some(last) = unreleased.take() {
                    // The source may forget what is safe in the log.
                    publisher.flush(&stopped)?;
                    source.release(last)?;
                }
            }
            pace.wait(&self.stop, publisher)?;
        }
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

    /// Waits until it is time for more.
    ///
    /// # Errors
    /// [`LogError::Stopped`] where it was stopped, and where publishing has failed.
    fn wait(&self, stop: &CancellationToken, publisher: &Publisher) -> Result<(), LogError> {
        let due =
            self.rate.map(|rate| self.begun + Duration::from_secs_f64(self.events as f64 / f64::from(rate.max(1))));
        loop {
            if stop.is_cancelled() {
                return Err(LogError::Stopped);
            }
            let left = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(());
            }
            // The producer sends while the source waits.
            std::thread::sleep(left.min(Duration::from_millis(20)));
            publisher.check()?;
        }
    }
}
