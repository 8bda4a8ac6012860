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

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use ruam_connectors::SourceError;
use ruam_connectors::gateway::{Intake, Outcome, SentEvent, Unavailable};
use ruam_event::{DatasetId, Position};
use ruam_log::{EventName, Lease, Log, LogError, Publisher, Receipt, WrittenEvent};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::fault::FlowError;
use crate::meter::Meter;
use crate::specs::Dataset;

mod sequence;
mod window;

pub(crate) use sequence::Sequences;
use window::Window;

/// So many batches of a dataset wait at most.
const WAITING: usize = 4;
/// How many events may be on their way into the log, but for the batch that goes over it.
const UNDER_WAY: usize = 20_000;
/// How long the log is waited for before it is looked whether another batch has come.
const SETTLE: Duration = Duration::from_millis(2);
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
    /// Where it is kept which of the events' numbers are missing.
    pub(crate) folder: PathBuf,
    pub(crate) batches: Batches,
    pub(crate) meter: Arc<Meter>,
    pub(crate) stop: CancellationToken,
    pub(crate) runtime: Handle,
}

impl Inlet {
    /// Whether it is time to give up: some time after this was stopped. The time begins now.
    fn patience(&self) -> impl Fn() -> bool + use<> {
        let (stop, begun) = (self.stop.clone(), Instant::now());
        move || stop.is_cancelled() && begun.elapsed() > GRACE
    }

    /// Publishes until it is stopped.
    ///
    /// # Errors
    /// Where the flow cannot go on; it may be run again.
    pub(crate) fn run(&self) -> Result<(), FlowError> {
        let spec = &self.dataset.spec;
        let topic = spec.topic();
        let lease = self.runtime.block_on(Lease::take(&self.log, spec.id(), &topic, &self.installation))?;
        let layout = self.runtime.block_on(self.log.ensure_topic(&topic, spec.partitions()))?;
        let publisher = Publisher::open(&self.log, spec, layout.clone())?;
        let mut stored = Vec::new();
        ruam_log::recent(&self.log, &layout, self.window, &mut |position, name| {
            stored.push((position, Window::key(name)))
        })?;
        stored.sort_unstable();
        let mut window = Window::new(self.window);
        for (_, key) in stored {
            window.insert(key);
        }
        let sequences = Sequences::open(&self.folder).map_err(|source| self.not_kept(source))?;
        self.meter.set_trouble("gateway", None);
        let mut batches = self.batches.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut flow = Flow { inlet: self, publisher, window, sequences, under_way: VecDeque::new(), events: 0 };
        let mut looked_after = Instant::now();
        loop {
            if looked_after.elapsed() > EVERY {
                looked_after = Instant::now();
                lease.check()?;
                flow.publisher.check()?;
                flow.alarm();
            }
            match self.next(&mut batches, flow.under_way.is_empty()) {
                Next::Batch(request) => flow.publish(request)?,
                Next::None if flow.under_way.is_empty() => {}
                Next::None => flow.settle()?,
                Next::Stop => break,
            }
            flow.answer()?;
        }
        // Whoever sends now is told at once.
        batches.close();
        flow.end()
    }

    /// That it cannot be kept which numbers are missing.
    fn not_kept(&self, source: io::Error) -> FlowError {
        SourceError::State { path: self.folder.clone(), source }.into()
    }

    /// The batch that waits; where it is worth it, it is waited for one.
    fn next(&self, batches: &mut mpsc::Receiver<Request>, waits: bool) -> Next {
        if self.stop.is_cancelled() {
            return Next::Stop;
        }
        match batches.try_recv() {
            Ok(request) => return Next::Batch(request),
            Err(TryRecvError::Disconnected) => return Next::Stop,
            Err(TryRecvError::Empty) if !waits => return Next::None,
            Err(TryRecvError::Empty) => {}
        }
        self.runtime.block_on(async {
            tokio::select! {
                () = self.stop.cancelled() => Next::Stop,
                next = tokio::time::timeout(EVERY, batches.recv()) => match next {
                    Ok(Some(request)) => Next::Batch(request),
                    Ok(None) => Next::Stop,
                    Err(_) => Next::None,
                },
            }
        })
    }
}

/// What comes by the way to a dataset.
enum Next {
    Batch(Request),
    /// Nothing at present.
    None,
    /// Nothing more.
    Stop,
}

/// Batches on their way into the log, and out again as answers, in their order.
struct Flow<'a> {
    inlet: &'a Inlet,
    publisher: Publisher,
    window: Window,
    sequences: Sequences,
    under_way: VecDeque<UnderWay>,
    /// How many events those have.
    events: usize,
}

/// A batch that is on its way into the log.
struct UnderWay {
    receipt: Receipt,
    outcomes: Vec<Outcome>,
    numbers: Vec<Number>,
    answer: oneshot::Sender<Vec<Outcome>>,
}

/// The number of an event among those of its source, and whether it is not a duplicate.
type Number = (Arc<str>, u64, bool);

impl Flow<'_> {
    /// Hands a batch to the log.
    fn publish(&mut self, Request { events, answer }: Request) -> Result<(), FlowError> {
        let stop = self.inlet.patience();
        while self.events >= UNDER_WAY {
            self.settle()?;
            self.answer()?;
            if stop() {
                return Err(LogError::Stopped.into());
            }
        }
        let arrived = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let arrived = u64::try_from(arrived.as_micros()).unwrap_or_default();
        let names = events.iter().map(|event| Window::key(EventName { source: &event.source, id: &event.id }));
        let names: Vec<_> = names.collect();
        // One after the other, without anything between: a window of many names is in no cache, and the processor
        // looks for the next while it waits for one.
        let are_new: Vec<_> = names.iter().map(|name| self.window.insert(*name)).collect();
        let (mut outcomes, mut numbers) = (Vec::with_capacity(events.len()), Vec::new());
        let mut refused = HashSet::new();
        for ((event, name), mut is_new) in events.into_iter().zip(names).zip(are_new) {
            // Another of the same name has been refused, and is not stored.
            is_new |= refused.contains(&name) && self.window.insert(name);
            let outcome = match is_new {
                true => self.publish_event(&event, arrived, &stop)?,
                false => Outcome::Duplicate,
            };
            match (&outcome, event.sequence) {
                (Outcome::Rejected(_), _) => {
                    self.window.remove(name);
                    refused.insert(name);
                }
                (_, Some(number)) => numbers.push((event.source, number, is_new)),
                (_, None) => {}
            }
            outcomes.push(outcome);
        }
        let count = |what: Outcome| outcomes.iter().filter(|outcome| **outcome == what).count() as u64;
        self.inlet.meter.repeated.fetch_add(count(Outcome::Duplicate), Ordering::Relaxed);
        self.inlet.meter.published.fetch_add(count(Outcome::Accepted), Ordering::Relaxed);
        self.events += outcomes.len();
        self.under_way.push_back(UnderWay { receipt: self.publisher.receipt(), outcomes, numbers, answer });
        Ok(())
    }

    /// Hands an event to the log, as one record.
    fn publish_event(&mut self, event: &SentEvent, arrived: u64, stop: &dyn Fn() -> bool) -> Result<Outcome, LogError> {
        let position = Position::new(self.publisher.newest().map_or(arrived, |newest| arrived.max(newest.major + 1)));
        let name = EventName { source: &event.source, id: &event.id };
        let SentEvent { time, change, signature, .. } = event;
        let written = WrittenEvent { position, time: *time, change, name, signature: signature.as_deref() };
        match self.publisher.publish_written(written, stop) {
            Ok(_) => Ok(Outcome::Accepted),
            Err(LogError::TooLarge { size, limit, .. }) => {
                Ok(Outcome::Rejected(format!("the event has {size} bytes in the log, which takes {limit}")))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for the log a moment.
    fn settle(&self) -> Result<(), FlowError> {
        self.publisher.settle(SETTLE);
        Ok(self.publisher.check()?)
    }

    /// Answers what is in the log with all that was before it: a duplicate may be of one of those. What is missing is
    /// kept before, so that no crash makes a number missing that was answered.
    fn answer(&mut self) -> Result<(), FlowError> {
        let (mut stored, now) = (Vec::new(), Instant::now());
        while let Some(batch) = self.under_way.pop_front_if(|batch| batch.receipt.is_stored()) {
            self.events -= batch.outcomes.len();
            for (source, number, is_new) in &batch.numbers {
                self.sequences.see(source, *number, *is_new, now);
            }
            stored.push(batch);
        }
        self.sequences.keep().map_err(|source| self.inlet.not_kept(source))?;
        for batch in stored {
            // Who has gone away sends it again.
            let _ = batch.answer.send(batch.outcomes);
        }
        Ok(())
    }

    /// Tells of gaps in the events' numbers, of each once.
    fn alarm(&mut self) {
        for missing in self.sequences.alarms(Instant::now()) {
            let dataset = self.inlet.dataset.spec.id();
            tracing::warn!(%dataset, "events are missing: {missing}. Ask the agency to send them; `ruam status` shows what is missing");
        }
    }

    /// Waits until all is in the log, and answers.
    fn end(mut self) -> Result<(), FlowError> {
        self.publisher.flush(&self.inlet.patience())?;
        self.answer()
    }
}
