//! Where each key's row is, so that a commit costs what its changes cost and not what its table does.
//!
//! What passes through: keys that a batch changes, into the rows that they have in the table now. Not
//! a file of the table is read for that, but the values of columns that a change leaves as they are.
//!
//! Guaranteed: an entry is a hint that is checked and never believed. It names a file and a row, and
//! counts only where that file is live and its vector does not have the row. Each live file is entered
//! as a whole before a key is looked for, and a file never changes, so the last entry of a key is its
//! live row, if there is one. (The rows of a commit are entered while it is made, and are taken back where it
//! does not come to be.) What others do to the table (compaction, a second writer) is thereby
//! found by the next look, and an index that is lost, old or damaged only costs the time to read key
//! columns again.
//!
//! Files that are merged cost the index next to nothing: the new file says which it was made of, and
//! the entries stay as they are (see [`moves`]). Where it was sorted as well, it costs a list of where its
//! rows are (see [`places`]), which is read and written once, four bytes for each row.
//!
//! It is a cache on this machine's disk. Keys lie in [`pages`] of a few files, what is known of files in a
//! small store beside it (fjall). It takes a few megabytes of memory, whatever the table's size, and a
//! bit or so for each row that was merged.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use deltalake::DeltaTable;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use roaring::RoaringTreemap;

use crate::error::BoxError;
use crate::fold::{Origins, Outcome, Pending};
use crate::keys::{Key, KeyMap};
use crate::search::{self, Found, KeyRows, Present, Wanted};
use crate::vectors::DataFile;

mod entry;
mod follow;
mod moves;
mod pages;
mod places;
mod seat;
mod shard;

use entry::Entry;
use follow::Rest;
use moves::{Move, Moves};
use pages::Pages;
use places::Places;
pub(crate) use seat::Seat;
use shard::{Looked, Place};

/// Where an index is kept, and what it may take.
#[derive(Clone, Debug)]
pub struct IndexSettings {
    /// The folder of all indexes of this lake on this machine.
    pub folder: PathBuf,
    /// About how much memory one index may take, in bytes.
    pub memory: usize,
}

/// The least memory that makes sense for the store's buffers.
const LEAST_MEMORY: u64 = 4 << 20;
/// How many rows that were read are entered at once: together they share pages.
const CHUNK: usize = 256 * 1024;
/// The name under which the next file's number is kept among the files; paths of files are relative.
const NEXT: &str = "/next";
/// The name under which the form of the entries is kept, and the form that this version has.
const FORM: &str = "/form";
const THIS_FORM: &[u8] = b"8";
/// The name under which it is kept in which run of the machine the index is in use, or [`CLOSED`].
const IN_USE: &str = "/in-use";
const CLOSED: &[u8] = b"closed";
/// Where the rows of one table's keys are.
pub(crate) struct KeyIndex {
    folder: PathBuf,
    memory: usize,
    database: Database,
    pages: Pages,
    /// [`Key`] -> [`Entry`], of those for which their page has no room.
    spilled: Keyspace,
    /// Path of a file -> its number, and whether all of it is entered.
    files: Keyspace,
    /// Number of a file that was merged -> [`Move`].
    moved: Keyspace,
    numbers: HashMap<String, Number>,
    moves: Moves,
    places: Places,
    /// Of the keys that were looked for since something was entered: where their entries are, and what
    /// those are.
    known: KeyMap<Place>,
    looked: KeyMap<Option<Entry>>,
    /// What was entered before it is certain that it is committed.
    ahead: Option<Ahead>,
    next: u32,
}

/// A file whose rows were entered before its commit.
struct Ahead {
    path: String,
    id: u32,
    /// What its keys had before.
    replaced: Vec<(Key, Entry)>,
}

/// How far reading keys is: rows that were read, of how many.
pub type Reading<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// The short name of a file within the index. It is never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number {
    id: u32,
    is_whole: bool,
    /// Whether [`Places`] say where its rows are; else they are where their numbers say.
    has_places: bool,
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
        let (folder, memory) = (self.folder.clone(), self.memory);
        drop(self);
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
        let bytes = (memory as u64).max(LEAST_MEMORY);
        let database = Database::builder(folder).cache_size(bytes / 2).worker_threads(1).open()?;
        let sized = || KeyspaceCreateOptions::default().max_memtable_size(bytes / 8);
        let (files, moved) = (database.keyspace("files", sized)?, database.keyspace("moves", sized)?);
        let spilled = database.keyspace("spilled", sized)?;
        let form = files.get(FORM)?;
        if form.is_none() && files.is_empty()? {
            files.insert(FORM, THIS_FORM)?;
        } else if form.is_none_or(|form| *form != *THIS_FORM) {
            return Err("it is of another version".into());
        }
        // What the system had not written when it went down is lost, and nobody can say what that was.
        let this_run = machine_run();
        match files.get(IN_USE)? {
            Some(run) if *run != *CLOSED && Some(run.as_ref()) != this_run.as_deref().map(str::as_bytes) => {
                return Err("the machine stopped while it was in use".into());
            }
            _ => files.insert(IN_USE, this_run.as_deref().unwrap_or("unknown"))?,
        }
        database.persist(PersistMode::SyncAll)?;
        let pages = Pages::open(&folder.join("keys"))?;
        let (mut numbers, mut next) = (HashMap::new(), 0);
        for guard in files.iter() {
            let (path, value) = guard.into_inner()?;
            match std::str::from_utf8(&path)? {
                FORM | IN_USE => {}
                NEXT => next = Number::decode(&value)?.id,
                path => drop(numbers.insert(path.to_owned(), Number::decode(&value)?)),
            }
        }
        let mut moves = Moves::default();
        for guard in moved.iter() {
            let (file, value) = guard.into_inner()?;
            let file = file.as_ref().try_into().map_err(|_| "a damaged move")?;
            moves.insert(u32::from_be_bytes(file), Move::decode(&value)?);
        }
        let with_places = numbers.values().filter(|number: &&Number| number.has_places).map(|number| number.id);
        let places = Places::open(&folder.join("places"), &with_places.collect())?;
        let (folder, known, looked, ahead) = (folder.to_owned(), KeyMap::default(), KeyMap::default(), None);
        Ok(Self {
            folder,
            memory,
            database,
            pages,
            spilled,
            files,
            moved,
            numbers,
            moves,
            places,
            known,
            looked,
            ahead,
            next,
        })
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
        self.catch_up(table, live, wanted.key, &mut |_, _| {}).await?;
        self.look_up(table, live, wanted).await
    }

    /// Enters the live files that are not entered yet, and forgets those that are no more.
    ///
    /// # Errors
    /// Where the index or a file cannot be read.
    pub(crate) async fn catch_up(
        &mut self,
        table: &DeltaTable,
        live: &[DataFile],
        key: &[String],
        reading: Reading<'_>,
    ) -> Result<(), BoxError> {
        let missing: Vec<_> = live.iter().filter(|file| !self.is_whole(&file.view.path())).cloned().collect();
        let (mut read, total) = (0, missing.iter().filter_map(|file| file.view.num_records()).sum::<usize>() as u64);
        for file in &missing {
            let path = file.view.path().into_owned();
            // Begun by a process that came to no end, and nobody knows how far it got.
            let was_begun = self.numbers.contains_key(&path);
            if was_begun {
                self.forget_file(&path)?;
            }
            let id = self.begin(&path)?;
            let rest = if was_begun { Rest::All } else { self.follow(table, file, id).await? };
            let mut rows = search::key_rows(table, file, key, &[], rest.ranges().as_deref()).await?;
            let mut entries = Vec::new();
            while let Some(KeyRows { batch, keys, numbers }) = rows.next().await? {
                let Origins { partition, position } = Origins::of(&batch)?;
                for row in (0..keys.len()).filter(|row| !file.deleted.contains(u64::from(numbers[*row]))) {
                    let number = rest.number(numbers[row])?;
                    entries.push((keys[row], Entry::new(id, number, partition.value(row), position.value(row))));
                }
                if entries.len() >= CHUNK {
                    self.enter(std::mem::take(&mut entries))?;
                }
                reading(read + u64::from(numbers.last().copied().unwrap_or_default()), total);
            }
            self.enter(entries)?;
            read += file.view.num_records().unwrap_or_default() as u64;
            self.finish(path, id)?;
        }
        let live: HashSet<_> = live.iter().map(|file| file.view.path().into_owned()).collect();
        let gone: Vec<_> = self.numbers.keys().filter(|path| !live.contains(*path)).cloned().collect();
        if gone.iter().any(|path| !self.is_whole(path)) {
            // Whatever its keys had before is overwritten.
            return Err("a file was entered that was never committed".into());
        }
        gone.iter().try_for_each(|path| self.forget_file(path))
    }

    /// Forgets a file, and what moved to it.
    fn forget_file(&mut self, path: &str) -> Result<(), BoxError> {
        let Some(Number { id, has_places, .. }) = self.numbers.remove(path) else { return Ok(()) };
        let mut batch = self.database.batch();
        for file in self.moves.those_in(id) {
            batch.remove(&self.moved, file.to_be_bytes());
            self.moves.remove(file);
        }
        batch.remove(&self.files, path);
        batch.commit()?;
        if has_places {
            self.places.remove(id)?;
        }
        Ok(())
    }

    fn is_whole(&self, path: &str) -> bool {
        self.numbers.get(path).is_some_and(|number| number.is_whole)
    }

    /// Enters the rows of a file that is about to be committed, in the order in which they were written. Until
    /// it is [settled](Self::settle) what became of that, nothing may be looked for.
    ///
    /// A process that ends meanwhile leaves a file that was begun. Either it is in the table, and is read
    /// once more; or it is not, and the index is made anew.
    fn enter_ahead(&mut self, path: String, changes: &Pending, rows: &[Outcome]) -> Result<(), BoxError> {
        let id = self.begin(&path)?;
        let keys = || rows.iter().map(|outcome| changes.key(outcome.row));
        // A plan may have searched the table itself.
        let unknown: Vec<_> = keys().filter(|key| !self.looked.contains_key(key)).collect();
        let mut looked = std::mem::take(&mut self.looked);
        if !unknown.is_empty() {
            let entries = self.entries(&unknown)?;
            looked.extend(unknown.into_iter().zip(entries));
        }
        let replaced = keys().filter_map(|key| Some((key, looked.remove(&key)??))).collect();
        self.ahead = Some(Ahead { path, id, replaced });
        let entry = |(number, Outcome { row, .. }): (u32, &Outcome)| {
            (changes.key(*row), Entry::new(id, number, changes.partition(*row), changes.position(*row)))
        };
        self.enter((0..).zip(rows).map(entry).collect())
    }

    /// What was entered ahead was committed, or goes again. Nothing where there is nothing of the kind.
    fn settle(&mut self, is_committed: bool) -> Result<(), BoxError> {
        let Some(Ahead { path, id, replaced }) = self.ahead.take() else { return Ok(()) };
        if is_committed {
            return self.finish(path, id);
        }
        self.enter(replaced)?;
        self.forget_file(&path)
    }

    /// Gives a file a number, before any entry has it.
    fn begin(&mut self, path: &str) -> Result<u32, BoxError> {
        let id = self.next;
        self.next = self.next.checked_add(1).ok_or("the index has given away all its numbers")?;
        let mut batch = self.database.batch();
        let number = Number { id, is_whole: false, has_places: false };
        batch.insert(&self.files, NEXT, Number { id: self.next, ..number }.encode());
        batch.insert(&self.files, path, number.encode());
        batch.commit()?;
        // Out of this process: a number that is forgotten would be given to another file.
        self.database.persist(PersistMode::Buffer)?;
        self.numbers.insert(path.to_owned(), number);
        Ok(id)
    }

    fn finish(&mut self, path: String, id: u32) -> Result<(), BoxError> {
        let has_places = self.numbers.get(&path).is_some_and(|number| number.has_places);
        let whole = Number { id, is_whole: true, has_places };
        self.files.insert(path.as_str(), whole.encode())?;
        self.numbers.insert(path, whole);
        Ok(())
    }

    fn enter(&mut self, entries: Vec<(Key, Entry)>) -> Result<(), BoxError> {
        self.looked.clear();
        let spilled = self.pages.enter(entries, &std::mem::take(&mut self.known))?;
        if !spilled.is_empty() {
            let mut batch = self.database.batch();
            for (key, entry) in spilled {
                batch.insert(&self.spilled, key.to_le_bytes(), entry.encode());
            }
            batch.commit()?;
        }
        Ok(())
    }

    /// The last entries of keys.
    fn entries(&mut self, keys: &[Key]) -> Result<Vec<Option<Entry>>, BoxError> {
        self.known.clear();
        self.looked.clear();
        let (looked, mut entries) = (self.pages.look_up(keys)?, Vec::with_capacity(keys.len()));
        for (key, looked) in keys.iter().zip(looked) {
            entries.push(match looked {
                Looked::Found(entry, place) => {
                    self.known.insert(*key, place);
                    Some(entry)
                }
                Looked::Nowhere => None,
                Looked::Elsewhere => match self.spilled.get(key.to_le_bytes())? {
                    Some(entry) => {
                        Some(Entry::decode(entry.as_ref().try_into().map_err(|_| "a damaged entry of a key")?))
                    }
                    None => None,
                },
            });
        }
        self.looked.extend(keys.iter().copied().zip(entries.iter().cloned()));
        Ok(entries)
    }

    async fn look_up(&mut self, table: &DeltaTable, live: &[DataFile], wanted: &Wanted<'_>) -> Result<Found, BoxError> {
        let by_number: HashMap<u32, (usize, bool)> = live
            .iter()
            .enumerate()
            .filter_map(|(index, file)| {
                let number = self.numbers.get(file.view.path().as_ref())?;
                Some((number.id, (index, number.has_places)))
            })
            .collect();
        let mut rows: HashMap<usize, RoaringTreemap> = HashMap::new();
        // Of the rows whose values are wanted, by file: which row, and where it goes.
        let mut valued: HashMap<usize, Vec<(u32, Key)>> = HashMap::new();
        let mut found = Found::default();
        let no_values = Arc::new(RecordBatch::new_empty(Schema::empty().into()));
        let keys: Vec<_> = wanted.keys.iter().map(|(key, _)| *key).collect();
        let mut hits = Vec::with_capacity(keys.len());
        for (wanted, entry) in wanted.keys.iter().zip(self.entries(&keys)?) {
            let Some(entry) = entry else { continue };
            hits.extend(self.moves.place(entry.file, entry.row).map(|place| (place, wanted, entry)));
        }
        // Those of a file together, so that its places are opened once.
        hits.sort_unstable_by_key(|(place, _, _)| *place);
        let mut places = self.places.reader();
        for hits in hits.chunk_by(|((file, _), ..), ((next, _), ..)| file == next) {
            let [((file, _), ..), ..] = hits else { continue };
            let Some((index, has_places)) = by_number.get(file) else { continue };
            let mut placed = Vec::with_capacity(hits.len());
            for ((_, row), ..) in hits {
                placed.push(if *has_places { places.place(*file, *row)? } else { *row });
            }
            // Nearly always nothing, so that it is looked at all together and not row by row.
            let gone = &placed.iter().map(|row| u64::from(*row)).collect::<RoaringTreemap>() & &*live[*index].deleted;
            for (row, (_, (key, change), entry)) in placed.into_iter().zip(hits) {
                if gone.contains(u64::from(row)) {
                    continue;
                }
                let is_newer = !entry.is_before(change);
                if !is_newer {
                    rows.entry(*index).or_default().insert(u64::from(row));
                    found.partitions.push(entry.partition);
                }
                let is_valued = wanted.valued.contains(key);
                if is_valued {
                    valued.entry(*index).or_default().push((row, *key));
                }
                if is_valued || is_newer {
                    found.present.insert(*key, Present { is_newer, values: (no_values.clone(), 0) });
                }
            }
        }
        for (index, mut rows) in valued {
            rows.sort_unstable();
            search::values_of(table, &live[index], wanted.columns, &rows, &mut found.present).await?;
        }
        found.hits = rows.into_iter().map(|(index, rows)| (live[index].clone(), rows)).collect();
        Ok(found)
    }
}

impl Drop for KeyIndex {
    fn drop(&mut self) {
        let with_places = self.numbers.values().filter(|number| number.has_places).map(|number| number.id);
        let synced = self.pages.sync().and_then(|()| self.places.sync(with_places));
        let closed = synced.map_err(BoxError::from).and_then(|()| {
            self.files.insert(IN_USE, CLOSED)?;
            Ok(self.database.persist(PersistMode::SyncAll)?)
        });
        if let Err(error) = closed {
            tracing::debug!(%error, folder = %self.folder.display(), "a key index was not closed");
        }
    }
}

/// Names this run of the machine, where the system does.
fn machine_run() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

impl Number {
    fn encode(self) -> [u8; 6] {
        let [a, b, c, d] = self.id.to_be_bytes();
        [a, b, c, d, u8::from(self.is_whole), u8::from(self.has_places)]
    }

    fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
        let [a, b, c, d, is_whole, has_places] = *bytes else { return Err("a damaged entry of a file".into()) };
        Ok(Self { id: u32::from_be_bytes([a, b, c, d]), is_whole: is_whole == 1, has_places: has_places == 1 })
    }
}
