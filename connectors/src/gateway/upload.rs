//! An upload on its way: pieces of a body, into batches, into the intake, into a report.
//!
//! Guaranteed: one batch is stored while the next is read, and there is never a third; so the intake's pace is the
//! client's.

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use axum::response::Response;
use ruam_door::Problem;
use tokio::task::{JoinError, JoinHandle};

use super::body::Body;
use super::form::{Form, Item};
use super::intake::{Intake, Outcome, SentEvent, Unavailable};
use super::report::{Named, Report};
use super::{Offered, Shared};

/// The most events of a batch, and the most bytes, but for the piece that goes over it.
const BATCH_EVENTS: usize = 5_000;
const BATCH_BYTES: usize = 1 << 20;

/// Events of one dataset, in their order.
struct Batch {
    dataset: Arc<Offered>,
    names: Vec<Named>,
    events: Vec<SentEvent>,
}

type Stored = Vec<(Vec<Named>, Result<Vec<Outcome>, Unavailable>)>;

/// An upload.
pub(super) struct Upload<'a> {
    shared: &'a Shared,
    report: Report,
    /// How many events have come.
    number: u64,
    /// Those that are being read, the one that the last event went to at the end.
    batches: Vec<Batch>,
    events: usize,
    bytes: usize,
    /// What its agency is still to be charged with: a dataset, events and bytes.
    uncharged: Option<(Arc<Offered>, usize, usize)>,
    storing: Option<JoinHandle<Stored>>,
}

impl<'a> Upload<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let report = Report::default();
        Self { shared, report, number: 0, batches: Vec::new(), events: 0, bytes: 0, uncharged: None, storing: None }
    }

    /// Takes everything that a body holds, and tells what became of it.
    pub(super) async fn run(mut self, mut body: Body, form: &mut dyn Form) -> Response {
        let read = self.read(&mut body, form).await;
        self.end(read.err()).await
    }

    /// Takes a single event.
    pub(super) async fn run_one(mut self, item: Item) -> Response {
        let added = self.add(item);
        self.end(added.err()).await
    }

    async fn read(&mut self, body: &mut Body, form: &mut dyn Form) -> Result<(), Problem> {
        let wrong = |why| Problem::new(StatusCode::BAD_REQUEST, why);
        let mut items = Vec::new();
        while let Some(piece) = body.next().await? {
            let pushed = self.shared.with_room(|| form.push(piece, &mut items));
            self.take(&mut items).await?;
            pushed.map_err(wrong)?;
        }
        let finished = self.shared.with_room(|| form.finish(&mut items));
        self.take(&mut items).await?;
        finished.map_err(wrong)
    }

    async fn take(&mut self, items: &mut Vec<Item>) -> Result<(), Problem> {
        for item in items.drain(..) {
            self.add(item)?;
            if self.events >= BATCH_EVENTS || self.bytes >= BATCH_BYTES {
                let last = self.batches.last().map(|batch| batch.dataset.clone());
                self.store().await?;
                // What has begun is slowed down, and not cut off.
                if let Some(wait) =
                    last.and_then(|last| self.shared.quotas.wait(last.spec.id().agency(), Instant::now()))
                {
                    tokio::time::sleep(wait).await;
                }
            }
        }
        self.charge();
        Ok(())
    }

    /// Adds an event to its batch.
    ///
    /// # Errors
    /// Where its agency has sent too much already before this upload.
    fn add(&mut self, item: Item) -> Result<(), Problem> {
        let Item { dataset, id, size, event } = item;
        if let Some(offered) = &dataset {
            if self.number == 0
                && let Some(wait) = self.shared.quotas.wait(offered.spec.id().agency(), Instant::now())
            {
                let told = "the agency has sent more than its quota allows. Wait as long as retry-after says";
                return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, told).retry_after(wait));
            }
            match &mut self.uncharged {
                Some((last, events, bytes)) if Arc::ptr_eq(last, offered) => {
                    (*events, *bytes) = (*events + 1, *bytes + size)
                }
                _ => {
                    self.charge();
                    self.uncharged = Some((offered.clone(), 1, size));
                }
            }
        }
        self.number += 1;
        match (dataset, event) {
            (Some(offered), Ok(event)) => {
                let batch = batch_of(&mut self.batches, offered);
                batch.names.push((self.number, id));
                batch.events.push(event);
                self.events += 1;
                self.bytes += size;
            }
            (_, Err(why)) => self.report.add((self.number, id), Outcome::Rejected(why)),
            (None, Ok(_)) => {}
        }
        Ok(())
    }

    /// Counts what has come since this was done last.
    fn charge(&mut self) {
        if let Some((dataset, events, bytes)) = self.uncharged.take() {
            self.shared.quotas.charge(dataset.spec.id().agency(), events, bytes, Instant::now());
        }
    }

    /// Begins to store what has been read, once what was read before is stored.
    async fn store(&mut self) -> Result<(), Problem> {
        self.charge();
        self.stored().await?;
        (self.events, self.bytes) = (0, 0);
        let (batches, intake) = (std::mem::take(&mut self.batches), self.shared.intake.clone());
        // A task of its own, so that it is stored even if the client goes away.
        self.storing = Some(tokio::spawn(store(intake, batches)));
        Ok(())
    }

    /// Waits until what was read before is stored.
    async fn stored(&mut self) -> Result<(), Problem> {
        let Some(storing) = self.storing.take() else { return Ok(()) };
        let mut problem = None;
        for (names, outcomes) in storing.await.map_err(by_a_bug)? {
            match outcomes {
                Ok(outcomes) => {
                    names.into_iter().zip(outcomes).for_each(|(name, outcome)| self.report.add(name, outcome))
                }
                Err(why) => {
                    names.into_iter().for_each(|name| self.report.add_failed(name, &why));
                    problem =
                        Some(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why.to_string()).retry_after(why.wait));
                }
            }
        }
        problem.map_or(Ok(()), Err)
    }

    /// Stores what is left, also where the rest could not be read.
    async fn end(mut self, problem: Option<Problem>) -> Response {
        let is_stored =
            match problem.as_ref().is_some_and(|problem| problem.status() == StatusCode::SERVICE_UNAVAILABLE) {
                true => self.stored().await,
                false => match self.store().await {
                    Ok(()) => self.stored().await,
                    Err(problem) => Err(problem),
                },
            };
        self.report.answer(problem.or(is_stored.err()))
    }
}

/// The batch of a dataset, at the end of all.
fn batch_of(batches: &mut Vec<Batch>, dataset: Arc<Offered>) -> &mut Batch {
    let place = batches.iter().rposition(|batch| Arc::ptr_eq(&batch.dataset, &dataset)).unwrap_or(batches.len());
    if place == batches.len() {
        batches.push(Batch { dataset, names: Vec::new(), events: Vec::new() });
    }
    let last = batches.len() - 1;
    batches.swap(place, last);
    &mut batches[last]
}

async fn store(intake: Arc<dyn Intake>, batches: Vec<Batch>) -> Stored {
    let each = batches.into_iter().map(|batch| {
        let intake = intake.clone();
        async move { (batch.names, intake.take(batch.dataset.spec.id(), batch.events).await) }
    });
    futures::future::join_all(each).await
}

fn by_a_bug(_: JoinError) -> Problem {
    Problem::server("the upload ended by a bug of this server. Send it again, with the same ids")
}
