//! Records that could not become rows: data like any other, with the reason.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use ruam_event::Records;

use crate::origin::{repeat, timestamp_type, utc};

/// Why a value or a record is refused. Both texts are fixed, so that no value can slip into them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    /// The name to count and filter by.
    pub code: &'static str,
    /// What a person reads.
    pub text: &'static str,
}

impl Reason {
    /// A reason.
    pub const fn new(code: &'static str, text: &'static str) -> Self {
        Self { code, text }
    }
}

/// The value of a required column is missing.
pub const MISSING: Reason = Reason::new("missing", "a required value is missing");

/// A change leaves a column as it was, in a row that is not there.
const UNRESOLVED: Reason =
    Reason::new("unknown_row", "the change leaves a column as it was, and there is no row that it could be left in");

/// The schema of every dataset's reject table.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("reason", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, false),
        Field::new("_topic", DataType::Utf8, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_event_id", DataType::Utf8, true),
        Field::new("_position", DataType::Utf8, true),
        Field::new("_arrived_at", timestamp_type(), false),
        Field::new("raw_key", DataType::Binary, true),
        Field::new("raw_value", DataType::Binary, true),
    ]))
});

/// The first fault that was found in each record, and how many there were.
#[derive(Debug, Default)]
pub struct Faults {
    first: Vec<Option<(Reason, Option<usize>)>>,
    more: Vec<u32>,
    count: usize,
}

impl Faults {
    /// No faults in so many records.
    pub fn none(records: usize) -> Self {
        Self { first: vec![None; records], more: vec![0; records], count: 0 }
    }

    /// Notes a fault of a record, in a column (by index) or as a whole.
    pub fn add(&mut self, record: usize, reason: Reason, column: Option<usize>) {
        match &self.first[record] {
            Some(_) => self.more[record] += 1,
            None => {
                self.first[record] = Some((reason, column));
                self.count += 1;
            }
        }
    }

    /// Whether a record has one.
    pub fn has(&self, record: usize) -> bool {
        self.first[record].is_some()
    }

    /// How many records have one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The faulty records as rows of the reject table.
    ///
    /// # Errors
    /// Never for faults of these records; Arrow checks the columns against the schema.
    pub fn to_batch(&self, records: &Records, columns: &[String]) -> Result<RecordBatch, ArrowError> {
        let mut rejects = Rejects::default();
        for (record, first) in self.first.iter().enumerate() {
            if let Some((reason, column)) = first {
                rejects.push(
                    records,
                    record,
                    *reason,
                    column.map(|column| columns[column].as_str()),
                    self.more[record],
                );
            }
        }
        rejects.finish(records)
    }
}

/// Accepted changes as rejects, because they leave a column as it was in a row that the table does
/// not have. The raw bytes are not at hand any more; the log has them at the offset.
///
/// # Errors
/// Where the rows have no origin.
pub fn unresolved(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let len = rows.num_rows();
    let origin = |name: &str| {
        rows.column_by_name(name)
            .cloned()
            .ok_or_else(|| ArrowError::SchemaError(format!("a row without its origin: no column `{name}`")))
    };
    let none = |data_type: DataType| arrow::array::new_null_array(&data_type, len);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(repeat(UNRESOLVED.code, len)),
        none(DataType::Utf8),
        Arc::new(repeat(UNRESOLVED.text, len)),
        origin("_topic")?,
        origin("_partition")?,
        origin("_offset")?,
        origin("_event_id")?,
        origin("_position")?,
        origin("_arrived_at")?,
        none(DataType::Binary),
        none(DataType::Binary),
    ];
    RecordBatch::try_new(SCHEMA.clone(), columns)
}

#[derive(Default)]
struct Rejects {
    reason: StringBuilder,
    column: StringBuilder,
    detail: StringBuilder,
    offset: Int64Builder,
    id: StringBuilder,
    position: StringBuilder,
    arrived: TimestampMicrosecondBuilder,
    key: BinaryBuilder,
    value: BinaryBuilder,
    len: usize,
}

impl Rejects {
    fn push(&mut self, records: &Records, record: usize, reason: Reason, column: Option<&str>, more: u32) {
        self.reason.append_value(reason.code);
        self.column.append_option(column);
        match more {
            0 => self.detail.append_value(reason.text),
            more => self.detail.append_value(format!("{} (and {more} more faults)", reason.text)),
        }
        self.offset.append_value(records.offsets[record]);
        self.id.append_option(records.ids.get(record).and_then(|id| std::str::from_utf8(id).ok()));
        self.position.append_option(records.positions[record].map(|position| position.to_string()));
        self.arrived.append_value(records.arrived[record].saturating_mul(1000));
        self.key.append_option(records.keys.get(record));
        self.value.append_option(records.values.get(record));
        self.len += 1;
    }

    fn finish(mut self, records: &Records) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.reason.finish()),
            Arc::new(self.column.finish()),
            Arc::new(self.detail.finish()),
            Arc::new(repeat(&records.partition.topic.name, self.len)),
            Arc::new(Int32Array::from_value(records.partition.index, self.len)),
            Arc::new(self.offset.finish()),
            Arc::new(self.id.finish()),
            Arc::new(self.position.finish()),
            Arc::new(self.arrived.finish().with_timezone(utc())),
            Arc::new(self.key.finish()),
            Arc::new(self.value.finish()),
        ];
        RecordBatch::try_new(SCHEMA.clone(), columns)
    }
}
