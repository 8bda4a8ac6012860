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
//!
//! Several processes write, one at a time: each locks a file for as long as it writes a line, and looks first where
//! the account ends by then. Files are begun only when the one before them is full, so that while the last is the
//! one that is open and not full, its length alone tells whether somebody else has gone on with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::policy::PseudonymKey;

mod person;
mod record;
mod table;

pub(crate) use person::{numbers, without_numbers};
use record::Chained;
pub use record::{Event, Head, Record};
pub(crate) use table::Account;

/// How large a file becomes before another is begun.
const FILE_BYTES: u64 = 64 << 20;
/// How long what was written may wait to be on disk.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// So much of a file's end is read to find its last line, and as much again until that is found.
const TAIL: u64 = 64 << 10;
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
    lock: Option<Open>,
    file: Option<Open>,
    head: Head,
    /// The bytes of the file that the head is of.
    length: u64,
    /// How long it becomes before another is begun.
    full: u64,
    synced: Instant,
}

/// A file that is kept open.
#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    /// By which the file system knows it.
    number: u64,
}

impl Open {
    fn new(path: PathBuf, options: &OpenOptions) -> Result<Self, AuditError> {
        let file = options.open(&path).map_err(failed(&path))?;
        let number = file.metadata().map_err(failed(&path))?.ino();
        Ok(Self { file, path, number })
    }

    /// How long it is; none where another file lies in its place by now, or none.
    fn length(&self) -> Result<Option<u64>, AuditError> {
        match fs::metadata(&self.path) {
            Ok(found) => Ok((found.ino() == self.number).then_some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&self.path)(error)),
        }
    }
}

impl AuditLog {
    /// The account in a folder, which is made where it is not there.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn open(folder: &Path, key: PseudonymKey) -> Result<Self, AuditError> {
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let end =
            End { lock: None, file: None, head: Head::default(), length: 0, full: FILE_BYTES, synced: Instant::now() };
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
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = end.take_turn(&self.folder)?;
        let appended = end.follow(&self.folder).and_then(|()| end.append(&self.folder, record));
        let given_up = lock.file.unlock().map_err(failed(&lock.path));
        end.lock = Some(lock);
        appended.and(given_up)
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
    /// Waits until no other process writes, and has the others wait.
    fn take_turn(&mut self, folder: &Path) -> Result<Open, AuditError> {
        loop {
            let lock = match self.lock.take() {
                Some(lock) => lock,
                None => Open::new(folder.join("lock"), private().create(true).truncate(false))?,
            };
            lock.file.lock().map_err(failed(&lock.path))?;
            // Somebody may have removed it: the others would wait at another one.
            if lock.length()?.is_some() {
                return Ok(lock);
            }
        }
    }

    /// Looks where the account ends now: another process may have gone on with it.
    fn follow(&mut self, folder: &Path) -> Result<(), AuditError> {
        if let Some(open) = &self.file
            && let Some(length) = open.length()?.filter(|length| *length >= self.length)
        {
            if length > self.length {
                let known = (self.length, self.head);
                (self.head, self.length) = head_of(open, known, length)?;
            }
            if self.length < self.full {
                return Ok(());
            }
        }
        let mut files = files(folder)?.into_iter().rev();
        let Some(last) = files.next() else {
            (self.file, self.head, self.length) = (None, Head::default(), 0);
            return Ok(());
        };
        let (open, mut head, length) = opened(last)?;
        // A crash may have come between a file and its first line.
        if length == 0
            && let Some(before) = files.next()
        {
            head = opened(before)?.1;
        }
        let first = open.path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if length == 0 && first != Some(head.number) {
            return Err(changed(&open, 0));
        }
        (self.file, self.head, self.length) = (Some(open), head, length);
        Ok(())
    }

    fn append(&mut self, folder: &Path, record: &Record) -> Result<(), AuditError> {
        if self.file.is_none() || self.length >= self.full {
            let path = folder.join(format!("{:012}.ndjson", self.head.number));
            (self.file, self.length) = (Some(Open::new(path, private().read(true).create_new(true))?), 0);
        }
        let Some(Open { file, path, .. }) = &mut self.file else { return Ok(()) };
        let (head, line) = Chained::line(self.head, record).map_err(|error| failed(path)(error.into()))?;
        file.write_all(&line).map_err(failed(path))?;
        self.length += line.len() as u64;
        self.head = head;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.synced = Instant::now();
            file.sync_data().map_err(failed(path))?;
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

/// A file of an account, with the head that it ends with, and where.
fn opened(path: PathBuf) -> Result<(Open, Head, u64), AuditError> {
    let open = Open::new(path, private().read(true))?;
    let length = open.file.metadata().map_err(failed(&open.path))?.len();
    let (head, length) = head_of(&open, (0, Head::default()), length)?;
    Ok((open, head, length))
}

/// The head that a file of some length ends with, and where, of which it is known how it was at a place before
/// that; a line that a crash has torn is cut off.
fn head_of(open: &Open, (from, known): (u64, Head), length: u64) -> Result<(Head, u64), AuditError> {
    let mut tail = TAIL;
    loop {
        let begin = length.saturating_sub(tail).max(from);
        let mut bytes = vec![0; usize::try_from(length - begin).unwrap_or_default()];
        open.file.read_exact_at(&mut bytes, begin).map_err(failed(&open.path))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let last = bytes[..whole].split(|byte| *byte == b'\n').rev().nth(1).unwrap_or_default();
        // It has to be seen where it begins.
        if begin > from && last.len() + 1 >= whole {
            tail *= 2;
            continue;
        }
        let end = begin + whole as u64;
        if end < length {
            open.file.set_len(end).map_err(failed(&open.path))?;
        }
        if end == from {
            return Ok((known, from));
        }
        let last = Chained::read(last).ok_or_else(|| changed(open, end))?;
        return Ok((Head { number: last.number + 1, hash: last.hash }, end));
    }
}

/// What ends at a place of a file is no record.
fn changed(open: &Open, end: u64) -> AuditError {
    let bytes = fs::read(&open.path).unwrap_or_default();
    let before = bytes.iter().take(usize::try_from(end).unwrap_or(usize::MAX));
    AuditError::Changed {
        path: open.path.clone(),
        line: before.filter(|byte| **byte == b'\n').count(),
        problem: "it is no record of an audit".to_owned(),
    }
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
