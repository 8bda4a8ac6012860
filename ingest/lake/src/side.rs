//! A table beside the rows (rejects, changes): written before them, so that nothing is ever missing
//! from it, and never twice.
//!
//! A side table may be ahead of the rows after a crash, or after a race that another writer lost.
//! Then the records between the two are read again, and those of them that the side table holds
//! already are left out. That stays right when the dataset's declaration has changed in between:
//! what has been shown as rejected stays rejected.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use deltalake::datafusion::prelude::{SessionContext, col, lit};
use ruam_event::Partition;

use crate::error::LakeError;
use crate::fold::column;
use crate::progress::Progress;
use crate::table::{Attempt, Operation, Table};

/// A table beside the rows.
#[derive(Debug)]
pub(crate) struct Side {
    pub table: Table,
    seen: BTreeMap<Partition, Seen>,
    pending: Vec<RecordBatch>,
}

/// What the table holds of a partition already.
#[derive(Debug, Default)]
struct Seen {
    /// How far it is, by its own account.
    progress: Option<Progress>,
    /// The offsets that it holds from where the rows are on.
    offsets: HashSet<i64>,
}

impl Side {
    pub(crate) fn new(table: Table) -> Self {
        Self { table, seen: BTreeMap::new(), pending: Vec::new() }
    }

    /// Begins with partitions whose rows are at the given offsets.
    pub(crate) async fn assign(&mut self, starts: &[(Partition, i64)]) -> Result<(), LakeError> {
        self.table.refresh().await?;
        self.pending.clear();
        self.seen.clear();
        for (partition, start) in starts {
            let progress = self.table.progress(partition).await?;
            let is_ahead = progress.is_some_and(|progress| progress.next > *start);
            let offsets = if is_ahead { self.offsets_from(partition, *start).await? } else { HashSet::new() };
            self.seen.insert(partition.clone(), Seen { progress, offsets });
        }
        Ok(())
    }

    async fn offsets_from(&self, partition: &Partition, start: i64) -> Result<HashSet<i64>, LakeError> {
        let read = async {
            let provider = self.table.delta().table_provider().await?;
            let of_partition =
                col("_topic").eq(lit(partition.topic.name.clone())).and(col("_partition").eq(lit(partition.index)));
            let rows = SessionContext::new()
                .read_table(provider)?
                .filter(of_partition.and(col("_offset").gt_eq(lit(start))))?;
            let batches = rows.select(vec![col("_offset")])?.collect().await?;
            let offsets = batches.iter().map(|batch| Ok(column::<Int64Array>(batch, "_offset")?.values().to_vec()));
            let offsets = offsets.collect::<Result<Vec<_>, ArrowError>>()?;
            Ok::<_, deltalake::datafusion::error::DataFusionError>(offsets.into_iter().flatten().collect())
        };
        read.await.map_err(|error| LakeError::table("read", &self.table.name, error))
    }

    /// Whether the table holds a record already.
    pub(crate) fn holds(&self, partition: &Partition, offset: i64) -> bool {
        self.seen.get(partition).is_some_and(|seen| seen.offsets.contains(&offset))
    }

    /// Whether it holds any record that is still to be read.
    pub(crate) fn is_ahead(&self, partition: &Partition) -> bool {
        self.seen.get(partition).is_some_and(|seen| !seen.offsets.is_empty())
    }

    /// Adds rows of a partition, but for those that the table holds already.
    pub(crate) fn add(&mut self, partition: &Partition, rows: RecordBatch) -> Result<(), ArrowError> {
        let rows =
            if self.is_ahead(partition) { without(&rows, |_, offset| self.holds(partition, offset))? } else { rows };
        if rows.num_rows() > 0 {
            self.pending.push(rows);
        }
        Ok(())
    }

    pub(crate) fn pending_rows(&self) -> usize {
        self.pending.iter().map(RecordBatch::num_rows).sum()
    }

    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.iter().map(RecordBatch::get_array_memory_size).sum()
    }

    /// Commits what has been added, for records up to the given offsets.
    pub(crate) async fn commit(&mut self, ends: &[(Partition, i64)]) -> Result<u64, LakeError> {
        if self.pending.is_empty() {
            return Ok(0);
        }
        let count = self.pending_rows() as u64;
        let actions = self.table.write_file(&self.pending).await?;
        let reached = |(partition, end): &(Partition, i64)| {
            let before = self.seen.get(partition).and_then(|seen| seen.progress).unwrap_or_default();
            (partition.clone(), Progress { next: before.next.max(*end), ..before })
        };
        let reached: Vec<_> = ends.iter().map(reached).collect();
        loop {
            let dataset = &self.table.name.dataset;
            let transactions =
                reached.iter().flat_map(|(partition, progress)| progress.transactions(dataset, partition)).collect();
            match self.table.commit(actions.clone(), transactions, Operation::Append, HashMap::new()).await? {
                Attempt::Committed(_) => break,
                Attempt::Conflict => self.check_unmoved().await?,
            }
        }
        for (partition, progress) in reached {
            self.seen.entry(partition).or_default().progress = Some(progress);
        }
        self.pending.clear();
        Ok(count)
    }

    /// After somebody else's commit: nothing of ours is out of date, or we have to begin again.
    async fn check_unmoved(&mut self) -> Result<(), LakeError> {
        self.table.refresh().await?;
        for (partition, seen) in &self.seen {
            if self.table.progress(partition).await? != seen.progress {
                let dataset = self.table.name.dataset.clone();
                return Err(LakeError::Superseded { dataset, detail: format!("{} of {partition}", self.table.name) });
            }
        }
        Ok(())
    }

    pub(crate) fn discard(&mut self) {
        self.pending.clear();
    }
}

/// The rows of which a partition and offset are not to be left out.
pub(crate) fn without(rows: &RecordBatch, leave_out: impl Fn(i32, i64) -> bool) -> Result<RecordBatch, ArrowError> {
    filter_record_batch(rows, &keep(rows, leave_out)?)
}

/// Which rows stay.
pub(crate) fn keep(rows: &RecordBatch, leave_out: impl Fn(i32, i64) -> bool) -> Result<BooleanArray, ArrowError> {
    let (partitions, offsets): (&Int32Array, &Int64Array) = (column(rows, "_partition")?, column(rows, "_offset")?);
    Ok((0..rows.num_rows()).map(|row| Some(!leave_out(partitions.value(row), offsets.value(row)))).collect())
}
