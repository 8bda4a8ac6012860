//! The changes of one key, and for which spans of either clock each of them stands.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, ListArray, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::Result;
use datafusion::common::cast::{as_int32_array, as_int64_array, as_list_array, as_string_array, as_struct_array};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDFImpl};
use ruam_event::change::Op;

/// A change as its intervals depend on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    /// From when on it holds; none: since ever.
    pub effective: Option<i64>,
    /// Where it stands in the order of its source.
    pub position: &'a str,
    /// When it became known.
    pub arrived: i64,
    /// Whether no row is left by it.
    pub ends: bool,
    /// The row that it is; none where it is a truncation.
    pub row: Option<usize>,
}

impl<'a> Change<'a> {
    /// Its place in the order of the source. A key that is only spelled anew is left and taken by one
    /// event: then it is taken.
    fn rank(&self) -> (&'a str, bool) {
        (self.position, !self.ends)
    }
}

/// A span of both clocks for which a row stands. Each holds its beginning and not its end; none: open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub row: usize,
    pub valid_from: Option<i64>,
    pub valid_to: Option<i64>,
    pub known_from: i64,
    pub known_to: Option<i64>,
}

/// The spans of all changes of a key, by row.
pub(super) fn intervals(mut changes: Vec<Change<'_>>) -> Vec<Interval> {
    changes.sort_by_key(|change| (change.arrived, change.rank()));
    let mut timeline = Timeline::default();
    changes.iter().for_each(|change| timeline.learn(change));
    timeline.end()
}

/// What is known so far of one key: from which effective date on which change stands.
#[derive(Default)]
struct Timeline<'a> {
    standing: BTreeMap<Option<i64>, Standing<'a>>,
    /// What deletes have ended: from an effective date on, everything up to a position. Later dates
    /// have later positions; what says nothing more than another is left out.
    ended: BTreeMap<Option<i64>, &'a str>,
    found: Vec<Interval>,
}

/// A change that stands, and since when it is known to stand until its end.
struct Standing<'a> {
    change: Change<'a>,
    known_from: i64,
}

impl<'a> Timeline<'a> {
    /// Takes in the next change in the order of arrival.
    fn learn(&mut self, change: &Change<'a>) {
        let (from, now) = (change.effective, change.arrived);
        if self.ended.range(..=from).next_back().is_some_and(|(_, until)| (*until, false) >= change.rank()) {
            return;
        }
        let is_before = |standing: &Standing<'_>| standing.change.rank() < change.rank();
        let gone: Vec<_> = match change.ends {
            true => {
                self.ended.retain(|date, until| *date < from || *until > change.position);
                self.ended.insert(from, change.position);
                let later = self.standing.range(from..);
                later.filter(|(_, standing)| is_before(standing)).map(|(date, _)| *date).collect()
            }
            false => {
                self.standing.get(&from).filter(|standing| is_before(standing)).map(|_| from).into_iter().collect()
            }
        };
        let stands = !self.standing.contains_key(&from) || gone.contains(&from);
        // Whatever stood until a date at which another stands now, or none any more.
        let mut cut: Vec<_> =
            gone.iter().chain(stands.then_some(&from)).filter_map(|date| self.before(*date)).collect();
        cut.extend(&gone);
        cut.sort_unstable();
        cut.dedup();
        for date in cut {
            self.close(date, now);
        }
        for date in gone {
            self.standing.remove(&date);
        }
        if stands {
            self.standing.insert(from, Standing { change: *change, known_from: now });
        }
    }

    /// The last date before another from which on a change stands.
    fn before(&self, date: Option<i64>) -> Option<Option<i64>> {
        self.standing.range(..date).next_back().map(|(before, _)| *before)
    }

    /// Notes for how long a change was known to stand as it does; what it does from now on is another
    /// matter.
    fn close(&mut self, date: Option<i64>, now: i64) {
        let interval = self.interval(date, Some(now));
        self.found.extend(interval);
        if let Some(standing) = self.standing.get_mut(&date) {
            standing.known_from = now;
        }
    }

    /// What a change stands for until now; none where that is nothing.
    fn interval(&self, date: Option<i64>, known_to: Option<i64>) -> Option<Interval> {
        let Standing { change, known_from } = self.standing.get(&date)?;
        let row = change.row.filter(|_| !change.ends && known_to != Some(*known_from))?;
        let next = self.standing.range((Excluded(date), Unbounded)).next();
        let valid_to = next.and_then(|(next, _)| *next);
        Some(Interval { row, valid_from: date, valid_to, known_from: *known_from, known_to })
    }

    /// What is known at the end goes on.
    fn end(mut self) -> Vec<Interval> {
        let open: Vec<_> = self.standing.keys().filter_map(|date| self.interval(*date, None)).collect();
        self.found.extend(open);
        self.found.sort_by_key(|interval| interval.row);
        self.found
    }
}

/// `intervals(effective, arrived, position, op, partition, truncations)`: for each change of a key the
/// list of its intervals.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Intervals(Signature);

impl Default for Intervals {
    fn default() -> Self {
        Self(Signature::any(6, Volatility::Immutable))
    }
}

impl WindowUDFImpl for Intervals {
    fn name(&self) -> &str {
        "intervals"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Evaluator { item: item() }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Field::new(args.name(), DataType::List(item()), true).into())
    }
}

/// An interval as one of a list.
fn item() -> FieldRef {
    let bounds = ["valid_from", "valid_to", "known_from", "known_to"];
    let fields: Fields = bounds.map(|name| Field::new(name, DataType::Int64, true)).to_vec().into();
    Arc::new(Field::new_list_field(DataType::Struct(fields), true))
}

#[derive(Debug)]
struct Evaluator {
    item: FieldRef,
}

impl PartitionEvaluator for Evaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let (effective, arrived) = (as_int64_array(&values[0])?, as_int64_array(&values[1])?);
        let (positions, ops) = (as_string_array(&values[2])?, as_string_array(&values[3])?);
        let partitions = as_int32_array(&values[4])?;
        let truncations = as_list_array(&values[5])?;
        let change = |row| Change {
            effective: effective.is_valid(row).then(|| effective.value(row)),
            position: positions.value(row),
            arrived: arrived.value(row),
            ends: ops.value(row) == Op::Delete.word(),
            row: Some(row),
        };
        let mut changes: Vec<_> = (0..rows).map(change).collect();
        // The list is the same for all.
        let truncations = (rows > 0 && truncations.is_valid(0)).then(|| truncations.value(0));
        if let Some(truncations) = &truncations {
            let truncations = Truncations::of(truncations)?;
            let has_before = |(partition, position): &(i32, &str)| {
                (0..rows).any(|row| partitions.value(row) == *partition && positions.value(row) < *position)
            };
            changes.extend(truncations.iter().filter(|(place, _)| has_before(place)).map(|(_, change)| change));
        }
        let found = intervals(changes);
        let mut lengths = vec![0; rows];
        found.iter().for_each(|interval| lengths[interval.row] += 1);
        let bound = |of: &dyn Fn(&Interval) -> Option<i64>| -> ArrayRef {
            Arc::new(found.iter().map(of).collect::<Int64Array>())
        };
        let bounds = vec![
            bound(&|interval| interval.valid_from),
            bound(&|interval| interval.valid_to),
            bound(&|interval| Some(interval.known_from)),
            bound(&|interval| interval.known_to),
        ];
        let DataType::Struct(fields) = self.item.data_type() else {
            return datafusion::common::internal_err!("an interval is a struct");
        };
        let bounds: ArrayRef = Arc::new(StructArray::try_new(fields.clone(), bounds, None)?);
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(self.item.clone(), offsets, bounds, None)?))
    }
}

/// The truncations of a table.
struct Truncations<'a> {
    partition: &'a Int32Array,
    position: &'a StringArray,
    effective: &'a Int64Array,
    arrived: &'a Int64Array,
}

impl<'a> Truncations<'a> {
    fn of(list: &'a ArrayRef) -> Result<Self> {
        let list = as_struct_array(list)?;
        Ok(Self {
            partition: as_int32_array(list.column(0))?,
            position: as_string_array(list.column(1))?,
            effective: as_int64_array(list.column(2))?,
            arrived: as_int64_array(list.column(3))?,
        })
    }

    /// Each with its partition and position, as a change of every key.
    fn iter(&self) -> impl Iterator<Item = ((i32, &'a str), Change<'a>)> + '_ {
        (0..self.position.len()).map(|row| {
            let position = self.position.value(row);
            let effective = self.effective.is_valid(row).then(|| self.effective.value(row));
            let change = Change { effective, position, arrived: self.arrived.value(row), ends: true, row: None };
            ((self.partition.value(row), position), change)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A change, by numbers: (effective, position, arrived, ends).
    type Told = (Option<i64>, usize, i64, bool);

    /// The row that stands at a time, as it is known at another, by looking at every change.
    fn standing(changes: &[Change<'_>], day: i64, known: i64) -> Option<&'static str> {
        let known: Vec<_> = changes
            .iter()
            .filter(|change| change.arrived <= known && change.effective.is_none_or(|effective| effective <= day))
            .collect();
        let is_ended = |change: &Change<'_>| known.iter().any(|other| other.ends && other.position > change.position);
        let latest =
            known.iter().filter(|change| !is_ended(change)).max_by_key(|change| (change.effective, change.position));
        latest.filter(|change| !change.ends).map(|change| POSITIONS[change.position.parse::<usize>().unwrap()])
    }

    const POSITIONS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

    fn changes(told: &[Told]) -> Vec<Change<'static>> {
        let change = |(row, (effective, position, arrived, ends)): (usize, &Told)| Change {
            effective: *effective,
            position: POSITIONS[*position],
            arrived: *arrived,
            ends: *ends,
            row: Some(row),
        };
        told.iter().enumerate().map(change).collect()
    }

    fn told() -> impl Strategy<Value = Vec<Told>> {
        let one = |position: usize| {
            (prop::option::weighted(0.9, 0_i64..6), Just(position), 0_i64..6, prop::bool::weighted(0.25))
        };
        let all = (0..POSITIONS.len()).prop_flat_map(move |count| (0..count).map(one).collect::<Vec<_>>());
        // Some come again later.
        (all, prop::collection::vec((any::<prop::sample::Index>(), 0_i64..6), 0..3)).prop_map(|(mut all, again)| {
            for (which, later) in again.into_iter().filter(|_| !all.is_empty()).collect::<Vec<_>>() {
                let (effective, position, arrived, ends) = *which.get(&all);
                all.push((effective, position, arrived + later, ends));
            }
            all
        })
    }

    proptest! {
        #[test]
        fn at_each_time_and_as_known_at_each_other_one_row_stands(told in told()) {
            let changes = changes(&told);
            let found = intervals(changes.clone());
            for (day, known) in (-1..7).flat_map(|day| (-1..13).map(move |known| (day, known))) {
                let stands = |interval: &&Interval| {
                    interval.valid_from.is_none_or(|from| from <= day)
                        && interval.valid_to.is_none_or(|to| to > day)
                        && interval.known_from <= known
                        && interval.known_to.is_none_or(|to| to > known)
                };
                let standing_rows: Vec<_> = found.iter().filter(stands).collect();
                prop_assert!(standing_rows.len() <= 1, "{standing_rows:?}");
                let row = standing_rows.first().map(|interval| changes[interval.row].position);
                prop_assert_eq!(row, standing(&changes, day, known), "at {} as known at {}", day, known);
            }
        }
    }

    #[test]
    fn a_late_correction_splits_what_was_known() {
        let found =
            intervals(changes(&[(Some(10), 0, 100, false), (Some(20), 1, 200, false), (Some(15), 2, 300, false)]));
        let interval = |row, valid_from, valid_to, known_from, known_to| Interval {
            row,
            valid_from: Some(valid_from),
            valid_to,
            known_from,
            known_to,
        };
        let expected = [
            interval(0, 10, None, 100, Some(200)),
            interval(0, 10, Some(20), 200, Some(300)),
            interval(0, 10, Some(15), 300, None),
            interval(1, 20, None, 200, None),
            interval(2, 15, Some(20), 300, None),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_delete_ends_what_was_to_begin_later() {
        let found =
            intervals(changes(&[(Some(10), 0, 100, false), (Some(50), 1, 100, false), (Some(20), 2, 200, true)]));
        let last: Vec<_> = found.iter().filter(|interval| interval.known_to.is_none()).collect();
        assert_eq!(last.len(), 1);
        assert_eq!((last[0].row, last[0].valid_to), (0, Some(20)));
    }
}
