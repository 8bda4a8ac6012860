//! Files that a table does not need any more, away.
//!
//! A table that is committed to every second leaves two files a second behind. Not all of the versions that
//! they made up are worth them: each version that a vacuum looks at, one an hour where it runs by itself, is
//! kept for the retention with its files and its place in the [`log`](crate::log), and what came and went
//! between two looks goes sooner ([`BRIEF`]).
//!
//! Guaranteed: a file goes only after it has been seen unused for that long, so that every version that is
//! promised can be read, what a query still reads is there, and what a commit is about to use stays. When it
//! was first seen is kept beside the table (`_ruam/unused.json`), because neither a file's age nor the table's
//! log says since when nobody needs it: a vector that was written a month ago may have been in force
//! until a minute ago.
//!
//! Only data files and deletion vectors are looked at; whatever else lies in a table's folder is
//! somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deltalake::DeltaTable;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::error::BoxError;
use crate::log;
use crate::vectors;

/// How long files stay that no version needs that is kept: as long as a query may take that has begun with
/// them.
const BRIEF: Duration = Duration::from_secs(6 * 3600);
/// Where it is kept which files are unused; Delta's readers pass over names that begin so.
const UNUSED: &str = "_ruam/unused.json";

/// What a vacuum has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Files that were deleted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are unused, and have to wait until the retention is over.
    pub waiting: u64,
}

impl Vacuumed {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { files: self.files + other.files, bytes: self.bytes + other.bytes, waiting: self.waiting + other.waiting }
    }
}

/// [`UNUSED`]: what the looks so far have found. Times are in milliseconds since 1970-01-01 UTC.
#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(default)]
struct Looks {
    /// For each unused file when it was first seen so.
    since: BTreeMap<String, u64>,
    /// Those of them that no version needs that was looked at.
    brief: BTreeSet<String>,
    /// The files that were in use at the last look.
    used: BTreeSet<String>,
    /// The versions that were looked at, and when.
    kept: BTreeMap<u64, u64>,
}

impl Looks {
    async fn read(table: &DeltaTable) -> Result<Self, BoxError> {
        match table.log_store().object_store(None).get(&Path::from(UNUSED)).await {
            Ok(found) => Ok(serde_json::from_slice(&found.bytes().await?).unwrap_or_else(|error| {
                tracing::warn!(%error, table = %table.table_url(), "{UNUSED} cannot be read; the retention begins anew");
                Self::default()
            })),
            Err(object_store::Error::NotFound { .. }) => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The versions whose files are kept.
pub(crate) async fn kept(table: &DeltaTable) -> Result<BTreeSet<u64>, BoxError> {
    Ok(Looks::read(table).await?.kept.into_keys().collect())
}

/// Deletes what no version that is kept needs. Looks at the table as it is now, and keeps this version.
pub(crate) async fn vacuum(table: &DeltaTable, retention: Duration, now: SystemTime) -> Result<Vacuumed, BoxError> {
    let store = table.log_store().object_store(None);
    let mut present: Vec<ObjectMeta> =
        store.list(None).try_filter(|file| std::future::ready(is_data(&file.location))).try_collect().await?;
    // The table is looked at after the folder, so that what was committed in between is in use.
    let mut table = table.clone();
    table.update_incremental(None).await?;
    log::checkpoint(&table).await?;
    let mut used = BTreeSet::new();
    for file in table.snapshot()?.log_data().iter() {
        used.insert(file.object_store_path().to_string());
        used.extend(file.deletion_vector_descriptor().as_ref().and_then(vectors::file_of));
    }
    let before = Looks::read(&table).await?;
    let millis = u64::try_from(now.duration_since(UNIX_EPOCH)?.as_millis())?;
    let is_over = |since: u64, retention: Duration| u128::from(millis.saturating_sub(since)) >= retention.as_millis();
    let (mut after, mut done) = (Looks { kept: before.kept, ..Looks::default() }, Vacuumed::default());
    after.kept.retain(|_, looked| !is_over(*looked, retention));
    after.kept.extend(table.version().map(|version| (version, millis)));
    present.retain(|file| !used.contains(file.location.as_ref()));
    for file in present {
        let path = file.location.to_string();
        let is_brief = match before.since.contains_key(&path) {
            true => before.brief.contains(&path),
            false => !before.used.contains(&path),
        };
        let since = before.since.get(&path).copied().unwrap_or(millis);
        if !is_over(since, if is_brief { retention.min(BRIEF) } else { retention }) {
            if is_brief {
                after.brief.insert(path.clone());
            }
            after.since.insert(path, since);
            continue;
        }
        match store.delete(&file.location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        done.files += 1;
        done.bytes += file.size;
    }
    done.waiting = after.since.len() as u64;
    after.used = used;
    store.put(&Path::from(UNUSED), serde_json::to_vec(&after)?.into()).await?;
    Ok(done)
}

/// Whether a file of a table's folder holds rows or vectors.
fn is_data(path: &Path) -> bool {
    let name = path.filename().unwrap_or_default();
    let is_hidden = path.parts().any(|part| part.as_ref().starts_with(['_', '.']));
    !is_hidden && (name.ends_with(".parquet") || name.ends_with(".bin"))
}
