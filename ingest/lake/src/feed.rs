//! What changed between versions of a table, from its log alone.
//!
//! What passes through: the entries of a table's log, into the rows that each of them brought and took
//! away, as files and the rows of them that are meant; and what there is to know of each version.
//!
//! Guaranteed: whoever takes away and adds what a range of versions says from the rows before it has
//! the rows after it. A commit that only moves rows says nothing. No file is read but for what has
//! changed in it: what is looked at grows with the changes and not with the table.

use std::collections::BTreeMap;

use deltalake::DeltaTable;
use deltalake::kernel::{Action, Add, CommitInfo, DeletionVectorDescriptor, Remove};
use deltalake::logstore::get_actions;
use deltalake::logstore::parquet_reader::ParquetObjectReader;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use roaring::RoaringTreemap;

use crate::error::{BoxError, LakeError};
use crate::location::TableName;
use crate::reader::{LiveFile, live_rows, those};
use crate::vectors;

/// How many entries of a log are read at a time.
const AT_ONCE: usize = 16;
/// Where a table's log lies in it.
const LOG: &str = "_delta_log";

/// What a version did with some rows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// They came.
    Inserted,
    /// They went.
    Deleted,
}

/// Rows of one file that came or went with one version.
#[derive(Clone, Debug)]
pub struct ChangedFile {
    /// The version.
    pub version: u64,
    /// When it was committed, in microseconds since 1970-01-01 UTC.
    pub committed_at: Option<i64>,
    /// What became of the rows.
    pub change: RowChange,
    /// The file, and which of its rows are meant.
    pub file: LiveFile,
}

/// A version of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub version: u64,
    /// When it was committed, in microseconds since 1970-01-01 UTC.
    pub committed_at: Option<i64>,
    /// What the commit did, in Delta's words.
    pub operation: Option<String>,
    /// How many records of the log it took in; none where it is no commit of rows.
    pub records: Option<u64>,
}

/// The rows that came and went with the versions from one to another, both included.
///
/// # Errors
/// Where a version does not exist yet or no longer, or the store does not answer.
pub async fn changed_files(
    name: &TableName,
    table: &DeltaTable,
    from: u64,
    to: u64,
) -> Result<Vec<ChangedFile>, LakeError> {
    let newest = table.version().unwrap_or_default();
    if let Some(version) = [from, to].into_iter().find(|version| *version > newest) {
        return Err(LakeError::NoVersion { table: name.clone(), version, newest });
    }
    let changed = async |version| {
        let changed = changed_by(table, version).await;
        changed.map_err(|source| LakeError::table("read the changes of", name, source))
    };
    let mut all = stream::iter(from..=to).map(changed).buffered(AT_ONCE);
    let mut files = Vec::new();
    while let Some(changed) = all.try_next().await? {
        match changed {
            Ok(changed) => files.extend(changed),
            Err(Missing { version, what }) => {
                let oldest = logged(table).await.map_err(|source| LakeError::table("list the log of", name, source))?;
                let oldest = oldest.into_iter().next().unwrap_or(newest);
                return Err(LakeError::VersionGone { table: name.clone(), version, what, oldest });
            }
        }
    }
    Ok(files)
}

/// The versions of a table that its log still tells of, oldest first.
///
/// # Errors
/// Where the log cannot be read.
pub async fn versions(name: &TableName, table: &DeltaTable) -> Result<Vec<Version>, LakeError> {
    let read = async {
        let read = async |version| {
            let Some(actions) = entry(table, version).await? else { return Ok(None) };
            let info = commit_info(&actions);
            Ok::<_, BoxError>(Some(Version {
                version,
                committed_at: info.and_then(committed_at),
                operation: info.and_then(|info| info.operation.clone()),
                records: info.and_then(|info| info.info.get("ruam.records")?.as_u64()),
            }))
        };
        let all = stream::iter(logged(table).await?).map(read).buffered(AT_ONCE);
        all.try_filter_map(async |version| Ok(version)).try_collect().await
    };
    read.await.map_err(|source| LakeError::table("read the log of", name, source))
}

/// What a log says of a table at a time.
pub(crate) enum VersionAt {
    /// It was in this version.
    Known(u64),
    /// It did not exist yet.
    NotBegun,
    /// What it was is not told any more.
    NotKept,
}

/// The version that a table was in at a time, in microseconds since 1970-01-01 UTC.
pub(crate) async fn version_at(name: &TableName, table: &DeltaTable, time: i64) -> Result<VersionAt, LakeError> {
    let find = async {
        let versions = logged(table).await?;
        // Each entry is a request: a few of them tell, as they were committed one after another.
        let (mut before, mut after) = (0, versions.len());
        while before < after {
            let middle = before.midpoint(after);
            let actions = entry(table, versions[middle]).await?.ok_or("its log was cleared meanwhile: ask again")?;
            match commit_info(&actions).and_then(committed_at) {
                Some(at) if at > time => after = middle,
                _ => before = middle + 1,
            }
        }
        let (known, later) = versions.split_at(before);
        Ok::<_, BoxError>(match (known.last(), later.first()) {
            (Some(version), None) => VersionAt::Known(*version),
            (Some(version), Some(next)) if *next == version + 1 => VersionAt::Known(*version),
            (None, Some(0)) => VersionAt::NotBegun,
            _ => VersionAt::NotKept,
        })
    };
    find.await.map_err(|source| LakeError::table("read the log of", name, source))
}

/// Whether a table's log still tells of a version.
pub(crate) async fn is_logged(name: &TableName, table: &DeltaTable, version: u64) -> Result<bool, LakeError> {
    let logged = logged(table).await.map_err(|source| LakeError::table("list the log of", name, source))?;
    Ok(logged.binary_search(&version).is_ok())
}

/// Something that a version needs and that is no longer there.
struct Missing {
    version: u64,
    what: String,
}

/// The versions that are in the log up to the one that was looked at, in order.
async fn logged(table: &DeltaTable) -> Result<Vec<u64>, BoxError> {
    let store = table.log_store().object_store(None);
    let entries = store.list(Some(&Path::from(LOG))).try_collect::<Vec<_>>().await?;
    let number = |entry: &ObjectMeta| entry.location.filename()?.strip_suffix(".json")?.parse().ok();
    let mut versions: Vec<u64> = entries.iter().filter_map(number).collect();
    versions.retain(|version| Some(*version) <= table.version());
    versions.sort_unstable();
    Ok(versions)
}

async fn entry(table: &DeltaTable, version: u64) -> Result<Option<Vec<Action>>, BoxError> {
    let Some(bytes) = table.log_store().read_commit_entry(version).await? else { return Ok(None) };
    Ok(Some(get_actions(version, &bytes)?))
}

fn commit_info(actions: &[Action]) -> Option<&CommitInfo> {
    actions.iter().find_map(|action| if let Action::CommitInfo(info) = action { Some(info) } else { None })
}

fn committed_at(info: &CommitInfo) -> Option<i64> {
    info.in_commit_timestamp.or(info.timestamp)?.checked_mul(1000)
}

/// What one version did with the rows of a file: the file as it was, and as it is.
#[derive(Default)]
struct Step {
    before: Option<Remove>,
    after: Option<Add>,
}

async fn changed_by(table: &DeltaTable, version: u64) -> Result<Result<Vec<ChangedFile>, Missing>, BoxError> {
    let missing = |what: String| Ok(Err(Missing { version, what }));
    let Some(actions) = entry(table, version).await? else {
        return missing(format!("entry {version} of its log"));
    };
    let committed_at = commit_info(&actions).and_then(committed_at);
    let mut steps: BTreeMap<String, Step> = BTreeMap::new();
    for action in actions {
        match action {
            Action::Add(add) if add.data_change => {
                let step = steps.entry(add.path.clone()).or_default();
                step.after = Some(add);
            }
            Action::Remove(remove) if remove.data_change => {
                let step = steps.entry(remove.path.clone()).or_default();
                step.before = Some(remove);
            }
            _ => {}
        }
    }
    let mut changed = Vec::new();
    for (path, step) in steps {
        let Some(meta) = find(table, &path).await? else { return missing(path) };
        let mut rows = Rows { table, meta: &meta, count: step.count()? };
        let (before, after) = (step.before.as_ref(), step.after.as_ref());
        let before = before.map(|file| file.deletion_vector.as_ref());
        let after = after.map(|file| file.deletion_vector.as_ref());
        for vector in [before, after].into_iter().flatten().flatten() {
            if let Some(path) = vectors::file_of(vector)
                && find(table, &path).await?.is_none()
            {
                return missing(path);
            }
        }
        let mut change = |change, file| changed.push(ChangedFile { version, committed_at, change, file });
        match (before, after) {
            (None, None) => {}
            (None, Some(vector)) => change(RowChange::Inserted, rows.live(vector).await?),
            (Some(vector), None) => change(RowChange::Deleted, rows.live(vector).await?),
            (Some(before), Some(after)) => {
                let (before, after) = (read(table, before).await?, read(table, after).await?);
                for (kind, vector) in [(RowChange::Deleted, &after - &before), (RowChange::Inserted, &before - &after)]
                {
                    if !vector.is_empty() {
                        change(kind, rows.only(&vector).await?);
                    }
                }
            }
        }
    }
    Ok(Ok(changed))
}

/// A file of a table; none where it is not there.
async fn find(table: &DeltaTable, path: &str) -> Result<Option<ObjectMeta>, BoxError> {
    let location = Path::from(path);
    match table.log_store().object_store(None).head(&location).await {
        // Some stores answer with the place in all of them.
        Ok(meta) => Ok(Some(ObjectMeta { location, ..meta })),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn read(table: &DeltaTable, vector: Option<&DeletionVectorDescriptor>) -> Result<RoaringTreemap, BoxError> {
    match vector {
        Some(vector) => vectors::read(table, vector).await,
        None => Ok(RoaringTreemap::new()),
    }
}

impl Step {
    /// How many rows the file has, where the log says so.
    fn count(&self) -> Result<Option<u64>, BoxError> {
        let stats = self.after.as_ref().map(Add::get_stats).transpose()?.flatten();
        Ok(stats.map(|stats| stats.num_records.unsigned_abs()))
    }
}

/// Rows of a file.
struct Rows<'a> {
    table: &'a DeltaTable,
    meta: &'a ObjectMeta,
    count: Option<u64>,
}

impl Rows<'_> {
    /// How many there are: a log says nothing of that where it takes a file away.
    async fn count(&mut self) -> Result<u64, BoxError> {
        if let Some(count) = self.count {
            return Ok(count);
        }
        let store = self.table.log_store().object_store(None);
        let reader = ParquetObjectReader::new(store, self.meta.location.clone()).with_file_size(self.meta.size);
        let file = ParquetRecordBatchStreamBuilder::new(reader).await?;
        let count = u64::try_from(file.metadata().file_metadata().num_rows())?;
        self.count = Some(count);
        Ok(count)
    }

    /// Those that are not in a vector.
    async fn live(&mut self, vector: Option<&DeletionVectorDescriptor>) -> Result<LiveFile, BoxError> {
        let meta = self.meta.clone();
        let Some(vector) = vector else { return Ok(LiveFile { meta, rows: self.count, live: None }) };
        let (count, deleted) = (self.count().await?, vectors::read(self.table, vector).await?);
        let live = live_rows(usize::try_from(count)?, &deleted)?;
        Ok(LiveFile { meta, rows: Some(count - deleted.len()), live: Some(live) })
    }

    /// Those that are in a vector.
    async fn only(&mut self, vector: &RoaringTreemap) -> Result<LiveFile, BoxError> {
        let live = those(usize::try_from(self.count().await?)?, vector)?;
        Ok(LiveFile { meta: self.meta.clone(), rows: Some(vector.len()), live: Some(live) })
    }
}
