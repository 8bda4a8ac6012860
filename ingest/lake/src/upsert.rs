//! A folded batch into a table that has one row per key: what was, is deleted by vectors; what is,
//! comes in one new file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{interleave, interleave_record_batch};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use deltalake::kernel::Action;
use roaring::RoaringTreemap;

use crate::compact;
use crate::error::{BoxError, LakeError};
use crate::fold::{self, Folded, Outcome, Pending, Source};
use crate::index::KeyIndex;
use crate::keys::KeyMap;
use crate::search::{self, Found, Present, Wanted};
use crate::table::Table;
use crate::vectors::{self, DataFile, VectorCache, Written};

/// How many rows are copied together at a time for the file that they are written to.
const GATHERED_ROWS: usize = 16 * 1024;

/// What a batch comes to, before anything is written.
pub(crate) struct Plan {
    /// What comes: one row each.
    pub rows: Vec<Outcome>,
    /// The columns that some of them have from the table, and where in it.
    columns: Vec<Field>,
    present: KeyMap<Present>,
    /// The rows that go, by file.
    hits: Vec<(DataFile, RoaringTreemap)>,
    /// For each partition, how many accepted events count no more.
    pub folded: BTreeMap<i32, Counted>,
    /// Changes that leave a column as it was in a row that the table does not have.
    pub unresolved: Vec<Outcome>,
}

/// How many accepted events count no more, and how many of those came too late to ever do so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub folded: u64,
    pub late: u64,
}

/// Finds out what the changes come to in the table as it is now.
pub(crate) async fn plan(
    table: &Table,
    cache: &mut VectorCache,
    index: &mut Option<KeyIndex>,
    changes: &Pending,
    key: &[String],
) -> Result<Plan, LakeError> {
    let failed = |source| LakeError::table("search", &table.name, source);
    let folded = fold::fold(changes);
    let files = cache.files(table.delta()).await.map_err(failed)?;
    let columns = wanted_columns(changes, &folded);
    let is_of_table = |outcome: &&Outcome| outcome.elsewhere.iter().any(|(_, source)| *source == Source::Table);
    let valued = folded.outcomes.iter().filter(is_of_table).map(|outcome| changes.key(outcome.row)).collect();
    let change = |outcome: &Outcome| (changes.key(outcome.row), changes.position(outcome.row));
    let mut keys: Vec<_> = folded.outcomes.iter().map(change).collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    let wanted = Wanted { key, keys, truncated: &folded.truncated, columns: &columns, valued: &valued };
    let by_index = match index {
        Some(index) if folded.truncated.is_empty() => Some(index.find(table.delta(), &files, &wanted).await),
        _ => None,
    };
    let found = match by_index {
        Some(Ok(found)) => found,
        without => {
            if let Some(Err(error)) = without {
                // The table itself has the answer as well.
                tracing::warn!(%error, table = %table.name, "the key index cannot be used; it is made anew, and the table is searched meanwhile");
                *index = index.take().and_then(KeyIndex::anew);
            }
            search::search(table.delta(), files, &wanted).await.map_err(failed)?
        }
    };
    Ok(decide(changes, folded, found, columns))
}

/// The columns that some change leaves as they are in the table.
fn wanted_columns(changes: &Pending, folded: &Folded) -> Vec<Field> {
    let of_table = folded.outcomes.iter().flat_map(|outcome| &outcome.elsewhere);
    let columns: BTreeSet<usize> =
        of_table.filter(|(_, source)| *source == Source::Table).map(|(column, _)| *column).collect();
    let Some(schema) = changes.batches().next().map(RecordBatch::schema) else { return Vec::new() };
    columns.into_iter().map(|column| schema.field(column).clone()).collect()
}

fn decide(changes: &Pending, folded: Folded, found: Found, columns: Vec<Field>) -> Plan {
    let mut counts: BTreeMap<i32, Counted> = BTreeMap::new();
    let mut fold_one = |partition: i32, is_late: bool| {
        let counted = counts.entry(partition).or_default();
        counted.folded += 1;
        counted.late += u64::from(is_late);
    };
    found.partitions.iter().for_each(|partition| fold_one(*partition, false));
    let mut superseded = folded.superseded;
    let (mut rows, mut unresolved) = (Vec::with_capacity(folded.outcomes.len()), Vec::new());
    for outcome in folded.outcomes {
        let before = found.present.get(&changes.key(outcome.row));
        let is_known = |source: &Source| match source {
            Source::Row(_) => true,
            Source::Table => before.is_some(),
            Source::Nowhere => false,
        };
        let is_late = before.is_some_and(|before| before.is_newer);
        if is_late {
            // What it was the last of has come too late as well.
            superseded[outcome.others.clone()].iter_mut().for_each(|other| other.is_late = true);
        }
        if is_late || outcome.delete {
            fold_one(changes.partition(outcome.row), is_late);
        } else if outcome.elsewhere.iter().all(|(_, source)| is_known(source)) {
            rows.push(outcome);
        } else {
            unresolved.push(outcome);
        }
    }
    superseded.iter().for_each(|other| fold_one(changes.partition(other.row), other.is_late));
    Plan { rows, columns, present: found.present, hits: found.hits, folded: counts, unresolved }
}

impl Plan {
    /// Some of the changes as rows, each column from wherever its value is.
    fn gather(&self, changes: &Pending, outcomes: &[Outcome]) -> Result<RecordBatch, ArrowError> {
        let places: Vec<_> = outcomes.iter().map(|outcome| changes.place(outcome.row)).collect();
        let batches: Vec<_> = changes.batches().collect();
        if outcomes.iter().all(|outcome| outcome.elsewhere.is_empty()) {
            return interleave_record_batch(&batches, &places);
        }
        let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), |batch| batch.schema());
        let mut gathered: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let in_table = self.columns.iter().position(|column| column.name() == field.name());
            // The batches of changes come first, then those that the table's rows are in.
            let mut parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
            let (mut places, mut of_table) = (places.clone(), HashMap::new());
            for (outcome, place) in outcomes.iter().zip(&mut places) {
                let elsewhere = outcome.elsewhere.iter().find(|(column, _)| *column == index);
                match (elsewhere, in_table, self.present.get(&changes.key(outcome.row))) {
                    (Some((_, Source::Row(row))), _, _) => *place = changes.place(*row),
                    (Some((_, Source::Table)), Some(column), Some(Present { values: (batch, row), .. })) => {
                        let part = *of_table.entry(Arc::as_ptr(batch)).or_insert_with(|| {
                            parts.push(batch.column(column).as_ref());
                            parts.len() - 1
                        });
                        *place = (part, *row as usize);
                    }
                    _ => {}
                }
            }
            gathered.push(interleave(&parts, &places)?);
        }
        RecordBatch::try_new(schema, gathered)
    }
}

/// The changes as they came that nobody can complete.
pub(crate) fn unresolved(changes: &Pending, plan: &Plan) -> Result<RecordBatch, ArrowError> {
    let places: Vec<_> = plan.unresolved.iter().map(|outcome| changes.place(outcome.row)).collect();
    interleave_record_batch(&changes.batches().collect::<Vec<_>>(), &places)
}

/// Writes what a plan says, once; returns the actions that put it in force, and the vectors among them.
pub(crate) async fn write(
    table: &Table,
    changes: &Pending,
    plan: &mut Plan,
) -> Result<(Vec<Action>, Vec<Written>), LakeError> {
    let (delta, hits) = (table.delta().clone(), std::mem::take(&mut plan.hits));
    // Two cores make the two at the same time, and the disk takes one while the other is made.
    let deleting = tokio::spawn(async move { vectors::delete_rows(&delta, &hits).await });
    let deleted = async {
        let deleted = deleting.await.map_err(BoxError::from).flatten();
        deleted.map_err(|source| LakeError::table("write deletion vectors of", &table.name, source))
    };
    let (mut actions, (mut deleted, vectors)) = futures::try_join!(write_rows(table, changes, plan), deleted)?;
    // The index has followed its rows to each of these files, or there is none.
    deleted.iter_mut().for_each(|action| {
        if let Action::Add(add) = action {
            compact::forget_origin(add)
        }
    });
    actions.extend(deleted);
    Ok((actions, vectors))
}

async fn write_rows(table: &Table, changes: &Pending, plan: &Plan) -> Result<Vec<Action>, LakeError> {
    if plan.rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut file = table.writer()?;
    for outcomes in plan.rows.chunks(GATHERED_ROWS) {
        let rows = plan.gather(changes, outcomes);
        let rows = rows.map_err(|source| LakeError::Batch { dataset: table.name.dataset.clone(), source })?;
        table.append(&mut file, &rows).await?;
    }
    Ok(table.close(file).await?.into_iter().map(Action::Add).collect())
}
