//! A dataset's history: every accepted change as a row, with what was done and what was left alone.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::fold::Changes;

/// The columns of a dataset's history: its own, what was done, and which columns it left alone.
pub fn changes_schema(rows: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = rows.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("_op", DataType::Utf8, true));
    fields.push(Field::new("_unchanged", DataType::Utf8, true));
    Arc::new(Schema::new(fields))
}

pub(crate) fn change_rows(changes: &Changes) -> Result<RecordBatch, ArrowError> {
    let schema = changes_schema(&changes.rows.schema());
    let ops: StringArray = changes.ops.iter().map(|op| Some(op.word())).collect();
    let mut columns: Vec<ArrayRef> = changes.rows.columns().to_vec();
    columns.extend([Arc::new(ops) as ArrayRef, Arc::new(unchanged_names(changes))]);
    RecordBatch::try_new(schema, columns)
}

fn unchanged_names(changes: &Changes) -> StringArray {
    let schema = changes.rows.schema();
    let masks: Vec<_> = changes
        .unchanged
        .iter()
        .enumerate()
        .filter_map(|(index, mask)| Some((schema.field(index).name(), mask.as_ref()?)))
        .collect();
    let mut names = StringBuilder::new();
    for row in 0..changes.ops.len() {
        let unchanged: Vec<_> =
            masks.iter().filter(|(_, mask)| mask.value(row)).map(|(name, _)| name.as_str()).collect();
        names.append_option((!unchanged.is_empty()).then(|| unchanged.join(",")));
    }
    names.finish()
}
