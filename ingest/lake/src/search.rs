//! Rows and their keys, as they lie in a table's files.
//!
//! What passes through: live files, into the rows of some keys in them. That costs what the files
//! hold, so that it is for what the [`index`](crate::index) does not know: all of a table for a
//! truncation, one file that is not entered yet, or those few whose values are needed.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use deltalake::DeltaTable;
use deltalake::logstore::parquet_reader::ParquetObjectReader;
use futures::TryStreamExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, RowNumber};
use roaring::RoaringTreemap;

use crate::error::BoxError;
use crate::fold::{self, Origins};
use crate::keys::{self, Key, KeyMap};
use crate::vectors::DataFile;

/// The column that says which row of its file a row is, from 0.
pub(crate) const ROW_NUMBER: &str = "__row_number";
/// How many rows are read at a time where their number does not matter.
pub(crate) const BATCH_ROWS: usize = 64 * 1024;

/// What is looked for.
pub(crate) struct Wanted<'a> {
    /// The key columns.
    pub key: &'a [String],
    /// The keys in their order, each with the position of the change that looks for it.
    pub keys: Vec<(Key, &'a str)>,
    /// For each truncated partition the position up to which its rows are looked for as well.
    pub truncated: &'a BTreeMap<i32, String>,
    /// The columns whose present values are wanted, and the keys of which.
    pub columns: &'a [Field],
    pub valued: &'a HashSet<Key>,
}

impl Wanted<'_> {
    /// The position of the change of a key, if there is one.
    fn change(&self, key: Key) -> Option<&str> {
        let index = self.keys.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        Some(self.keys[index].1)
    }
}

/// What was found.
#[derive(Default)]
pub(crate) struct Found {
    /// The rows to delete, by file.
    pub hits: Vec<(DataFile, RoaringTreemap)>,
    /// The partition of each row to delete.
    pub partitions: Vec<i32>,
    /// For each key with a row of which values are wanted, or that is as new as the change: both.
    pub present: KeyMap<Present>,
}

/// The row of a key that was looked for.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    /// The row stands already where the change would put it, or further: the change has no effect.
    pub is_newer: bool,
    /// The row, as one of a batch of the wanted columns.
    pub values: (Arc<RecordBatch>, u32),
}

/// Looks through the live files of a table.
pub(crate) async fn search(table: &DeltaTable, files: Vec<DataFile>, wanted: &Wanted<'_>) -> Result<Found, BoxError> {
    let mut found = Found::default();
    for file in files {
        let rows = search_file(table, &file, wanted, &mut found).await?;
        if !rows.is_empty() {
            found.hits.push((file, rows));
        }
    }
    Ok(found)
}

/// Rows with their keys, and where in their file they are.
pub(crate) struct KeyRows {
    /// The columns that were asked for, those of the key and the origin among them.
    pub batch: RecordBatch,
    /// The key of each row.
    pub keys: Vec<Key>,
    /// The number of each row in its file.
    pub numbers: Vec<u32>,
}

impl KeyRows {
    fn read(batch: &RecordBatch, key: &[String]) -> Result<Self, BoxError> {
        let batch = plain(batch)?;
        let keys = keys::keys(&batch, key)?;
        let numbers: &Int64Array = fold::column(&batch, ROW_NUMBER)?;
        let numbers = numbers.values().iter().map(|number| u32::try_from(*number)).collect::<Result<_, _>>()?;
        Ok(Self { batch, keys, numbers })
    }
}

/// The rows of a file, a batch at a time.
pub(crate) struct KeyRowStream {
    batches: ParquetRecordBatchStream<ParquetObjectReader>,
    key: Vec<String>,
}

impl KeyRowStream {
    pub(crate) async fn next(&mut self) -> Result<Option<KeyRows>, BoxError> {
        match self.batches.try_next().await? {
            Some(batch) => Ok(Some(KeyRows::read(&batch, &self.key)?)),
            None => Ok(None),
        }
    }
}

/// Reads rows of a file, deleted ones too: their keys, partitions and positions, and `columns`; those
/// of some ranges, or all.
pub(crate) async fn key_rows(
    table: &DeltaTable,
    file: &DataFile,
    key: &[String],
    columns: &[Field],
    ranges: Option<&[Range<u32>]>,
) -> Result<KeyRowStream, BoxError> {
    let names = key.iter().map(String::as_str).chain(["_partition", "_position"]);
    let names = names.chain(columns.iter().map(|field| field.name().as_str())).collect();
    Ok(KeyRowStream { batches: rows(table, file, Some(names), ranges, BATCH_ROWS).await?, key: key.to_vec() })
}

/// Reads rows of a file, deleted ones too, each with its [`ROW_NUMBER`]: some columns and ranges, or
/// all.
pub(crate) async fn rows(
    table: &DeltaTable,
    file: &DataFile,
    columns: Option<Vec<&str>>,
    ranges: Option<&[Range<u32>]>,
    batch_rows: usize,
) -> Result<ParquetRecordBatchStream<ParquetObjectReader>, BoxError> {
    let store = table.log_store().object_store(None);
    let reader = ParquetObjectReader::new(store, Path::from(file.view.path().as_ref()))
        .with_file_size(file.view.size().unsigned_abs());
    let row_number = Arc::new(Field::new(ROW_NUMBER, DataType::Int64, false).with_extension_type(RowNumber));
    let options = ArrowReaderOptions::new().with_virtual_columns(vec![row_number])?;
    let mut builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await?;
    if let Some(names) = columns {
        let projection = ProjectionMask::columns(builder.parquet_schema(), names);
        builder = builder.with_projection(projection);
    }
    if let Some(ranges) = ranges {
        let rows = builder.metadata().file_metadata().num_rows();
        let ranges = ranges.iter().map(|range| range.start as usize..range.end as usize);
        builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, usize::try_from(rows)?));
    }
    Ok(builder.with_batch_size(batch_rows).build()?)
}

async fn search_file(
    table: &DeltaTable,
    file: &DataFile,
    wanted: &Wanted<'_>,
    found: &mut Found,
) -> Result<RoaringTreemap, BoxError> {
    let mut stream = key_rows(table, file, wanted.key, wanted.columns, None).await?;
    let mut rows = RoaringTreemap::new();
    while let Some(batch) = stream.next().await? {
        search_batch(&batch, file, wanted, &mut rows, found)?;
    }
    Ok(rows)
}

fn search_batch(
    KeyRows { batch, keys, numbers }: &KeyRows,
    file: &DataFile,
    wanted: &Wanted<'_>,
    rows: &mut RoaringTreemap,
    found: &mut Found,
) -> Result<(), BoxError> {
    let origins = Origins::of(batch)?;
    let mut taken = Vec::new();
    for (row, number) in numbers.iter().enumerate() {
        let number = u64::from(*number);
        if file.deleted.contains(number) {
            continue;
        }
        let (partition, position) = (origins.partition.value(row), origins.position.value(row));
        let is_truncated = wanted.truncated.get(&partition).is_some_and(|until| position <= until.as_str());
        let change = wanted.change(keys[row]);
        let is_replaced = change.is_some_and(|change| change > position);
        if is_truncated || is_replaced {
            rows.insert(number);
            found.partitions.push(partition);
        }
        if change.is_some() && !is_truncated && (!is_replaced || wanted.valued.contains(&keys[row])) {
            taken.push((row as u32, keys[row], !is_replaced));
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    let indices = UInt32Array::from_iter_values(taken.iter().map(|(row, _, _)| *row));
    let values = Arc::new(values(batch, wanted.columns, &indices)?);
    for (index, (_, key, is_newer)) in taken.into_iter().enumerate() {
        found.present.insert(key, Present { is_newer, values: (values.clone(), index as u32) });
    }
    Ok(())
}

/// Reads the values of some rows of a file, which are in order, and notes them with their keys.
pub(crate) async fn values_of(
    table: &DeltaTable,
    file: &DataFile,
    columns: &[Field],
    wanted: &[(u32, Key)],
    present: &mut KeyMap<Present>,
) -> Result<(), BoxError> {
    let ranges: Vec<_> = wanted.iter().map(|(row, _)| *row..row + 1).collect();
    let names = columns.iter().map(|field| field.name().as_str()).collect();
    let mut batches = rows(table, file, Some(names), Some(&ranges), BATCH_ROWS).await?;
    let mut wanted = wanted.iter();
    while let Some(batch) = batches.try_next().await? {
        let batch = plain(&batch)?;
        let numbers: &Int64Array = fold::column(&batch, ROW_NUMBER)?;
        let all = UInt32Array::from_iter_values(0..batch.num_rows() as u32);
        let values = Arc::new(values(&batch, columns, &all)?);
        for (index, number) in (0..).zip(numbers.values()) {
            match wanted.next() {
                Some((row, key)) if i64::from(*row) == *number => {
                    let known = present.get_mut(key).ok_or("a row that nobody asked for")?;
                    known.values = (values.clone(), index);
                }
                _ => return Err("other rows were read than those that were asked for".into()),
            }
        }
    }
    if wanted.next().is_some() { Err("a file has fewer rows than are known of it".into()) } else { Ok(()) }
}

/// Text under the one type that batches have; other writers of the format use others.
fn plain(batch: &RecordBatch) -> Result<RecordBatch, BoxError> {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8View | DataType::LargeUtf8);
    if !batch.schema().fields().iter().any(|field| is_text(field.data_type())) {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter().map(|column| match is_text(column.data_type()) {
        true => cast(column, &DataType::Utf8),
        false => Ok(column.clone()),
    });
    let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
    let fields = batch
        .schema()
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
        .collect::<Vec<_>>();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// A file's column as its table declares it; null in a file that is older than the column.
pub(crate) fn declared(column: Option<&dyn Array>, field: &Field, rows: usize) -> Result<ArrayRef, ArrowError> {
    match column {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows)),
    }
}

/// The wanted columns of some rows; null where the file is older than the column.
fn values(batch: &RecordBatch, wanted: &[Field], rows: &UInt32Array) -> Result<RecordBatch, BoxError> {
    let column = |field: &Field| {
        let taken = batch.column_by_name(field.name()).map(|column| take(column, rows, None)).transpose()?;
        declared(taken.as_deref(), field, rows.len())
    };
    let columns = wanted.iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let fields = wanted.iter().map(|field| field.clone().with_nullable(true)).collect::<Vec<_>>();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}
