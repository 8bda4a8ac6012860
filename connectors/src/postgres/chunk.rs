//! A part of the snapshot: rows that follow one another by key, as they stood at one moment.
//!
//! What passes through: `COPY` of the next rows by key into a file, and from there, when the stream has come to
//! the mark that was written behind the moment, into events. What the stream has told of a row in between is newer,
//! and the row is left out.
//!
//! Guaranteed: the rows are on the disk before the first of them is an event, so that a part that was broken off
//! goes on with the very same rows. Memory holds no rows, and no more keys than a part has: those that the stream has
//! told meanwhile, or, where they are many or one of the rows is wanted, those of the part.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::mem;
use std::path::{Path, PathBuf};
use std::str;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use memchr::memchr;
use ruam_event::Row;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::task::JoinHandle;

use super::copied;
use super::layout::{Layout, Wanted};
use super::memory::{About, Memory, failed};
use super::reading::Reading;
use crate::source::SourceError;

/// How much of its file is written or read at a time.
const BUFFER: usize = 128 << 10;

/// A part of the snapshot, read to its end.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) about: About,
    /// Its rows on the disk, or on their way there.
    file: Arc<File>,
    path: PathBuf,
    being_kept: Option<JoinHandle<Result<(), SourceError>>>,
    layout: Layout,
    /// The keys that the stream has told of since the part's moment, as long as nobody knows where the rows are.
    told: HashSet<Vec<u8>>,
    /// Where the rows are in the file that the stream has not told of: where each begins, and its length.
    places: Option<HashMap<Vec<u8>, (u64, usize)>>,
}

impl Chunk {
    /// Reads rows into a file.
    ///
    /// # Errors
    /// Where they do not come, or cannot be written.
    pub(super) async fn read(
        reading: &Reading,
        rows: impl Stream<Item = Result<Bytes, tokio_postgres::Error>>,
    ) -> Result<Self, SourceError> {
        let mut about = About {
            number: reading.from.next,
            mark: reading.mark.clone(),
            opened_at: reading.opened_at,
            truncates: reading.from.is_anew && reading.from.next == 0,
            columns: reading.table.columns.iter().map(|column| (column.name.clone(), column.kind)).collect(),
            rows: 0,
            bytes: 0,
            last_key: None,
            is_last: false,
        };
        let (memory, path) = (&reading.memory, reading.memory.rows(about.number));
        let layout = layout(&path, &about, &reading.table.key, &reading.wanted)?;
        let disk = |error| failed(&path, error);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(disk)?;
        let writer = tokio::fs::File::from_std(file.try_clone().map_err(disk)?);
        let mut writer = BufWriter::with_capacity(BUFFER, writer);
        let mut rows = std::pin::pin!(rows);
        let mut last = Bytes::new();
        // The server sends each row in a message of its own.
        while let Some(line) = rows.try_next().await.map_err(|error| reading.session.failed(&error))? {
            writer.write_all(&line).await.map_err(disk)?;
            about.rows += 1;
            about.bytes += line.len() as u64;
            last = line;
        }
        writer.flush().await.map_err(disk)?;
        if about.rows > 0 {
            let values: Vec<_> = copied::values(text(&path, last.strip_suffix(b"\n").unwrap_or(&last))?).collect();
            about.last_key = layout.key_texts(|place| copied::at(&values, place));
        }
        about.is_last = about.rows < reading.limit;
        let file = Arc::new(file);
        // Meanwhile the next part is read.
        let being_kept = tokio::task::spawn_blocking({
            let (memory, about, file, path) = (memory.clone(), about.clone(), file.clone(), path.clone());
            move || {
                file.sync_all().map_err(|error| failed(&path, error))?;
                memory.keep_about(&about)
            }
        });
        Ok(Self { about, file, path, being_kept: Some(being_kept), layout, told: HashSet::new(), places: None })
    }

    /// A part that was read before; none where it was not, or not to its end.
    ///
    /// # Errors
    /// Where its files cannot be read.
    pub(super) fn load(
        memory: &Memory,
        number: u64,
        key: &[String],
        wanted: &Wanted,
    ) -> Result<Option<Self>, SourceError> {
        let Some(about) = memory.about(number)? else { return Ok(None) };
        let path = memory.rows(number);
        let layout = layout(&path, &about, key, wanted)?;
        let file = Arc::new(File::open(&path).map_err(|error| failed(&path, error))?);
        Ok(Some(Self { about, file, path, being_kept: None, layout, told: HashSet::new(), places: None }))
    }

    /// Leaves out the row of a key, of which the stream has told.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn tell(&mut self, key: Vec<u8>) -> Result<(), SourceError> {
        if let Some(places) = &mut self.places {
            places.remove(&key);
            return Ok(());
        }
        self.told.insert(key);
        // Of most of these it has no row.
        if self.told.len() as u64 > self.about.rows {
            self.places()?;
        }
        Ok(())
    }

    /// Leaves out all rows.
    pub(super) fn tell_all(&mut self) {
        self.places = Some(HashMap::new());
    }

    /// The row of a key, unless the stream has told of it.
    ///
    /// # Errors
    /// Where the file cannot be written or read.
    pub(super) async fn row_of(&mut self, key: &[u8]) -> Result<Option<Row>, SourceError> {
        self.keep().await?;
        let Some((start, length)) = self.places()?.get(key).copied() else { return Ok(None) };
        let mut line = vec![0; length];
        let mut file = &*self.file;
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut line));
        read.map_err(|error| failed(&self.path, error))?;
        self.row(&line).map(Some)
    }

    /// Where the rows are that the stream has not told of.
    fn places(&mut self) -> Result<&HashMap<Vec<u8>, (u64, usize)>, SourceError> {
        let places = match self.places.take() {
            Some(places) => places,
            None => self.find_rows()?,
        };
        self.told = HashSet::new();
        Ok(self.places.insert(places))
    }

    fn find_rows(&self) -> Result<HashMap<Vec<u8>, (u64, usize)>, SourceError> {
        let (mut places, mut start) = (HashMap::new(), 0);
        let mut lines = self.lines()?;
        while let Some(line) = lines.next().map_err(|error| failed(&self.path, error))? {
            let key = self.key(line)?;
            if !self.told.contains(&key) {
                places.insert(key, (start, line.len()));
            }
            start += line.len() as u64 + 1;
        }
        Ok(places)
    }

    /// The rows that the stream has not told of, from here on.
    ///
    /// # Errors
    /// Where the file cannot be written or read.
    pub(super) async fn rows(mut self) -> Result<Rows, SourceError> {
        self.keep().await?;
        Ok(Rows { lines: self.lines()?, chunk: self })
    }

    /// Waits until the part is on the disk.
    async fn keep(&mut self) -> Result<(), SourceError> {
        match self.being_kept.take() {
            Some(kept) => kept.await.map_err(|error| failed(&self.path, io::Error::other(error)))?,
            None => Ok(()),
        }
    }

    fn lines(&self) -> Result<Lines, SourceError> {
        let mut file = BufReader::with_capacity(BUFFER, self.file.clone());
        file.rewind().map_err(|error| failed(&self.path, error))?;
        Ok(Lines { file, taken: 0, line: Vec::new() })
    }

    fn is_told(&self, line: &[u8]) -> Result<bool, SourceError> {
        Ok(match &self.places {
            Some(places) => !places.contains_key(&self.key(line)?),
            None => !self.told.is_empty() && self.told.contains(&self.key(line)?),
        })
    }

    fn key(&self, line: &[u8]) -> Result<Vec<u8>, SourceError> {
        // No more than the key's columns is looked at.
        let values: Vec<_> = copied::values(text(&self.path, line)?).take(self.layout.key_ends()).collect();
        Ok(self.layout.key_bytes(|place| copied::at(&values, place)))
    }

    fn row(&self, line: &[u8]) -> Result<Row, SourceError> {
        let row = self.layout.row_of(copied::values(text(&self.path, line)?));
        row.ok_or_else(|| unreadable(&self.path, "a row has not as many values as there are columns"))
    }
}

fn layout(path: &Path, about: &About, key: &[String], wanted: &Wanted) -> Result<Layout, SourceError> {
    let columns: Vec<_> = about.columns.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
    Layout::new(&columns, key, wanted).ok_or_else(|| unreadable(path, "its rows do not have the columns of the key"))
}

fn text<'a>(path: &Path, line: &'a [u8]) -> Result<&'a str, SourceError> {
    str::from_utf8(line).map_err(|_| unreadable(path, "it is not in UTF-8"))
}

fn unreadable(path: &Path, problem: &str) -> SourceError {
    SourceError::Unreadable { what: path.display().to_string(), problem: problem.to_owned() }
}

/// The rows of a part, one after another.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) chunk: Chunk,
    lines: Lines,
}

impl Rows {
    /// The next row that is not left out.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Row>, SourceError> {
        let chunk = &self.chunk;
        while let Some(line) = self.lines.next().map_err(|error| failed(&chunk.path, error))? {
            if !chunk.is_told(line)? {
                return chunk.row(line).map(Some);
            }
        }
        Ok(None)
    }
}

/// The lines of a file, one after another.
#[derive(Debug)]
struct Lines {
    file: BufReader<Arc<File>>,
    /// So much of what has been read was given out.
    taken: usize,
    /// One that does not lie in the buffer as a whole.
    line: Vec<u8>,
}

impl Lines {
    /// The next line, without its end.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.file.consume(mem::take(&mut self.taken));
        if let Some(end) = memchr(b'\n', self.file.fill_buf()?) {
            self.taken = end + 1;
            return Ok(Some(&self.file.buffer()[..end]));
        }
        self.line.clear();
        match self.file.read_until(b'\n', &mut self.line)? {
            0 => Ok(None),
            _ => Ok(Some(self.line.strip_suffix(b"\n").unwrap_or(&self.line))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::values::Kind;
    use ruam_event::Value;

    /// A part of as many rows, `<number>\t<text>`, that was read before.
    fn chunk(folder: &Path, rows: u64) -> Chunk {
        let memory = Memory::open(folder.to_owned()).unwrap();
        let lines: String = (1..=rows).map(|number| format!("{number}\tก\\t{}\n", "x".repeat(100))).collect();
        let about = About {
            number: 0,
            mark: "mark".to_owned(),
            opened_at: 1,
            truncates: false,
            columns: vec![("number".to_owned(), Kind::Number), ("text".to_owned(), Kind::Text)],
            rows,
            bytes: lines.len() as u64,
            last_key: Some(vec![rows.to_string()]),
            is_last: true,
        };
        std::fs::write(memory.rows(0), lines).unwrap();
        memory.keep_about(&about).unwrap();
        Chunk::load(&memory, 0, &["number".to_owned()], &Wanted::all()).unwrap().unwrap()
    }

    fn key(number: u64) -> Vec<u8> {
        format!("{number}\0").into_bytes()
    }

    async fn numbers(chunk: Chunk) -> Vec<u64> {
        let (mut rows, mut numbers) = (chunk.rows().await.unwrap(), Vec::new());
        while let Some(row) = rows.next().unwrap() {
            assert_eq!(row.get("text"), Some(&format!("ก\t{}", "x".repeat(100)).into()));
            let Some(Value::Number(number)) = row.get("number") else { panic!("{row:?}") };
            numbers.push(number.parse().unwrap());
        }
        numbers
    }

    #[tokio::test]
    async fn rows_that_the_stream_has_told_of_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        // More than are read from the file at a time.
        let rows = 2 * BUFFER as u64 / 100;
        let mut some = chunk(folder.path(), rows);
        for told in [3, rows + 1, rows] {
            some.tell(key(told)).unwrap();
        }
        let left: Vec<_> = (1..rows).filter(|number| *number != 3).collect();
        assert_eq!(numbers(some).await, left);
        let mut none = chunk(folder.path(), rows);
        none.tell_all();
        assert_eq!(none.row_of(&key(1)).await.unwrap(), None);
        assert!(numbers(none).await.is_empty());
        assert_eq!(numbers(chunk(folder.path(), rows)).await.len() as u64, rows);
    }

    #[tokio::test]
    async fn a_row_is_found_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let mut chunk = chunk(folder.path(), 1000);
        chunk.tell(key(1)).unwrap();
        assert_eq!(chunk.row_of(&key(1)).await.unwrap(), None);
        assert_eq!(chunk.row_of(&key(1001)).await.unwrap(), None);
        for number in [1000, 2, 1000] {
            let row = chunk.row_of(&key(number)).await.unwrap().unwrap();
            assert_eq!(row.get("number"), Some(&Value::Number(number.to_string())));
        }
        chunk.tell(key(2)).unwrap();
        assert_eq!(chunk.row_of(&key(2)).await.unwrap(), None);
        assert_eq!(numbers(chunk).await, (3..=1000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn no_more_keys_are_held_than_there_are_rows() {
        let folder = tempfile::tempdir().unwrap();
        let mut chunk = chunk(folder.path(), 10);
        for told in 5..1000 {
            chunk.tell(key(told)).unwrap();
            assert!(chunk.told.len() + chunk.places.as_ref().map_or(0, HashMap::len) <= 10);
        }
        assert_eq!(numbers(chunk).await, [1, 2, 3, 4]);
    }
}
