//! How far a table is: what rides along in each of its commits, as Delta's `txn` actions.
//!
//! One `txn` per partition holds the next offset to read; others beside it hold counts that prove
//! that nothing was lost. All carry the dataset, the topic and its identity in their name, so that a
//! topic that is deleted and created anew is another.
//!
//! | application id | version |
//! |---|---|
//! | `ruam/<dataset>/<topic>/id/high`, `.../low` | the topic's identity |
//! | `ruam/<dataset>/<topic>/<id>/<partition>` | the next offset |
//! | `.../start` | the first offset that was read |
//! | `.../absent` | offsets that held no record (ends of transactions, compaction) |
//! | `.../filtered` | records that say nothing (tombstones) |
//! | `.../folded` | accepted events whose effect a later one has replaced |
//! | `.../late` | those of them that came when a later one of their key was there already |

use deltalake::kernel::Transaction;
use ruam_event::{DatasetId, Partition, TopicId};

/// How far a table is with one partition, and what became of the records so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The first offset that was read.
    pub start: i64,
    /// The next offset.
    pub next: i64,
    /// Offsets that held no record.
    pub absent: u64,
    /// Records that say nothing.
    pub filtered: u64,
    /// Accepted events whose effect a later one has replaced, or that removed a row.
    pub folded: u64,
    /// Those of the folded that came when one of their key with the same source position or a later one
    /// was there already, so that they never had an effect.
    pub late: u64,
}

/// The counts beside the next offset.
const COUNTS: [&str; 5] = ["start", "absent", "filtered", "folded", "late"];

impl Progress {
    /// How many records were read.
    pub fn records(&self) -> u64 {
        u64::try_from(self.next - self.start).unwrap_or(0).saturating_sub(self.absent)
    }

    /// The `txn` actions that say so.
    pub(crate) fn transactions(&self, dataset: &DatasetId, partition: &Partition) -> Vec<Transaction> {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let values = [self.start, count(self.absent), count(self.filtered), count(self.folded), count(self.late)];
        let id = partition_id(dataset, partition);
        let counts = COUNTS.iter().zip(values).map(|(name, value)| Transaction::new(format!("{id}/{name}"), value));
        let topic = topic_ids(dataset, &partition.topic.name).into_iter().zip(halves(partition.topic.id));
        let topic = topic.map(|(name, half)| Transaction::new(name, half));
        [Transaction::new(&id, self.next)].into_iter().chain(topic).chain(counts).collect()
    }
}

/// The names under which a table keeps the identity of its topic.
pub(crate) fn topic_ids(dataset: &DatasetId, topic: &str) -> [String; 2] {
    ["high", "low"].map(|half| format!("ruam/{dataset}/{topic}/id/{half}"))
}

/// The name under which a table keeps how far it is with a partition.
pub(crate) fn partition_id(dataset: &DatasetId, partition: &Partition) -> String {
    format!("ruam/{dataset}/{}/{}/{}", partition.topic.name, partition.topic.id, partition.index)
}

/// A topic's identity in two numbers, as a `txn` has room for.
fn halves(id: TopicId) -> [i64; 2] {
    [(id.0 >> 64) as i64, id.0 as i64]
}

/// A topic's identity from its two halves.
pub(crate) fn identity([high, low]: [i64; 2]) -> TopicId {
    TopicId(u128::from(high as u64) << 64 | u128::from(low as u64))
}

/// The names of the counts of a partition, in the order of [`from_counts`].
pub(crate) fn count_ids(dataset: &DatasetId, partition: &Partition) -> [String; COUNTS.len()] {
    let id = partition_id(dataset, partition);
    COUNTS.map(|name| format!("{id}/{name}"))
}

/// Progress from what a table holds.
pub(crate) fn from_counts(next: i64, counts: [Option<i64>; COUNTS.len()]) -> Progress {
    let [start, absent, filtered, folded, late] = counts.map(Option::unwrap_or_default);
    Progress {
        start,
        next,
        absent: absent.unsigned_abs(),
        filtered: filtered.unsigned_abs(),
        folded: folded.unsigned_abs(),
        late: late.unsigned_abs(),
    }
}
