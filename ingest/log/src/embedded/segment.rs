//! One file of a partition: batches one after another, and a sparse index of where they begin.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::batch::{HEADER_LEN, Header};

/// At least so many bytes lie between two entries of the index.
const INDEX_INTERVAL: u64 = 32 * 1024;
const INDEX_ENTRY_LEN: usize = 24;

/// A file of batches.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: Arc<File>,
    base_offset: i64,
    end_offset: i64,
    len: u64,
    max_timestamp: i64,
    index: Vec<Entry>,
}

/// Where a batch begins.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    offset: i64,
    position: u64,
    /// The latest time of any batch before this one.
    max_timestamp_before: i64,
}

impl Segment {
    /// A new, empty file whose first record will have the given offset.
    pub(super) fn create(dir: &Path, base_offset: i64) -> io::Result<Self> {
        let path = dir.join(format!("{base_offset:020}.log"));
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
        File::open(dir)?.sync_all()?;
        Ok(Self::new(path, file, base_offset))
    }

    fn new(path: PathBuf, file: File, base_offset: i64) -> Self {
        Self {
            path,
            file: Arc::new(file),
            base_offset,
            end_offset: base_offset,
            len: 0,
            max_timestamp: -1,
            index: Vec::new(),
        }
    }

    /// Opens a file that is not written to any more. Its index was stored when it was sealed; if
    /// that is missing, the file is read through.
    pub(super) fn open_sealed(path: PathBuf, base_offset: i64) -> io::Result<Self> {
        let file = File::open(&path)?;
        let mut segment = Self::new(path, file, base_offset);
        if !segment.load_index()? {
            segment.scan(|_| {}, false)?;
        }
        Ok(segment)
    }

    /// Opens the file that is written to. It is read through, each batch is checked, and what a
    /// crash left behind the last whole batch is cut off. `visit` sees every batch.
    pub(super) fn open_active(path: PathBuf, base_offset: i64, visit: impl FnMut(&Header)) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut segment = Self::new(path, file, base_offset);
        segment.scan(visit, true)?;
        if segment.file.metadata()?.len() > segment.len {
            segment.file.set_len(segment.len)?;
            segment.file.sync_all()?;
        }
        Ok(segment)
    }

    fn scan(&mut self, mut visit: impl FnMut(&Header), check: bool) -> io::Result<()> {
        let file_len = self.file.metadata()?.len();
        let mut buffer = vec![0; HEADER_LEN];
        while self.len + HEADER_LEN as u64 <= file_len {
            buffer.resize(HEADER_LEN, 0);
            self.file.read_exact_at(&mut buffer, self.len)?;
            let Some(header) = Header::read(&buffer).filter(|header| header.base_offset == self.end_offset) else {
                break;
            };
            if self.len + header.len as u64 > file_len || header.len < HEADER_LEN {
                break;
            }
            if check {
                buffer.resize(header.len, 0);
                self.file.read_exact_at(&mut buffer, self.len)?;
                if !header.is_intact(&buffer) {
                    break;
                }
            }
            self.note(&header);
            visit(&header);
        }
        Ok(())
    }

    fn note(&mut self, header: &Header) {
        if self.index.last().is_none_or(|last| self.len - last.position >= INDEX_INTERVAL) {
            let entry =
                Entry { offset: header.base_offset, position: self.len, max_timestamp_before: self.max_timestamp };
            self.index.push(entry);
        }
        self.len += header.len as u64;
        self.end_offset = header.end_offset();
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
    }

    /// Adds a batch that carries its offset. On an error the file is as it was.
    pub(super) fn append(&mut self, batch: &[u8], header: &Header) -> io::Result<()> {
        if let Err(error) = self.file.write_all_at(batch, self.len) {
            // Whatever part was written lies behind `len`; cutting it off keeps a full disk from
            // staying full, but nothing depends on it.
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        self.note(header);
        Ok(())
    }

    /// Whole batches from the one that holds `offset`, at least one, at most about `max_bytes`, and
    /// none at or behind the position `limit` of the file.
    pub(super) fn read(&self, offset: i64, max_bytes: usize, limit: u64) -> SegmentRead {
        let entry = self.index.partition_point(|entry| entry.offset <= offset).checked_sub(1).map(|at| self.index[at]);
        SegmentRead {
            file: self.file.clone(),
            start: entry.map_or(0, |entry| entry.position),
            limit,
            offset,
            max_bytes,
        }
    }

    /// The offset of the first batch that may hold a record of this time or later.
    pub(super) fn offset_at(&self, timestamp: i64) -> i64 {
        let after = self.index.partition_point(|entry| entry.max_timestamp_before < timestamp);
        after.checked_sub(1).map_or(self.base_offset, |at| self.index[at].offset)
    }

    /// Stores the index beside the file, which is not written to any more.
    pub(super) fn seal(&self) -> io::Result<()> {
        self.file.sync_all()?;
        let mut bytes = Vec::with_capacity((self.index.len() + 1) * INDEX_ENTRY_LEN);
        let end = Entry { offset: self.end_offset, position: self.len, max_timestamp_before: self.max_timestamp };
        for entry in self.index.iter().chain([&end]) {
            bytes.extend_from_slice(&entry.offset.to_be_bytes());
            bytes.extend_from_slice(&entry.position.to_be_bytes());
            bytes.extend_from_slice(&entry.max_timestamp_before.to_be_bytes());
        }
        std::fs::write(self.path.with_extension("index"), bytes)
    }

    fn load_index(&mut self) -> io::Result<bool> {
        let Ok(bytes) = std::fs::read(self.path.with_extension("index")) else { return Ok(false) };
        let number = |entry: &[u8], at: usize| {
            entry[at..at + 8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let entry = |bytes: &[u8]| Entry {
            offset: number(bytes, 0) as i64,
            position: number(bytes, 8),
            max_timestamp_before: number(bytes, 16) as i64,
        };
        let mut index: Vec<_> = bytes.chunks_exact(INDEX_ENTRY_LEN).map(entry).collect();
        let Some(end) = index.pop().filter(|end| bytes.len() % INDEX_ENTRY_LEN == 0 && end.offset > self.base_offset)
        else {
            return Ok(false);
        };
        if self.file.metadata()?.len() != end.position {
            return Ok(false);
        }
        (self.end_offset, self.len, self.max_timestamp, self.index) =
            (end.offset, end.position, end.max_timestamp_before, index);
        Ok(true)
    }

    /// Deletes the file and what lies beside it.
    pub(super) fn delete(self) -> io::Result<()> {
        for beside in ["index", "producers"] {
            match std::fs::remove_file(self.path.with_extension(beside)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::remove_file(&self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    pub(super) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(super) fn end_offset(&self) -> i64 {
        self.end_offset
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }
}

/// A read that is known by its place and not yet done, so that no lock is held while it is.
#[derive(Debug)]
pub(super) struct SegmentRead {
    file: Arc<File>,
    start: u64,
    limit: u64,
    offset: i64,
    max_bytes: usize,
}

impl SegmentRead {
    /// Reads the batches.
    pub(super) fn run(self) -> io::Result<Vec<u8>> {
        let start = self.find()?;
        let mut bytes = self.chunk(start, self.max_bytes.max(HEADER_LEN))?;
        let mut end = 0;
        while let Some(header) = Header::read(&bytes[end..]) {
            if end + header.len > bytes.len() {
                break;
            }
            end += header.len;
        }
        if end == 0
            && let Some(first) = Header::read(&bytes)
        {
            // A single batch that is larger than what was asked for is sent all the same, or the
            // reader would never get past it.
            bytes = self.chunk(start, first.len)?;
            end = if bytes.len() == first.len { first.len } else { 0 };
        }
        bytes.truncate(end);
        Ok(bytes)
    }

    /// The position of the batch that holds the offset.
    fn find(&self) -> io::Result<u64> {
        let mut position = self.start;
        loop {
            let header = self.chunk(position, HEADER_LEN)?;
            match Header::read(&header) {
                Some(header) if header.end_offset() <= self.offset => position += header.len as u64,
                _ => return Ok(position),
            }
        }
    }

    fn chunk(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let len = self.limit.saturating_sub(position).min(len as u64);
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, position)?;
        Ok(bytes)
    }
}
