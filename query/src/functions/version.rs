//! `version()`: what PostgreSQL's clients ask a server first.
//!
//! They read the number of PostgreSQL in it, and take for granted what that version has.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

/// The version of PostgreSQL that pgwire names when a client connects.
pub(crate) const POSTGRES: &str = "16.6";

pub(super) fn function() -> ScalarUDF {
    let version = format!("PostgreSQL {POSTGRES} (Ruam {})", env!("CARGO_PKG_VERSION"));
    let version = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(version.clone()))));
    create_udf("version", Vec::new(), DataType::Utf8, Volatility::Stable, Arc::new(version))
}
