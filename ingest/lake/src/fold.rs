//! A batch of changes to what is left of it: one outcome per key.
//!
//! What passes through: the accepted changes of an upsert dataset since its last commit.
//!
//! Guaranteed: of several changes of a key the one with the latest source position counts, in
//! whatever order they come and however often. A truncation ends everything before it in its
//! partition. A column that a change leaves unchanged is taken from the change before it; where
//! there is none in the batch, the outcome says so, and the table has to be asked.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, Int32Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::error::ArrowError;
use ruam_event::change::Op;

use crate::keys::{self, Key, KeyMap};

/// Changes in the order of the log, as the normaliser makes them.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    /// One row per change.
    pub rows: RecordBatch,
    /// What each does.
    pub ops: Vec<Op>,
    /// For each column, which changes leave it as it was.
    pub unchanged: Vec<Option<BooleanBuffer>>,
}

/// The changes that wait for one commit, in the batches in which they came: nothing of them is copied
/// before it is known what stays. Their rows are counted through.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    batches: Vec<Changes>,
    origins: Vec<Origins>,
    /// The row that each batch begins with.
    starts: Vec<usize>,
    keys: Vec<Key>,
}

impl Pending {
    pub(crate) fn push(&mut self, changes: Changes, key: &[String]) -> Result<(), ArrowError> {
        self.origins.push(Origins::of(&changes.rows)?);
        self.starts.push(self.keys.len());
        self.keys.extend(keys::keys(&changes.rows, key)?);
        self.batches.push(changes);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Each batch as it came.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        self.batches.iter().map(|changes| &changes.rows)
    }

    /// In which batch a row is, and which of it.
    pub(crate) fn place(&self, row: usize) -> (usize, usize) {
        let batch = self.starts.partition_point(|start| *start <= row) - 1;
        (batch, row - self.starts[batch])
    }

    pub(crate) fn key(&self, row: usize) -> Key {
        self.keys[row]
    }

    pub(crate) fn position(&self, row: usize) -> &str {
        let (batch, row) = self.place(row);
        self.origins[batch].position.value(row)
    }

    pub(crate) fn partition(&self, row: usize) -> i32 {
        let (batch, row) = self.place(row);
        self.origins[batch].partition.value(row)
    }

    fn op(&self, row: usize) -> Op {
        let (batch, row) = self.place(row);
        self.batches[batch].ops[row]
    }

    fn is_unchanged(&self, column: usize, row: usize) -> bool {
        let (batch, row) = self.place(row);
        self.batches[batch].unchanged[column].as_ref().is_some_and(|mask| mask.value(row))
    }
}

/// What is left of a batch.
#[derive(Debug)]
pub(crate) struct Folded {
    /// One per key, in the order of the rows that they come from.
    pub outcomes: Vec<Outcome>,
    /// Rows that count no more.
    pub superseded: Vec<Superseded>,
    /// For each partition that was truncated: the position, up to which its rows go.
    pub truncated: BTreeMap<i32, String>,
}

/// A change that counts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superseded {
    pub row: usize,
    /// Whether it came after the one that counts, so that it never had an effect.
    pub is_late: bool,
}

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The row of its last change.
    pub row: usize,
    /// Whether the key has no row any more.
    pub delete: bool,
    /// For each column whose value is not in `row`: where it is.
    pub elsewhere: Vec<(usize, Source)>,
    /// The key's other changes, among those that are superseded.
    pub others: Range<usize>,
}

/// Where the value of an unchanged column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In an earlier row of the batch.
    Row(usize),
    /// In the table, if it has the key.
    Table,
    /// Nowhere: the row was deleted before, so that nothing of it can be unchanged.
    Nowhere,
}

/// The columns that the fold and the table's search need of a batch.
#[derive(Debug)]
pub(crate) struct Origins {
    pub partition: Int32Array,
    pub position: StringArray,
}

impl Origins {
    pub(crate) fn of(rows: &RecordBatch) -> Result<Self, ArrowError> {
        let partition: &Int32Array = column(rows, "_partition")?;
        let position: &StringArray = column(rows, "_position")?;
        Ok(Self { partition: partition.clone(), position: position.clone() })
    }
}

/// A column of a batch under its type.
pub(crate) fn column<'a, T: Array + 'static>(rows: &'a RecordBatch, name: &str) -> Result<&'a T, ArrowError> {
    rows.column_by_name(name)
        .and_then(|array| array.as_any().downcast_ref::<T>())
        .ok_or_else(|| ArrowError::SchemaError(format!("column `{name}` is missing or of another type")))
}

/// No change follows.
const END: u32 = u32::MAX;

pub(crate) fn fold(changes: &Pending) -> Folded {
    let truncated = truncations(changes);
    let mut superseded = Vec::new();
    let mut is_late = vec![false; changes.keys.len()];
    // For each key a list of its changes from the latest to the earliest, linked by `earlier`.
    let mut latest: KeyMap<u32> = KeyMap::with_capacity_and_hasher(changes.keys.len(), Default::default());
    let mut earlier = vec![END; changes.keys.len()];
    for ((batch, origins), start) in changes.batches.iter().zip(&changes.origins).zip(&changes.starts) {
        for (index, op) in batch.ops.iter().enumerate() {
            let row = start + index;
            let (partition, position) = (origins.partition.value(index), origins.position.value(index));
            let is_truncated = truncated.get(&partition).is_some_and(|until| position <= until.as_str());
            if *op == Op::Truncate || is_truncated {
                superseded.push(Superseded { row, is_late: false });
                continue;
            }
            let head = latest.entry(changes.key(row)).or_insert(END);
            let (mut before, mut after) = (END, *head);
            while after != END && changes.position(after as usize) > position {
                (before, after) = (after, earlier[after as usize]);
            }
            if after != END && changes.position(after as usize) == position {
                // One event may leave a key and take it again, spelled anew: then it is taken.
                if !op.leaves_row() || changes.op(after as usize).leaves_row() {
                    superseded.push(Superseded { row, is_late: true });
                    continue;
                }
                superseded.push(Superseded { row: after as usize, is_late: false });
                after = earlier[after as usize];
            }
            earlier[row] = after;
            is_late[row] = before != END;
            match before {
                END => *head = row as u32,
                before => earlier[before as usize] = row as u32,
            }
        }
    }
    let mut outcomes = Vec::with_capacity(latest.len());
    for head in latest.into_values() {
        let was_truncated = !truncated.is_empty() && truncated.contains_key(&changes.partition(head as usize));
        let (first, mut next) = (superseded.len(), earlier[head as usize]);
        while next != END {
            superseded.push(Superseded { row: next as usize, is_late: is_late[next as usize] });
            next = earlier[next as usize];
        }
        let others = first..superseded.len();
        outcomes.push(Outcome { others, ..outcome(changes, &earlier, head as usize, was_truncated) });
    }
    outcomes.sort_unstable_by_key(|outcome| outcome.row);
    Folded { outcomes, superseded, truncated }
}

fn truncations(changes: &Pending) -> BTreeMap<i32, String> {
    let mut truncated = BTreeMap::new();
    for (batch, origins) in changes.batches.iter().zip(&changes.origins) {
        for (row, _) in batch.ops.iter().enumerate().filter(|(_, op)| **op == Op::Truncate) {
            let until = truncated.entry(origins.partition.value(row)).or_insert_with(String::new);
            let position = origins.position.value(row);
            if position > until.as_str() {
                position.clone_into(until);
            }
        }
    }
    truncated
}

fn outcome(changes: &Pending, earlier: &[u32], row: usize, was_truncated: bool) -> Outcome {
    let (batch, index) = changes.place(row);
    let batch = &changes.batches[batch];
    if batch.ops[index] == Op::Delete {
        return Outcome { row, delete: true, elsewhere: Vec::new(), others: 0..0 };
    }
    let is_unchanged = |mask: &Option<BooleanBuffer>| mask.as_ref().is_some_and(|mask| mask.value(index));
    let mut elsewhere = Vec::new();
    for (column, _) in batch.unchanged.iter().enumerate().filter(|(_, mask)| is_unchanged(mask)) {
        let leaves_row = |row: u32| changes.op(row as usize).leaves_row();
        let mut next = earlier[row];
        while next != END && leaves_row(next) && changes.is_unchanged(column, next as usize) {
            next = earlier[next as usize];
        }
        let source = match next {
            END if was_truncated => Source::Nowhere,
            END => Source::Table,
            next if leaves_row(next) => Source::Row(next as usize),
            _ => Source::Nowhere,
        };
        elsewhere.push((column, source));
    }
    Outcome { row, delete: false, elsewhere, others: 0..0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use proptest::prelude::*;
    use std::sync::Arc;

    /// A change of one of a few keys: what it does, and its value, which it may leave unchanged.
    #[derive(Clone, Debug)]
    struct Event {
        position: u32,
        key: i64,
        op: Op,
        value: Option<i64>,
        unchanged: bool,
    }

    fn changes(events: &[Event]) -> Changes {
        let schema = Schema::new(vec![
            Field::new("key", DataType::Int64, true),
            Field::new("value", DataType::Int64, true),
            Field::new("_partition", DataType::Int32, false),
            Field::new("_position", DataType::Utf8, false),
        ]);
        let position = |event: &Event| format!("{:020}.{:010}", event.position, 0);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter(events.iter().map(|event| (event.op != Op::Truncate).then_some(event.key)))),
            Arc::new(Int64Array::from_iter(events.iter().map(|event| event.value.filter(|_| !event.unchanged)))),
            Arc::new(Int32Array::from_iter_values(events.iter().map(|_| 0))),
            Arc::new(StringArray::from_iter_values(events.iter().map(position))),
        ];
        let unchanged: BooleanBuffer = events.iter().map(|event| event.unchanged).collect();
        Changes {
            rows: RecordBatch::try_new(Arc::new(schema), columns).unwrap(),
            ops: events.iter().map(|event| event.op).collect(),
            unchanged: vec![None, Some(unchanged), None, None],
        }
    }

    /// What the fold leaves: for each key, gone or its value and where that is.
    fn folded(events: &[Event]) -> BTreeMap<i64, Result<Option<i64>, Source>> {
        let changes = changes(events);
        // In two batches, as a writer has them.
        let mut pending = Pending::default();
        let (key, half) = (["key".to_owned()], events.len() / 2);
        for (start, len) in [(0, half), (half, events.len() - half)] {
            let part = Changes {
                rows: changes.rows.slice(start, len),
                ops: changes.ops[start..start + len].to_vec(),
                unchanged: changes.unchanged.iter().map(|mask| Some(mask.as_ref()?.slice(start, len))).collect(),
            };
            pending.push(part, &key).unwrap();
        }
        let folded = fold(&pending);
        assert_eq!(folded.outcomes.len() + folded.superseded.len(), events.len(), "each event is one or the other");
        let keys: &Int64Array = column(&changes.rows, "key").unwrap();
        let values: &Int64Array = column(&changes.rows, "value").unwrap();
        let value = |row: usize| values.is_valid(row).then(|| values.value(row));
        let outcome = |outcome: Outcome| {
            let result = match (outcome.delete, outcome.elsewhere.first()) {
                (true, _) => Ok(None),
                (false, None) => Ok(value(outcome.row)),
                (false, Some((1, Source::Row(row)))) => Ok(value(*row)),
                (false, Some((_, source))) => Err(*source),
            };
            (keys.value(outcome.row), result)
        };
        folded.outcomes.into_iter().map(outcome).collect()
    }

    /// The same, by doing one event after another in the order of the source.
    fn applied(events: &[Event]) -> BTreeMap<i64, Result<Option<i64>, Source>> {
        let mut events = events.to_vec();
        events.sort_by_key(|event| event.position);
        let truncated = events.iter().any(|event| event.op == Op::Truncate);
        let mut state: BTreeMap<i64, Result<Option<i64>, Source>> = BTreeMap::new();
        let mut gone: BTreeMap<i64, bool> = BTreeMap::new();
        for event in events {
            let was_gone = gone.insert(event.key, event.op == Op::Delete).unwrap_or(truncated);
            match event.op {
                Op::Truncate => {
                    state.clear();
                    gone.clear();
                }
                Op::Delete => drop(state.insert(event.key, Ok(None))),
                _ if !event.unchanged => drop(state.insert(event.key, Ok(event.value))),
                _ if was_gone => drop(state.insert(event.key, Err(Source::Nowhere))),
                _ => {
                    state.entry(event.key).or_insert(Err(Source::Table));
                }
            }
        }
        state
    }

    fn event(position: u32) -> impl Strategy<Value = Event> {
        let op = prop_oneof![
            6 => Just((Op::Insert, false)),
            4 => Just((Op::Update, false)),
            3 => Just((Op::Update, true)),
            3 => Just((Op::Delete, false)),
            1 => Just((Op::Truncate, false)),
        ];
        (0_i64..4, op, any::<i64>()).prop_map(move |(key, (op, unchanged), value)| {
            let value = op.leaves_row().then_some(value);
            Event { position, key, op, value, unchanged }
        })
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        (0_u32..14).prop_flat_map(|count| (0..count).map(event).collect::<Vec<_>>())
    }

    #[test]
    fn a_key_that_is_only_spelled_anew_stays() {
        let event = |op, value| Event { position: 7, key: 1, op, value, unchanged: false };
        let (delete, update) = (event(Op::Delete, None), event(Op::Update, Some(5)));
        for events in [[delete.clone(), update.clone()], [update, delete]] {
            assert_eq!(folded(&events), BTreeMap::from([(1, Ok(Some(5)))]));
        }
    }

    proptest! {
        #[test]
        fn any_order_and_repetition_gives_the_same(
            (ordered, mixed) in events().prop_flat_map(|events| {
                let repeats = prop::collection::vec(prop::sample::select((0..events.len().max(1)).collect::<Vec<_>>()), 0..6);
                (Just(events), repeats)
            }).prop_flat_map(|(events, repeats)| {
                let again = repeats.into_iter().filter_map(|index| events.get(index).cloned()).collect::<Vec<_>>();
                let mixed = events.iter().cloned().chain(again).collect::<Vec<_>>();
                (Just(events), Just(mixed).prop_shuffle())
            })
        ) {
            let expected = applied(&ordered);
            prop_assert_eq!(&folded(&ordered), &expected);
            prop_assert_eq!(&folded(&mixed), &expected);
        }
    }
}
