//! What the connector remembers between two runs, in a folder of its own.
//!
//! ```text
//! progress.json         what was read of which server, and how far the slot may have been told
//! chunk-<n>.rows        the rows of a part of the snapshot, as they were read
//! chunk-<n>.json        what they are; only once the rows are on the disk
//! ```
//!
//! Guaranteed: what is kept is on the disk when the call returns, all of it or nothing. Without the folder nothing
//! is lost but the time to read the table once more.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::values::Kind;
use crate::source::SourceError;

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    folder: PathBuf,
}

/// How far the connector is.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub(super) struct Progress {
    /// The server's own identifier, by which another behind the same address is known.
    pub(super) system: String,
    /// The table's number there.
    pub(super) table: u32,
    /// The greatest place in the server's log up to which it may have been told that all is safe.
    pub(super) released: u64,
    /// The snapshot.
    pub(super) snapshot: SnapshotProgress,
}

/// How far the snapshot is, in parts: in what is kept, those whose rows are all safe.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub(super) struct SnapshotProgress {
    /// Whether rows of an earlier one may be in the log, which this one replaces.
    pub(super) is_anew: bool,
    /// The number of the next part.
    pub(super) next: u64,
    /// The key of the last row of the part before it.
    pub(super) after: Option<Vec<String>>,
    /// Whether there is no next.
    pub(super) is_done: bool,
}

impl SnapshotProgress {
    /// Of a snapshot that begins.
    pub(super) fn new(is_anew: bool, is_done: bool) -> Self {
        Self { is_anew, next: 0, after: None, is_done }
    }

    /// Goes on behind a part.
    pub(super) fn pass(&mut self, part: &About) {
        self.next = part.number + 1;
        self.after = part.last_key.clone().or(self.after.take());
        self.is_done = part.is_last;
    }
}

/// What a part of the snapshot is.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub(super) struct About {
    pub(super) number: u64,
    /// What marks the place in the stream behind which the rows belong.
    pub(super) mark: String,
    /// How far the stream had been read when the rows were: what comes behind concerns them.
    pub(super) opened_at: u64,
    /// Whether what is in the log of the table's rows is to go before these.
    pub(super) truncates: bool,
    /// The columns of its rows.
    pub(super) columns: Vec<(String, Kind)>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// The key of its last row; none where it has no row.
    pub(super) last_key: Option<Vec<String>>,
    /// Whether there are no more rows.
    pub(super) is_last: bool,
}

impl Memory {
    /// The folder of a dataset, which is made if it is not there.
    ///
    /// # Errors
    /// Where it cannot be.
    pub(super) fn open(folder: PathBuf) -> Result<Self, SourceError> {
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        Ok(Self { folder })
    }

    /// How the table is read again from its beginning, for people.
    pub(super) fn start_over(&self) -> String {
        format!(
            "stop ruam, delete {}, and start it: the table is then read again from its beginning, and what is there before is replaced",
            self.folder.display()
        )
    }

    /// How far the connector is; none where nothing is remembered.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn progress(&self) -> Result<Option<Progress>, SourceError> {
        self.read("progress.json")
    }

    /// Keeps how far the connector is.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) fn keep(&self, progress: &Progress) -> Result<(), SourceError> {
        self.write("progress.json", progress)
    }

    /// The file of a part's rows.
    pub(super) fn rows(&self, number: u64) -> PathBuf {
        self.folder.join(format!("chunk-{number}.rows"))
    }

    /// What is known of a part; none where its rows were not read to their end.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn about(&self, number: u64) -> Result<Option<About>, SourceError> {
        self.read(&format!("chunk-{number}.json"))
    }

    /// Says of a part that its rows are all there.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) fn keep_about(&self, about: &About) -> Result<(), SourceError> {
        self.write(&format!("chunk-{}.json", about.number), about)
    }

    /// Forgets a part.
    ///
    /// # Errors
    /// Where it cannot be deleted.
    pub(super) fn forget(&self, number: u64) -> Result<(), SourceError> {
        for path in [self.folder.join(format!("chunk-{number}.json")), self.rows(number)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&path, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// Where it cannot be deleted.
    pub(super) fn clear(&self) -> Result<(), SourceError> {
        fs::remove_dir_all(&self.folder).map_err(|error| failed(&self.folder, error))?;
        fs::create_dir_all(&self.folder).map_err(|error| failed(&self.folder, error))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, SourceError> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(&path, error.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, error)),
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), SourceError> {
        let (path, next) = (self.folder.join(name), self.folder.join(format!("{name}.next")));
        let write = || {
            let mut file = File::create(&next)?;
            file.write_all(&serde_json::to_vec(value)?)?;
            file.sync_all()?;
            fs::rename(&next, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| failed(&path, error))
    }
}

/// An error of a file.
pub(super) fn failed(path: &Path, source: io::Error) -> SourceError {
    SourceError::State { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path().join("bora.person")).unwrap();
        assert_eq!(memory.progress().unwrap(), None);
        let mut snapshot = SnapshotProgress::new(false, false);
        snapshot.after = Some(vec!["ก'\\".to_owned()]);
        let progress = Progress { system: "7".to_owned(), table: 1, released: u64::MAX, snapshot };
        memory.keep(&progress).unwrap();
        assert_eq!(Memory::open(memory.folder.clone()).unwrap().progress().unwrap(), Some(progress));
        fs::write(memory.rows(3), "a\n").unwrap();
        let about = About {
            number: 3,
            mark: "m".to_owned(),
            opened_at: 7,
            truncates: false,
            columns: vec![("a".to_owned(), Kind::Number)],
            rows: 1,
            bytes: 2,
            last_key: None,
            is_last: true,
        };
        memory.keep_about(&about).unwrap();
        assert_eq!(memory.about(3).unwrap(), Some(about));
        memory.forget(3).unwrap();
        memory.forget(3).unwrap();
        assert!(memory.about(3).unwrap().is_none() && !memory.rows(3).exists());
        memory.clear().unwrap();
        assert_eq!(memory.progress().unwrap(), None);
    }
}
