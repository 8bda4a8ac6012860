//! A table's log, kept short: checkpoints, and which of its versions stay.
//!
//! What passes through: the files of `_delta_log`, one for each commit, into few. Whoever opens a table
//! lists them, reads the newest checkpoint and the commits since, so that a table that is committed to
//! twice a second would open more slowly with each hour.
//!
//! Guaranteed: what the newest version needs stays, each version of the last while ([`EVERY`]) can be read,
//! and so can those that [`vacuum`](crate::vacuum) has kept the data of. A clearing can be stopped at any
//! time, and be done by several at once.
//!
//! That leaves gaps in the log before a checkpoint, as a clean-up that was stopped halfway does; readers
//! begin at a checkpoint (Delta's PROTOCOL.md, "Metadata Cleanup").

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deltalake::DeltaTable;
use deltalake::logstore::LogStore;
use deltalake::protocol::checkpoints;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::error::BoxError;

/// What a log says of the last checkpoint that was made.
pub(crate) const LAST_CHECKPOINT: &str = "_last_checkpoint";
/// How names of a version's files end: its commit, all before it in one, and its totals.
pub(crate) const COMMIT: &str = "json";
pub(crate) const CHECKPOINT: &str = "checkpoint.parquet";
pub(crate) const CHECKSUM: &str = "crc";

/// For so long each version stays.
pub(crate) const EVERY: Duration = Duration::from_secs(3600);

/// What clearing a log has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Files of the log that were deleted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Cleared {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { files: self.files + other.files, bytes: self.bytes + other.bytes }
    }
}

/// A file of a log that belongs to one version.
#[derive(Clone, Debug)]
struct LogFile {
    version: u64,
    is_checkpoint: bool,
    written: SystemTime,
    meta: ObjectMeta,
}

impl LogFile {
    /// None where it is of another kind (checkpoints in parts, sidecars): others' files are left alone.
    fn of(meta: ObjectMeta) -> Option<Self> {
        let (version, kind) = meta.location.filename()?.split_once('.')?;
        let version = version.parse().ok().filter(|_| version.len() == 20)?;
        let is_checkpoint = match kind {
            COMMIT | CHECKSUM => false,
            CHECKPOINT => true,
            _ => return None,
        };
        let written = UNIX_EPOCH + Duration::from_millis(u64::try_from(meta.last_modified.timestamp_millis()).ok()?);
        Some(Self { version, is_checkpoint, written, meta })
    }
}

/// Has the version of a table that was looked at begin with a checkpoint; nothing where it does.
pub(crate) async fn checkpoint(table: &DeltaTable) -> Result<(), BoxError> {
    let Some(version) = table.version() else { return Ok(()) };
    let log_store = table.log_store();
    let path = log_store.log_path().clone().join(format!("{version:020}.{CHECKPOINT}"));
    match log_store.object_store(None).head(&path).await {
        Ok(_) => Ok(()),
        Err(object_store::Error::NotFound { .. }) => Ok(checkpoints::create_checkpoint(table, None).await?),
        Err(error) => Err(error.into()),
    }
}

/// The version of the checkpoint that a log names as its last; none where that cannot be read.
pub(crate) fn named_checkpoint(last_checkpoint: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Named {
        version: u64,
    }
    serde_json::from_slice(last_checkpoint).ok().map(|Named { version }| version)
}

/// Deletes the files of all versions but those that are to be kept and those of the last while.
pub(crate) async fn clear(table: &DeltaTable, kept: &BTreeSet<u64>, now: SystemTime) -> Result<Cleared, BoxError> {
    let log_store = table.log_store();
    let store = log_store.object_store(None);
    let files: Vec<_> = store
        .list(Some(log_store.log_path()))
        .map_ok(LogFile::of)
        .try_filter_map(async |file| Ok(file))
        .try_collect()
        .await?;
    let named = match store.get(&log_store.log_path().clone().join(LAST_CHECKPOINT)).await {
        Ok(named) => named_checkpoint(&named.bytes().await?),
        Err(object_store::Error::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let Some(named) = named else { return Ok(Cleared::default()) };
    let expired = expired(&files, named, kept, now);
    let cleared = Cleared { files: expired.len() as u64, bytes: expired.iter().map(|file| file.meta.size).sum() };
    let locations = expired.into_iter().map(|file| Ok(file.meta.location.clone())).collect::<Vec<_>>();
    let mut deleted = store.delete_stream(futures::stream::iter(locations).boxed());
    while let Some(done) = deleted.next().await {
        match done {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(cleared)
}

/// The files that no version that stays needs. Nothing goes of what comes after the checkpoint that the log
/// names as its last: there readers take a version that is missing for the end.
fn expired<'a>(files: &'a [LogFile], named: u64, kept: &BTreeSet<u64>, now: SystemTime) -> Vec<&'a LogFile> {
    let is_old = |file: &LogFile| now.duration_since(file.written).is_ok_and(|age| age > EVERY);
    // From this one on, all versions can be read.
    let begins = files.iter().filter(|file| file.is_checkpoint && file.version <= named && is_old(file));
    let begin = begins.map(|file| file.version).max();
    let Some(begin) = begin else { return Vec::new() };
    files.iter().filter(|file| file.version < begin && is_old(file) && !kept.contains(&file.version)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(version: u64, is_checkpoint: bool, written: SystemTime) -> LogFile {
        let kind = if is_checkpoint { "checkpoint.parquet" } else { "json" };
        let meta = ObjectMeta {
            location: format!("_delta_log/{version:020}.{kind}").into(),
            last_modified: written.into(),
            size: 1,
            e_tag: None,
            version: None,
        };
        LogFile::of(meta).unwrap()
    }

    /// Whether a version can be read: a checkpoint at or before it, and all commits since.
    fn is_readable(files: &[LogFile], version: u64) -> bool {
        let has = |version, is_checkpoint| {
            files.iter().any(|file| file.version == version && file.is_checkpoint == is_checkpoint)
        };
        has(version, false)
            && (0..=version)
                .rev()
                .take_while(|earlier| has(earlier + 1, false) || *earlier == version)
                .any(|earlier| has(earlier, true) || (earlier == 0 && has(0, false)))
    }

    proptest! {
        #[test]
        fn what_is_promised_can_be_read(
            gaps in prop::collection::vec(1_u64..1_500, 1..400),
            every in 1_u64..20,
            kept in prop::collection::btree_set(0_u64..400, 0..10),
            named in 0_u64..500,
        ) {
            let now = UNIX_EPOCH + Duration::from_secs(10_000_000);
            // The last commit was just now; the gaps lie between them.
            let mut written: Vec<_> = gaps
                .iter()
                .scan(now, |at, gap| {
                    let this = *at;
                    *at -= Duration::from_secs(*gap);
                    Some(this)
                })
                .collect();
            written.reverse();
            let mut files = Vec::new();
            for (version, at) in (0_u64..).zip(&written) {
                files.push(file(version, false, *at));
                if version % every == every - 1 || kept.contains(&version) {
                    files.push(file(version, true, *at));
                }
            }
            let gone: Vec<_> = expired(&files, named, &kept, now).iter().map(|file| file.meta.location.clone()).collect();
            let left: Vec<_> = files.iter().filter(|file| !gone.contains(&file.meta.location)).cloned().collect();
            let age = |at: SystemTime| now.duration_since(at).unwrap();
            for (version, at) in (0_u64..).zip(&written) {
                let stays = age(*at) <= EVERY || kept.contains(&version);
                prop_assert!(!stays || is_readable(&left, version), "{version} stays");
            }
            let whole = |files: &[LogFile]| files.iter().filter(|file| file.version >= named).count();
            prop_assert_eq!(whole(&left), whole(&files), "all after {} stay", named);
            // However many versions there were, what is left of those before the last while is what is kept.
            let begins = files.iter().filter(|file| file.is_checkpoint && file.version <= named && age(file.written) > EVERY);
            let begin = begins.map(|file| file.version).max();
            let before = left.iter().filter(|file| begin.is_some_and(|begin| file.version < begin)).count();
            prop_assert!(before <= 2 * kept.len(), "{before} files of {} versions", kept.len());
        }
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let named = |name: &str| {
            LogFile::of(ObjectMeta {
                location: format!("_delta_log/{name}").into(),
                last_modified: UNIX_EPOCH.into(),
                size: 1,
                e_tag: None,
                version: None,
            })
            .map(|file| (file.version, file.is_checkpoint))
        };
        assert_eq!(named("00000000000000000017.json"), Some((17, false)));
        assert_eq!(named("00000000000000000017.crc"), Some((17, false)));
        assert_eq!(named("00000000000000000017.checkpoint.parquet"), Some((17, true)));
        for other in [
            "_last_checkpoint",
            "00000000000000000017.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000001.00000000000000000017.compacted.json",
            "17.json",
            "note.json",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
