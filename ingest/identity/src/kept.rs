//! A file of what is known about users or tokens.
//!
//! What passes through: a TOML file that only its owner may read. Guaranteed: a reader sees it whole, as it is
//! at this moment, so that what was revoked stops working at once; two writers do not undo each other's
//! changes; a file that is wrong lets nobody in.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use crate::error::SignOnError;

/// The most bytes of such a file.
const MAX_BYTES: u64 = 16 << 20;

/// A file, and what it said when it was read last.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    path: PathBuf,
    /// What the file begins with, for people who open it.
    header: &'static str,
    seen: Mutex<Option<(Stamp, Arc<T>)>>,
}

/// Tells one state of a file from another. Each writer replaces the file, so that even two changes within a
/// tick of the file system's clock differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp([i128; 4]);

impl Stamp {
    /// The state of a file.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self([
            file.ino().into(),
            file.len().into(),
            time(file.mtime(), file.mtime_nsec()),
            time(file.ctime(), file.ctime_nsec()),
        ])
    }
}

impl<T: Serialize + DeserializeOwned + Default> Kept<T> {
    pub(crate) fn new(path: PathBuf, header: &'static str) -> Self {
        Self { path, header, seen: Mutex::new(None) }
    }

    /// What the file says now; nothing where there is none.
    ///
    /// # Errors
    /// Where it cannot be read, others than its owner may read it, or it is not what was written.
    pub(crate) fn get(&self) -> Result<Arc<T>, SignOnError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = match Stamp::of(&self.path) {
            Ok(stamp) => stamp,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *seen = None;
                return Ok(Arc::default());
            }
            Err(error) => return Err(SignOnError::io(&self.path, error)),
        };
        if let Some((_, content)) = seen.as_ref().filter(|(before, _)| *before == stamp) {
            return Ok(content.clone());
        }
        // What is no longer so must not be used where the new state cannot be read.
        *seen = None;
        let (stamp, content) = self.read()?;
        let content = Arc::new(content);
        *seen = Some((stamp, content.clone()));
        Ok(content)
    }

    /// Changes what the file says; a change that fails leaves it as it was.
    ///
    /// # Errors
    /// Where it cannot be read or written, or the change fails.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> Result<R, SignOnError>) -> Result<R, SignOnError> {
        let failed = |error| SignOnError::io(&self.path, error);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        give_to_owner_of(folder.parent().unwrap_or(folder), folder).map_err(failed)?;
        let lock_path = self.path.with_extension("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(failed)?;
        give_to_owner_of(folder, &lock_path).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut content = match self.path.try_exists().map_err(failed)? {
            true => self.read()?.1,
            false => T::default(),
        };
        let result = change(&mut content)?;
        let text = toml::to_string(&content).map_err(|error| failed(io::Error::other(error)))?;
        // A temporary file is its owner's alone from the beginning.
        let mut file = NamedTempFile::new_in(folder).map_err(failed)?;
        file.write_all(self.header.as_bytes()).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        give_to_owner_of(folder, file.path()).map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(result)
    }

    fn read(&self) -> Result<(Stamp, T), SignOnError> {
        let failed = |error| SignOnError::io(&self.path, error);
        let mut file = File::open(&self.path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let wrong = |problem: String, remedy: String| SignOnError::File { path: self.path.clone(), problem, remedy };
        if metadata.mode() & 0o077 != 0 {
            let remedy = format!("Take that right away: chmod 600 {}", self.path.display());
            return Err(wrong("other users of this machine may read or write it".to_owned(), remedy));
        }
        if metadata.len() > MAX_BYTES {
            let remedy = "Delete what counts no longer".to_owned();
            return Err(wrong(format!("it has more than {MAX_BYTES} bytes"), remedy));
        }
        let mut text = String::new();
        Read::take(&mut file, MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
        let content = toml::from_str(&text).map_err(|error| {
            // Only the place: the message of the parser quotes the line, which may be a verifier.
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            let remedy = "Put the file of a backup in its place, or delete it and add the users or tokens again";
            wrong(format!("line {line} is not as ruam writes it"), remedy.to_owned())
        })?;
        Ok((Stamp::from(&metadata), content))
    }
}

/// Gives a file or folder to whom another one belongs: what root changes, the servers of a user have to read.
fn give_to_owner_of(other: &Path, path: &Path) -> io::Result<()> {
    let (owner, now) = (fs::metadata(other)?, fs::metadata(path)?);
    if owner.uid() == now.uid() { Ok(()) } else { chown(path, Some(owner.uid()), Some(owner.gid())) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    type Map = BTreeMap<String, u32>;

    fn kept(folder: &Path) -> Kept<Map> {
        Kept::new(folder.join("access/numbers.toml"), "# numbers\n")
    }

    #[test]
    fn a_change_is_seen_at_once_by_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, reader) = (kept(folder.path()), kept(folder.path()));
        assert!(reader.get().unwrap().is_empty());
        for number in 0..20 {
            writer.change(|map| Ok(map.insert("n".to_owned(), number))).unwrap();
            assert_eq!(reader.get().unwrap()["n"], number);
        }
        let path = folder.path().join("access/numbers.toml");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(&path).unwrap(), "# numbers\nn = 19\n");
        fs::remove_file(path).unwrap();
        assert!(reader.get().unwrap().is_empty());
    }

    #[test]
    fn what_root_writes_belongs_to_whose_the_data_is() {
        let folder = tempfile::tempdir().unwrap();
        let nobody = 65_534;
        // Only root can give files away, and only root needs to.
        let owner =
            if chown(folder.path(), Some(nobody), Some(nobody)).is_ok() { nobody } else { owner(folder.path()) };
        kept(folder.path()).change(|map| Ok(map.insert("n".to_owned(), 1))).unwrap();
        for name in ["access", "access/numbers.toml", "access/numbers.lock"] {
            assert_eq!(self::owner(&folder.path().join(name)), owner, "{name}");
        }
    }

    fn owner(path: &Path) -> u32 {
        fs::metadata(path).unwrap().uid()
    }

    #[test]
    fn changes_at_the_same_time_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let kept = kept(folder.path());
                scope.spawn(move || {
                    for number in 0..10 {
                        kept.change(|map| Ok(map.insert(format!("{thread}-{number}"), number))).unwrap();
                    }
                });
            }
        });
        assert_eq!(kept(folder.path()).get().unwrap().len(), 40);
    }

    #[test]
    fn a_file_that_is_wrong_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let kept = kept(folder.path());
        kept.change(|map| Ok(map.insert("n".to_owned(), 1))).unwrap();
        assert_eq!(kept.get().unwrap().len(), 1);
        let path = folder.path().join("access/numbers.toml");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = kept.get().unwrap_err().to_string();
        assert!(error.contains("other users of this machine may read or write it. Take that right away"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "n = 1\nm = \"hunter2\"\n").unwrap();
        let error = kept.get().unwrap_err().to_string();
        assert!(error.contains("line 2 is not as ruam writes it") && !error.contains("hunter2"), "{error}");
        kept.change(|map| Ok(map.insert("o".to_owned(), 2))).unwrap_err();
        assert!(fs::read_to_string(&path).unwrap().contains("hunter2"), "what cannot be read is not overwritten");
    }
}
