//! Keeping tables fast and small, in the background and by hand.
//!
//! What passes through: a table with many small files, deleted rows, rows in no order and files that
//! nobody needs, into one that reads as if it had just been written.
//!
//! Guaranteed: no commit waits for files to be written anew, and none is lost. The work goes on beside
//! the writer, on looks at the table of its own; what comes of it is put in force by one commit, strictly
//! on what was looked at, which the writer makes between two of its own. One table at a time is worked
//! on in a process, however many there are. It can be stopped at any time; what is half done belongs to
//! no table, and is taken away by the next vacuum.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::choice::{self, Effort};
use crate::compact::{self, Compacted, Rewritten};
use crate::error::LakeError;
use crate::log::{self, Cleared};
use crate::table::Table;
use crate::vacuum::{self, Vacuumed};
use crate::vectors::VectorCache;

/// How many commits pass before it is looked again whether files are to be merged.
const COMMITS: u64 = 8;
/// The same while a backlog is read: catching up has the cores and the memory first, but a writer
/// that never does must not leave its table to wear out.
const COMMITS_BEHIND: u64 = 32 * COMMITS;
/// So many files of a table are worth the commits that follow a checkpoint: whoever opens the table reads all
/// of the one and of the others, and to write a checkpoint costs what its files do.
const FILES_A_COMMIT: u64 = 4;
/// Fewer commits than these are not worth one, which is a file more in the log for an hour.
const LEAST_COMMITS: u64 = 2;
/// How many commits pass before the log is cleared.
const COMMITS_LOGGED: u64 = 1024;
/// How often unused files are looked for.
const VACUUM_EVERY: Duration = Duration::from_secs(3600);

/// How far background work steps back from all other threads, as `nice` counts.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// All background work of a process takes turns.
pub(crate) static TURN: Semaphore = Semaphore::const_new(1);

/// What maintenance of a table has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Files that were merged, or sorted.
    pub compacted: Compacted,
    /// Files that were deleted.
    pub vacuumed: Vacuumed,
    /// Files of the log that were deleted.
    pub cleared: Cleared,
}

impl Maintained {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            compacted: self.compacted.and(other.compacted),
            vacuumed: self.vacuumed.and(other.vacuumed),
            cleared: self.cleared.and(other.cleared),
        }
    }
}

/// Writes the rows of some files anew; none where the table is in order, or it is to stop.
async fn rewrite(
    table: &mut Table,
    cache: &mut VectorCache,
    effort: Effort,
    stop: &AtomicBool,
) -> Result<Option<Rewritten>, LakeError> {
    table.refresh().await?;
    let files = cache.files(table.delta()).await;
    let files = files.map_err(|source| LakeError::table("compact", &table.name, source))?;
    let chosen = choice::choose(&files, &table.definition().cluster_by, effort);
    if chosen.is_empty() { Ok(None) } else { compact::rewrite(table, chosen, stop).await }
}

async fn vacuum(table: &Table, retention: Duration) -> Result<Vacuumed, LakeError> {
    let done = vacuum::vacuum(table.delta(), retention, SystemTime::now()).await;
    done.map_err(|source| LakeError::table("vacuum", &table.name, source))
}

async fn checkpoint(table: &Table) -> Result<(), LakeError> {
    let done = log::checkpoint(table.delta()).await;
    done.map_err(|source| LakeError::table("write a checkpoint of", &table.name, source))
}

async fn clear(table: &Table) -> Result<Cleared, LakeError> {
    let done = async { log::clear(table.delta(), &vacuum::kept(table.delta()).await?, SystemTime::now()).await };
    done.await.map_err(|source| LakeError::table("clear the log of", &table.name, source))
}

/// All of it, now: merges and sorts files, deletes what has been unused for the whole retention, and clears the log.
pub(crate) async fn maintain(table: &Table, retention: Duration) -> Result<Maintained, LakeError> {
    let mut table = table.clone();
    let (mut cache, mut compacted) = (VectorCache::default(), Compacted::default());
    while let Some(rewritten) = rewrite(&mut table, &mut cache, Effort::All, &AtomicBool::new(false)).await? {
        // None where others are busy with the same files.
        let Some(more) = compact::install(&mut table, &mut cache, &rewritten).await? else { break };
        compacted = compacted.and(more);
    }
    let vacuumed = vacuum(&table, retention).await?;
    Ok(Maintained { compacted, vacuumed, cleared: clear(&table).await? })
}

/// Does some work on a thread that gets what others leave of the cores, and waits for it; none where the
/// thread came to no end.
///
/// The thread is its own and does nothing else after, since only a privileged process may take a thread's
/// niceness back.
fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let nicely = || {
            // Of this thread, not of the process, as Linux has it; elsewhere it is done as all else is.
            #[cfg(target_os = "linux")]
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
            work()
        };
        thread::Builder::new().name("upkeep".to_owned()).spawn_scoped(scope, nicely).ok()?.join().ok()
    })
}

/// The background work on one table.
pub(crate) struct Upkeep {
    retention: Duration,
    stop: Arc<AtomicBool>,
    /// The version at which it was last looked, that of the last checkpoint, and that at which the log was last
    /// cleared.
    looked: u64,
    checkpointed: u64,
    cleared: u64,
    /// When files were last deleted.
    vacuumed: Instant,
    /// The vectors that were read by the last work.
    vectors: VectorCache,
    running: Option<JoinHandle<Result<Done, LakeError>>>,
}

/// What was done in the background.
struct Done {
    vectors: VectorCache,
    rewritten: Option<Rewritten>,
    vacuumed: Vacuumed,
    cleared: Cleared,
}

impl Upkeep {
    pub(crate) fn new(table: &Table, retention: Duration) -> Self {
        let version = table.version();
        let (stop, vacuumed, vectors) = (Arc::default(), Instant::now(), VectorCache::default());
        Self {
            retention,
            stop,
            looked: version,
            checkpointed: version,
            cleared: version,
            vacuumed,
            vectors,
            running: None,
        }
    }

    /// What has been rewritten since it was last asked, and is to be put in force; tells what else was done.
    ///
    /// That is for the writer to do, between two commits: against one that commits every few milliseconds
    /// nobody else would ever be the first.
    pub(crate) async fn finished(&mut self, table: &Table) -> Option<Rewritten> {
        let running = self.running.take_if(|running| running.is_finished())?;
        match running.await {
            Ok(Ok(Done { vectors, rewritten, vacuumed, cleared })) => {
                self.vectors = vectors;
                if vacuumed.files > 0 {
                    tracing::info!(table = %table.name, files = vacuumed.files, bytes = vacuumed.bytes, "deleted files that nobody needs");
                }
                if cleared.files > 0 {
                    tracing::info!(table = %table.name, files = cleared.files, bytes = cleared.bytes, "cleared the log");
                }
                return rewritten;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, table = %table.name, "maintenance failed; it is tried again later")
            }
            Err(error) => {
                tracing::warn!(%error, table = %table.name, "maintenance ended early; it is tried again later")
            }
        }
        None
    }

    /// Begins work where some is due and nobody else in this process works. Returns at once.
    pub(crate) fn begin(&mut self, table: &Table, is_behind: bool) {
        let commits = if is_behind { COMMITS_BEHIND } else { COMMITS };
        let is_worn = table.version() >= self.looked + commits;
        let is_checkpoint_due = || {
            let files = table.delta().snapshot().map_or(0, |state| state.log_data().num_files() as u64);
            table.version() >= self.checkpointed + (files / FILES_A_COMMIT).clamp(LEAST_COMMITS, commits)
        };
        let is_vacuum_due = self.vacuumed.elapsed() >= VACUUM_EVERY && !is_behind;
        if self.running.is_some() || !(is_worn || is_vacuum_due || !is_behind && is_checkpoint_due()) {
            return;
        }
        let Ok(permit) = TURN.try_acquire() else { return };
        let is_clearing_due = table.version() >= self.cleared + COMMITS_LOGGED;
        self.checkpointed = table.version();
        if is_worn {
            self.looked = table.version();
        }
        if is_clearing_due {
            self.cleared = table.version();
        }
        if is_vacuum_due {
            self.vacuumed = Instant::now();
        }
        let (mut table, stop, retention, runtime) =
            (table.clone(), self.stop.clone(), self.retention, Handle::current());
        let (name, mut vectors) = (table.name.clone(), std::mem::take(&mut self.vectors));
        self.running = Some(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let work = async {
                // Once only: the writer is to learn of each merge before rows are moved on.
                let rewritten = match is_worn {
                    true => rewrite(&mut table, &mut vectors, Effort::Usual, &stop).await?,
                    false => None,
                };
                checkpoint(&table).await?;
                let vacuumed = if is_vacuum_due { vacuum(&table, retention).await? } else { Vacuumed::default() };
                let cleared = if is_clearing_due { clear(&table).await? } else { Cleared::default() };
                Ok(Done { vectors, rewritten, vacuumed, cleared })
            };
            aside(|| runtime.block_on(work))
                .unwrap_or_else(|| Err(LakeError::table("maintain", &name, "its thread ended early")))
        }));
    }

    /// Puts in force what has been rewritten; says whether files were merged.
    pub(crate) async fn install(&mut self, table: &mut Table, cache: &mut VectorCache, rewritten: &Rewritten) -> bool {
        match compact::install(table, cache, rewritten).await {
            Ok(Some(compacted)) => {
                // There may be more to do at once.
                self.looked = 0;
                tracing::info!(
                    table = %table.name, files = compacted.files_before, into = compacted.files_after,
                    bytes = compacted.bytes_before, into_bytes = compacted.bytes_after, deleted_rows = compacted.purged, sorted = compacted.sorted,
                    "merged files"
                );
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%error, table = %table.name, "maintenance failed; it is tried again later");
                false
            }
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
