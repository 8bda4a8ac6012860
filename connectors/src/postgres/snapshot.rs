//! How far the snapshot is: which of its parts is being read, waits for its mark, is being told, and has been told.

use std::collections::VecDeque;

use ruam_event::{Position, Row};

use super::chunk::{Chunk, Rows};
use super::memory::{About, SnapshotProgress};
use super::reading::BeingRead;
use crate::source::SourceError;

/// How many bytes a part is to have, about, and how many rows at most.
const BYTES: u64 = 16 << 20;
const ROWS: u64 = 200_000;
/// How many rows the first part has, whose width nobody knows.
const FIRST_ROWS: u64 = 2_000;
/// How many parts may wait for being released.
const WAITING_CHUNKS: usize = 16;

/// A snapshot, in parts.
pub(super) struct Snapshot {
    /// How far the table has been read.
    pub(super) read: SnapshotProgress,
    /// How many rows the next part is to have.
    pub(super) next_rows: u64,
    /// The transactions that the stream has brought and that no part's moment has seen yet.
    pub(super) unseen: Vec<u32>,
    /// The part behind those that have been read.
    pub(super) being_read: Option<BeingRead>,
    /// The part that waits for its mark.
    waiting: Option<Chunk>,
    /// The part whose rows are being told.
    telling: Option<Rows>,
    /// The parts that have been told, each with the last event before its end.
    told: VecDeque<(About, Option<Position>)>,
}

impl Snapshot {
    /// A snapshot that goes on.
    pub(super) fn new(safe: &SnapshotProgress) -> Self {
        Self {
            read: safe.clone(),
            next_rows: FIRST_ROWS,
            unseen: Vec::new(),
            being_read: None,
            waiting: None,
            telling: None,
            told: VecDeque::new(),
        }
    }

    /// Whether it is time for the next part, if the stream is between two transactions.
    pub(super) fn wants_chunk(&self) -> bool {
        !self.read.is_done
            && self.waiting.is_none()
            && self.telling.is_none()
            && (self.being_read.is_some() || self.told.len() < WAITING_CHUNKS)
    }

    /// Whether there is one to be read while another is told.
    pub(super) fn has_next(&self) -> bool {
        !self.read.is_done && self.told.len() + 1 < WAITING_CHUNKS
    }

    /// A part has been read, and waits for its mark.
    pub(super) fn wait(&mut self, chunk: Chunk) {
        let about = &chunk.about;
        self.next_rows = (BYTES * about.rows / about.bytes.max(1)).clamp(100, ROWS);
        self.read.pass(about);
        self.waiting = Some(chunk);
    }

    /// The stream has brought a transaction.
    pub(super) fn bring(&mut self, transaction: u32) {
        if !self.read.is_done {
            self.unseen.push(transaction);
        }
    }

    /// The part that waits for its mark, if what stands at a place of the stream has come after its moment.
    pub(super) fn waiting_at(&mut self, lsn: u64) -> Option<&mut Chunk> {
        self.waiting.as_mut().filter(|chunk| lsn > chunk.about.opened_at)
    }

    /// The part whose mark has come, if this is one.
    pub(super) fn marked(&mut self, mark: &[u8]) -> Option<Chunk> {
        self.waiting.take_if(|chunk| chunk.about.mark.as_bytes() == mark)
    }

    /// Begins to tell the rows of a part.
    pub(super) fn tell(&mut self, rows: Rows) {
        self.telling = Some(rows);
    }

    /// Whether rows are being told: nothing else is meanwhile.
    pub(super) fn is_telling(&self) -> bool {
        self.telling.is_some()
    }

    /// The next row of the part that is being told.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>, SourceError> {
        self.telling.as_mut().map_or(Ok(None), Rows::next)
    }

    /// All rows of a part have been told, the last one by an event; whether it was the last part.
    pub(super) fn end_part(&mut self, made: Option<Position>) -> bool {
        let Some(rows) = self.telling.take() else { return false };
        let about = rows.chunk.about;
        let is_last = about.is_last;
        self.told.push_back((about, made));
        is_last
    }

    /// The next of the parts that have been told, if all of it is safe when everything up to a position is.
    pub(super) fn safe(&mut self, through: Option<Position>) -> Option<About> {
        let (about, _) = self.told.pop_front_if(|(_, end)| end.is_none() || *end <= through)?;
        Some(about)
    }

    /// Whether parts have been told and are not safe yet.
    pub(super) fn has_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// From where on the stream has to come again for the parts that are not safe yet.
    pub(super) fn opened_at(&self) -> Option<u64> {
        let told = self.told.front().map(|(about, _)| about);
        let telling = self.telling.as_ref().map(|rows| &rows.chunk.about);
        let waiting = self.waiting.as_ref().map(|chunk| &chunk.about);
        told.or(telling).or(waiting).map(|about| about.opened_at)
    }
}
