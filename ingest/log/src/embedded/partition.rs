//! One partition: its segments, its producers, and how far it is safe on disk.
//!
//! Guaranteed: a batch is readable, and its producer is told so, only after it has been written to
//! disk and the disk has confirmed. After a crash the partition is what was confirmed, and perhaps
//! whole batches more.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::batch::{Header, sequence_after, set_base_offset};
use super::segment::Segment;

/// Kafka's rule: a producer has at most five batches under way, so that one of the last five may
/// come again.
const REMEMBERED_BATCHES: usize = 5;

/// Sizes of the embedded broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The largest batch in bytes.
    pub batch: usize,
    /// When a segment is closed, in bytes.
    pub segment: u64,
    /// How long records are kept, in milliseconds.
    pub retention: i64,
}

/// One partition of a topic.
#[derive(Debug)]
pub(super) struct Partition {
    dir: PathBuf,
    limits: Limits,
    state: Mutex<State>,
    /// The offset after the last record that is safe on disk.
    safe: watch::Sender<i64>,
}

#[derive(Debug)]
struct State {
    /// From oldest to newest; the last is written to.
    sealed: Vec<Segment>,
    active: Segment,
    /// How many bytes of the active segment are safe on disk.
    safe_len: u64,
    producers: HashMap<i64, Producer>,
}

/// What a partition remembers of an idempotent producer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Producer {
    epoch: i16,
    /// First sequence, last sequence and base offset of its last batches.
    batches: VecDeque<(i32, i32, i64)>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appended {
    /// The offset of its first record.
    pub base_offset: i64,
    /// The offset that has to be safe before its producer may be told.
    pub end_offset: i64,
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// The batch is at fault.
    #[error("{0:?}")]
    Refused(ResponseError),
    /// The disk is.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Partition {
    /// Opens or creates the partition in a directory.
    pub(super) fn open(dir: &Path, limits: Limits) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut bases = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log")
                && let Some(base) =
                    path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<i64>().ok())
            {
                bases.push((base, path));
            }
        }
        bases.sort();
        let mut producers = HashMap::new();
        let active = match bases.pop() {
            None => Segment::create(dir, 0)?,
            Some((base, path)) => {
                producers = load_producers(&path.with_extension("producers"));
                Segment::open_active(path, base, |header| remember(&mut producers, header))?
            }
        };
        let sealed =
            bases.into_iter().map(|(base, path)| Segment::open_sealed(path, base)).collect::<io::Result<_>>()?;
        let (safe_len, end_offset) = (active.len(), active.end_offset());
        let state = State { sealed, active, safe_len, producers };
        Ok(Self { dir: dir.to_owned(), limits, state: Mutex::new(state), safe: watch::Sender::new(end_offset) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held would be a bug in this file; the state is still whole,
        // because every change to it is made last.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch, or finds that it is there already. It is not safe before [`sync`](Self::sync).
    pub(super) fn append(&self, batch: &mut [u8]) -> Result<Appended, AppendError> {
        let header = Header::read(batch).ok_or(AppendError::Refused(ResponseError::CorruptMessage))?;
        header.check(batch, self.limits.batch).map_err(AppendError::Refused)?;
        let mut state = self.state();
        if let Some(base_offset) = state.seen(&header).map_err(AppendError::Refused)? {
            return Ok(Appended { base_offset, end_offset: base_offset + i64::from(header.records) });
        }
        if state.active.len() > 0 && state.active.len() + header.len as u64 > self.limits.segment {
            self.roll(&mut state)?;
        }
        let base_offset = state.active.end_offset();
        set_base_offset(batch, base_offset);
        let header = header.at(base_offset);
        state.active.append(&batch[..header.len], &header)?;
        remember(&mut state.producers, &header);
        Ok(Appended { base_offset, end_offset: header.end_offset() })
    }

    /// Closes the active segment and begins another.
    fn roll(&self, state: &mut State) -> io::Result<()> {
        state.active.seal()?;
        let base_offset = state.active.end_offset();
        // What the producers sent last has to be known when the broker starts with the new segment.
        let producers = serde_json::to_vec(&state.producers)?;
        std::fs::write(self.dir.join(format!("{base_offset:020}.producers")), producers)?;
        let next = Segment::create(&self.dir, base_offset)?;
        state.sealed.push(std::mem::replace(&mut state.active, next));
        state.safe_len = 0;
        self.safe.send_replace(base_offset);
        Ok(())
    }

    /// Makes everything appended so far safe on disk, and readable.
    pub(super) fn sync(&self) -> io::Result<()> {
        let (file, base_offset, len, end_offset) = {
            let state = self.state();
            (state.active.file(), state.active.base_offset(), state.active.len(), state.active.end_offset())
        };
        file.sync_data()?;
        let mut state = self.state();
        if state.active.base_offset() == base_offset {
            state.safe_len = state.safe_len.max(len);
        }
        self.safe.send_if_modified(|safe| std::mem::replace(safe, (*safe).max(end_offset)) < end_offset);
        Ok(())
    }

    /// The offset after the last record that is safe on disk, and its changes.
    pub(super) fn safe(&self) -> watch::Receiver<i64> {
        self.safe.subscribe()
    }

    /// The first offset, and the one after the last that is safe.
    pub(super) fn range(&self) -> (i64, i64) {
        let state = self.state();
        (state.oldest().base_offset(), *self.safe.borrow())
    }

    /// Whole batches from the one that holds `offset`. Empty at the end.
    pub(super) fn read(&self, offset: i64, max_bytes: usize) -> Result<Vec<u8>, AppendError> {
        let read = {
            let state = self.state();
            let safe = *self.safe.borrow();
            if offset < state.oldest().base_offset() || offset > safe {
                return Err(AppendError::Refused(ResponseError::OffsetOutOfRange));
            }
            if offset == safe {
                return Ok(Vec::new());
            }
            match state.sealed.iter().find(|segment| offset < segment.end_offset()) {
                Some(sealed) => sealed.read(offset, max_bytes, sealed.len()),
                None => state.active.read(offset, max_bytes, state.safe_len),
            }
        };
        Ok(read.run()?)
    }

    /// The offset of the first batch that may hold a record of this time or later, if there is one.
    pub(super) fn offset_at(&self, timestamp: i64) -> Option<i64> {
        let state = self.state();
        let mut segments = state.sealed.iter().chain([&state.active]);
        segments.find(|segment| segment.max_timestamp() >= timestamp).map(|segment| segment.offset_at(timestamp))
    }

    /// Deletes segments whose every record is older than the retention.
    pub(super) fn expire(&self, now: i64) -> io::Result<()> {
        let mut state = self.state();
        let keep = state.sealed.iter().position(|segment| segment.max_timestamp() + self.limits.retention >= now);
        let expired = keep.unwrap_or(state.sealed.len());
        for segment in state.sealed.drain(..expired) {
            tracing::info!(segment = %segment.path().display(), "deleting a segment past its retention");
            segment.delete()?;
        }
        Ok(())
    }

    /// The directory that holds the partition.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl State {
    fn oldest(&self) -> &Segment {
        self.sealed.first().unwrap_or(&self.active)
    }

    /// The offset of a batch that is here already; an error where batches of its producer are
    /// missing before it.
    fn seen(&self, header: &Header) -> Result<Option<i64>, ResponseError> {
        let Some(producer) = self.producers.get(&header.producer_id).filter(|_| header.producer_id >= 0) else {
            return Ok(None);
        };
        if header.producer_epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if header.producer_epoch > producer.epoch {
            return if header.base_sequence == 0 { Ok(None) } else { Err(ResponseError::OutOfOrderSequenceNumber) };
        }
        let same = |batch: &&(i32, i32, i64)| batch.0 == header.base_sequence && batch.1 == header.last_sequence();
        match (producer.batches.iter().find(same), producer.batches.back()) {
            (Some((_, _, offset)), _) => Ok(Some(*offset)),
            (None, Some((_, last, _))) if sequence_after(*last, 1) != header.base_sequence => {
                Err(ResponseError::OutOfOrderSequenceNumber)
            }
            _ => Ok(None),
        }
    }
}

fn remember(producers: &mut HashMap<i64, Producer>, header: &Header) {
    if header.producer_id < 0 {
        return;
    }
    let producer = producers.entry(header.producer_id).or_default();
    if producer.epoch != header.producer_epoch {
        *producer = Producer { epoch: header.producer_epoch, batches: VecDeque::new() };
    }
    if producer.batches.len() == REMEMBERED_BATCHES {
        producer.batches.pop_front();
    }
    producer.batches.push_back((header.base_sequence, header.last_sequence(), header.base_offset));
}

fn load_producers(path: &Path) -> HashMap<i64, Producer> {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::batch::testing::batch;
    use super::*;
    use std::io::Write;

    const LIMITS: Limits = Limits { batch: 10_000, segment: 1000, retention: 1000 };

    fn open(dir: &tempfile::TempDir) -> Partition {
        Partition::open(dir.path(), LIMITS).unwrap()
    }

    fn append(partition: &Partition, records: i32, producer: Option<(i64, i16, i32)>) -> Result<i64, ResponseError> {
        match partition.append(&mut batch(records, 100, producer)) {
            Ok(appended) => Ok(appended.base_offset),
            Err(AppendError::Refused(error)) => Err(error),
            Err(AppendError::Io(error)) => panic!("{error}"),
        }
    }

    /// The base offsets of the batches that a reader sees from an offset on.
    fn offsets(partition: &Partition, mut from: i64, max_bytes: usize) -> Vec<i64> {
        let mut offsets = Vec::new();
        loop {
            let bytes = partition.read(from, max_bytes).unwrap();
            let mut rest = &bytes[..];
            while let Some(header) = Header::read(rest) {
                assert!(header.is_intact(rest));
                offsets.push(header.base_offset);
                from = header.end_offset();
                rest = &rest[header.len..];
            }
            if bytes.is_empty() {
                return offsets;
            }
        }
    }

    #[test]
    fn what_is_safe_is_read_in_any_size_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(&dir);
        for index in 0..40 {
            assert_eq!(append(&partition, 2, None), Ok(index * 2));
        }
        assert!(partition.read(79, 10).is_err(), "not safe yet");
        partition.sync().unwrap();
        let expected: Vec<_> = (0..40).map(|index| index * 2).collect();
        for reader in [partition, open(&dir)] {
            assert_eq!(reader.range(), (0, 80));
            for max_bytes in [1, 500, 100_000] {
                assert_eq!(offsets(&reader, 0, max_bytes), expected);
                assert_eq!(offsets(&reader, 31, max_bytes), expected[15..]);
            }
            assert!(reader.read(81, 10).is_err());
        }
    }

    #[test]
    fn a_torn_tail_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(&dir);
        append(&partition, 2, None).unwrap();
        partition.sync().unwrap();
        drop(partition);
        let path = dir.path().join("00000000000000000000.log");
        for tail in [&batch(3, 50, None)[..70], &[0; 200], b"x"] {
            std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(tail).unwrap();
            let partition = open(&dir);
            assert_eq!(offsets(&partition, 0, 1000), [0]);
            assert_eq!(partition.range(), (0, 2));
        }
        let partition = open(&dir);
        assert_eq!(append(&partition, 1, None), Ok(2));
    }

    #[test]
    fn a_producers_batches_are_kept_once_also_over_segments_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(&dir);
        let mut sequence = 0;
        for index in 0..20 {
            assert_eq!(append(&partition, 3, Some((7, 0, sequence))), Ok(index * 3));
            assert_eq!(append(&partition, 3, Some((7, 0, sequence))), Ok(index * 3), "sent again");
            sequence += 3;
        }
        assert_eq!(append(&partition, 3, Some((7, 0, sequence + 3))), Err(ResponseError::OutOfOrderSequenceNumber));
        partition.sync().unwrap();
        let partition = open(&dir);
        for back in 1..=5 {
            assert_eq!(
                append(&partition, 3, Some((7, 0, sequence - 3 * back))),
                Ok(60 - 3 * i64::from(back)),
                "{back}"
            );
        }
        assert_eq!(append(&partition, 3, Some((7, 1, 0))), Ok(60));
        assert_eq!(append(&partition, 3, Some((7, 0, sequence))), Err(ResponseError::InvalidProducerEpoch));
    }

    #[test]
    fn old_segments_expire() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(&dir);
        for _ in 0..40 {
            append(&partition, 2, None).unwrap();
        }
        partition.sync().unwrap();
        partition.expire(1500).unwrap();
        assert_eq!(partition.range().0, 0);
        partition.expire(10_000).unwrap();
        let (first, end) = partition.range();
        assert!(first > 0 && end == 80);
        assert_eq!(offsets(&partition, first, 1000).first(), Some(&first));
        assert!(partition.read(0, 10).is_err());
        assert_eq!(open(&dir).range(), (first, end));
    }

    #[test]
    fn a_time_finds_its_batch() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(&dir);
        for records in 1..=40 {
            append(&partition, records, None).unwrap();
        }
        partition.sync().unwrap();
        assert_eq!(partition.offset_at(0), Some(0));
        assert_eq!(partition.offset_at(1041), None);
        let found = partition.offset_at(1020).unwrap();
        assert!(found <= (1..20).sum::<i64>() && found >= (1..14).sum::<i64>(), "{found}");
    }
}
