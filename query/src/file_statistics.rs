//! What a table's log says of its files, without reading them.
//!
//! What passes through: the statistics of each file as they were committed, into what rules files out, what shows
//! that a condition is true of all rows, and what joins are planned by.
//!
//! Guaranteed: bounds are bounds. What a log cuts off is put back on the side on which nothing is lost.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit, UInt64Type};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue};
use deltalake::kernel::LogDataHandler;

/// What a table's log says of the values in its files.
pub(crate) struct FileStatistics<'a>(pub LogDataHandler<'a>);

impl FileStatistics<'_> {
    /// What it says of a column in some files: how many nulls there are, and of numbers and times also between
    /// which values they are. Texts are cut off in a log, and say little about how many rows a filter leaves.
    /// None of it is exact: a log has what was written, and rows may have been deleted since.
    pub(crate) fn of_column(&self, field: &Field, kept: &[bool]) -> ColumnStatistics {
        let column = Column::from_name(field.name());
        let mut statistics = ColumnStatistics::new_unknown();
        let nulls = self.null_counts(&column);
        statistics.null_count = folded(nulls, kept, |sum, next| sum.add(next).ok())
            .and_then(|nulls| u64::try_from(nulls).ok())
            .map_or(Precision::Absent, |nulls| Precision::Inexact(nulls as usize));
        if field.data_type().is_numeric() || field.data_type().is_temporal() {
            let bound = |values, is_better| {
                let best = |best: ScalarValue, next: ScalarValue| {
                    Some(if next.partial_cmp(&best)? == is_better { next } else { best })
                };
                folded(values, kept, best).map_or(Precision::Absent, Precision::Inexact)
            };
            statistics.min_value = bound(self.min_values(&column), Ordering::Less);
            statistics.max_value = bound(self.max_values(&column), Ordering::Greater);
        }
        statistics
    }

    /// Whether no file has a null in a column, as far as the log knows of each.
    pub(crate) fn is_without_nulls(&self, column: &Column) -> bool {
        let counts = self.null_counts(column);
        let counts = counts.as_ref().and_then(|counts| counts.as_primitive_opt::<UInt64Type>());
        counts
            .is_some_and(|counts| counts.len() == self.num_containers() && counts.iter().all(|count| count == Some(0)))
    }
}

/// One value of those of some files; none where one of them has none.
fn folded(
    values: Option<ArrayRef>,
    kept: &[bool],
    both: impl Fn(ScalarValue, ScalarValue) -> Option<ScalarValue>,
) -> Option<ScalarValue> {
    let values = values.filter(|values| values.len() == kept.len())?;
    let known = |place: usize| ScalarValue::try_from_array(&values, place).ok().filter(|value| !value.is_null());
    let mut places = (0..kept.len()).filter(|place| kept[*place]);
    let first = known(places.next()?)?;
    places.try_fold(first, |folded, place| both(folded, known(place)?))
}

impl PruningStatistics for FileStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.0.min_values(column)
    }

    /// A log has times to the millisecond, cut off: the greatest may be up to 999 µs later than it says.
    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        let values = self.0.max_values(column)?;
        let DataType::Timestamp(TimeUnit::Microsecond, zone) = values.data_type().clone() else { return Some(values) };
        let values: &TimestampMicrosecondArray = values.as_any().downcast_ref()?;
        let later: TimestampMicrosecondArray = values.unary(|value: i64| value.saturating_add(999));
        Some(Arc::new(later.with_timezone_opt(zone)))
    }

    fn num_containers(&self) -> usize {
        self.0.num_containers()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        self.0.null_counts(column)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        self.0.row_counts()
    }

    fn contained(&self, _: &Column, _: &std::collections::HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
