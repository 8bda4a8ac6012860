//! `be_date(text)` and `be_text(date)`: days with years of the Buddhist era, read and written.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};
use ruam_transform::types::be_date::write;

use super::day::Days;
use super::{function, normalise};

/// Reads a date as a column of type `be_date` does that declares no options.
pub(super) fn read() -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
    function("be_date", signature, DataType::Date32, |texts| normalise("be_date", texts))
}

/// Writes a day in full.
pub(super) fn text() -> ScalarUDF {
    let texts = |days: &ArrayRef| -> Result<ArrayRef> {
        let days = Days::of("be_text", "be_text(date)", days)?;
        Ok(Arc::new(days.iter().map(|day| day.map(write)).collect::<StringArray>()))
    };
    function("be_text", Signature::any(1, Volatility::Immutable), DataType::Utf8, texts)
}
