//! Who asked what, of whom, and for which purpose: an account that nobody can change unnoticed.
//!
//! What passes through: each question when it begins to be answered and when that has ended, into a line of a
//! file each. Lines are chained: each has the hash of what comes before it together with its own text, so that
//! a line that is changed, left out or put in shows in all that follow ([`verify`]). What cuts off the end
//! shows against a head that was noted down elsewhere.
//!
//! Guaranteed: no question is answered whose beginning could not be written. Numbers of citizens are in it as
//! pseudonyms only (PDPA; DOMAIN.md), by which `ruam audit subject` finds who asked for one. What was written
//! outlives the process; of the last second it may be lost with the machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::policy::PseudonymKey;

mod person;
mod record;
mod table;

pub(crate) use person::{numbers, without_numbers};
use record::{Chained, Hash};
pub use record::{Event, Head, Record};
pub(crate) use table::table;

/// How large a file becomes before another is begun.
const FILE_BYTES: u64 = 64 << 20;
/// How long what was written may wait to be on disk.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// No line is longer: a statement is cut where it would be.
pub(crate) const MOST_SQL: usize = 64 << 10;

/// What is wrong with an account.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file cannot be read or written.
    #[error("cannot keep the audit in {path}: {source}. Nothing is answered that cannot be accounted for")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not what was written there.
    #[error("{path}:{line}: {problem}. From here on the account is not what was written; compare it with a copy")]
    Changed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What shows it.
        problem: String,
    },
    /// The end is missing.
    #[error("the account ends before {0}, which was its head once: its end has been cut off")]
    Cut(Head),
}

/// The account of an installation, which several processes may write to.
#[derive(Debug)]
pub struct AuditLog {
    folder: PathBuf,
    key: PseudonymKey,
    end: Mutex<End>,
}

/// Where the account ends, as it was last seen.
#[derive(Debug)]
struct End {
    file: Option<Open>,
    head: Head,
    synced: Instant,
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    length: u64,
}

impl AuditLog {
    /// The account in a folder, which is made where it is not there.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn open(folder: &Path, key: PseudonymKey) -> Result<Self, AuditError> {
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let end = End { file: None, head: Head::default(), synced: Instant::now() };
        Ok(Self { folder: folder.to_owned(), key, end: Mutex::new(end) })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The pseudonym that a citizen's number has here.
    pub fn pseudonym(&self, number: &str) -> String {
        self.key.pseudonym(number)
    }

    /// Writes a record at the end, whoever else does.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn append(&self, record: &Record) -> Result<(), AuditError> {
        let lock_path = self.folder.join("lock");
        let lock = private().create(true).truncate(false).open(&lock_path).map_err(failed(&lock_path))?;
        lock.lock().map_err(failed(&lock_path))?;
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.follow(&self.folder)?;
        end.append(&self.folder, record)
    }

    /// The records, from the first on; of what cannot be read, why.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn records(&self) -> Result<impl Iterator<Item = Result<Record, AuditError>>, AuditError> {
        Ok(files(&self.folder)?.into_iter().flat_map(lines).map(|line| line.map(|(_, _, line)| line.record)))
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        let end = self.end.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &end.file {
            // Whoever could be told is gone.
            let _ = open.file.sync_data();
        }
    }
}

impl End {
    /// Looks where the account ends now: another process may have gone on with it.
    fn follow(&mut self, folder: &Path) -> Result<(), AuditError> {
        let last = files(folder)?.pop();
        let length = |path: &Path| Ok(fs::metadata(path).map_err(failed(path))?.len());
        match (&self.file, &last) {
            (Some(open), Some(path)) if open.path == *path && open.length == length(path)? => Ok(()),
            (_, None) => {
                (self.file, self.head) = (None, Head::default());
                Ok(())
            }
            (_, Some(path)) => {
                let mut file = private().read(true).open(path).map_err(failed(path))?;
                let (head, length) = head_of(&mut file, path)?;
                self.head = head;
                self.file = Some(Open { file, path: path.clone(), length });
                Ok(())
            }
        }
    }

    fn append(&mut self, folder: &Path, record: &Record) -> Result<(), AuditError> {
        if self.file.as_ref().is_none_or(|open| open.length >= FILE_BYTES) {
            let path = folder.join(format!("{:012}.ndjson", self.head.number));
            let file = private().create_new(true).open(&path).map_err(failed(&path))?;
            self.file = Some(Open { file, path, length: 0 });
        }
        let Some(open) = &mut self.file else { return Ok(()) };
        let (head, line) = Chained::line(self.head, record).map_err(|error| failed(&open.path)(error.into()))?;
        open.file.write_all(&line).map_err(failed(&open.path))?;
        open.length += line.len() as u64;
        self.head = head;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.synced = Instant::now();
            open.file.sync_data().map_err(failed(&open.path))?;
        }
        Ok(())
    }
}

/// Checks the whole account of a folder, and that it still has a head which was noted down.
///
/// # Errors
/// The first line that is not what was written, or where the head is missing.
pub fn verify(folder: &Path, noted: Option<Head>) -> Result<Head, AuditError> {
    let (mut head, mut seen) = (Head::default(), noted.is_none());
    for line in files(folder)?.into_iter().flat_map(lines) {
        let (path, number, line) = line?;
        let changed = |problem: &str| AuditError::Changed { path, line: number, problem: problem.to_owned() };
        if line.number != head.number {
            return Err(changed("a line before it is missing, or was put in"));
        }
        head = head.after(line.text.as_bytes());
        if line.hash != head.hash {
            return Err(changed("it or what comes before it was changed"));
        }
        seen |= noted == Some(head);
    }
    match noted {
        Some(noted) if !seen => Err(AuditError::Cut(noted)),
        _ => Ok(head),
    }
}

/// The files of an account, from the first on.
fn files(folder: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "ndjson") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The lines of a file, each with its place; not one that a crash has torn.
fn lines(path: PathBuf) -> Box<dyn Iterator<Item = Result<(PathBuf, usize, Chained), AuditError>>> {
    let mut file = match File::open(&path) {
        Ok(file) => BufReader::new(file),
        Err(source) => return Box::new(std::iter::once(Err(AuditError::Io { path, source }))),
    };
    let mut number = 0;
    Box::new(std::iter::from_fn(move || {
        let mut line = Vec::new();
        if let Err(source) = file.read_until(b'\n', &mut line) {
            return Some(Err(AuditError::Io { path: path.clone(), source }));
        }
        number += 1;
        let read = Chained::read(line.strip_suffix(b"\n")?);
        let problem = "it is no record of an audit".to_owned();
        let changed = || AuditError::Changed { path: path.clone(), line: number, problem };
        Some(read.ok_or_else(changed).map(|read| (path.clone(), number, read)))
    }))
}

/// The head that a file ends with, and where; a line that a crash has torn is cut off.
fn head_of(file: &mut File, path: &Path) -> Result<(Head, u64), AuditError> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(failed(path))?;
    file.read_to_end(&mut bytes).map_err(failed(path))?;
    let length = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    if length < bytes.len() {
        file.set_len(length as u64).map_err(failed(path))?;
    }
    let last = bytes[..length].split(|byte| *byte == b'\n').rev().nth(1);
    let changed = || AuditError::Changed {
        path: path.to_owned(),
        line: bytes[..length].iter().filter(|byte| **byte == b'\n').count(),
        problem: "it is no record of an audit".to_owned(),
    };
    let first = || path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
    let head = match last {
        Some(line) => Chained::read(line).map(|line| Head { number: line.number + 1, hash: line.hash }),
        None => first().map(|number| Head { number, hash: Hash::default() }).filter(|head| head.number == 0),
    };
    Ok((head.ok_or_else(changed)?, length as u64))
}

/// A file that its owner alone reads.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).mode(0o600);
    options
}

fn failed(path: &Path) -> impl Fn(io::Error) -> AuditError {
    let path = path.to_owned();
    move |source| AuditError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests;
