//! An answer on its way: accounted for, and within its limits.
//!
//! What passes through: the plan of a question, as the last step before it is carried out, into the same with
//! its beginning and end in the audit, within the time, rows, memory and reading that whoever asks may use. All
//! ways in pass here, since all plans do.
//!
//! Guaranteed: an answer whose beginning cannot be written into the audit is not given. However an answer ends,
//! also where whoever asked hangs up, its end is written. Of somebody's answers those that wait begin in the
//! order in which they were asked for, and nobody waits for the answers of others: those share the processors
//! by turns anyway, and an answer lasts for as long as its client takes to fetch it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use chrono::{SecondsFormat, Utc};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::audit::{AuditLog, Event, Record};
use crate::error::{QueryError, external};
use crate::memory;
use crate::policy::Limits;
use crate::reading::Reading;
use crate::result_cache::Recording;

/// How DataFusion says that no more may be put on disk, as an error of input and output.
const DISK_IS_FULL: &str = "used disk space during the spilling process has exceeded";

/// Whose turn it is, of the answers of each person.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<String, Arc<Semaphore>>>);

impl Turns {
    /// The places of somebody, of whom so many answers go at a time.
    fn of(&self, who: &str, concurrent: usize) -> Arc<Semaphore> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has no answer under way and none waiting needs no place kept.
        places.retain(|_, places| Arc::strong_count(places) > 1);
        places.entry(who.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(concurrent.max(1)))).clone()
    }
}

/// Within what an answer is given.
#[derive(Debug)]
pub(crate) struct Terms {
    pub limits: Limits,
    /// The time that the client itself allows.
    pub timeout: Option<Duration>,
    /// What it reads of files, where that has a limit.
    pub reading: Option<Arc<Reading>>,
    /// Where it is taken down, if it can be kept.
    pub recording: Option<Recording>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    log: Option<Arc<AuditLog>>,
    record: Record,
    terms: Terms,
    /// The time that it may take.
    within: Option<Duration>,
    begun: Instant,
    places: Option<Arc<Semaphore>>,
    place: OnceCell<OwnedSemaphorePermit>,
    /// What it is worked out with, where its memory has a limit.
    bounded: OnceLock<Arc<TaskContext>>,
    rows: AtomicU64,
    bytes: AtomicU64,
    /// How many parts of it have come to their end, and whether one was broken off.
    ended: AtomicU64,
    failed: AtomicBool,
    parts: u64,
}

impl Answer {
    /// Begins an answer of so many parts.
    ///
    /// # Errors
    /// Where that cannot be written into the audit.
    pub(crate) fn begin(
        log: Option<Arc<AuditLog>>,
        mut record: Record,
        terms: Terms,
        turns: &Turns,
        parts: usize,
    ) -> Result<Arc<Self>> {
        record.at = now();
        record.query = uuid::Uuid::new_v4().to_string();
        if let Some(log) = &log {
            log.append(&record).map_err(external)?;
        }
        let places = terms.limits.concurrent.map(|concurrent| turns.of(&record.who, concurrent));
        Ok(Arc::new(Self {
            log,
            record,
            within: [terms.limits.seconds.map(Duration::from_secs), terms.timeout].into_iter().flatten().min(),
            terms,
            begun: Instant::now(),
            places,
            place: OnceCell::new(),
            bounded: OnceLock::new(),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            parts: parts as u64,
        }))
    }

    /// Waits until it is this answer's turn, if that comes in time.
    async fn wait(&self) -> Result<()> {
        let Some(places) = &self.places else { return Ok(()) };
        let turn = self.place.get_or_try_init(|| places.clone().acquire_owned());
        // The places are never closed.
        self.in_time(turn).await.map(drop)
    }

    /// What something comes to, if it does in time.
    async fn in_time<T>(&self, coming: impl Future<Output = T>) -> Result<T> {
        let Some(within) = self.within else { return Ok(coming.await) };
        let left = within.saturating_sub(self.begun.elapsed());
        // What is ready at once would otherwise never be asked for the time.
        if left.is_zero() {
            return Err(external(QueryError::Late(within)));
        }
        tokio::time::timeout(left, coming).await.map_err(|_| external(QueryError::Late(within)))
    }

    /// What the answer is worked out with.
    fn context(&self, given: Arc<TaskContext>) -> Arc<TaskContext> {
        match self.terms.limits.memory_mb {
            Some(most) => self.bounded.get_or_init(|| memory::bounded(&given, most)).clone(),
            None => given,
        }
    }

    /// Begins a part of it.
    fn execute(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        part: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let context = self.context(context);
        if let Some(recording) = &self.terms.recording {
            recording.begin(part, context.memory_pool());
        }
        plan.execute(part, context)
    }

    /// An error, in the words of the limit that was reached.
    fn told(&self, error: DataFusionError) -> DataFusionError {
        if let Some(reached) = self.terms.reading.as_ref().and_then(|reading| reading.reached()) {
            return external(QueryError::Limit(reached));
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(reached) => external(QueryError::Limit(reached.clone())),
            _ if error.to_string().contains(DISK_IS_FULL) => external(QueryError::Limit(
                "what answers put on disk for want of memory takes more than there may be of it (spill_mb). Ask for less \
                 at a time, or try again later"
                    .to_owned(),
            )),
            _ => error,
        }
    }

    fn count(&self, batch: &RecordBatch) -> Result<()> {
        let rows = self.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed) + batch.num_rows() as u64;
        self.bytes.fetch_add(batch.get_array_memory_size() as u64, Ordering::Relaxed);
        if let Some(recording) = &self.terms.recording {
            recording.add(batch);
        }
        match self.terms.limits.rows {
            Some(most) if rows > most => Err(external(QueryError::Limit(format!(
                "the answer has more than the {most} rows that you may have at a time. Ask for fewer, such as by limit"
            )))),
            _ => Ok(()),
        }
    }

    /// The next batch, if it comes within the limits.
    async fn next(&self, input: &mut SendableRecordBatchStream) -> Option<Result<RecordBatch>> {
        let next = match self.in_time(input.next()).await {
            Ok(next) => next?,
            Err(late) => return Some(Err(late)),
        };
        Some(next.map_err(|error| self.told(error)).and_then(|batch| self.count(&batch).map(|()| batch)))
    }

    /// A part of it has come to its end.
    fn end(&self) {
        let ended = self.ended.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(recording) = &self.terms.recording
            && ended == self.parts
            && !self.failed.load(Ordering::Relaxed)
        {
            recording.keep();
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Some(log) = &self.log else { return };
        let all = self.ended.load(Ordering::Relaxed) == self.parts && !self.failed.load(Ordering::Relaxed);
        let mut record = std::mem::take(&mut self.record);
        record.at = now();
        record.event = if all { Event::Answered } else { Event::BrokenOff };
        record.rows = Some(self.rows.load(Ordering::Relaxed));
        record.bytes = Some(self.bytes.load(Ordering::Relaxed));
        record.milliseconds = u64::try_from(self.begun.elapsed().as_millis()).ok();
        if let Err(error) = log.append(&record) {
            tracing::error!(%error, query = record.query, "the end of an answer is not in the audit");
        }
    }
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The root of a plan.
#[derive(Debug)]
pub(crate) struct AnswerExec {
    answer: Arc<Answer>,
    input: Arc<dyn ExecutionPlan>,
}

impl AnswerExec {
    pub(crate) fn new(answer: Arc<Answer>, input: Arc<dyn ExecutionPlan>) -> Self {
        Self { answer, input }
    }
}

impl ExecutionPlan for AnswerExec {
    fn name(&self) -> &'static str {
        "AnswerExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children)
            .map_err(|children| DataFusionError::Internal(format!("{} inputs of an answer", children.len())))?;
        Ok(Arc::new(Self { answer: self.answer.clone(), input }))
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(inputs.first().cloned().unwrap_or_else(|| Arc::new(Statistics::new_unknown(&self.schema()))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (plan, answer) = (self.input.clone(), self.answer.clone());
        // The rest of the plan begins when it is this answer's turn, and not before.
        let state = (answer, None::<SendableRecordBatchStream>, false);
        let batches = futures::stream::unfold(state, move |(answer, input, is_over)| {
            let (plan, context) = (plan.clone(), context.clone());
            async move {
                if is_over {
                    return None;
                }
                let mut input = match input {
                    Some(input) => input,
                    None => {
                        let turn = answer.wait().await;
                        match turn.and_then(|()| answer.execute(&plan, partition, context)) {
                            Ok(input) => input,
                            Err(error) => {
                                answer.failed.store(true, Ordering::Relaxed);
                                return Some((Err(answer.told(error)), (answer, None, true)));
                            }
                        }
                    }
                };
                match answer.next(&mut input).await {
                    Some(Ok(batch)) => Some((Ok(batch), (answer, Some(input), false))),
                    Some(Err(error)) => {
                        answer.failed.store(true, Ordering::Relaxed);
                        Some((Err(error), (answer, None, true)))
                    }
                    None => {
                        answer.end();
                        None
                    }
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

impl DisplayAs for AnswerExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerExec")
    }
}

#[cfg(test)]
mod tests;
