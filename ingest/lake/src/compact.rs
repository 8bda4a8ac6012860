//! Many small files, and files with many deleted rows, into one file without them.
//!
//! What passes through: the live rows of some files of one table, unchanged, in their order or in that of
//! the columns by which its dataset wants them to lie together (see [`cluster`](crate::cluster)).
//!
//! How it holds:
//! - Rows are rewritten beside the table, on no lock, while commits go on. What counts is the
//!   [`install`], one commit strictly on the version that was looked at: it takes the old files out
//!   and puts the new one in, as a change of place and not of data.
//! - Rows that were deleted in the meantime are deleted in the new file as well: each row's new place
//!   follows from its old one, or is noted while they are sorted, and the difference of the vectors goes
//!   into the same commit.
//! - A file says by which columns it was sorted, so that each is sorted once for it.
//! - A rewrite that has become void belongs to no table, and is taken away by
//!   [`vacuum`](crate::vacuum).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, SchemaRef};
use arrow::error::ArrowError;
use deltalake::kernel::{Action, Add, DeletionVectorDescriptor, Remove};
use futures::{StreamExt, TryStreamExt, stream};
use roaring::RoaringTreemap;
use ruam_event::Mode;

use crate::cluster::{self, Order, Rows};
use crate::error::{BoxError, LakeError};
use crate::fold;
use crate::places;
use crate::search;
use crate::table::{Attempt, Operation, Table};
use crate::vectors::{self, DataFile, VectorCache};

/// How often a commit is tried on a table that others commit to.
const ATTEMPTS: usize = 20;

/// How often it is looked whether it is to stop, at the least.
const LOOK: Duration = Duration::from_millis(100);

/// Rows that were written anew, and are not yet of the table.
pub(crate) struct Rewritten {
    inputs: Vec<Input>,
    output: Option<Add>,
    /// Sorted: where each row is now, in the order in which they were read.
    places: Option<Vec<u32>>,
    /// What the new file says of itself.
    tags: HashMap<String, Option<String>>,
}

struct Input {
    file: DataFile,
    /// How many rows it has, deleted ones too.
    rows: u32,
    /// The rows that were moved.
    live: RoaringTreemap,
    /// How many rows were read before the first of them.
    first: u64,
}

/// The tag under which a file says which [`Source`]s its rows came from, in their order.
const SOURCES: &str = "ruam.sources";
/// The tag under which a sorted file says the same, as an [`Origin`].
const SORTED: &str = "ruam.sorted";
/// The tag under which a file says by which columns it is sorted.
const CLUSTERED_BY: &str = "ruam.clustered_by";

/// Where the rows of a file came from.
#[derive(serde::Deserialize, serde::Serialize)]
pub(crate) struct Origin {
    /// The files that they were in, in the order in which they were read.
    pub sources: Vec<Source>,
    /// The file that says where each of them is now; without one they kept that order.
    pub places: Option<String>,
}

/// A file whose rows are in another now: those that were not deleted.
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
pub(crate) fn origin(file: &DataFile) -> Option<Origin> {
    let tags = vectors::add_of(&file.view).tags?;
    let tag = |name| tags.get(name)?.as_deref();
    match tag(SORTED) {
        Some(sorted) => serde_json::from_str(sorted).ok(),
        None => Some(Origin { sources: serde_json::from_str(tag(SOURCES)?).ok()?, places: None }),
    }
}

/// Has a file that is known say no more where its rows came from, which would be told again with each of its
/// vectors.
pub(crate) fn forget_origin(add: &mut Add) {
    if let Some(tags) = &mut add.tags {
        tags.retain(|name, _| name != SOURCES && name != SORTED);
    }
}

/// Whether a file's rows lie together by these columns.
pub(crate) fn is_clustered(file: &DataFile, columns: &[String]) -> bool {
    let by = || vectors::add_of(&file.view).tags?.remove(CLUSTERED_BY)?;
    columns.is_empty() || by() == Some(columns.join(","))
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
    /// Files that were sorted by the columns that their dataset names.
    pub sorted: u64,
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
            sorted: self.sorted + other.sorted,
        }
    }
}

/// Writes the live rows of some files into one; none when it is to stop.
pub(crate) async fn rewrite(
    table: &Table,
    files: Vec<DataFile>,
    stop: &AtomicBool,
) -> Result<Option<Rewritten>, LakeError> {
    let failed = |source: BoxError| LakeError::table("compact", &table.name, source);
    let (inputs, moved) = inputs(files).map_err(failed)?;
    let (schema, cluster_by) = (table.schema()?, &table.definition().cluster_by);
    let mut places = (!cluster_by.is_empty()).then(|| vec![places::NOWHERE; moved as usize]);
    let mut rows = if places.is_some() {
        let Some(sorted) = unless(stop, sorted(table, &inputs, &schema, moved)).await else { return Ok(None) };
        sorted.map_err(failed)?
    } else {
        live_rows(table, &inputs, &schema, search::BATCH_ROWS)
    };
    let (mut writer, mut arrived) = (table.writer()?, 0);
    loop {
        let Some(batch) = unless(stop, rows.try_next()).await else { return Ok(None) };
        let Some(batch) = batch.map_err(failed)? else { break };
        if let Some(places) = &mut places {
            note(places, &batch, arrived).map_err(failed)?;
        }
        table.append(&mut writer, &batch).await?;
        arrived += batch.num_rows() as u64;
    }
    let mut written = table.close(writer).await?;
    let output = written.pop();
    let arrived = output.as_ref().map_or(Ok(0), records).map_err(failed)?;
    let has_lost = places.as_ref().is_some_and(|places| places.contains(&places::NOWHERE));
    if !written.is_empty() || arrived != moved || has_lost {
        return Err(failed(format!("{moved} rows were to be moved, and {arrived} arrived").into()));
    }
    let tags = tags(table, &inputs, places.as_deref()).await.map_err(failed)?;
    Ok(Some(Rewritten { inputs, output, places, tags }))
}

/// What of each file is to be moved, and how many rows that is.
fn inputs(files: Vec<DataFile>) -> Result<(Vec<Input>, u64), BoxError> {
    let (mut inputs, mut first) = (Vec::with_capacity(files.len()), 0);
    for file in files {
        let rows = file.view.num_records().ok_or("a file does not say how many rows it has")?;
        let mut live = RoaringTreemap::new();
        live.insert_range(0..rows as u64);
        live -= file.deleted.as_ref();
        let moved = live.len();
        inputs.push(Input { file, rows: u32::try_from(rows)?, live, first });
        first += moved;
    }
    Ok((inputs, first))
}

/// What comes of some work; none when it is to stop before.
async fn unless<T>(stop: &AtomicBool, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    while !stop.load(Ordering::Relaxed) {
        if let Ok(done) = tokio::time::timeout(LOOK, work.as_mut()).await {
            return Some(done);
        }
    }
    None
}

/// The rows that are to be moved, each file's in their order, under the columns of the table.
fn live_rows(table: &Table, inputs: &[Input], schema: &SchemaRef, batch_rows: usize) -> Rows {
    let files: Vec<_> = inputs.iter().filter(|input| !input.live.is_empty()).map(|input| input.file.clone()).collect();
    let (table, schema) = (table.delta().clone(), schema.clone());
    let of_file = move |file: DataFile| {
        let (table, schema) = (table.clone(), schema.clone());
        async move {
            let names = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let rows = search::rows(&table, &file, Some(names), None, batch_rows).await?;
            Ok::<_, BoxError>(rows.map(move |batch| Ok(live_of(&batch?, &file, &schema)?)))
        }
    };
    stream::iter(files).then(of_file).try_flatten().boxed()
}

/// The same in the order in which they are to lie together.
async fn sorted(table: &Table, inputs: &[Input], schema: &SchemaRef, moved: u64) -> Result<Rows, BoxError> {
    let columns = &table.definition().cluster_by;
    let mut order = Order::by(columns);
    if order.needs_sample() {
        let indices = columns.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let schema = Arc::new(schema.project(&indices)?);
        order.sample(live_rows(table, inputs, &schema, search::BATCH_ROWS), moved).await?;
    }
    let bytes = inputs.iter().map(|input| input.size()).sum();
    let batch_rows = cluster::batch_rows(bytes, inputs.iter().map(|input| u64::from(input.rows)).sum());
    cluster::sort(live_rows(table, inputs, schema, batch_rows), schema, order, batch_rows)
}

/// Notes where rows are that came out of a sort.
fn note(places: &mut [u32], batch: &RecordBatch, arrived: u64) -> Result<(), BoxError> {
    let numbers: &UInt32Array = fold::column(batch, cluster::NUMBER)?;
    for (number, place) in numbers.values().iter().zip(arrived..) {
        *places.get_mut(*number as usize).ok_or("a row that was not there")? = u32::try_from(place)?;
    }
    Ok(())
}

/// What the new file says of itself: of what it was made, so that the key index can follow, and in which
/// order it is.
async fn tags(
    table: &Table,
    inputs: &[Input],
    places: Option<&[u32]>,
) -> Result<HashMap<String, Option<String>>, BoxError> {
    let sources = inputs.iter().map(Input::source).collect();
    let Some(places) = places else {
        return Ok(HashMap::from([(SOURCES.to_owned(), Some(serde_json::to_string::<Vec<_>>(&sources)?))]));
    };
    let mut tags = HashMap::from([(CLUSTERED_BY.to_owned(), Some(table.definition().cluster_by.join(",")))]);
    if table.definition().mode == Mode::Upsert {
        let origin = Origin { sources, places: Some(places::write(table.delta(), places).await?) };
        tags.insert(SORTED.to_owned(), Some(serde_json::to_string(&origin)?));
    }
    Ok(tags)
}

/// The rows of a batch that are not deleted, under the columns of the table.
fn live_of(batch: &RecordBatch, file: &DataFile, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
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
            let mut add = Add { data_change: false, tags: Some(rewritten.tags.clone()), ..output.clone() };
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
                bytes_before: inputs.iter().map(|input| input.size()).sum(),
                bytes_after: output.map_or(0, |output| output.size.unsigned_abs()),
                purged: inputs.iter().map(|input| input.file.deleted.len()).sum(),
                sorted: u64::from(output.is_some() && rewritten.places.is_some()),
            }));
        }
    }
    Ok(None)
}

impl Input {
    fn size(&self) -> u64 {
        self.file.view.size().unsigned_abs()
    }

    fn source(&self) -> Source {
        let view = &self.file.view;
        Source { path: view.path().into_owned(), rows: self.rows, deleted: view.deletion_vector_descriptor() }
    }
}

impl Rewritten {
    /// Where in the new file a row is, by how many were read before it.
    fn place(&self, read: u64) -> u64 {
        self.places.as_ref().map_or(read, |places| u64::from(places[read as usize]))
    }

    /// What takes those of the old files out that are still there, and which rows of the new one were
    /// deleted since; none where none of the old files is there any more, or one has rows again that
    /// were deleted.
    fn since(&self, now: &[DataFile]) -> Option<(Vec<(&Input, Remove)>, RoaringTreemap)> {
        let by_path: HashMap<_, _> = now.iter().map(|file| (file.view.path(), file)).collect();
        let (mut removes, mut late) = (Vec::new(), RoaringTreemap::new());
        for input in &self.inputs {
            let Input { file: before, live, first, .. } = input;
            // A file is gone when all its rows are deleted, or when others have moved them: of this
            // place they are gone either way.
            let Some(file) = by_path.get(&before.view.path()) else {
                late.extend((*first..first + live.len()).map(|read| self.place(read)));
                continue;
            };
            if !before.deleted.is_subset(&file.deleted) {
                return None;
            }
            removes.push((input, file.remove(false, false)));
            for row in file.deleted.as_ref() - before.deleted.as_ref() {
                late.insert(self.place(first + live.rank(row) - 1));
            }
        }
        (!removes.is_empty()).then_some((removes, late))
    }
}
