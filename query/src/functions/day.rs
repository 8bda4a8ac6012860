//! Days, from whatever tells of one.

use arrow::array::{ArrayRef, AsArray, Date32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};
use arrow::temporal_conversions::date32_to_datetime;
use chrono::NaiveDate;
use datafusion::common::Result;

use crate::error::{QueryError, external};

/// What Thailand is ahead of UTC, since 1 April 1920 (พระราชกฤษฎีกาให้ใช้เวลาอัตรา พ.ศ. 2462).
const AHEAD: i64 = 7 * 3600 * 1_000_000;
const DAY: i64 = 24 * 3600 * 1_000_000;

/// The days of a column: of dates, of moments as they are in Thailand, of times without a zone as they are
/// written, or of text as SQL has dates.
pub(super) struct Days(Date32Array);

impl Days {
    /// # Errors
    /// Where the column is of another type, or a text is no date.
    pub(super) fn of(function: &'static str, usage: &'static str, column: &ArrayRef) -> Result<Self> {
        let days = match column.data_type() {
            DataType::Timestamp(_, Some(_)) => {
                let moments = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
                let moments = moments.as_primitive::<TimestampMicrosecondType>();
                let days: Date32Array = moments.unary(|moment| moment.saturating_add(AHEAD).div_euclid(DAY) as i32);
                return Ok(Self(days));
            }
            DataType::Date32
            | DataType::Date64
            | DataType::Timestamp(_, None)
            | DataType::Utf8
            | DataType::Utf8View
            | DataType::LargeUtf8
            | DataType::Null => cast(column, &DataType::Date32)?,
            other => {
                return Err(external(QueryError::Call { function, problem: format!("{other} is not a date"), usage }));
            }
        };
        Ok(Self(days.as_primitive::<Date32Type>().clone()))
    }

    /// None where it is null.
    pub(super) fn iter(&self) -> impl Iterator<Item = Option<NaiveDate>> {
        self.0.iter().map(|day| Some(date32_to_datetime(day?)?.date()))
    }
}
