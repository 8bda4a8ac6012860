//! `thai_id_valid(text)`: whether a text is the number of a citizen or resident, by its form and check digit.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};

use super::{function as of_column, normalise};

pub(super) fn function() -> ScalarUDF {
    let valid = |texts: &ArrayRef| -> Result<ArrayRef> {
        let numbers = normalise("thai_citizen_id", texts)?;
        let valid = match numbers.nulls() {
            Some(nulls) => nulls.inner().clone(),
            None => BooleanBuffer::new_set(numbers.len()),
        };
        Ok(Arc::new(BooleanArray::new(valid, texts.nulls().cloned())))
    };
    let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
    of_column("thai_id_valid", signature, DataType::Boolean, valid)
}
