//! Files that a table does not need any more, away.
//!
//! Guaranteed: a file goes only after it has been seen unused for the whole retention, so that every
//! version of that time can still be read, and what a commit is about to use stays. When it was first
//! seen is kept beside the table (`_ruam/unused.json`), because neither a file's age nor the table's
//! log says since when nobody needs it: a vector that was written a month ago may have been in force
//! until a minute ago.
//!
//! Only data files and deletion vectors are looked at; whatever else lies in a table's folder is
//! somebody else's.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deltalake::DeltaTable;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::error::BoxError;
use crate::vectors;

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

/// [`UNUSED`]: for each file when it was first seen unused, in milliseconds since 1970-01-01 UTC.
#[derive(Default, serde::Deserialize, serde::Serialize)]
struct Unused {
    since: BTreeMap<String, u64>,
}

/// Deletes what no version within the retention needs. Looks at the table as it is now.
pub(crate) async fn vacuum(table: &DeltaTable, retention: Duration, now: SystemTime) -> Result<Vacuumed, BoxError> {
    let store = table.log_store().object_store(None);
    let mut present: Vec<ObjectMeta> =
        store.list(None).try_filter(|file| std::future::ready(is_data(&file.location))).try_collect().await?;
    // The table is looked at after the folder, so that what was committed in between is in use.
    let mut table = table.clone();
    table.update_incremental(None).await?;
    let mut used = HashSet::new();
    for file in table.snapshot()?.log_data().iter() {
        used.insert(file.object_store_path());
        used.extend(file.deletion_vector_descriptor().as_ref().and_then(vectors::file_of).map(Path::from));
    }
    present.retain(|file| !used.contains(&file.location));
    let before = match store.get(&Path::from(UNUSED)).await {
        Ok(found) => serde_json::from_slice(&found.bytes().await?).unwrap_or_else(|error| {
            tracing::warn!(%error, table = %table.table_url(), "{UNUSED} cannot be read; the retention begins anew");
            Unused::default()
        }),
        Err(object_store::Error::NotFound { .. }) => Unused::default(),
        Err(error) => return Err(error.into()),
    };
    let millis = u64::try_from(now.duration_since(UNIX_EPOCH)?.as_millis())?;
    let (mut after, mut done) = (Unused::default(), Vacuumed::default());
    for file in present {
        let path = file.location.to_string();
        let since = before.since.get(&path).copied().unwrap_or(millis);
        if u128::from(millis.saturating_sub(since)) < retention.as_millis() {
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
    if after.since != before.since {
        store.put(&Path::from(UNUSED), serde_json::to_vec(&after)?.into()).await?;
    }
    Ok(done)
}

/// Whether a file of a table's folder holds rows or vectors.
fn is_data(path: &Path) -> bool {
    let name = path.filename().unwrap_or_default();
    let is_hidden = path.parts().any(|part| part.as_ref().starts_with(['_', '.']));
    !is_hidden && (name.ends_with(".parquet") || name.ends_with(".bin"))
}
