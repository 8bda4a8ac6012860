//! Answers that are kept in memory, for whoever asks the same of the same tables and sees the same of them.
//!
//! What passes through: the plan of a question with what its answer depends on, into the answer that was given
//! before; and an answer as it is given, into what is kept. The last step of planning looks here, so that every
//! way in does.
//!
//! Guaranteed: an answer is found again only by the same plan over the same versions of the same tables, seen by
//! the same policies for the same purpose: a commit, another mask or another purpose makes it another question.
//! What may be another each time ([`Reads::depends_on`](crate::reads::Reads)) is not kept, nor what was broken off
//! or is larger than a [part](SHARE) of the whole.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::builder::LogicalTableSource;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::physical_plan::ExecutionPlan;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::reads::DependsOn;

/// The largest answer that is kept is such a part of all that are.
const SHARE: usize = 16;
/// What a question takes beside its answer, about, in bytes.
const QUESTION: usize = 4 << 10;
/// The rows of a batch of what is kept.
const BATCH: usize = 8192;

/// The answers that are kept.
#[derive(Debug)]
pub(crate) struct ResultCache {
    answers: Cache<Key, Arc<Kept>, ByBytes>,
    bytes: usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What is told of the answers that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CacheFigures {
    /// The questions that were answered by what was kept.
    pub hits: u64,
    /// The questions that could have been, and were not.
    pub misses: u64,
    /// The answers that are kept at this moment.
    pub answers: usize,
    /// The bytes that they take.
    pub bytes: u64,
}

/// A question, by all that its answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    plan: LogicalPlan,
    depends_on: DependsOn,
    purpose: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Kept {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Key, Arc<Kept>> for ByBytes {
    fn weight(&self, _: &Key, kept: &Arc<Kept>) -> u64 {
        (QUESTION + kept.bytes) as u64
    }
}

impl Key {
    /// None where the answer may be another each time, or is of no table.
    ///
    /// # Errors
    /// Where DataFusion cannot walk the plan.
    pub(crate) fn of(
        plan: &LogicalPlan,
        depends_on: Option<&DependsOn>,
        purpose: Option<String>,
    ) -> Result<Option<Self>> {
        let Some(depends_on) = depends_on.filter(|depends_on| depends_on.is_table()) else { return Ok(None) };
        // Tables are told by their versions; the plan would keep what is known of their files.
        let plan = plan.clone().transform_down_with_subqueries(|node| {
            Ok(match node {
                LogicalPlan::TableScan(scan) => {
                    let source = Arc::new(LogicalTableSource::new(scan.source.schema()));
                    Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan }))
                }
                other => Transformed::no(other),
            })
        })?;
        Ok(Some(Self { plan: plan.data, depends_on: depends_on.clone(), purpose }))
    }
}

impl Kept {
    /// What gives the answer again.
    ///
    /// # Errors
    /// Where DataFusion does not take it.
    pub(crate) fn plan(&self) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(MemorySourceConfig::try_new_exec(std::slice::from_ref(&self.batches), self.schema.clone(), None)?)
    }
}

impl ResultCache {
    /// Room for answers of so many bytes; none for none.
    pub(crate) fn of_bytes(bytes: usize) -> Option<Arc<Self>> {
        let answers = bytes / (QUESTION * SHARE);
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(answers.max(SHARE))
            .weight_capacity(bytes as u64)
            .build()
            .ok()
            .filter(|_| bytes > 0)?;
        let answers = Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Some(Arc::new(Self { answers, bytes, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }))
    }

    /// The answer to a question, if it was given before.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Kept>> {
        let found = self.answers.get(key);
        let counted = if found.is_some() { &self.hits } else { &self.misses };
        counted.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(crate) fn figures(&self) -> CacheFigures {
        CacheFigures {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            answers: self.answers.len(),
            bytes: self.answers.weight(),
        }
    }
}

/// An answer that is taken down while it is given.
#[derive(Debug)]
pub(crate) struct Recording {
    cache: Arc<ResultCache>,
    key: Key,
    schema: SchemaRef,
    /// None where it is given up.
    taken: Mutex<Option<Taken>>,
}

#[derive(Debug)]
struct Taken {
    parts: BTreeSet<usize>,
    batches: BatchCoalescer,
    bytes: usize,
    memory: Option<MemoryReservation>,
}

impl Recording {
    /// The answer to a question, of some columns.
    pub(crate) fn new(cache: Arc<ResultCache>, key: Key, schema: SchemaRef) -> Self {
        let batches = BatchCoalescer::new(schema.clone(), BATCH);
        let taken = Taken { parts: BTreeSet::new(), batches, bytes: 0, memory: None };
        Self { cache, key, schema, taken: Mutex::new(Some(taken)) }
    }

    /// A part of the answer begins; where it does for the second time, nothing is taken down.
    pub(crate) fn begin(&self, part: usize, memory: &Arc<dyn MemoryPool>) {
        self.go_on(|taken| {
            taken.memory.get_or_insert_with(|| MemoryConsumer::new("an answer to be kept").register(memory));
            taken.parts.insert(part)
        });
    }

    /// Takes a batch down, if there is room for it.
    pub(crate) fn add(&self, batch: &RecordBatch) {
        self.go_on(|taken| {
            // What a coalescer has it has copied, so that no more is held than is told by its size.
            let bytes = copied_bytes(batch);
            taken.bytes += bytes;
            taken.bytes <= self.cache.bytes / SHARE
                && taken.memory.as_ref().is_some_and(|memory| memory.try_grow(bytes).is_ok())
                && taken.batches.push_batch(batch.clone()).is_ok()
        });
    }

    /// Keeps the answer, all of whose parts have come to their end.
    pub(crate) fn keep(&self) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut taken) = taken.filter(|taken| !taken.parts.is_empty()) else { return };
        if taken.batches.finish_buffered_batch().is_err() {
            return;
        }
        let batches = std::iter::from_fn(|| taken.batches.next_completed_batch().map(shrunk));
        let Ok(batches) = batches.collect::<Result<Vec<_>, _>>() else { return };
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let kept = Kept { schema: self.schema.clone(), batches, bytes };
        self.cache.answers.insert(self.key.clone(), Arc::new(kept));
    }

    fn go_on(&self, step: impl FnOnce(&mut Taken) -> bool) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(going) = taken.as_mut()
            && !step(going)
        {
            *taken = None;
        }
    }
}

/// A batch without the room that a coalescer makes for rows that did not come.
fn shrunk(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (schema, mut columns, rows) = batch.into_parts();
    columns.iter_mut().for_each(Array::shrink_to_fit);
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

/// The bytes of a batch without what its buffers have of other rows.
fn copied_bytes(batch: &RecordBatch) -> usize {
    use arrow::array::AsArray;
    use arrow::datatypes::DataType;
    let of_column = |column: &arrow::array::ArrayRef| match column.data_type() {
        DataType::Utf8View => column.as_string_view().total_buffer_bytes_used() + 16 * column.len(),
        DataType::BinaryView => column.as_binary_view().total_buffer_bytes_used() + 16 * column.len(),
        _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
    };
    batch.columns().iter().map(of_column).sum()
}

#[cfg(test)]
mod tests;
