//! The rows of a table's files that have not been deleted.
//!
//! What passes through: batches of files, each row with the file that it is in and its number there, into
//! the same batches without the rows that a deletion vector names. A batch that has lost none is passed
//! on as it is.
//!
//! A Parquet reader could begin with a selection of rows instead, but DataFusion makes a list of runs of
//! each, anew for each query: for rows that were deleted here and there that took longer than it saved.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, ScalarValue, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::StreamExt;
use parquet::arrow::RowNumber;

/// Which rows of each file have not been deleted; none where that is all of them.
pub(crate) type Masks = Arc<[Option<BooleanBuffer>]>;

/// The column that says which file a row is in: its place among the [`Masks`].
pub(crate) fn file_column() -> FieldRef {
    Arc::new(Field::new("__file", DataType::UInt32, false))
}

/// What a file has in that column.
pub(crate) fn file_value(place: usize) -> Result<ScalarValue> {
    let place = u32::try_from(place).map_err(|error| DataFusionError::External(error.into()))?;
    Ok(ScalarValue::UInt32(Some(place)))
}

/// The column that says which row of its file a row is.
pub(crate) fn number_column() -> FieldRef {
    Arc::new(Field::new("__row_number", DataType::Int64, false).with_extension_type(RowNumber))
}

/// Leaves out the rows that were deleted, and the two columns by which they are known, which are the last.
#[derive(Debug)]
pub(crate) struct LiveRowsExec {
    input: Arc<dyn ExecutionPlan>,
    masks: Masks,
    /// Of all rows that have not been deleted.
    statistics: Arc<Statistics>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LiveRowsExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, masks: Masks, statistics: Arc<Statistics>) -> Self {
        let all = input.schema();
        let columns = all.fields().iter().take(all.fields().len().saturating_sub(2)).cloned();
        let schema = Schema::new_with_metadata(columns.collect::<Vec<_>>(), all.metadata().clone());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(schema)),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, masks, statistics, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl ExecutionPlan for LiveRowsExec {
    fn name(&self) -> &'static str {
        "LiveRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
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
            .map_err(|children| DataFusionError::Internal(format!("{} inputs of live rows", children.len())))?;
        Ok(Arc::new(Self::new(input, self.masks.clone(), self.statistics.clone())))
    }

    /// The files are shared out when they are planned.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let (masks, schema) = (self.masks.clone(), self.schema());
        let batches = self.input.execute(partition, context)?.filter_map(move |batch| {
            let timer = metrics.elapsed_compute().timer();
            let live = batch.and_then(|batch| live_rows(&batch, &masks, &schema)).transpose();
            timer.done();
            if let Some(Ok(batch)) = &live {
                metrics.record_output(batch.num_rows());
            }
            std::future::ready(live)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        match args.partition() {
            None => Ok(self.statistics.clone()),
            Some(_) => Ok(Arc::new(Statistics::new_unknown(&self.schema()))),
        }
    }

    /// What rules rows out does so whether they were deleted or not.
    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(filters, &self.children())
    }
}

impl DisplayAs for LiveRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_deleted = self.masks.iter().flatten().count();
        write!(f, "LiveRowsExec: files={}, with_deleted_rows={with_deleted}", self.masks.len())
    }
}

/// The rows of a batch that have not been deleted; none where there are none.
fn live_rows(batch: &RecordBatch, masks: &Masks, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
    let wrong = |what: &str| DataFusionError::Internal(format!("{what} in a scan of live rows"));
    let [columns @ .., files, numbers] = batch.columns() else { return Err(wrong("too few columns")) };
    let files: &UInt32Array = files.as_any().downcast_ref().ok_or_else(|| wrong("other files"))?;
    let numbers: &Int64Array = numbers.as_any().downcast_ref().ok_or_else(|| wrong("other numbers"))?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(schema.clone(), columns.to_vec(), &options)?;
    let Some(file) = files.values().first() else { return Ok(None) };
    if files.values().iter().any(|other| other != file) {
        return Err(wrong("a batch of several files"));
    }
    let Some(mask) = masks.get(*file as usize).ok_or_else(|| wrong("an unknown file"))? else { return Ok(Some(rows)) };
    let keep = mask_of(mask, numbers.values()).ok_or_else(|| wrong("a row that its file does not have"))?;
    Ok(match keep.count_set_bits() {
        0 => None,
        kept if kept == rows.num_rows() => Some(rows),
        _ => Some(filter_record_batch(&rows, &BooleanArray::new(keep, None))?),
    })
}

/// What a file's mask says of some of its rows; none where it does not have them.
fn mask_of(mask: &BooleanBuffer, numbers: &[i64]) -> Option<BooleanBuffer> {
    let place = |number: &i64| usize::try_from(*number).ok().filter(|number| *number < mask.len());
    let (first, last) = (place(numbers.first()?)?, place(numbers.last()?)?);
    if numbers.windows(2).all(|pair| pair[1] == pair[0] + 1) {
        return Some(mask.slice(first, last + 1 - first));
    }
    // Row groups or pages between them were ruled out.
    numbers
        .iter()
        .map(|number| place(number).map(|number| mask.value(number)))
        .collect::<Option<Vec<_>>>()
        .map(Into::into)
}
