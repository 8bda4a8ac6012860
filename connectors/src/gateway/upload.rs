//! An upload on its way: pieces of a body, into batches, into the intake, into a report.
//!
//! Guaranteed: one batch is stored while the next is read, and there is never a third; so the intake's pace is the
//! client's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use axum::response::Response;
use ruam_door::Problem;
use ruam_event::DatasetId;
use tokio::task::{JoinError, JoinHandle};

use super::Shared;
use super::body::Body;
use super::form::{Form, Item};
use super::intake::{Intake, Outcome, SentEvent, Unavailable};
use super::report::{Named, Report};

/// The most events of a batch, and the most bytes, but for the piece that goes over it.
const BATCH_EVENTS: usize = 5_000;
const BATCH_BYTES: usize = 1 << 20;

/// Events of one dataset, in their order.
#[derive(Default)]
struct Batch {
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
    batches: BTreeMap<DatasetId, Batch>,
    events: usize,
    bytes: usize,
    storing: Option<JoinHandle<Stored>>,
}

impl<'a> Upload<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let report = Report::default();
        Self { shared, report, number: 0, batches: BTreeMap::new(), events: 0, bytes: 0, storing: None }
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
            let pushed = form.push(piece, &mut items);
            self.take(&mut items).await?;
            pushed.map_err(wrong)?;
        }
        let finished = form.finish(&mut items);
        self.take(&mut items).await?;
        finished.map_err(wrong)
    }

    async fn take(&mut self, items: &mut Vec<Item>) -> Result<(), Problem> {
        for item in items.drain(..) {
            let agency = item.dataset.as_ref().map(|offered| offered.spec.id().agency().to_owned());
            self.add(item)?;
            if self.events >= BATCH_EVENTS || self.bytes >= BATCH_BYTES {
                self.store().await?;
                // What has begun is slowed down, and not cut off.
                if let Some(wait) = agency.and_then(|agency| self.shared.quotas.wait(&agency, Instant::now())) {
                    tokio::time::sleep(wait).await;
                }
            }
        }
        Ok(())
    }

    /// Adds an event to its batch.
    ///
    /// # Errors
    /// Where its agency has sent too much already before this upload.
    fn add(&mut self, item: Item) -> Result<(), Problem> {
        let Item { dataset, id, size, event } = item;
        if let Some(offered) = &dataset {
            let agency = offered.spec.id().agency();
            if self.number == 0
                && let Some(wait) = self.shared.quotas.wait(agency, Instant::now())
            {
                let told = "the agency has sent more than its quota allows. Wait as long as retry-after says";
                return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, told).retry_after(wait));
            }
            self.shared.quotas.charge(agency, 1, size, Instant::now());
        }
        self.number += 1;
        match (dataset, event) {
            (Some(offered), Ok(event)) => {
                let batch = self.batches.entry(offered.spec.id().clone()).or_default();
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

    /// Begins to store what has been read, once what was read before is stored.
    async fn store(&mut self) -> Result<(), Problem> {
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

async fn store(intake: Arc<dyn Intake>, batches: BTreeMap<DatasetId, Batch>) -> Stored {
    let each = batches.into_iter().map(|(dataset, batch)| {
        let intake = intake.clone();
        async move { (batch.names, intake.take(&dataset, batch.events).await) }
    });
    futures::future::join_all(each).await
}

fn by_a_bug(_: JoinError) -> Problem {
    Problem::server("the upload ended by a bug of this server. Send it again, with the same ids")
}
