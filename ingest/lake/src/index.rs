//! Where each key's row is, so that a commit costs what its changes cost and not what its table does.
//!
//! What passes through: keys that a batch changes, into the rows that they have in the table now. Not
//! a file of the table is read for that, but the values of columns that a change leaves as they are.
//!
//! Guaranteed: an entry is a hint that is checked and never believed. It names a file and a row, and
//! counts only where that file is live and its vector does not have the row. Each live file is entered
//! as a whole before a key is looked for, and a file never changes, so the last entry of a key is its
//! live row, if there is one. What others do to the table (compaction, a second writer) is thereby
//! found by the next look, and an index that is lost, old or damaged only costs the time to read key
//! columns again.
//!
//! It is a cache on this machine's disk (fjall, an LSM tree), within a memory setting.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use deltalake::DeltaTable;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use ruam_event::Position;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::BoxError;
use crate::fold::Origins;
use crate::search::{self, Found, KeyRows, Present, Wanted};
use crate::vectors::DataFile;

/// Where an index is kept, and what it may take.
#[derive(Clone, Debug)]
pub struct IndexSettings {
    /// The folder of all indexes of this lake on this machine.
    pub folder: PathBuf,
    /// About how much memory one index may take, in bytes.
    pub memory: usize,
}

/// The least memory that makes sense for the store's buffers.
const LEAST_MEMORY: u64 = 8 << 20;
/// How many entries are written at once.
const CHUNK: usize = 16 * 1024;
/// The name under which the next file's number is kept among the files; paths of files are relative.
const NEXT: &str = "/next";

/// Where the rows of one table's keys are.
pub(crate) struct KeyIndex {
    database: Database,
    /// Hash of a key -> [`Entry`].
    keys: Keyspace,
    /// Path of a file -> its number, and whether all of it is entered.
    files: Keyspace,
    numbers: HashMap<String, Number>,
    next: u32,
}

/// The short name of a file within the index. It is never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number {
    id: u32,
    is_whole: bool,
}

impl KeyIndex {
    /// Opens an index; one that cannot be read is begun anew.
    ///
    /// # Errors
    /// Where the folder cannot be written to, or another writer has it.
    pub(crate) fn open(folder: &Path, memory: usize) -> Result<Self, BoxError> {
        match Self::try_open(folder, memory) {
            Ok(index) => Ok(index),
            Err(error) if matches!(error.downcast_ref(), Some(fjall::Error::Locked)) => Err(error),
            Err(error) => {
                tracing::warn!(%error, folder = %folder.display(), "a key index cannot be read; it is made anew from its table");
                if folder.exists() {
                    std::fs::remove_dir_all(folder)?;
                }
                Self::try_open(folder, memory)
            }
        }
    }

    fn try_open(folder: &Path, memory: usize) -> Result<Self, BoxError> {
        std::fs::create_dir_all(folder)?;
        let memory = (memory as u64).max(4 * LEAST_MEMORY);
        let database = Database::builder(folder).cache_size(memory / 2).worker_threads(1).open()?;
        let sized = || KeyspaceCreateOptions::default().max_memtable_size(memory / 8);
        let (keys, files) = (database.keyspace("keys", sized)?, database.keyspace("files", sized)?);
        let (mut numbers, mut next) = (HashMap::new(), 0);
        for guard in files.iter() {
            let (path, value) = guard.into_inner()?;
            let (path, number) = (std::str::from_utf8(&path)?.to_owned(), Number::decode(&value)?);
            if path == NEXT {
                next = number.id;
            } else {
                numbers.insert(path, number);
            }
        }
        Ok(Self { database, keys, files, numbers, next })
    }

    /// Finds the rows of the keys that are wanted. Truncations are not an index's business.
    ///
    /// # Errors
    /// Where the index or a file cannot be read; the table can be searched without it.
    pub(crate) async fn find(
        &mut self,
        table: &DeltaTable,
        live: &[DataFile],
        wanted: &Wanted<'_>,
    ) -> Result<Found, BoxError> {
        self.catch_up(table, live, wanted.key).await?;
        self.look_up(table, live, wanted).await
    }

    /// Enters the live files that are not entered yet, and forgets those that are no more.
    async fn catch_up(&mut self, table: &DeltaTable, live: &[DataFile], key: &[String]) -> Result<(), BoxError> {
        let is_whole = |path: &str| self.numbers.get(path).is_some_and(|number| number.is_whole);
        let missing: Vec<_> = live.iter().filter(|file| !is_whole(&file.view.path())).cloned().collect();
        for file in &missing {
            let path = file.view.path().into_owned();
            let id = match self.numbers.get(&path) {
                Some(begun) => begun.id,
                None => self.begin(&path)?,
            };
            let mut rows = search::key_rows(table, file, key, &[]).await?;
            while let Some(batch) = rows.next().await? {
                self.enter(id, &batch, |row| !file.deleted.contains(u64::from(row)))?;
            }
            self.finish(path, id)?;
        }
        let live: BTreeSet<_> = live.iter().map(|file| file.view.path().into_owned()).collect();
        let gone: Vec<_> = self.numbers.keys().filter(|path| !live.contains(*path)).cloned().collect();
        for path in gone {
            self.files.remove(path.as_str())?;
            self.numbers.remove(&path);
        }
        Ok(())
    }

    /// Enters the rows of a file that was just committed, as they were written.
    pub(crate) fn committed(&mut self, path: String, rows: &RecordBatch, key: &[String]) -> Result<(), BoxError> {
        let id = self.begin(&path)?;
        self.enter(id, &KeyRows::written(rows, key)?, |_| true)?;
        self.finish(path, id)
    }

    /// Gives a file a number, before any entry has it.
    fn begin(&mut self, path: &str) -> Result<u32, BoxError> {
        let id = self.next;
        self.next = self.next.checked_add(1).ok_or("the index has given away all its numbers")?;
        let mut batch = self.database.batch();
        batch.insert(&self.files, NEXT, Number { id: self.next, is_whole: true }.encode());
        batch.insert(&self.files, path, Number { id, is_whole: false }.encode());
        batch.commit()?;
        self.numbers.insert(path.to_owned(), Number { id, is_whole: false });
        Ok(id)
    }

    fn finish(&mut self, path: String, id: u32) -> Result<(), BoxError> {
        let whole = Number { id, is_whole: true };
        self.files.insert(path.as_str(), whole.encode())?;
        self.numbers.insert(path, whole);
        Ok(())
    }

    fn enter(&self, file: u32, rows: &KeyRows, is_live: impl Fn(u32) -> bool) -> Result<(), BoxError> {
        let origins = Origins::of(&rows.batch)?;
        let live: Vec<usize> = (0..rows.numbers.len()).filter(|row| is_live(rows.numbers[*row])).collect();
        for chunk in live.chunks(CHUNK) {
            let mut batch = self.database.batch();
            for row in chunk {
                let (partition, position) = (origins.partition.value(*row), origins.position.value(*row));
                let entry = Entry::new(file, rows.numbers[*row], partition, position);
                batch.insert(&self.keys, hash(rows.keys.row(*row).data()), entry.encode());
            }
            batch.commit()?;
        }
        Ok(())
    }

    async fn look_up(&self, table: &DeltaTable, live: &[DataFile], wanted: &Wanted<'_>) -> Result<Found, BoxError> {
        let by_number: HashMap<u32, usize> = live
            .iter()
            .enumerate()
            .filter_map(|(index, file)| Some((self.numbers.get(file.view.path().as_ref())?.id, index)))
            .collect();
        // In the order of the tree, neighbours share what is read.
        let mut keys: Vec<_> = wanted.keys.iter().map(|(key, change)| (hash(key), *key, *change)).collect();
        keys.sort_unstable_by_key(|(hash, _, _)| *hash);
        let mut rows: HashMap<usize, roaring::RoaringTreemap> = HashMap::new();
        let (mut found, mut needed) = (Found::default(), BTreeSet::new());
        let no_values = std::sync::Arc::new(RecordBatch::new_empty(arrow::datatypes::Schema::empty().into()));
        for (hash, key, change) in keys {
            let Some(value) = self.keys.get(hash)? else { continue };
            let entry = Entry::decode(&value)?;
            let Some(index) = by_number.get(&entry.file) else { continue };
            if live[*index].deleted.contains(u64::from(entry.row)) {
                continue;
            }
            needed.insert(*index);
            let is_newer = !entry.is_before(change);
            if !is_newer {
                rows.entry(*index).or_default().insert(u64::from(entry.row));
                found.partitions.push(entry.partition);
            }
            found.present.insert(key.to_vec(), Present { is_newer, values: (no_values.clone(), 0) });
        }
        if !wanted.columns.is_empty() {
            let files = needed.into_iter().map(|index| live[index].clone()).collect();
            return search::search(table, files, wanted).await;
        }
        found.hits = rows.into_iter().map(|(index, rows)| (live[index].clone(), rows)).collect();
        Ok(found)
    }
}

/// A key in the tree: of one length, whatever the key's. Two keys with one hash among a billion are
/// less likely (10⁻²⁰) than a disk that errs.
fn hash(key: &[u8]) -> [u8; 16] {
    xxh3_128(key).to_be_bytes()
}

impl Number {
    fn encode(self) -> [u8; 5] {
        let [a, b, c, d] = self.id.to_be_bytes();
        [a, b, c, d, u8::from(self.is_whole)]
    }

    fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
        let [a, b, c, d, is_whole] = *bytes else { return Err("a damaged entry of a file".into()) };
        Ok(Self { id: u32::from_be_bytes([a, b, c, d]), is_whole: is_whole == 1 })
    }
}

/// The row of a key, as it was when it was entered.
struct Entry {
    file: u32,
    row: u32,
    partition: i32,
    position: Stood,
}

/// The row's place in the order of its source: as numbers, or as any text of another writer.
enum Stood {
    At(Position),
    Text(String),
}

impl Entry {
    fn new(file: u32, row: u32, partition: i32, position: &str) -> Self {
        let position = Position::parse(position.as_bytes()).map_or_else(|| Stood::Text(position.to_owned()), Stood::At);
        Self { file, row, partition, position }
    }

    /// Whether a change comes after the row.
    fn is_before(&self, change: &str) -> bool {
        match &self.position {
            Stood::At(position) => position.to_text().as_slice() < change.as_bytes(),
            Stood::Text(text) => text.as_str() < change,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(25);
        bytes.extend(self.file.to_be_bytes());
        bytes.extend(self.row.to_be_bytes());
        bytes.extend(self.partition.to_be_bytes());
        match &self.position {
            Stood::At(position) => {
                bytes.push(0);
                bytes.extend(position.major.to_be_bytes());
                bytes.extend(position.minor.to_be_bytes());
            }
            Stood::Text(text) => {
                bytes.push(1);
                bytes.extend(text.as_bytes());
            }
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
        let mut rest = bytes;
        let mut number = || -> Result<[u8; 4], BoxError> {
            let (number, after) = rest.split_first_chunk().ok_or("a damaged entry of a key")?;
            rest = after;
            Ok(*number)
        };
        let (file, row) = (u32::from_be_bytes(number()?), u32::from_be_bytes(number()?));
        let partition = i32::from_be_bytes(number()?);
        let position = match rest.split_first() {
            Some((0, [a, b, c, d, e, f, g, h, minor @ ..])) => Stood::At(Position {
                major: u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
                minor: u32::from_be_bytes(minor.try_into()?),
            }),
            Some((1, text)) => Stood::Text(std::str::from_utf8(text)?.to_owned()),
            _ => return Err("a damaged entry of a key".into()),
        };
        Ok(Self { file, row, partition, position })
    }
}
