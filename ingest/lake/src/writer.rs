//! Topic to table, exactly once: the rows of a dataset, what was rejected, and its history, with the
//! offsets in the same commit.
//!
//! What passes through: [`Batch`]es, each the accepted and refused records of a run of one
//! partition, in the order of the log. They wait here until [`DatasetWriter::commit`].
//!
//! How it holds:
//! - A commit of rows carries, for each partition, the offset after its last record (see
//!   [`progress`](crate::progress)). It is made strictly on the version of the table that was
//!   looked at, and that version holds exactly the offsets that the batches began from. So of two
//!   writers that race, one finds the table moved on, drops what it has, and begins again from what
//!   the table says.
//! - An answer that got lost is not guessed at: the table is looked at, and either holds the commit
//!   or does not.
//! - Rejects and changes are written before the rows, each to a table of its own that knows which
//!   records it holds (see [`side`](crate::side)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use deltalake::datafile::writer::DeltaWriter;
use ruam_event::change::Op;
use ruam_event::{DatasetId, Mode, OffsetRange, Partition};

use crate::changes::{change_rows, changes_schema};
use crate::error::LakeError;
use crate::fold::{Changes, Pending};
use crate::index::{IndexSettings, KeyIndex, Reading, Seat};
use crate::location::{Lake, TableKind, TableName};
use crate::maintain::{Maintained, Upkeep, maintain};
use crate::progress::Progress;
use crate::side::{Side, keep};
use crate::table::{Definition, Table};
use crate::vectors::VectorCache;

mod commit;

pub use commit::Committed;

/// Makes rejects of rows that cannot be written: changes that leave a column as it was in a row
/// that the table does not have.
pub type Refuse = Arc<dyn Fn(&RecordBatch) -> Result<RecordBatch, ArrowError> + Send + Sync>;

/// What a dataset's tables are to be.
#[derive(Clone)]
pub struct Contract {
    /// The dataset.
    pub dataset: DatasetId,
    /// What it is, for those who come upon the tables.
    pub description: String,
    /// What a change does to a row.
    pub mode: Mode,
    /// The columns that tell one row from another.
    pub key: Vec<String>,
    /// The columns by which rows lie together; none where they lie as they came.
    pub cluster_by: Vec<String>,
    /// Whether every accepted change is kept.
    pub history: bool,
    /// The columns of the rows, those of their origin included.
    pub rows: SchemaRef,
    /// The columns of the rejects.
    pub rejects: SchemaRef,
    /// How to reject a row that cannot be written.
    pub refuse: Refuse,
}

/// What became of a run of records of one partition.
#[derive(Debug)]
pub struct Batch {
    /// The partition.
    pub partition: Partition,
    /// The offsets that it covers.
    pub range: OffsetRange,
    /// How many records there were.
    pub records: u64,
    /// The accepted changes.
    pub rows: RecordBatch,
    /// What each does.
    pub ops: Vec<Op>,
    /// For each column, which changes leave it as it was.
    pub unchanged: Vec<Option<BooleanBuffer>>,
    /// The refused records.
    pub rejects: RecordBatch,
    /// How many records say nothing.
    pub filtered: u64,
    /// How many of the last rows delete a key that an update has left: they are no records.
    pub left: usize,
}

/// Writes one dataset.
pub struct DatasetWriter {
    contract: Contract,
    rows: Table,
    rejects: Side,
    changes: Option<Side>,
    vectors: VectorCache,
    /// Upsert: where each key's row is; none where it is to be searched for in the table.
    index: Seat,
    partitions: BTreeMap<Partition, State>,
    waiting: Waiting,
    /// The background work on each table, where there is some.
    upkeep: BTreeMap<TableKind, Upkeep>,
}

/// How far a partition is.
#[derive(Clone, Copy, Debug)]
struct State {
    /// As the table has it; none where it has never been read.
    committed: Option<Progress>,
    /// With what waits to be committed.
    reached: Progress,
    /// How many of the changes that wait are no records.
    left: u64,
}

/// What waits to be committed.
#[derive(Default)]
struct Waiting {
    /// Append: the file under way, and its rows so far.
    file: Option<DeltaWriter>,
    rows: usize,
    bytes: usize,
    /// Upsert: the changes.
    changes: Pending,
    records: u64,
}

impl DatasetWriter {
    /// Opens the dataset's tables, and creates or grows them as it declares. Without an index, the
    /// table is searched for the rows that a commit replaces.
    ///
    /// # Errors
    /// Where the lake does not answer, or a table is not what the dataset declares.
    pub async fn open(lake: &Lake, contract: Contract, index: Option<&IndexSettings>) -> Result<Self, LakeError> {
        let definition = |schema: &SchemaRef, mode, what: &str| Definition {
            schema: schema.clone(),
            mode,
            key: contract.key.clone(),
            cluster_by: Vec::new(),
            description: format!("{what}{}", contract.description),
        };
        let name = |kind| TableName::new(&contract.dataset, kind);
        let rows = definition(&contract.rows, contract.mode, "");
        let rows = Definition { cluster_by: contract.cluster_by.clone(), ..rows };
        let rows = Table::open(lake, name(TableKind::Rows), rows).await?;
        let rejects = definition(&contract.rejects, Mode::Append, "What could not become a row of: ");
        let rejects = Side::new(Table::open(lake, name(TableKind::Rejects), rejects).await?);
        let changes = if contract.history {
            let changes = definition(&changes_schema(&contract.rows), Mode::Append, "Every accepted change of: ");
            Some(Side::new(Table::open(lake, name(TableKind::Changes), changes).await?))
        } else {
            None
        };
        let index = index.filter(|_| contract.mode == Mode::Upsert).and_then(|settings| {
            let folder = settings.folder.join(contract.dataset.agency()).join(contract.dataset.name());
            let opened = KeyIndex::open(&folder, settings.memory);
            let warn =
                |error| tracing::warn!(%error, folder = %folder.display(), "no key index; the table is searched");
            opened.map_err(warn).ok()
        });
        let (vectors, partitions, waiting) = (VectorCache::default(), BTreeMap::new(), Waiting::default());
        let (index, upkeep) = (Seat::of(index), BTreeMap::new());
        Ok(Self { contract, rows, rejects, changes, vectors, index, partitions, waiting, upkeep })
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        [Some(&self.rows), Some(&self.rejects.table), self.changes.as_ref().map(|side| &side.table)]
            .into_iter()
            .flatten()
    }

    /// Has the tables kept fast from now on, by work in the background that [`tend`](Self::tend)
    /// begins. Files are deleted when they have been unused for the retention.
    #[must_use]
    pub fn with_upkeep(mut self, retention: Duration) -> Self {
        self.upkeep = self.tables().map(|table| (table.name.kind, Upkeep::new(table, retention))).collect();
        self
    }

    /// Looks after the work in the background; returns at once. To be called after commits, and now
    /// and then where there are none. Most of it waits while the caller is behind, reading a backlog.
    ///
    /// # Errors
    /// Where the table cannot be looked at.
    pub async fn tend(&mut self, is_behind: bool) -> Result<(), LakeError> {
        let mut upkeep = std::mem::take(&mut self.upkeep);
        let mut has_merged = false;
        // On looks of its own: whether others have read this writer's partitions on is yet to be checked.
        let tables: Vec<_> = self.tables().cloned().collect();
        for mut table in tables {
            let (kind, mut none) = (table.name.kind, VectorCache::default());
            let Some(upkeep) = upkeep.get_mut(&kind) else { continue };
            if let Some(rewritten) = upkeep.finished(&table).await {
                let cache = if kind == TableKind::Rows { &mut self.vectors } else { &mut none };
                has_merged |= upkeep.install(&mut table, cache, &rewritten).await && kind == TableKind::Rows;
            }
            upkeep.begin(&table, is_behind);
        }
        self.upkeep = upkeep;
        // Now, rather than in the way of the next commit.
        if has_merged { self.prepare(&mut |_, _| {}).await } else { Ok(()) }
    }

    /// Has the key index know all of the table, so that the next commit does not have to wait for it.
    /// Nothing where it does; where it is lost, it is made anew from the table's keys.
    ///
    /// # Errors
    /// Where the table cannot be looked at. One that has an index that cannot be used goes on without.
    pub async fn prepare(&mut self, reading: Reading<'_>) -> Result<(), LakeError> {
        if self.index.index().await.is_none() {
            return Ok(());
        }
        self.look_anew().await?;
        let files = self.vectors.files(self.rows.delta()).await;
        let files = files.map_err(|source| LakeError::table("look at", &self.rows.name, source))?;
        let index = self.index.index().await;
        let Some(known) = index else { return Ok(()) };
        if let Err(error) = known.catch_up(self.rows.delta(), &files, &self.contract.key, reading).await {
            tracing::warn!(%error, dataset = %self.contract.dataset, "the key index cannot be used; it is made anew");
            *index = index.take().and_then(KeyIndex::anew);
        }
        Ok(())
    }

    /// Does at once what is else done in the background, and says what it did for each table.
    ///
    /// # Errors
    /// Where a table cannot be read or written; what was done stays.
    pub async fn maintain(&self, retention: Duration) -> Result<Vec<(TableName, Maintained)>, LakeError> {
        let mut done = Vec::new();
        for table in self.tables() {
            done.push((table.name.clone(), maintain(table, retention).await?));
        }
        Ok(done)
    }

    /// Looks at the table of rows as it is now. A commit is made on what was looked at, so that it has
    /// to be where this writer's batches go on.
    async fn look_anew(&mut self) -> Result<(), LakeError> {
        if self.rows.refresh().await? {
            for (partition, state) in &self.partitions {
                if self.rows.progress(partition).await? != state.committed {
                    return Err(self.superseded(format!("{partition} was read by another")));
                }
            }
        }
        Ok(())
    }

    /// Begins with these partitions at these offsets, and drops what waits.
    ///
    /// # Errors
    /// Where the tables are not at these offsets.
    pub async fn assign(&mut self, starts: &[(Partition, i64)]) -> Result<(), LakeError> {
        self.discard();
        self.partitions.clear();
        self.rows.refresh().await?;
        for (partition, start) in starts {
            let committed = self.rows.progress(partition).await?;
            if let Some(found) = committed.filter(|found| found.next != *start) {
                return Err(self.superseded(format!("{partition} is at {}, not at {start}", found.next)));
            }
            let reached = committed.unwrap_or(Progress { start: *start, next: *start, ..Progress::default() });
            self.partitions.insert(partition.clone(), State { committed, reached, left: 0 });
        }
        self.rejects.assign(starts).await?;
        if let Some(changes) = &mut self.changes {
            changes.assign(starts).await?;
        }
        Ok(())
    }

    fn superseded(&self, detail: String) -> LakeError {
        LakeError::Superseded { dataset: self.contract.dataset.clone(), detail }
    }

    fn bad_batch(&self, source: ArrowError) -> LakeError {
        LakeError::Batch { dataset: self.contract.dataset.clone(), source }
    }

    /// Takes the next batch of a partition. It waits until the next commit.
    ///
    /// # Errors
    /// Where the batch does not continue the one before it, or a file cannot be written.
    pub async fn write(&mut self, batch: Batch) -> Result<(), LakeError> {
        let partition = batch.partition.clone();
        let Some(state) = self.partitions.get(&partition).copied() else {
            return Err(self.superseded(format!("{partition} is not this writer's")));
        };
        if state.reached.next != batch.range.start {
            return Err(self.superseded(format!(
                "{partition} is at {}, and a batch begins at {}",
                state.reached.next, batch.range.start
            )));
        }
        let reached = Progress {
            next: batch.range.end,
            absent: state.reached.absent + (batch.range.len() - batch.records),
            filtered: state.reached.filtered + batch.filtered,
            ..state.reached
        };
        self.waiting.records += batch.records;
        self.waiting.bytes += batch.rows.get_array_memory_size();
        let changes = Changes { rows: batch.rows, ops: batch.ops, unchanged: batch.unchanged };
        let accepted = self.accepted(&partition, changes, batch.left);
        let (changes, left) = accepted.map_err(|error| self.bad_batch(error))?;
        self.rejects.add(&partition, batch.rejects).map_err(|error| self.bad_batch(error))?;
        if let Some(side) = &mut self.changes {
            let rows = change_rows(&changes).and_then(|rows| side.add(&partition, rows));
            rows.map_err(|source| LakeError::Batch { dataset: self.contract.dataset.clone(), source })?;
        }
        self.take(changes).await?;
        self.partitions.insert(partition, State { reached, left: state.left + left as u64, ..state });
        Ok(())
    }

    /// The accepted changes without those that have been shown as rejected before, and how many of the
    /// last of them are no records.
    fn accepted(&self, partition: &Partition, changes: Changes, left: usize) -> Result<(Changes, usize), ArrowError> {
        if !self.rejects.is_ahead(partition) {
            return Ok((changes, left));
        }
        let keep = keep(&changes.rows, |_, offset| self.rejects.holds(partition, offset))?;
        let left = keep.slice(keep.len() - left, left).true_count();
        let masks = changes.unchanged.iter().map(|mask| match mask {
            Some(mask) => Ok(filter(&BooleanArray::new(mask.clone(), None), &keep)?
                .as_any()
                .downcast_ref::<BooleanArray>()
                .map(|mask| mask.values().clone())),
            None => Ok(None),
        });
        let changes = Changes {
            rows: filter_record_batch(&changes.rows, &keep)?,
            unchanged: masks.collect::<Result<_, ArrowError>>()?,
            ops: changes.ops.iter().zip(&keep).filter(|(_, keep)| *keep == Some(true)).map(|(op, _)| *op).collect(),
        };
        Ok((changes, left))
    }

    async fn take(&mut self, changes: Changes) -> Result<(), LakeError> {
        if changes.ops.is_empty() {
            return Ok(());
        }
        self.waiting.rows += changes.ops.len();
        match self.contract.mode {
            Mode::Upsert => {
                let pushed = self.waiting.changes.push(changes, &self.contract.key);
                pushed.map_err(|error| self.bad_batch(error))?;
            }
            Mode::Append => {
                let mut file = match self.waiting.file.take() {
                    Some(file) => file,
                    None => self.rows.writer()?,
                };
                self.rows.append(&mut file, &changes.rows).await?;
                self.waiting.file = Some(file);
            }
        }
        Ok(())
    }

    /// How many records wait to be committed.
    pub fn waiting_records(&self) -> u64 {
        self.waiting.records
    }

    /// About how many bytes of memory wait to be committed.
    pub fn waiting_bytes(&self) -> usize {
        let sides = [Some(&self.rejects), self.changes.as_ref()];
        self.waiting.bytes + sides.into_iter().flatten().map(Side::pending_bytes).sum::<usize>()
    }

    /// Drops what waits.
    pub fn discard(&mut self) {
        self.waiting = Waiting::default();
        self.rejects.discard();
        if let Some(changes) = &mut self.changes {
            changes.discard();
        }
        for state in self.partitions.values_mut() {
            state.left = 0;
            state.reached = state.committed.unwrap_or(Progress {
                start: state.reached.start,
                next: state.reached.start,
                ..Progress::default()
            });
        }
    }
}

impl std::fmt::Debug for DatasetWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatasetWriter")
            .field("dataset", &self.contract.dataset)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
