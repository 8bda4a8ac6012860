//! Where on disk lies what does not fit into memory, and what jobs of clients have worked out.
//!
//! What passes through: a folder that the processes of an installation share, into one of this process' own in it.
//!
//! Guaranteed: it goes with the engine. What a process left there that was ended goes when the next begins, and
//! what one has there that still runs does not.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// What is locked: in the shared folder while somebody looks through it, in one of a process for as long as it
/// is in use.
const LOCK: &str = "lock";

/// A bound on what does not fit into memory.
#[derive(Clone, Debug)]
pub struct SpillSettings {
    /// The folder, which several processes may share.
    pub folder: PathBuf,
    /// The most bytes that lie there of one process.
    pub bytes: u64,
}

/// The folder of a process.
#[derive(Debug)]
pub(crate) struct Spill {
    folder: PathBuf,
    /// Tells others that it is in use, until it is closed.
    _lock: File,
}

impl Spill {
    /// Makes a folder of this process' own, and removes those that nobody uses any longer.
    ///
    /// # Errors
    /// Where the shared folder cannot be used.
    pub(crate) fn begin(shared: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(shared)?;
        let looking = private(&shared.join(LOCK))?;
        looking.lock()?;
        for entry in fs::read_dir(shared)? {
            let folder = entry?.path();
            if folder.is_dir() && is_left(&folder) {
                fs::remove_dir_all(&folder)?;
            }
        }
        let folder = shared.join(Uuid::new_v4().simple().to_string());
        DirBuilder::new().mode(0o700).create(&folder)?;
        let lock = private(&folder.join(LOCK))?;
        lock.lock()?;
        Ok(Self { folder, _lock: lock })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        // Where it cannot be removed now, the next process does it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Whether the process that made a folder has ended.
fn is_left(folder: &Path) -> bool {
    match File::open(folder.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        // It ended before it came to that.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_goes_and_what_is_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let shared = dir.path().join("spill");
        let in_use = Spill::begin(&shared).unwrap();
        fs::write(in_use.folder().join("a"), "x").unwrap();
        // As a process leaves them that is ended: before, and after it has locked its own.
        for left in ["before", "after"] {
            fs::create_dir(shared.join(left)).unwrap();
        }
        fs::write(shared.join("after").join(LOCK), "").unwrap();
        fs::write(shared.join("after").join("b"), "x").unwrap();
        let other = Spill::begin(&shared).unwrap();
        assert!(in_use.folder().join("a").exists());
        assert!(!shared.join("before").exists() && !shared.join("after").exists());
        let own = other.folder().to_owned();
        drop(other);
        assert!(!own.exists() && in_use.folder().exists());
    }
}
