//! A commit: what waits in a writer, as one version of its tables.
//!
//! What passes through: the changes that wait, into data files and deletion vectors, and with the offsets that they
//! reach into the log of the table. Guaranteed: what [`DatasetWriter`] says of a race and of an answer that got lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use deltalake::kernel::{Action, Add};
use ruam_event::{Mode, Partition};

use super::{DatasetWriter, State, Waiting};
use crate::error::LakeError;
use crate::table::{Attempt, Operation};
use crate::upsert::{self, Counted};

/// How often a commit is tried again when the store fails in passing.
const ATTEMPTS: usize = 3;

/// What a commit has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The version of the table of rows.
    pub version: u64,
    /// How many rows came.
    pub rows: u64,
    /// How many records were rejected.
    pub rejected: u64,
    /// How many accepted events count no more.
    pub folded: u64,
    /// How many of those came too late to ever have an effect.
    pub late: u64,
    /// Bytes of data files that came.
    pub bytes: u64,
    /// The next offset of each partition.
    pub offsets: Vec<(Partition, i64)>,
}

impl DatasetWriter {
    /// Commits what waits. None where nothing does.
    ///
    /// # Errors
    /// Where it cannot be committed; what waits is of no further use then, and has to be read again.
    pub async fn commit(&mut self) -> Result<Option<Committed>, LakeError> {
        let moved = |(_, state): &(&Partition, &State)| {
            state.committed != Some(state.reached) && state.reached.next > state.reached.start
        };
        let partitions: Vec<Partition> =
            self.partitions.iter().filter(moved).map(|(partition, _)| partition.clone()).collect();
        if partitions.is_empty() {
            return Ok(None);
        }
        let mut committed = match self.contract.mode {
            Mode::Append => self.commit_appends(&partitions).await?,
            Mode::Upsert => self.commit_upserts(&partitions).await?,
        };
        for partition in &partitions {
            if let Some(state) = self.partitions.get_mut(partition) {
                state.committed = Some(state.reached);
                state.left = 0;
                committed.offsets.push((partition.clone(), state.reached.next));
            }
        }
        self.waiting = Waiting::default();
        Ok(Some(committed))
    }

    async fn commit_appends(&mut self, partitions: &[Partition]) -> Result<Committed, LakeError> {
        let rejected = self.commit_sides(partitions).await?;
        let rows = self.waiting.rows as u64;
        let adds = match self.waiting.file.take() {
            Some(file) => self.rows.close(file).await?,
            None => Vec::new(),
        };
        let bytes = size_of(&adds);
        let actions: Vec<_> = adds.into_iter().map(Action::Add).collect();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let version = self.attempt(actions.clone(), partitions, Operation::Append, attempts).await?;
            if let Some(version) = version {
                return Ok(Committed { version, rows, rejected, bytes, ..Committed::default() });
            }
        }
    }

    async fn commit_upserts(&mut self, partitions: &[Partition]) -> Result<Committed, LakeError> {
        let changes = Arc::new(std::mem::take(&mut self.waiting.changes));
        let states: BTreeMap<Partition, State> = partitions
            .iter()
            .filter_map(|partition| Some((partition.clone(), *self.partitions.get(partition)?)))
            .collect();
        let (mut attempts, mut rejected) = (0, None);
        loop {
            attempts += 1;
            let mut plan = if changes.is_empty() {
                None
            } else {
                let (vectors, index) = (&mut self.vectors, self.index.index().await);
                match upsert::plan(&self.rows, vectors, index, &changes, &self.contract.key).await {
                    Ok(plan) => Some(plan),
                    // What the table was when it was last looked at may have been vacuumed since.
                    Err(error) if attempts < ATTEMPTS => {
                        let looked_at = self.rows.version();
                        if let Some(version) = self.settle(partitions).await? {
                            return Ok(Committed { version, ..Committed::default() });
                        }
                        if self.rows.version() == looked_at {
                            return Err(error);
                        }
                        tracing::debug!(%error, dataset = %self.contract.dataset, "looked at the table anew");
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            };
            if rejected.is_none() {
                if let Some(plan) = plan.as_ref().filter(|plan| !plan.unresolved.is_empty()) {
                    let unresolved = upsert::unresolved(&changes, plan).map_err(|error| self.bad_batch(error))?;
                    self.refuse(&unresolved)?;
                }
                rejected = Some(self.commit_sides(partitions).await?);
            }
            let mut counted = Counted::default();
            for (partition, State { reached: before, left, .. }) in &states {
                let of_plan = plan.as_ref().and_then(|plan| plan.folded.get(&partition.index));
                let Counted { folded, late } = of_plan.copied().unwrap_or_default();
                // A delete counts no more once it is done, and one that is no record never did.
                let folded = folded.saturating_sub(*left);
                let late = late.min(folded);
                counted = Counted { folded: counted.folded + folded, late: counted.late + late };
                if let Some(state) = self.partitions.get_mut(partition) {
                    state.reached.folded = before.folded + folded;
                    state.reached.late = before.late + late;
                }
            }
            let (actions, vectors) = match &mut plan {
                Some(plan) => upsert::write(&self.rows, &changes, plan).await?,
                None => Default::default(),
            };
            let bytes =
                actions.iter().map(|action| if let Action::Add(add) = action { new_bytes(add) } else { 0 }).sum();
            let rows = plan.map_or_else(Vec::new, |plan| plan.rows);
            let count = rows.len() as u64;
            if let [path] = &actions.iter().filter_map(new_file).collect::<Vec<_>>()[..] {
                // While the log is written; if that fails, they are taken back.
                self.index.enter(path.clone(), changes.clone(), rows).await;
            }
            if let Some(version) = self.attempt(actions, partitions, Operation::Upsert, attempts).await? {
                self.index.confirm();
                self.vectors.committed(vectors);
                return Ok(Committed {
                    version,
                    rows: count,
                    rejected: rejected.unwrap_or(0),
                    folded: counted.folded,
                    late: counted.late,
                    bytes,
                    offsets: Vec::new(),
                });
            }
        }
    }

    /// Rejects changes whose unchanged columns nobody knows.
    fn refuse(&mut self, rows: &RecordBatch) -> Result<(), LakeError> {
        let rejects = (self.contract.refuse)(rows).map_err(|error| self.bad_batch(error))?;
        let partitions: Vec<_> = self.partitions.keys().cloned().collect();
        for partition in partitions {
            let of_partition = crate::side::without(&rejects, |index, _| index != partition.index);
            let added = of_partition.and_then(|rows| self.rejects.add(&partition, rows));
            added.map_err(|source| LakeError::Batch { dataset: self.contract.dataset.clone(), source })?;
        }
        Ok(())
    }

    pub(super) async fn commit_sides(&mut self, partitions: &[Partition]) -> Result<u64, LakeError> {
        let ends: Vec<_> = partitions
            .iter()
            .filter_map(|partition| Some((partition.clone(), self.partitions.get(partition)?.reached.next)))
            .collect();
        let rejected = self.rejects.commit(&ends).await?;
        if let Some(changes) = &mut self.changes {
            changes.commit(&ends).await?;
        }
        Ok(rejected)
    }

    /// Tries to commit rows; none where the table has moved on and everything may be tried again.
    async fn attempt(
        &mut self,
        actions: Vec<Action>,
        partitions: &[Partition],
        operation: Operation,
        attempts: usize,
    ) -> Result<Option<u64>, LakeError> {
        let mut transactions = Vec::new();
        for partition in partitions {
            if let Some(state) = self.partitions.get(partition) {
                transactions.extend(state.reached.transactions(&self.contract.dataset, partition));
            }
        }
        let note = HashMap::from([("ruam.records".to_owned(), self.waiting.records.into())]);
        match self.rows.commit(actions, transactions, operation, note).await {
            Ok(Attempt::Committed(version)) => Ok(Some(version)),
            Ok(Attempt::Conflict) => self.settle(partitions).await,
            Err(error) if attempts < ATTEMPTS => {
                tracing::warn!(%error, dataset = %self.contract.dataset, "a commit failed; looking whether it arrived, then trying again");
                self.settle(partitions).await
            }
            Err(error) => Err(error),
        }
    }

    /// Looks at the table after a commit whose fate is open: it is there, or it may be tried again,
    /// or another writer was quicker.
    async fn settle(&mut self, partitions: &[Partition]) -> Result<Option<u64>, LakeError> {
        self.rows.refresh().await?;
        let (mut is_there, mut is_open) = (true, true);
        for partition in partitions {
            let found = self.rows.progress(partition).await?;
            let Some(state) = self.partitions.get(partition) else { continue };
            is_there &= found.is_some_and(|found| found.next == state.reached.next);
            is_open &= found == state.committed;
        }
        match (is_there, is_open) {
            (true, _) => Ok(Some(self.rows.version())),
            (false, true) => Ok(None),
            (false, false) => Err(self.superseded("its offsets have changed".to_owned())),
        }
    }
}

fn size_of(adds: &[Add]) -> u64 {
    adds.iter().map(|add| add.size.unsigned_abs()).sum()
}

/// The path of a file that came with this commit.
pub(super) fn new_file(action: &Action) -> Option<String> {
    match action {
        Action::Add(add) if add.deletion_vector.is_none() => Some(add.path.clone()),
        _ => None,
    }
}

/// The bytes of a file that came; one that only got a vector was there before.
fn new_bytes(add: &Add) -> u64 {
    if add.deletion_vector.is_some() { 0 } else { add.size.unsigned_abs() }
}
