//! A folded batch into a table that has one row per key: what was, is deleted by vectors; what is,
//! comes in one new file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat, concat_batches, take, take_record_batch};
use arrow::datatypes::Field;
use arrow::error::ArrowError;
use deltalake::kernel::Action;
use roaring::RoaringTreemap;

use crate::error::LakeError;
use crate::fold::{self, Changes, Folded, Origins, Outcome, Source};
use crate::index::KeyIndex;
use crate::search::{self, Found, Wanted};
use crate::table::Table;
use crate::vectors::{self, DataFile, VectorCache};

/// What a batch comes to, before anything is written.
pub(crate) struct Plan {
    /// The rows that come.
    pub rows: RecordBatch,
    /// The rows that go, by file.
    hits: Vec<(DataFile, RoaringTreemap)>,
    /// For each partition, how many accepted events count no more.
    pub folded: BTreeMap<i32, u64>,
    /// Changes that leave a column as it was in a row that the table does not have.
    pub unresolved: RecordBatch,
}

/// Joins the changes that wait into one batch.
pub(crate) fn join(pending: &[Changes]) -> Result<Changes, ArrowError> {
    let Some(first) = pending.first() else { return Err(ArrowError::ComputeError("no changes to join".to_owned())) };
    let rows = concat_batches(&first.rows.schema(), pending.iter().map(|changes| &changes.rows))?;
    let ops = pending.iter().flat_map(|changes| changes.ops.iter().copied()).collect();
    let unchanged = (0..rows.num_columns()).map(|column| join_masks(pending, column)).collect();
    Ok(Changes { rows, ops, unchanged })
}

fn join_masks(pending: &[Changes], column: usize) -> Option<arrow::buffer::BooleanBuffer> {
    if pending.iter().all(|changes| changes.unchanged[column].is_none()) {
        return None;
    }
    let mut bits = arrow::array::BooleanBufferBuilder::new(0);
    for changes in pending {
        match &changes.unchanged[column] {
            Some(mask) => bits.append_buffer(mask),
            None => bits.append_n(changes.ops.len(), false),
        }
    }
    Some(bits.finish())
}

/// Finds out what the changes come to in the table as it is now.
pub(crate) async fn plan(
    table: &Table,
    cache: &mut VectorCache,
    index: &mut Option<KeyIndex>,
    changes: &Changes,
    key: &[String],
) -> Result<Plan, LakeError> {
    let batch = |source| LakeError::Batch { dataset: table.name.dataset.clone(), source };
    let failed = |source| LakeError::table("search", &table.name, source);
    let folded = fold::fold(changes, key).map_err(batch)?;
    let files = cache.files(table.delta()).await.map_err(failed)?;
    let (_, keys) = fold::keys(&changes.rows, key).map_err(batch)?;
    let positions = Origins::of(&changes.rows).map_err(batch)?.position;
    let columns = wanted_columns(changes, &folded);
    let wanted = Wanted {
        key,
        keys: folded
            .outcomes
            .iter()
            .map(|outcome| (keys.row(outcome.row).data(), positions.value(outcome.row)))
            .collect(),
        truncated: &folded.truncated,
        columns: &columns,
    };
    let by_index = match index {
        Some(index) if folded.truncated.is_empty() => Some(index.find(table.delta(), &files, &wanted).await),
        _ => None,
    };
    let found = match by_index {
        Some(Ok(found)) => found,
        without => {
            if let Some(Err(error)) = without {
                // The table itself has the answer as well; the index is opened again with the writer.
                tracing::warn!(%error, table = %table.name, "the key index cannot be used; the table is searched");
                *index = None;
            }
            search::search(table.delta(), files, &wanted).await.map_err(failed)?
        }
    };
    let present = |row: usize| found.present.get(keys.row(row).data());
    decide(changes, &folded, &found, &columns, present).map_err(batch)
}

/// The columns that some change leaves as they are in the table.
fn wanted_columns(changes: &Changes, folded: &Folded) -> Vec<Field> {
    let of_table = |outcome: &Outcome| {
        outcome
            .elsewhere
            .iter()
            .filter(|(_, source)| *source == Source::Table)
            .map(|(column, _)| *column)
            .collect::<Vec<_>>()
    };
    let columns: std::collections::BTreeSet<usize> = folded.outcomes.iter().flat_map(of_table).collect();
    columns.into_iter().map(|column| changes.rows.schema().field(column).clone()).collect()
}

fn decide<'a>(
    changes: &Changes,
    folded: &Folded,
    found: &Found,
    columns: &[Field],
    present: impl Fn(usize) -> Option<&'a search::Present>,
) -> Result<Plan, ArrowError> {
    let partitions = Origins::of(&changes.rows)?.partition;
    let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
    let mut fold_one = |partition: i32| *counts.entry(partition).or_default() += 1;
    folded.superseded.iter().for_each(|row| fold_one(partitions.value(*row)));
    found.partitions.iter().for_each(|partition| fold_one(*partition));
    let (mut staying, mut unresolved) = (Vec::new(), Vec::new());
    for outcome in &folded.outcomes {
        let before = present(outcome.row);
        let is_known = |source: &Source| match source {
            Source::Row(_) => true,
            Source::Table => before.is_some(),
            Source::Nowhere => false,
        };
        if before.is_some_and(|before| before.is_newer) || outcome.delete {
            fold_one(partitions.value(outcome.row));
        } else if outcome.elsewhere.iter().all(|(_, source)| is_known(source)) {
            staying.push(outcome);
        } else {
            unresolved.push(outcome.row as u32);
        }
    }
    Ok(Plan {
        rows: gather(changes, &staying, columns, present)?,
        hits: found.hits.clone(),
        folded: counts,
        unresolved: take_record_batch(&changes.rows, &UInt32Array::from(unresolved))?,
    })
}

/// The rows that come, each column from wherever its value is.
fn gather<'a>(
    changes: &Changes,
    staying: &[&Outcome],
    columns: &[Field],
    present: impl Fn(usize) -> Option<&'a search::Present>,
) -> Result<RecordBatch, ArrowError> {
    let own = UInt32Array::from_iter_values(staying.iter().map(|outcome| outcome.row as u32));
    if staying.iter().all(|outcome| outcome.elsewhere.is_empty()) {
        return take_record_batch(&changes.rows, &own);
    }
    let schema = changes.rows.schema();
    let mut gathered: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (index, column) in changes.rows.columns().iter().enumerate() {
        let elsewhere = |outcome: &Outcome| {
            outcome.elsewhere.iter().find(|(column, _)| *column == index).map(|(_, source)| *source)
        };
        let in_table = columns.iter().position(|field| field.name() == schema.field(index).name());
        // The batch's own rows come first, then those of the batches that the table's rows are in.
        let (mut parts, mut offsets, mut len) = (vec![column.clone()], HashMap::new(), column.len());
        let mut indices = Vec::with_capacity(staying.len());
        for outcome in staying {
            indices.push(match (elsewhere(outcome), in_table, present(outcome.row)) {
                (Some(Source::Row(row)), _, _) => row as u32,
                (Some(Source::Table), Some(column), Some(before)) => {
                    let (batch, row) = &before.values;
                    let offset = *offsets.entry(Arc::as_ptr(batch)).or_insert_with(|| {
                        let offset = len;
                        parts.push(batch.column(column).clone());
                        len += batch.num_rows();
                        offset
                    });
                    offset as u32 + row
                }
                _ => outcome.row as u32,
            });
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        let all = if let [only] = parts[..] { only.slice(0, only.len()) } else { concat(&parts)? };
        gathered.push(take(&all, &UInt32Array::from(indices), None)?);
    }
    RecordBatch::try_new(schema, gathered)
}

/// Writes what a plan says; returns the actions that put it in force.
pub(crate) async fn write(table: &Table, plan: &Plan) -> Result<Vec<Action>, LakeError> {
    let mut actions = Vec::new();
    if plan.rows.num_rows() > 0 {
        actions.extend(table.write_file(std::slice::from_ref(&plan.rows)).await?);
    }
    let deleted = vectors::delete_rows(table.delta(), plan.hits.clone()).await;
    actions.extend(deleted.map_err(|source| LakeError::table("write deletion vectors of", &table.name, source))?);
    Ok(actions)
}
