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
use std::sync::Arc;

use arrow::array::RecordBatch;
use deltalake::DeltaTable;
use fjall::compaction::Leveled;
use fjall::config::PartitioningPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use crate::error::BoxError;
use crate::fold::{Origins, Outcome, Pending};
use crate::keys::Key;
use crate::search::{self, Found, KeyRows, Present, Wanted};
use crate::vectors::DataFile;

mod entry;

use entry::Entry;

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
/// The size of the store's files: the smaller, the less is rewritten when some of them are merged.
const TABLE_BYTES: u64 = 16 << 20;
/// How many entries are written at once.
const CHUNK: usize = 16 * 1024;
/// The name under which the next file's number is kept among the files; paths of files are relative.
const NEXT: &str = "/next";
/// The name under which the form of the entries is kept, and the form that this version has.
const FORM: &str = "/form";
const THIS_FORM: &[u8] = b"2";

/// Where the rows of one table's keys are.
pub(crate) struct KeyIndex {
    folder: PathBuf,
    memory: usize,
    database: Database,
    /// [`Key`] -> [`Entry`].
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
                Self::open_empty(folder, memory)
            }
        }
    }

    /// The index without what it knows, after it could not be used; none where that fails, too.
    pub(crate) fn anew(self) -> Option<Self> {
        let Self { folder, memory, .. } = self;
        let warn = |error| tracing::warn!(%error, folder = %folder.display(), "no key index; the table is searched");
        Self::open_empty(&folder, memory).map_err(warn).ok()
    }

    fn open_empty(folder: &Path, memory: usize) -> Result<Self, BoxError> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        Self::try_open(folder, memory)
    }

    fn try_open(folder: &Path, memory: usize) -> Result<Self, BoxError> {
        std::fs::create_dir_all(folder)?;
        let bytes = (memory as u64).max(4 * LEAST_MEMORY);
        let database = Database::builder(folder).cache_size(bytes / 2).worker_threads(1).open()?;
        // All that the store reads comes through its cache. Of a table of a million keys that has its
        // filter in one block, each look reads a megabyte once the cache has not enough room for all of
        // them: it falls off a cliff. In parts, what neighbours need is a few kilobytes.
        let sized = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(bytes / 8)
                .filter_block_partitioning_policy(PartitioningPolicy::all(true))
                .index_block_partitioning_policy(PartitioningPolicy::all(true))
                .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES)))
        };
        let (keys, files) = (database.keyspace("keys", sized)?, database.keyspace("files", sized)?);
        let form = files.get(FORM)?;
        if form.is_none() && files.is_empty()? {
            files.insert(FORM, THIS_FORM)?;
        } else if form.is_none_or(|form| *form != *THIS_FORM) {
            return Err("it is of another version".into());
        }
        let (mut numbers, mut next) = (HashMap::new(), 0);
        for guard in files.iter() {
            let (path, value) = guard.into_inner()?;
            match std::str::from_utf8(&path)? {
                FORM => {}
                NEXT => next = Number::decode(&value)?.id,
                path => drop(numbers.insert(path.to_owned(), Number::decode(&value)?)),
            }
        }
        Ok(Self { folder: folder.to_owned(), memory, database, keys, files, numbers, next })
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
            while let Some(KeyRows { batch, keys, numbers }) = rows.next().await? {
                let Origins { partition, position } = Origins::of(&batch)?;
                let entry = |row: usize| (keys[row], numbers[row], partition.value(row), position.value(row));
                let live = (0..keys.len()).filter(|row| !file.deleted.contains(u64::from(numbers[*row])));
                self.enter(id, live.map(entry))?;
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

    /// Enters the rows of a file that was just committed, in the order in which they were written.
    pub(crate) fn committed(&mut self, path: String, changes: &Pending, rows: &[Outcome]) -> Result<(), BoxError> {
        let id = self.begin(&path)?;
        let entry = |(number, Outcome { row, .. }): (u32, &Outcome)| {
            (changes.key(*row), number, changes.partition(*row), changes.position(*row))
        };
        self.enter(id, (0..).zip(rows).map(entry))?;
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

    /// Enters rows of a file: the key, number in the file, partition and position of each.
    fn enter<'a>(&self, file: u32, rows: impl Iterator<Item = (Key, u32, i32, &'a str)>) -> Result<(), BoxError> {
        let entry = |(key, number, partition, position)| (key, Entry::new(file, number, partition, position));
        let mut entries: Vec<_> = rows.map(entry).collect();
        // In the order of the tree, neighbours share the way to their place.
        entries.sort_unstable_by_key(|(key, _)| *key);
        let mut value = Vec::new();
        for chunk in entries.chunks(CHUNK) {
            let mut batch = self.database.batch();
            for (key, entry) in chunk {
                entry.encode(&mut value);
                batch.insert(&self.keys, key.to_be_bytes(), value.as_slice());
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
        let mut keys: Vec<_> = wanted.keys.iter().map(|(key, change)| (*key, *change)).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        let mut rows: HashMap<usize, roaring::RoaringTreemap> = HashMap::new();
        let (mut found, mut needed) = (Found::default(), BTreeSet::new());
        let no_values = Arc::new(RecordBatch::new_empty(arrow::datatypes::Schema::empty().into()));
        for (key, change) in keys {
            let Some(value) = self.keys.get(key.to_be_bytes())? else { continue };
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
            found.present.insert(key, Present { is_newer, values: (no_values.clone(), 0) });
        }
        if !wanted.columns.is_empty() {
            let files = needed.into_iter().map(|index| live[index].clone()).collect();
            return search::search(table, files, wanted).await;
        }
        found.hits = rows.into_iter().map(|(index, rows)| (live[index].clone(), rows)).collect();
        Ok(found)
    }
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
