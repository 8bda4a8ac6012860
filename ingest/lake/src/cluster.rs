//! Rows that are asked for together, side by side.
//!
//! What passes through: the rows that a compaction moves, out in the order of some columns, so that a
//! reader leaves out row groups by their least and greatest values. By one column that is its order. By
//! several it is a Z-order curve (G. M. Morton, 1966), on which each counts about as much: sorted by one
//! after another, a file of a few dozen row groups would be in order by the first column alone. The curve
//! runs through ranks among a sample and not through values, so that it is as fine where many values are.
//!
//! Guaranteed: every row comes out once, and with its [`NUMBER`] says which it was. Whatever the number
//! of rows, those in memory take about what they may; the others wait in files in the system's folder
//! for temporary files.
//!
//! It is DataFusion's sort, by the rows as a whole. To sort keys alone and then to gather the rows in
//! their order would read Parquet files at random, for which they are not made.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, Row, RowConverter, SortField};
use deltalake::datafusion::common::config::SpillCompression;
use deltalake::datafusion::error::DataFusionError;
use deltalake::datafusion::execution::memory_pool::GreedyMemoryPool;
use deltalake::datafusion::execution::runtime_env::RuntimeEnvBuilder;
use deltalake::datafusion::execution::{SendableRecordBatchStream, TaskContext};
use deltalake::datafusion::physical_expr::expressions::col;
use deltalake::datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use deltalake::datafusion::physical_plan::ExecutionPlan;
use deltalake::datafusion::physical_plan::sorts::sort::SortExec;
use deltalake::datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use deltalake::datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use deltalake::datafusion::prelude::SessionConfig;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::BoxError;

/// The column that says which row a row was, in the order in which they came.
pub(crate) const NUMBER: &str = "__number";
/// The column that says how far along the curve a row is.
const CURVE: &str = "__curve";
/// How many values of a column are its sample, about: many more than a file has row groups.
const SAMPLE: u64 = 4096;
/// The bits of a rank on the curve.
const RANK_BITS: u32 = 16;
/// Of so many columns, ranks have room on the curve.
const MOST_COLUMNS: usize = (u64::BITS / RANK_BITS) as usize;
/// The memory that rows take while they are sorted. What of it is kept free for a merge of them.
const MEMORY: usize = 64 << 20;
const MERGE_SHARE: usize = 4;
/// About the bytes of rows that are handed on at a time: merges hold two such of each file.
const BATCH_BYTES: u64 = 1 << 20;
/// Rows take about so many times as much memory as they take in a file.
const EXPANSION: u64 = 16;

/// Rows on their way, a batch at a time.
pub(crate) type Rows = BoxStream<'static, Result<RecordBatch, BoxError>>;

/// How some rows are to be sorted.
pub(crate) struct Order {
    columns: Vec<String>,
    /// Of each column, where there are several.
    samples: Vec<Sample>,
}

/// Some values of a column, in their order.
struct Sample {
    converter: RowConverter,
    values: Vec<OwnedRow>,
}

impl Order {
    /// The order by one column; by several, their sample has to be taken first.
    pub(crate) fn by(columns: &[String]) -> Self {
        Self { columns: columns.to_vec(), samples: Vec::new() }
    }

    /// Whether rows have to be looked at before they can be sorted.
    pub(crate) fn needs_sample(&self) -> bool {
        self.columns.len() > 1
    }

    /// Takes the sample out of all rows, of which only the columns are needed.
    pub(crate) async fn sample(&mut self, mut rows: Rows, count: u64) -> Result<(), BoxError> {
        let (step, mut number) = ((count / SAMPLE).max(1), 0_u64);
        let mut samples = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            // By chance and not every so many: rows may come in rounds.
            let chosen: UInt32Array = (0..batch.num_rows() as u32)
                .filter(|row| xxh3_64(&(number + u64::from(*row)).to_le_bytes()).is_multiple_of(step))
                .collect();
            number += batch.num_rows() as u64;
            if samples.is_empty() {
                samples = self.columns(&batch)?.map(Sample::of).collect::<Result<_, _>>()?;
            }
            for (sample, column) in samples.iter_mut().zip(self.columns(&batch)?) {
                sample.add(&take(column, &chosen, None)?)?;
            }
        }
        samples.iter_mut().for_each(|sample| sample.values.sort_unstable());
        self.samples = samples;
        Ok(())
    }

    fn columns<'a>(&self, batch: &'a RecordBatch) -> Result<impl Iterator<Item = &'a ArrayRef>, ArrowError> {
        let column = |name: &String| {
            batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("no column `{name}`")))
        };
        let columns = self.columns.iter().take(MOST_COLUMNS).map(column).collect::<Result<Vec<_>, _>>()?;
        Ok(columns.into_iter())
    }

    /// How far along the curve each row is.
    fn curve(&self, batch: &RecordBatch) -> Result<UInt64Array, ArrowError> {
        let mut ranks = Vec::with_capacity(self.samples.len());
        for (sample, column) in self.samples.iter().zip(self.columns(batch)?) {
            let values = sample.converter.convert_columns(std::slice::from_ref(column))?;
            ranks.push(values.iter().map(|value| sample.rank(value)).collect::<Vec<_>>());
        }
        let row = |row: usize| along(ranks.iter().map(|ranks| ranks[row]));
        Ok((0..batch.num_rows()).map(row).collect())
    }
}

impl Sample {
    fn of(column: &ArrayRef) -> Result<Self, ArrowError> {
        let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())])?;
        Ok(Self { converter, values: Vec::new() })
    }

    fn add(&mut self, column: &ArrayRef) -> Result<(), ArrowError> {
        let values = self.converter.convert_columns(std::slice::from_ref(column))?;
        self.values.extend(values.iter().map(|value| value.owned()));
        Ok(())
    }

    /// The share of the sample that comes before a value, and half of what is the same: of two values
    /// that each many rows have, one is in the lower half.
    fn rank(&self, value: Row<'_>) -> u16 {
        let before = self.values.partition_point(|known| known.row() < value);
        let same = self.values[before..].partition_point(|known| known.row() == value);
        ((before + same / 2) * usize::from(u16::MAX) / self.values.len().max(1)) as u16
    }
}

/// The place on the curve of a row with these ranks: their bits by turns, the highest first.
fn along(ranks: impl Iterator<Item = u16> + Clone) -> u64 {
    let bits = (0..RANK_BITS).rev().flat_map(|bit| ranks.clone().map(move |rank| rank >> bit & 1));
    bits.fold(0, |curve, bit| curve << 1 | u64::from(bit))
}

/// How many rows are best handed on at a time, of files of so many bytes and rows.
pub(crate) fn batch_rows(bytes: u64, rows: u64) -> usize {
    let row_bytes = (bytes / rows.max(1)).max(1) * EXPANSION;
    (BATCH_BYTES / row_bytes).clamp(64, 8192) as usize
}

/// Sorts rows. They come out with their [`NUMBER`].
pub(crate) fn sort(rows: Rows, schema: &SchemaRef, order: Order, batch_rows: usize) -> Result<Rows, BoxError> {
    let plan = plan(rows, schema, order)?;
    run(&plan, batch_rows, MEMORY)
}

fn plan(rows: Rows, schema: &SchemaRef, order: Order) -> Result<SortExec, DataFusionError> {
    let fields = schema.fields().iter().cloned();
    let marks = [(NUMBER, DataType::UInt32), (CURVE, DataType::UInt64)];
    let marks = marks.map(|(name, data_type)| Arc::new(Field::new(name, data_type, false)));
    let schema = Arc::new(Schema::new(fields.chain(marks).collect::<Vec<_>>()));
    let ascending = |name: &str| Ok(PhysicalSortExpr::new_default(col(name, &schema)?));
    let by = [CURVE].into_iter().chain(order.columns.iter().map(String::as_str));
    let by = by.map(ascending).collect::<Result<Vec<_>, DataFusionError>>()?;
    let by = LexOrdering::new(by).ok_or_else(|| DataFusionError::Internal("an order by nothing".to_owned()))?;
    let (marked, mut next) = (schema.clone(), 0);
    let rows = rows.map(move |batch| {
        let batch = batch.map_err(DataFusionError::External)?;
        Ok(mark(&batch, &marked, &order, &mut next)?)
    });
    let rows = Box::pin(RecordBatchStreamAdapter::new(schema.clone(), rows));
    let once = Arc::new(Once { schema: schema.clone(), rows: Mutex::new(Some(rows)) });
    let input = StreamingTableExec::try_new(schema, vec![once], None, [], false, None)?;
    Ok(SortExec::new(by, Arc::new(input)))
}

/// The rows with their numbers, and how far along the curve they are.
fn mark(batch: &RecordBatch, schema: &SchemaRef, order: &Order, next: &mut u32) -> Result<RecordBatch, ArrowError> {
    let numbers = UInt32Array::from_iter_values(*next..*next + batch.num_rows() as u32);
    *next += batch.num_rows() as u32;
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(numbers));
    columns.push(Arc::new(order.curve(batch)?));
    RecordBatch::try_new(schema.clone(), columns)
}

fn run(plan: &SortExec, batch_rows: usize, memory: usize) -> Result<Rows, BoxError> {
    let config = SessionConfig::new()
        .with_batch_size(batch_rows)
        .with_sort_spill_reservation_bytes(memory / MERGE_SHARE)
        .with_spill_compression(SpillCompression::Lz4Frame);
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(memory))).build_arc()?;
    let context = TaskContext::default().with_session_config(config).with_runtime(runtime);
    Ok(plan.execute(0, Arc::new(context))?.map_err(BoxError::from).boxed())
}

/// A stream of rows as a plan's source, which can be run once.
struct Once {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(|| {
            let again = DataFusionError::Internal("rows can be sorted once".to_owned());
            Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream::iter([Err(again)])))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{Int64Type, UInt32Type};
    use proptest::prelude::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("number", DataType::Int64, true),
            Field::new("text", DataType::Utf8, true),
        ]))
    }

    fn batch(numbers: &[Option<i64>]) -> RecordBatch {
        let text = numbers.iter().map(|number| Some(format!("{:->80}", number.unwrap_or(-1) % 100)));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(numbers.to_vec())), Arc::new(StringArray::from_iter(text))];
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    fn rows(batches: &[RecordBatch]) -> Rows {
        stream::iter(batches.to_vec()).map(Ok).boxed()
    }

    async fn order(columns: &[&str], batches: &[RecordBatch]) -> Order {
        let columns: Vec<_> = columns.iter().map(|name| (*name).to_owned()).collect();
        let mut order = Order::by(&columns);
        if order.needs_sample() {
            let count = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            order.sample(rows(batches), count).await.unwrap();
        }
        order
    }

    /// Whether the rows that came out are those that went in, by their numbers.
    fn check_numbers(sorted: &[RecordBatch], numbers: &[Option<i64>]) {
        let mut seen = vec![false; numbers.len()];
        for batch in sorted {
            let values = batch.column(0).as_primitive::<Int64Type>();
            for (row, number) in batch[NUMBER].as_primitive::<UInt32Type>().values().iter().enumerate() {
                let value = values.is_valid(row).then(|| values.value(row));
                assert_eq!(value, numbers[*number as usize]);
                assert!(!std::mem::replace(&mut seen[*number as usize], true), "a row came out twice");
            }
        }
        assert!(seen.iter().all(|seen| *seen), "a row was lost");
    }

    #[tokio::test]
    async fn more_rows_than_memory_are_sorted_by_way_of_files() {
        let numbers: Vec<_> = (0..30_000_i64).map(|number| Some(number * 7919 % 30_011)).collect();
        let batches: Vec<_> = numbers.chunks(500).map(batch).collect();
        for columns in [&["number"] as &[&str], &["text", "number"]] {
            let plan = plan(rows(&batches), &schema(), order(columns, &batches).await).unwrap();
            let sorted: Vec<_> = run(&plan, 256, 1 << 20).unwrap().try_collect().await.unwrap();
            assert!(plan.metrics().unwrap().spill_count().unwrap() > 4, "in files: {:?}", plan.metrics());
            check_numbers(&sorted, &numbers);
            if columns.len() == 1 {
                let values = sorted.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values());
                assert!(values.is_sorted());
            }
        }
    }

    #[tokio::test]
    async fn a_column_of_few_values_counts_as_much_as_one_of_many() {
        let numbers: Vec<_> = (0..8192_i64).map(|number| Some(number * 7919 % 8209)).collect();
        let two = |number: &Option<i64>| if number.is_some_and(|number| number % 3 == 0) { "a" } else { "b" };
        let text: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.iter().map(two)));
        let batch = RecordBatch::try_new(schema(), vec![batch(&numbers).column(0).clone(), text]).unwrap();
        let order = order(&["number", "text"], std::slice::from_ref(&batch)).await;
        let sorted = sort(rows(&[batch]), &schema(), order, 1024).unwrap();
        let sorted: Vec<_> = sorted.try_collect().await.unwrap();
        let texts: Vec<_> = sorted.iter().map(|batch| batch.column(1).as_string::<i32>()).collect();
        let of_one = texts.iter().filter(|texts| texts.iter().all(|text| text == Some(texts.value(0)))).count();
        assert!(of_one >= 5, "{of_one} of {} hold one of the two values only", texts.len());
    }

    proptest! {
        #[test]
        fn the_curve_leads_on_by_each_column(ranks in prop::collection::vec((any::<u16>(), any::<u16>()), 1..5)) {
            let here = along(ranks.iter().map(|(rank, _)| *rank));
            let further = along(ranks.iter().map(|(rank, more)| rank.saturating_add(*more)));
            prop_assert!(here <= further);
        }

        #[test]
        fn every_row_comes_out_once(
            numbers in prop::collection::vec(prop::option::of(-50_i64..50), 0..120),
            at_a_time in 1_usize..50,
            columns in prop::sample::subsequence(vec!["number", "text"], 1..=2),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let batches: Vec<_> = numbers.chunks(at_a_time).map(batch).collect();
            let sorted: Vec<_> = runtime.block_on(async {
                let order = order(&columns, &batches).await;
                sort(rows(&batches), &schema(), order, 64).unwrap().try_collect().await.unwrap()
            });
            check_numbers(&sorted, &numbers);
        }
    }

    #[test]
    fn wide_rows_are_handed_on_a_few_at_a_time() {
        assert_eq!(batch_rows(20 << 20, 1 << 20), 3276);
        assert_eq!(batch_rows(1, 1 << 20), 8192);
        assert_eq!(batch_rows(1 << 30, 1 << 10), 64);
        assert_eq!(batch_rows(0, 0), 8192);
    }
}
