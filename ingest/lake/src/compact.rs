//! Many small files, and files with many deleted rows, into one file without them.
//!
//! What passes through: the live rows of some files of one table, unchanged and in their order.
//!
//! How it holds:
//! - Rows are rewritten beside the table, on no lock, while commits go on. What counts is the
//!   [`install`], one commit strictly on the version that was looked at: it takes the old files out
//!   and puts the new one in, as a change of place and not of data.
//! - Rows that were deleted in the meantime are deleted in the new file as well: each row's new place
//!   follows from its old one, and the difference of the vectors goes into the same commit.
//! - A rewrite that has become void belongs to no table, and is taken away by
//!   [`vacuum`](crate::vacuum).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, SchemaRef};
use arrow::error::ArrowError;
use deltalake::kernel::{Action, Add, DeletionVectorDescriptor, Remove};
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use crate::error::{BoxError, LakeError};
use crate::fold;
use crate::search;
use crate::table::{Attempt, Operation, Table};
use crate::vectors::{self, DataFile, VectorCache};

/// Files of fewer bytes than this are all of one tier.
const SMALLEST: u64 = 64 << 10;
/// A tier's files are up to so many times as large as the tier's below, and so many of them are
/// merged at a time: each row is rewritten about once for each tier.
const STEP: u64 = 8;
/// A file of more live bytes is merged with no other.
const LARGEST: u64 = 64 << 20;
/// The share of deleted rows at which a file is rewritten, in per cent.
const DELETED_PERCENT: u64 = 20;
/// The most live rows that are moved at once.
const MOST_ROWS: u64 = 8 << 20;
/// How often a commit is tried on a table that others commit to.
const ATTEMPTS: usize = 20;

/// Rows that were written anew, and are not yet of the table.
pub(crate) struct Rewritten {
    inputs: Vec<Input>,
    output: Option<Add>,
}

struct Input {
    source: Source,
    size: u64,
    /// The rows that were moved.
    live: RoaringTreemap,
    deleted: Arc<RoaringTreemap>,
    /// Where in the new file the first of them is.
    first: u64,
}

/// The tag under which a file says which [`Source`]s its rows came from, in their order.
const SOURCES: &str = "ruam.sources";

/// A file whose rows are in another now: those that were not deleted, in their order.
#[derive(serde::Deserialize, serde::Serialize)]
pub(crate) struct Source {
    /// Where it was.
    pub path: String,
    /// How many rows it had, deleted ones too.
    pub rows: u32,
    /// Which were deleted when the others moved.
    pub deleted: Option<DeletionVectorDescriptor>,
}

/// What a file says of where its rows came from; none where it came with a commit of rows.
pub(crate) fn sources(file: &DataFile) -> Option<Vec<Source>> {
    let tags = vectors::add_of(&file.view).tags?;
    serde_json::from_str(tags.get(SOURCES)?.as_deref()?).ok()
}

/// What a compaction has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files that were taken out.
    pub files_before: u64,
    /// Files that took their place.
    pub files_after: u64,
    /// Their bytes.
    pub bytes_before: u64,
    /// The bytes of those that took their place.
    pub bytes_after: u64,
    /// Deleted rows that are not carried on any more.
    pub purged: u64,
}

impl Compacted {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            files_before: self.files_before + other.files_before,
            files_after: self.files_after + other.files_after,
            bytes_before: self.bytes_before + other.bytes_before,
            bytes_after: self.bytes_after + other.bytes_after,
            purged: self.purged + other.purged,
        }
    }
}

/// A file as a choice sees it.
struct Candidate {
    index: usize,
    rows: u64,
    /// About the bytes of its live rows.
    bytes: u64,
    is_worn: bool,
}

/// The files that are best made one; none where the table is in order.
///
/// Small files by tiers, as log-structured stores do it, so that a row is rewritten a few times and
/// not with every commit; and files of which much is deleted.
pub(crate) fn choose(files: &[DataFile]) -> Vec<DataFile> {
    let mut tiers: HashMap<u32, Vec<Candidate>> = HashMap::new();
    for (index, file) in files.iter().enumerate() {
        // A file that says nothing of its rows is another writer's, and left to it.
        let Some(records) = file.view.num_records().map(|records| records as u64).filter(|records| *records > 0) else {
            continue;
        };
        let rows = records.saturating_sub(file.deleted.len());
        let bytes = file.view.size().unsigned_abs() * rows / records;
        let is_worn = file.deleted.len() * 100 >= records * DELETED_PERCENT;
        let is_large = bytes >= LARGEST || rows * 2 > MOST_ROWS;
        let tier = if is_large { u32::MAX } else { (bytes / SMALLEST).checked_ilog(STEP).map_or(0, |tier| tier + 1) };
        tiers.entry(tier).or_default().push(Candidate { index, rows, bytes, is_worn });
    }
    let mut chosen: Vec<Candidate> = Vec::new();
    let is_full = |tier: &u32, of_tier: &Vec<Candidate>| *tier != u32::MAX && of_tier.len() as u64 >= STEP;
    if let Some(lowest) = tiers.iter().filter(|(tier, of_tier)| is_full(tier, of_tier)).map(|(tier, _)| *tier).min() {
        chosen.extend(tiers.remove(&lowest).unwrap_or_default());
    }
    chosen.extend(tiers.into_values().flatten().filter(|candidate| candidate.is_worn));
    // Oldest first, so that the order of the rows stays what it was.
    chosen.sort_unstable_by_key(|candidate| candidate.index);
    let (mut rows, mut bytes) = (0, 0);
    chosen.retain(|candidate| {
        let fits = rows == 0 || (rows + candidate.rows <= MOST_ROWS && bytes + candidate.bytes <= 2 * LARGEST);
        if fits {
            (rows, bytes) = (rows + candidate.rows, bytes + candidate.bytes);
        }
        fits
    });
    match chosen.as_slice() {
        [only] if !only.is_worn => Vec::new(),
        _ => chosen.iter().map(|candidate| files[candidate.index].clone()).collect(),
    }
}

/// Writes the live rows of some files into one; none when it is to stop.
pub(crate) async fn rewrite(
    table: &Table,
    files: Vec<DataFile>,
    stop: &AtomicBool,
) -> Result<Option<Rewritten>, LakeError> {
    let failed = |source: BoxError| LakeError::table("compact", &table.name, source);
    let schema = table.schema()?;
    let (mut writer, mut inputs, mut first) = (table.writer()?, Vec::new(), 0);
    for file in files {
        let records =
            file.view.num_records().ok_or_else(|| failed("a file does not say how many rows it has".into()))?;
        let mut live = RoaringTreemap::new();
        live.insert_range(0..records as u64);
        live -= file.deleted.as_ref();
        let moved = live.len();
        if moved > 0 {
            let mut rows = search::rows(table.delta(), &file, None, None).await.map_err(failed)?;
            while let Some(batch) = rows.try_next().await.map_err(|error| failed(error.into()))? {
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let batch = live_rows(&batch, &file, &schema).map_err(|error| failed(error.into()))?;
                table.append(&mut writer, &batch).await?;
            }
        }
        let source = Source {
            path: file.view.path().into_owned(),
            rows: u32::try_from(records).map_err(|error| failed(error.into()))?,
            deleted: file.view.deletion_vector_descriptor(),
        };
        inputs.push(Input { source, size: file.view.size().unsigned_abs(), live, deleted: file.deleted, first });
        first += moved;
    }
    let mut written = table.close(writer).await?;
    let output = written.pop();
    let arrived = output.as_ref().map_or(Ok(0), records).map_err(failed)?;
    if !written.is_empty() || arrived != first {
        return Err(failed(format!("{first} rows were to be moved, and {arrived} arrived").into()));
    }
    Ok(Some(Rewritten { inputs, output }))
}

/// The rows of a batch that are not deleted, under the columns of the table.
fn live_rows(batch: &RecordBatch, file: &DataFile, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let numbers: &Int64Array = fold::column(batch, search::ROW_NUMBER)?;
    let keep: BooleanArray =
        numbers.values().iter().map(|number| Some(!file.deleted.contains(number.unsigned_abs()))).collect();
    let column = |field: &Arc<Field>| {
        search::declared(batch.column_by_name(field.name()).map(Arc::as_ref), field, batch.num_rows())
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let rows = RecordBatch::try_new(schema.clone(), columns)?;
    if keep.true_count() == rows.num_rows() { Ok(rows) } else { filter_record_batch(&rows, &keep) }
}

fn records(add: &Add) -> Result<u64, BoxError> {
    let stats = add.get_stats()?.ok_or("a file that was just written says nothing of its rows")?;
    Ok(stats.num_records.unsigned_abs())
}

/// Puts a rewrite in force; none where the table has changed in a way that makes it void.
pub(crate) async fn install(
    table: &mut Table,
    cache: &mut VectorCache,
    rewritten: &Rewritten,
) -> Result<Option<Compacted>, LakeError> {
    for _ in 0..ATTEMPTS {
        table.refresh().await?;
        let name = table.name.clone();
        let failed = |source: BoxError| LakeError::table("compact", &name, source);
        let files = cache.files(table.delta()).await.map_err(failed)?;
        let Some((removes, late)) = rewritten.since(&files) else { return Ok(None) };
        let inputs: Vec<_> = removes.iter().map(|(input, _)| *input).collect();
        let mut actions: Vec<Action> = removes.into_iter().map(|(_, remove)| Action::Remove(remove)).collect();
        let output = match &rewritten.output {
            Some(output) if late.len() < records(output).map_err(failed)? => Some(output),
            // Nothing of it is left.
            _ => None,
        };
        if let Some(output) = output {
            let sources: Vec<_> = rewritten.inputs.iter().map(|input| &input.source).collect();
            let sources = serde_json::to_string(&sources).map_err(|error| failed(error.into()))?;
            let tags = HashMap::from([(SOURCES.to_owned(), Some(sources))]);
            let mut add = Add { data_change: false, tags: Some(tags), ..output.clone() };
            if !late.is_empty() {
                let stats = add.stats.as_deref().map(vectors::loosen).transpose();
                add.stats = stats.map_err(|error| failed(error.into()))?;
                add.deletion_vector =
                    vectors::write(table.delta(), &[Arc::new(late.clone())]).await.map_err(failed)?.pop();
            }
            actions.push(Action::Add(add));
        }
        let note = HashMap::from([("ruam.compacted".to_owned(), inputs.len().into())]);
        if let Attempt::Committed(_) = table.commit(actions, Vec::new(), Operation::Compact, note).await? {
            return Ok(Some(Compacted {
                files_before: inputs.len() as u64,
                files_after: u64::from(output.is_some()),
                bytes_before: inputs.iter().map(|input| input.size).sum(),
                bytes_after: output.map_or(0, |output| output.size.unsigned_abs()),
                purged: inputs.iter().map(|input| input.deleted.len()).sum(),
            }));
        }
    }
    Ok(None)
}

impl Rewritten {
    /// What takes those of the old files out that are still there, and which rows of the new one were
    /// deleted since; none where none of the old files is there any more, or one has rows again that
    /// were deleted.
    fn since(&self, now: &[DataFile]) -> Option<(Vec<(&Input, Remove)>, RoaringTreemap)> {
        let by_path: HashMap<_, _> = now.iter().map(|file| (file.view.path(), file)).collect();
        let (mut removes, mut late) = (Vec::new(), RoaringTreemap::new());
        for input in &self.inputs {
            // A file is gone when all its rows are deleted, or when others have moved them: of this
            // place they are gone either way.
            let Some(file) = by_path.get(input.source.path.as_str()) else {
                late.insert_range(input.first..input.first + input.live.len());
                continue;
            };
            if !input.deleted.is_subset(&file.deleted) {
                return None;
            }
            removes.push((input, file.view.remove_action(false)));
            for row in file.deleted.as_ref() - input.deleted.as_ref() {
                late.insert(input.first + input.live.rank(row) - 1);
            }
        }
        (!removes.is_empty()).then_some((removes, late))
    }
}
