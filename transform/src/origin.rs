//! The columns by which every row says where it came from.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, StringArray, StringBuilder, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, TimeUnit};
use ruam_event::{Position, Records};

/// The column of signatures.
pub const SIGNATURE: &str = "_signature";

/// The time zone of every timestamp in the lake.
pub fn utc() -> Arc<str> {
    Arc::from("UTC")
}

/// The type of every timestamp in the lake: microseconds, UTC.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(utc()))
}

/// The origin columns, in the order in which they follow a table's own.
///
/// | column | what it says |
/// |---|---|
/// | `_event_id` | CloudEvents id; `topic/partition/offset` where the event has none |
/// | `_topic`, `_partition`, `_offset` | the record in the log |
/// | `_position` | place in the order of the source; the offset where the source gives none |
/// | `_source_time` | when it happened at the source, as far as it says |
/// | `_arrived_at` | when it reached the log |
/// | `_signature` | where the dataset's events are signed: the signature and what it signs, a compact JWS |
pub fn fields(are_signed: bool) -> Vec<Field> {
    let mut fields = vec![
        Field::new("_event_id", DataType::Utf8, false),
        Field::new("_topic", DataType::Utf8, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_position", DataType::Utf8, false),
        Field::new("_source_time", timestamp_type(), true),
        Field::new("_arrived_at", timestamp_type(), false),
    ];
    fields.extend(are_signed.then(|| Field::new(SIGNATURE, DataType::Utf8, true)));
    fields
}

/// The values of the origin columns for all of the records, in the order of [`fields`].
pub(crate) fn columns(records: &Records, source_times: TimestampMicrosecondBuilder, are_signed: bool) -> Vec<ArrayRef> {
    let len = records.len();
    let mut source_times = source_times;
    let arrived =
        TimestampMicrosecondArray::from_iter_values(records.arrived.iter().map(|millis| millis.saturating_mul(1000)));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(event_ids(records)),
        Arc::new(repeat(&records.partition.topic.name, len)),
        Arc::new(Int32Array::from_value(records.partition.index, len)),
        Arc::new(Int64Array::from_iter_values(records.offsets.iter().copied())),
        Arc::new(positions(records)),
        Arc::new(source_times.finish().with_timezone(utc())),
        Arc::new(arrived.with_timezone(utc())),
    ];
    if are_signed {
        columns.push(Arc::new(signatures(records)));
    }
    columns
}

/// The same text so many times.
pub(crate) fn repeat(text: &str, times: usize) -> StringArray {
    let mut column = StringBuilder::with_capacity(times, times * text.len());
    column.append_value_n(text, times);
    column.finish()
}

fn event_ids(records: &Records) -> StringArray {
    let mut ids = StringBuilder::with_capacity(records.len(), records.len() * 16);
    for (index, offset) in records.offsets.iter().enumerate() {
        match records.ids.get(index).and_then(|id| std::str::from_utf8(id).ok()) {
            Some(id) => ids.append_value(id),
            None => ids.append_value(format!("{}/{}/{offset}", records.partition.topic.name, records.partition.index)),
        }
    }
    ids.finish()
}

fn signatures(records: &Records) -> StringArray {
    let signature = |index| records.signatures.get(index).and_then(|bytes| std::str::from_utf8(bytes).ok());
    (0..records.len()).map(signature).collect()
}

fn positions(records: &Records) -> StringArray {
    let mut positions = StringBuilder::with_capacity(records.len(), records.len() * Position::TEXT_LEN);
    for (position, offset) in records.positions.iter().zip(&records.offsets) {
        let position = position.unwrap_or_else(|| Position::new(offset.unsigned_abs()));
        positions.append_value(std::str::from_utf8(&position.to_text()).unwrap_or_default());
    }
    positions.finish()
}
