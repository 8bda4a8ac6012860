//! What flows do, in numbers: per dataset, counted per batch, for progress lines, tables and logs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use ruam_event::DatasetId;
use ruam_lake::Committed;

/// The longest freshness that is told apart, in milliseconds.
const LONGEST_MS: u64 = 24 * 3600 * 1000;

/// The numbers of one dataset.
#[derive(Debug)]
pub(crate) struct Meter {
    id: DatasetId,
    /// Records that this process has published, and those that were in the log already.
    pub(crate) published: AtomicU64,
    pub(crate) repeated: AtomicU64,
    /// Whether the source has ended and all of it is in the log.
    pub(crate) fed: AtomicBool,
    /// Records that were committed, and what became of them.
    pub(crate) records: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) commits: AtomicU64,
    /// Records in the log that are not committed; -1 where that is not known.
    pub(crate) lag: AtomicI64,
    /// The next offset of each partition that this process works on.
    offsets: Mutex<BTreeMap<i32, i64>>,
    freshness: Mutex<Option<Histogram<u64>>>,
    trouble: Mutex<BTreeMap<&'static str, String>>,
}

/// When records reached the log: milliseconds since 1970, and how many did.
pub(crate) type Arrivals = Vec<(i64, u64)>;

impl Meter {
    /// All zero.
    pub(crate) fn new(id: DatasetId) -> Self {
        Self {
            id,
            published: AtomicU64::default(),
            repeated: AtomicU64::default(),
            fed: AtomicBool::default(),
            records: AtomicU64::default(),
            rows: AtomicU64::default(),
            rejected: AtomicU64::default(),
            bytes: AtomicU64::default(),
            commits: AtomicU64::default(),
            lag: AtomicI64::new(-1),
            offsets: Mutex::default(),
            freshness: Mutex::new(Histogram::new_with_bounds(1, LONGEST_MS, 3).ok()),
            trouble: Mutex::default(),
        }
    }

    /// The dataset.
    pub(crate) fn id(&self) -> &DatasetId {
        &self.id
    }

    /// These partitions, and no others, are this process' from now on.
    pub(crate) fn assigned(&self, offsets: impl Iterator<Item = (i32, i64)>) {
        *lock(&self.offsets) = offsets.collect();
    }

    /// The next offset of each partition that this process works on.
    pub(crate) fn offsets(&self) -> BTreeMap<i32, i64> {
        lock(&self.offsets).clone()
    }

    /// Counts a commit of records that reached the log at these times.
    pub(crate) fn committed(&self, records: u64, committed: &Committed, arrivals: &Arrivals) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.rows.fetch_add(committed.rows, Ordering::Relaxed);
        self.rejected.fetch_add(committed.rejected, Ordering::Relaxed);
        self.bytes.fetch_add(committed.bytes, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        lock(&self.offsets).extend(committed.offsets.iter().map(|(partition, offset)| (partition.index, *offset)));
        let now = now_ms();
        if let Some(freshness) = lock(&self.freshness).as_mut() {
            for (arrived, count) in arrivals {
                let age = u64::try_from(now - arrived).unwrap_or(0).clamp(1, LONGEST_MS);
                freshness.saturating_record_n(age, *count);
            }
        }
    }

    /// Milliseconds from a record's arrival in the log until it could be queried: that of half of
    /// the records, and that of 99 in a hundred. None before the first commit.
    pub(crate) fn freshness(&self) -> Option<(u64, u64)> {
        let freshness = lock(&self.freshness);
        let freshness = freshness.as_ref().filter(|freshness| !freshness.is_empty())?;
        Some((freshness.value_at_quantile(0.5), freshness.value_at_quantile(0.99)))
    }

    /// Says what is the trouble with a part of the flow, or that there is none.
    pub(crate) fn set_trouble(&self, part: &'static str, trouble: Option<String>) {
        let mut troubles = lock(&self.trouble);
        match trouble {
            Some(trouble) => troubles.insert(part, trouble),
            None => troubles.remove(part),
        };
    }

    /// What is the trouble, if there is any.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).iter().map(|(part, trouble)| format!("{part}: {trouble}")).next()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
