//! `fiscal_year(date)`: the fiscal year of the Thai state.
//!
//! It runs from 1 October to 30 September and is named by the year of the Buddhist era in which it ends
//! (พระราชบัญญัติวิธีการงบประมาณ พ.ศ. 2561, section 4). Earlier laws had other years; this one is applied to
//! every day.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array};
use arrow::datatypes::DataType;
use chrono::{Datelike, NaiveDate};
use datafusion::common::Result;
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};

use super::day::Days;
use super::function as of_column;

const FIRST_MONTH: u32 = 10;

pub(super) fn function() -> ScalarUDF {
    let years = |days: &ArrayRef| -> Result<ArrayRef> {
        let days = Days::of("fiscal_year", "fiscal_year(date)", days)?;
        Ok(Arc::new(days.iter().map(|day| day.map(fiscal_year)).collect::<Int32Array>()))
    };
    of_column("fiscal_year", Signature::any(1, Volatility::Immutable), DataType::Int32, years)
}

fn fiscal_year(day: NaiveDate) -> i32 {
    day.year() + 543 + i32::from(day.month() >= FIRST_MONTH)
}
