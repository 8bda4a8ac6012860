//! The data directory: what one installation keeps on this machine, and who is at work in it.
//!
//! ```text
//! ruam-data/
//!   ruam.json           the version of this layout, and the installation's name
//!   log/                the embedded broker's records
//!   lake/               the tables, where the lake is a lake of files
//!   sources/<dataset>/  what the connector of a dataset has to remember of its source, and the gateway of its numbers
//!   extracts/           what was published
//!   spill/<process>/    what queries have no memory for; it goes with the process, or when the next begins
//!   access/             who may sign in, and what agencies sign with: users.toml, tokens.toml, signers.toml
//!   run/<part>.lock     locked by the process that does a part of the work
//!   run/<part>.json     who that is, and where it listens
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::made_once;

/// The version of the layout that this program knows.
const FORMAT: u32 = 1;

/// The data directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// The installation's name, by which brokers know it again.
    pub(crate) installation: String,
}

/// A part of the work that one process does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The embedded broker.
    Broker,
    /// Connectors.
    Connectors,
    /// The gateway.
    Gateway,
    /// Workers.
    Workers,
    /// The SQL server.
    Query,
}

impl Part {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Connectors => "connectors",
            Self::Gateway => "gateway",
            Self::Workers => "workers",
            Self::Query => "query",
        }
    }
}

/// Holds a part until it is dropped.
#[derive(Debug)]
pub(crate) struct PartLock {
    file: File,
    about: PathBuf,
}

/// Who does a part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// The process.
    pub(crate) pid: u32,
    /// What it was started as.
    pub(crate) command: String,
    /// Where it listens, if it does.
    pub(crate) address: Option<SocketAddr>,
}

#[derive(Serialize, Deserialize)]
struct Layout {
    format: u32,
    installation: String,
}

/// What can be wrong with a data directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// It cannot be read or written.
    #[error(
        "cannot use the data directory {path}: {source}. Give this user the right to write there, or choose another with --data-dir"
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It was made by another version.
    #[error(
        "the data directory {path} has layout {found}, and this version of ruam knows layout {FORMAT}. Use the version that made it, or choose another with --data-dir"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// The layout that it has.
        found: u32,
    },
    /// It is something else.
    #[error("{path} is not empty and not a data directory of ruam. Choose another with --data-dir")]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// Another process is at work in it.
    #[error("the data directory {path} is in use by process {} (`{}`). Stop it first, or choose another with --data-dir", .holder.pid, .holder.command)]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who it is.
        holder: Holder,
    },
}

impl DataDir {
    /// Opens a data directory, and makes it if it does not exist.
    ///
    /// # Errors
    /// Where it cannot be used, or is of another version, or something else.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let path = fs::canonicalize(path).map_err(failed)?;
        let layout_file = path.join("ruam.json");
        let mut written = made_once::read(&layout_file).map_err(failed)?;
        if written.is_none() {
            // Of several processes that begin here at once, one has made it when the others look again.
            written = match is_unused(&path).map_err(failed)? {
                true => {
                    let new = Layout { format: FORMAT, installation: uuid::Uuid::new_v4().simple().to_string() };
                    let text = serde_json::to_vec_pretty(&new).map_err(|error| failed(error.into()))?;
                    Some(made_once::make(&layout_file, 0o666, &text).map_err(failed)?)
                }
                false => made_once::read(&layout_file).map_err(failed)?,
            };
        }
        let Some(written) = written else { return Err(DataDirError::NotOurs { path }) };
        let layout: Layout = serde_json::from_slice(&written).map_err(|error| failed(error.into()))?;
        if layout.format != FORMAT {
            return Err(DataDirError::Version { path, found: layout.format });
        }
        fs::create_dir_all(path.join("run")).map_err(failed)?;
        Ok(Self { path, installation: layout.installation })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the embedded broker keeps its records.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the lake is, unless it is elsewhere.
    pub(crate) fn lake(&self) -> PathBuf {
        self.path.join("lake")
    }

    /// Where indexes of the lake's tables are kept. They can be lost.
    pub(crate) fn indexes(&self) -> PathBuf {
        self.path.join("index")
    }

    /// Where the account of what was asked lies.
    pub(crate) fn audit(&self) -> PathBuf {
        self.path.join("audit")
    }

    /// Where queries put what does not fit into memory.
    pub(crate) fn spill(&self) -> PathBuf {
        self.path.join("spill")
    }

    /// The secret that pseudonyms are made with.
    pub(crate) fn pseudonym_key(&self) -> PathBuf {
        self.path.join("pseudonym.key")
    }

    /// What sources have to remember.
    pub(crate) fn sources(&self) -> PathBuf {
        self.path.join("sources")
    }

    /// Where extracts go.
    pub(crate) fn extracts(&self) -> PathBuf {
        self.path.join("extracts")
    }

    /// Where it is kept who may sign in.
    pub(crate) fn access(&self) -> PathBuf {
        access(&self.path)
    }

    fn failed(&self, source: io::Error) -> DataDirError {
        DataDirError::Io { path: self.path.clone(), source }
    }

    /// Takes a part of the work.
    ///
    /// # Errors
    /// Where another process has it.
    pub(crate) fn take(&self, part: Part) -> Result<PartLock, DataDirError> {
        let lock = self.path.join("run").join(format!("{}.lock", part.name()));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(|source| self.failed(source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let unknown = Holder { pid: 0, command: "unknown".to_owned(), address: None };
                return Err(DataDirError::InUse {
                    path: self.path.clone(),
                    holder: self.read_holder(part).unwrap_or(unknown),
                });
            }
            Err(TryLockError::Error(source)) => return Err(self.failed(source)),
        }
        let lock = PartLock { file, about: self.about(part) };
        lock.tell(None).map_err(|source| self.failed(source))?;
        Ok(lock)
    }

    /// Who does a part of the work at present, if anybody does.
    pub(crate) fn holder(&self, part: Part) -> Option<Holder> {
        let lock = self.path.join("run").join(format!("{}.lock", part.name()));
        let file = File::open(lock).ok()?;
        // A shared lock is to be had exactly while nobody holds the part.
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => self.read_holder(part),
            _ => None,
        }
    }

    fn about(&self, part: Part) -> PathBuf {
        self.path.join("run").join(format!("{}.json", part.name()))
    }

    fn read_holder(&self, part: Part) -> Option<Holder> {
        serde_json::from_slice(&fs::read(self.about(part)).ok()?).ok()
    }

    /// What deleting the contents would delete: each folder that is there, with its size in bytes.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(crate) fn contents(&self) -> Result<Vec<(PathBuf, u64)>, DataDirError> {
        let folders = ["log", "lake", "index", "sources", "extracts"].map(|name| self.path.join(name));
        let present = folders.into_iter().filter(|folder| folder.exists());
        present.map(|folder| size(&folder).map(|bytes| (folder, bytes)).map_err(|source| self.failed(source))).collect()
    }

    /// Deletes the contents. No part may be taken.
    ///
    /// # Errors
    /// Where something cannot be deleted.
    pub(crate) fn clear(&self) -> Result<(), DataDirError> {
        for (folder, _) in self.contents()? {
            fs::remove_dir_all(folder).map_err(|source| self.failed(source))?;
        }
        Ok(())
    }
}

impl PartLock {
    /// Tells others where this process listens.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub(crate) fn tell(&self, address: Option<SocketAddr>) -> io::Result<()> {
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        let holder = Holder { pid: std::process::id(), command: format!("ruam {command}").trim().to_owned(), address };
        fs::write(&self.about, serde_json::to_vec(&holder)?)
    }
}

impl Drop for PartLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.about);
        let _ = self.file.unlock();
    }
}

/// Where a data directory, which need not exist, keeps who may sign in.
pub(crate) fn access(path: &Path) -> PathBuf {
    path.join("access")
}

/// Whether nothing is in a directory, but for what a crash has left of the making of a data directory.
fn is_unused(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        if !entry?.file_name().as_encoded_bytes().starts_with(made_once::BEFOREHAND.as_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn size(path: &Path) -> io::Result<u64> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += size(&entry?.path())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        std::env::temp_dir().join(format!("ruam-{}", uuid::Uuid::new_v4().simple()))
    }

    #[test]
    fn one_process_a_part() {
        let path = folder();
        let dir = DataDir::open(&path).unwrap();
        let lock = dir.take(Part::Workers).unwrap();
        lock.tell(Some(([127, 0, 0, 1], 7).into())).unwrap();
        let error = dir.take(Part::Workers).unwrap_err().to_string();
        assert!(error.contains(&format!("is in use by process {}", std::process::id())), "{error}");
        assert_eq!(dir.holder(Part::Workers).and_then(|holder| holder.address).map(|address| address.port()), Some(7));
        assert!(dir.holder(Part::Query).is_none());
        drop(lock);
        assert!(dir.holder(Part::Workers).is_none());
        assert_eq!(DataDir::open(&path).unwrap().installation, dir.installation);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn processes_that_begin_at_once_are_of_one_installation() {
        for _ in 0..100 {
            let path = folder();
            let barrier = std::sync::Barrier::new(8);
            let open = || {
                barrier.wait();
                DataDir::open(&path).map(|dir| dir.installation)
            };
            let names: Vec<_> = std::thread::scope(|scope| {
                let opened: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                opened.into_iter().map(|opened| opened.join().unwrap().unwrap()).collect()
            });
            assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
            let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left.len(), 2, "{left:?}");
            fs::remove_dir_all(path).unwrap();
        }
    }

    #[test]
    fn what_a_crash_has_left_of_its_making_is_in_nobodys_way() {
        let path = folder();
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(".ruam.Ab12"), "{\"form").unwrap();
        assert!(!DataDir::open(&path).unwrap().installation.is_empty());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn other_directories_are_left_alone() {
        let path = folder();
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("letter.txt"), "x").unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("is not empty and not a data directory of ruam"), "{error}");
        fs::remove_file(path.join("letter.txt")).unwrap();
        fs::write(path.join("ruam.json"), r#"{"format":2,"installation":"x"}"#).unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("has layout 2, and this version of ruam knows layout 1"), "{error}");
        fs::remove_dir_all(path).unwrap();
    }
}
