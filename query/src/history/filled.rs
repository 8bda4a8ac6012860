//! A column whose values a change may have left as they were.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::common::cast::as_string_array;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDFImpl};

/// `filled(column, _unchanged)`: the column, and where `_unchanged` names it the value before.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Filled {
    column: String,
    signature: Signature,
}

impl Filled {
    pub(super) fn new(column: &str) -> Self {
        Self { column: column.to_owned(), signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl WindowUDFImpl for Filled {
    fn name(&self) -> &str {
        "filled"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Evaluator(self.column.clone())))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let data_type = args.get_input_field(0).map_or(DataType::Null, |field| field.data_type().clone());
        Ok(Field::new(args.name(), data_type, true).into())
    }
}

#[derive(Debug)]
struct Evaluator(String);

impl PartitionEvaluator for Evaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let unchanged = as_string_array(&values[1])?;
        if unchanged.null_count() == unchanged.len() {
            return Ok(values[0].clone());
        }
        let is_left = |names: Option<&str>| names.is_some_and(|names| names.split(',').any(|name| name == self.0));
        let mut told = None;
        let places = unchanged.iter().zip(0..).map(|(names, row)| {
            if !is_left(names) {
                told = Some(row);
            }
            told
        });
        Ok(take(&values[0], &places.collect::<UInt32Array>(), None)?)
    }
}
