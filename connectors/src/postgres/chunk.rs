//! A part of the snapshot: rows that follow one another by key, as they stood at one moment.
//!
//! What passes through: `COPY` of the next rows by key into a file, and from there, when the stream has come to
//! the mark that was written behind the moment, into events. What the stream has told of a row in between is newer,
//! and the row is left out.
//!
//! Guaranteed: the rows are on the disk before the first of them is an event, so that a part that was broken off
//! goes on with the very same rows. Memory holds the keys of one part, and never its rows.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::str;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use ruam_event::Row;
use serde::{Deserialize, Serialize};

use super::copied;
use super::layout::{Layout, Wanted};
use super::memory::{Memory, failed};
use super::pgoutput::Datum;
use super::values::Kind;
use crate::source::SourceError;

/// How many bytes a part is to have, about, and how many rows at most.
const BYTES: u64 = 16 << 20;
const ROWS: u64 = 100_000;
/// How many rows the first part has, whose width nobody knows.
pub(super) const FIRST_ROWS: u64 = 2_000;

/// What a part is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct About {
    pub(super) number: u64,
    /// How far the stream had been read when the rows were: what comes behind concerns them.
    pub(super) opened_at: u64,
    /// Whether what is in the log of the table's rows is to go before these.
    pub(super) truncates: bool,
    /// The columns of its rows.
    columns: Vec<(String, Kind)>,
    rows: u64,
    bytes: u64,
    /// The key of its last row; none where it has no row.
    pub(super) last_key: Option<Vec<String>>,
    /// Whether there are no more rows.
    pub(super) is_last: bool,
}

impl About {
    /// How many rows the next part is to have, so that it is about as large as it should be.
    pub(super) fn next_rows(&self) -> u64 {
        (BYTES * self.rows / self.bytes.max(1)).clamp(100, ROWS)
    }
}

/// A part of the snapshot on the disk.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) about: About,
    path: PathBuf,
    layout: Layout,
    /// Where each row begins in the file.
    starts: Vec<u64>,
    /// The rows by key, without those that the stream has told of.
    places: HashMap<Vec<u8>, u32>,
    is_told: Vec<bool>,
}

/// What a part is to be.
pub(super) struct Plan<'a> {
    pub(super) number: u64,
    pub(super) opened_at: u64,
    pub(super) truncates: bool,
    pub(super) columns: Vec<(String, Kind)>,
    pub(super) key: &'a [String],
    pub(super) wanted: &'a Wanted,
    pub(super) limit: u64,
}

/// Why rows could not be read into a file.
pub(super) enum ReadError {
    Server(tokio_postgres::Error),
    Source(SourceError),
}

impl Chunk {
    /// Reads rows into a file.
    ///
    /// # Errors
    /// Where they do not come, or cannot be written.
    pub(super) async fn read(
        memory: &Memory,
        plan: Plan<'_>,
        rows: impl Stream<Item = Result<Bytes, tokio_postgres::Error>>,
    ) -> Result<Self, ReadError> {
        let about = About {
            number: plan.number,
            opened_at: plan.opened_at,
            truncates: plan.truncates,
            columns: plan.columns,
            rows: 0,
            bytes: 0,
            last_key: None,
            is_last: false,
        };
        let mut chunk = Self::empty(memory, about, plan.key, plan.wanted).map_err(ReadError::Source)?;
        let path = chunk.path.clone();
        let disk = |error| ReadError::Source(failed(&path, error));
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(disk)?);
        let mut rows = std::pin::pin!(rows);
        let mut last = Bytes::new();
        // The server sends each row in a message of its own.
        while let Some(line) = rows.try_next().await.map_err(ReadError::Server)? {
            file.write_all(&line).map_err(disk)?;
            chunk.add(&line).map_err(ReadError::Source)?;
            last = line;
        }
        if !last.is_empty() {
            let values = chunk.parse(&last).map_err(ReadError::Source)?;
            chunk.about.last_key = chunk.layout.key_texts(|place| datum(&values, place));
        }
        file.into_inner().map_err(|error| disk(error.into_error()))?.sync_all().map_err(disk)?;
        chunk.about.is_last = chunk.about.rows < plan.limit;
        memory.keep_about(chunk.about.number, &chunk.about).map_err(ReadError::Source)?;
        Ok(chunk)
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
        let Some(about) = memory.about::<About>(number)? else { return Ok(None) };
        let counted = About { rows: 0, bytes: 0, ..about.clone() };
        let mut chunk = Self::empty(memory, counted, key, wanted)?;
        let path = chunk.path.clone();
        let disk = |error| failed(&path, error);
        let mut file = BufReader::with_capacity(1 << 20, File::open(&path).map_err(disk)?);
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line).map_err(disk)? > 0 {
            chunk.add(&line)?;
            line.clear();
        }
        chunk.about = about;
        Ok(Some(chunk))
    }

    fn empty(memory: &Memory, about: About, key: &[String], wanted: &Wanted) -> Result<Self, SourceError> {
        let columns: Vec<_> = about.columns.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
        let path = memory.rows(about.number);
        let layout = Layout::new(&columns, key, wanted).ok_or_else(|| SourceError::Unreadable {
            what: path.display().to_string(),
            problem: "its rows do not have the columns of the key".to_owned(),
        })?;
        Ok(Self { about, path, layout, starts: Vec::new(), places: HashMap::new(), is_told: Vec::new() })
    }

    /// Takes note of the next row.
    fn add(&mut self, line: &[u8]) -> Result<(), SourceError> {
        let (place, start) = (self.starts.len(), self.about.bytes);
        let text = self.text(line)?;
        // No more than the key's columns is looked at here.
        let values: Values<'_> = copied::values(text).take(self.layout.key_ends()).collect();
        let key = self.layout.key_bytes(|place| datum(&values, place));
        self.places.insert(key, u32::try_from(place).unwrap_or(u32::MAX));
        self.starts.push(start);
        self.is_told.push(false);
        self.about.rows += 1;
        self.about.bytes += line.len() as u64;
        Ok(())
    }

    fn parse<'a>(&self, line: &'a [u8]) -> Result<Values<'a>, SourceError> {
        let mut values = Vec::with_capacity(self.about.columns.len());
        values.extend(copied::values(self.text(line)?));
        match values.len() == self.about.columns.len() {
            true => Ok(values),
            false => Err(self.unreadable("a row has not as many values as there are columns")),
        }
    }

    fn text<'a>(&self, line: &'a [u8]) -> Result<&'a str, SourceError> {
        let text = str::from_utf8(line).map_err(|_| self.unreadable("it is not in UTF-8"))?;
        Ok(text.strip_suffix('\n').unwrap_or(text))
    }

    fn unreadable(&self, problem: &str) -> SourceError {
        SourceError::Unreadable { what: self.path.display().to_string(), problem: problem.to_owned() }
    }

    /// The row of a key, unless the stream has told of it: from now on it has.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn take(&mut self, key: &[u8]) -> Result<Option<Row>, SourceError> {
        let Some(place) = self.tell(key) else { return Ok(None) };
        let start = self.starts[place];
        let end = self.starts.get(place + 1).copied().unwrap_or(self.about.bytes);
        let read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(start))?;
            let mut line = Vec::new();
            file.take(end - start).read_to_end(&mut line)?;
            Ok(line)
        };
        let line = read().map_err(|error| failed(&self.path, error))?;
        let values = self.parse(&line)?;
        Ok(Some(self.layout.row(|place| datum(&values, place))))
    }

    /// Leaves out the row of a key, of which the stream has told; its place, if it has one that is not left out.
    pub(super) fn tell(&mut self, key: &[u8]) -> Option<usize> {
        let place = self.places.remove(key)? as usize;
        self.is_told[place] = true;
        Some(place)
    }

    /// Leaves out all rows.
    pub(super) fn tell_all(&mut self) {
        self.places.clear();
        self.is_told.fill(true);
    }

    /// The rows that are not left out, from here on.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn rows(self) -> Result<Rows, SourceError> {
        let file = File::open(&self.path).map_err(|error| failed(&self.path, error))?;
        Ok(Rows { file: BufReader::with_capacity(1 << 20, file), chunk: self, next: 0, line: Vec::new() })
    }
}

type Values<'a> = Vec<Option<std::borrow::Cow<'a, str>>>;

fn datum<'a>(values: &'a Values<'a>, place: usize) -> Datum<'a> {
    values.get(place).and_then(Option::as_deref).map_or(Datum::Null, Datum::Text)
}

/// The rows of a part, one after another.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) chunk: Chunk,
    file: BufReader<File>,
    next: usize,
    line: Vec<u8>,
}

impl Rows {
    /// The next row that is not left out.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Row>, SourceError> {
        while let Some(is_told) = self.chunk.is_told.get(self.next) {
            self.line.clear();
            let read = self.file.read_until(b'\n', &mut self.line);
            read.map_err(|error| failed(&self.chunk.path, error))?;
            self.next += 1;
            if !is_told {
                let values = self.chunk.parse(&self.line)?;
                return Ok(Some(self.chunk.layout.row(|place| datum(&values, place))));
            }
        }
        Ok(None)
    }
}
