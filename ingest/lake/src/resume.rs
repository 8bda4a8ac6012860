//! Going on from another place than the tables say: after a topic was created anew, or records were
//! lost, and a person has decided what is to be done.

use std::collections::HashMap;

use ruam_event::{DatasetId, Partition, Topic};
use std::sync::Arc;

use crate::error::LakeError;
use crate::location::{Lake, TableKind, TableName};
use crate::progress::Progress;
use crate::table::{self, Attempt, Operation};

/// How often a commit is tried again when another writer is quicker.
const ATTEMPTS: usize = 5;

impl Lake {
    /// Makes a dataset's tables go on from the given offsets. The counts of what was read before
    /// are kept, so that the books still balance; offsets that are passed over count as absent.
    ///
    /// # Errors
    /// Where records would be read a second time, or the tables cannot be committed to.
    pub async fn resume(&self, dataset: &DatasetId, starts: &[(Partition, i64)]) -> Result<(), LakeError> {
        // The rows come last: until then, a worker that starts goes by the old account.
        for kind in [TableKind::Rejects, TableKind::Changes, TableKind::Rows] {
            self.resume_table(&TableName::new(dataset, kind), starts).await?;
        }
        Ok(())
    }

    async fn resume_table(&self, name: &TableName, starts: &[(Partition, i64)]) -> Result<(), LakeError> {
        for _ in 0..ATTEMPTS {
            let Some(mut delta) = table::load(self, name).await? else { return Ok(()) };
            let mut transactions = Vec::new();
            for (partition, start) in starts {
                let progress = resumed(&delta, name, partition, *start).await?;
                transactions.extend(progress.transactions(&name.dataset, partition));
            }
            let note = HashMap::from([("ruam.resumed".to_owned(), true.into())]);
            let commit = table::commit(&mut delta, Vec::new(), transactions, Operation::Append.delta(&[]), note).await;
            match commit.map_err(|error| LakeError::table("commit to", name, error))? {
                Attempt::Committed(_) => return Ok(()),
                Attempt::Conflict => {}
            }
        }
        Err(LakeError::Superseded {
            dataset: name.dataset.clone(),
            detail: "workers are writing; stop them first".to_owned(),
        })
    }
}

async fn resumed(
    delta: &deltalake::DeltaTable,
    name: &TableName,
    partition: &Partition,
    start: i64,
) -> Result<Progress, LakeError> {
    let fresh = Progress { start, next: start, ..Progress::default() };
    let Some(before) = table::topic_id(delta, name, &partition.topic.name).await? else { return Ok(fresh) };
    let topic = Arc::new(Topic { name: partition.topic.name.clone(), id: before });
    let Some(old) = table::progress(delta, name, &Partition { topic, index: partition.index }).await? else {
        return Ok(fresh);
    };
    if before != partition.topic.id {
        // Another topic: the span that was read goes on from the new offset.
        return Ok(Progress { start: start - (old.next - old.start), next: start, ..old });
    }
    if start < old.next && name.kind == TableKind::Rows {
        return Err(LakeError::Incompatible {
            dataset: name.dataset.clone(),
            problem: format!(
                "{partition} was read up to offset {}, and reading from {start} would write records a second time",
                old.next
            ),
            remedy: "Go on from a later offset, or from the end".to_owned(),
        });
    }
    let passed = u64::try_from(start - old.next).unwrap_or(0);
    Ok(Progress { next: start.max(old.next), absent: old.absent + passed, ..old })
}
