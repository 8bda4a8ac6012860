//! The gateway's events into their topics: lease, window and publisher of each dataset, wired.
//!
//! What passes through: batches of events that agencies have sent, each into the topic of its dataset, with its own
//! name and a position by its arrival: the time in microseconds, or one behind the event before. So positions grow
//! from event to event, and also where the log has forgotten all that it held. What became of each is told once the
//! log has acknowledged it.
//!
//! Guaranteed: an event whose name is in the window, those of the last so many events, is not published again. The
//! window is what the topic holds: it is read from its end when this starts, before anything is published. So an
//! event that was stored, but whose answer was lost by a crash, is a duplicate when it is sent again. Where
//! publishing fails, all is begun anew from what the topic holds, and whoever waits is told to send it again.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use ruam_connectors::gateway::{Intake, Outcome, SentEvent, Unavailable};
use ruam_event::{ChangeEvent, DatasetId, Position};
use ruam_log::{EventName, Lease, Log, LogError, Publisher};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::fault::FlowError;
use crate::meter::Meter;
use crate::specs::Dataset;

mod window;

use window::Window;

/// So many batches of a dataset wait at most.
const WAITING: usize = 4;
/// How many events are published before it is waited for the log, but for the batch that goes over it.
const GROUP: usize = 20_000;
/// How often the lease is looked after.
const EVERY: Duration = Duration::from_secs(1);
/// How long a batch waits for its turn, and then for the log.
const TURN: Duration = Duration::from_secs(10);
const STORED: Duration = Duration::from_secs(60);
/// How long what was taken may take to reach the log once this is stopped.
const GRACE: Duration = Duration::from_secs(5);

/// A batch, and who waits for what becomes of it.
#[derive(Debug)]
struct Request {
    events: Vec<SentEvent>,
    answer: oneshot::Sender<Vec<Outcome>>,
}

/// The ways to all datasets that the gateway takes events of.
#[derive(Debug, Default)]
pub(crate) struct Intakes(BTreeMap<DatasetId, mpsc::Sender<Request>>);

impl Intakes {
    /// Opens the way to a dataset; an [`Inlet`] takes what comes by it.
    pub(crate) fn open(&mut self, dataset: &DatasetId) -> Batches {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.0.insert(dataset.clone(), sender);
        Batches(Mutex::new(receiver))
    }
}

/// What comes by the way to a dataset.
#[derive(Debug)]
pub(crate) struct Batches(Mutex<mpsc::Receiver<Request>>);

#[async_trait]
impl Intake for Intakes {
    async fn take(&self, dataset: &DatasetId, events: Vec<SentEvent>) -> Result<Vec<Outcome>, Unavailable> {
        let away = |what| Unavailable { what, wait: Duration::from_secs(5) };
        let way = self.0.get(dataset).ok_or_else(|| away("the dataset is not taken here any more"))?;
        let (answer, outcomes) = oneshot::channel();
        match tokio::time::timeout(TURN, way.send(Request { events, answer })).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(away("this server is stopping")),
            Err(_) => return Err(away("the log is slower than what comes")),
        }
        match tokio::time::timeout(STORED, outcomes).await {
            Ok(Ok(outcomes)) => Ok(outcomes),
            Ok(Err(_)) => Err(away("the log did not take it")),
            Err(_) => Err(away("the log does not answer")),
        }
    }
}

/// Publishes what is sent of one dataset.
#[derive(Debug)]
pub(crate) struct Inlet {
    pub(crate) dataset: Dataset,
    pub(crate) log: Log,
    /// The installation's name, by which the broker knows its lease again.
    pub(crate) installation: String,
    /// How many events the window holds.
    pub(crate) window: usize,
    pub(crate) batches: Batches,
    pub(crate) meter: Arc<Meter>,
    pub(crate) stop: CancellationToken,
    pub(crate) runtime: Handle,
}

impl Inlet {
    /// Publishes until it is stopped.
    ///
    /// # Errors
    /// Where the flow cannot go on; it may be run again.
    pub(crate) fn run(&self) -> Result<(), FlowError> {
        let spec = &self.dataset.spec;
        let topic = spec.topic();
        let lease = self.runtime.block_on(Lease::take(&self.log, spec.id(), &topic, &self.installation))?;
        let layout = self.runtime.block_on(self.log.ensure_topic(&topic, spec.partitions()))?;
        let mut publisher = Publisher::open(&self.log, spec, layout.clone())?;
        let mut stored = Vec::new();
        ruam_log::recent(&self.log, &layout, self.window, &mut |position, name| {
            stored.push((position, Window::key(name)))
        })?;
        stored.sort_unstable();
        let mut window = Window::new(self.window);
        for (_, key) in stored {
            window.insert(key);
        }
        self.meter.set_trouble("gateway", None);
        let mut batches = self.batches.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut looked_after = Instant::now();
        while let Some(group) = self.next(&mut batches) {
            if looked_after.elapsed() > EVERY {
                looked_after = Instant::now();
                lease.check()?;
                publisher.idle(Duration::ZERO)?;
            }
            self.store(group, &mut publisher, &mut window)?;
        }
        // Whoever sends now is told at once.
        batches.close();
        Ok(())
    }

    /// The batches that wait; none of them where none comes for a while, and nothing once this is stopped.
    fn next(&self, batches: &mut mpsc::Receiver<Request>) -> Option<Vec<Request>> {
        let first = self.runtime.block_on(async {
            tokio::select! {
                () = self.stop.cancelled() => Err(()),
                next = tokio::time::timeout(EVERY, batches.recv()) => match next {
                    Ok(Some(request)) => Ok(Some(request)),
                    Ok(None) => Err(()),
                    Err(_) => Ok(None),
                },
            }
        });
        let mut group: Vec<_> = first.ok()?.into_iter().collect();
        let mut events = group.iter().map(|request| request.events.len()).sum::<usize>();
        while let (1..GROUP, Ok(request)) = (events, batches.try_recv()) {
            events += request.events.len();
            group.push(request);
        }
        Some(group)
    }

    /// Publishes batches, waits until all of it is in the log, and then answers.
    fn store(&self, group: Vec<Request>, publisher: &mut Publisher, window: &mut Window) -> Result<(), FlowError> {
        let begun = Instant::now();
        let out_of_time = || self.stop.is_cancelled() && begun.elapsed() > GRACE;
        let mut answers = Vec::with_capacity(group.len());
        let arrived = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let arrived = u64::try_from(arrived.as_micros()).unwrap_or_default();
        for Request { events, answer } in group {
            let outcomes =
                events.into_iter().map(|event| self.publish(event, arrived, publisher, window, &out_of_time));
            answers.push((answer, outcomes.collect::<Result<Vec<_>, _>>()?));
        }
        publisher.flush(&out_of_time)?;
        for (answer, outcomes) in answers {
            // Who has gone away sends it again.
            let _ = answer.send(outcomes);
        }
        Ok(())
    }

    fn publish(
        &self,
        event: SentEvent,
        arrived: u64,
        publisher: &mut Publisher,
        window: &mut Window,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome, LogError> {
        let name = EventName { source: &event.source, id: &event.id };
        let key = Window::key(name);
        if window.has(key) {
            self.meter.repeated.fetch_add(1, Ordering::Relaxed);
            return Ok(Outcome::Duplicate);
        }
        let position = Position::new(publisher.newest().map_or(arrived, |newest| arrived.max(newest.major + 1)));
        let change = ChangeEvent { position, source_time: event.time, change: event.change };
        match publisher.publish_as(&change, Some(name), stop) {
            Ok(sent) => {
                window.insert(key);
                self.meter.published.fetch_add(sent.records, Ordering::Relaxed);
                Ok(Outcome::Accepted)
            }
            Err(LogError::NoKey { .. }) => Ok(Outcome::Rejected("a key column has no value".to_owned())),
            Err(LogError::TooLarge { size, limit, .. }) => {
                Ok(Outcome::Rejected(format!("the event has {size} bytes in the log, which takes {limit}")))
            }
            Err(error) => Err(error),
        }
    }
}
