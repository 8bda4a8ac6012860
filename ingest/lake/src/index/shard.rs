//! Keys and their entries in one file on disk, a page read for each.
//!
//! What passes through: a key, into the one page of the file that its entry is in, if there is one.
//!
//! A hash file that grows a page at a time (linear hashing, W. Litwin, VLDB 1980), so that no commit
//! ever waits for all of it to be made larger. Keys are hashes already, and everything the system keeps
//! of the file in its own cache is there again after a restart and none of the process's memory. An LSM
//! tree was tried for this (fjall 3.1): of 20 million keys, 10,000 took it 250 to 300 ms to find, however
//! large its cache, and this file 20.
//!
//! Guaranteed: what was damaged is an error and no entry: each entry has a checksum, and a page where a
//! key is missed is checked as a whole. Pages are written in place and nothing is waited for, so that
//! they are worth nothing after the machine, and not just the process, has failed; the index looks
//! after that.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::entry::Entry;
use crate::error::BoxError;
use crate::keys::{Key, KeyMap};

/// Half of what a system's page has: to read one is mostly to copy it.
const PAGE: usize = 2048;
/// Number of entries, whether some that belong here are elsewhere, and the checksum of both.
const HEADER: usize = 8;
/// Key, entry, and the checksum of both.
const SLOT: usize = BARE + size_of::<u32>();
const BARE: usize = size_of::<Key>() + Entry::LEN;
const SLOTS: usize = (PAGE - HEADER) / SLOT;
/// How full pages are on average when the file grows. Those that were not split yet are up to twice as
/// full as those that were, and are to have room all the same: with 55, one key of a hundred spilled.
const FULL_PERCENT: u64 = 45;
/// Pages that a new file begins with.
const FEWEST: u64 = 8;
/// So many pages are written at once where the file grows, empty at first: the system keeps together what came
/// together (16 KiB), and finds a page among fewer of those.
const PIECE: u64 = 8;

/// The file.
pub(super) struct Shard {
    file: File,
    pages: u64,
    /// How many entries there are.
    entries: u64,
}

/// An entry for which its page has no room. It is kept elsewhere, and looked for there as well.
pub(super) type Spilled = Vec<(Key, Entry)>;

/// What a page says of a key.
#[derive(Debug)]
pub(super) enum Looked {
    Found(Entry, Place),
    /// It is not here, and may be among the spilled.
    Elsewhere,
    Nowhere,
}

/// Where an entry is, until the next are entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    page: u64,
    slot: usize,
}

impl Shard {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// Where it cannot be read or made, or is damaged.
    pub(super) fn open(path: &Path) -> Result<Self, BoxError> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let len = file.metadata()?.len();
        if len % PAGE as u64 != 0 {
            return Err("its file of keys was cut off".into());
        }
        let mut shard = Self { file, pages: len / PAGE as u64, entries: 0 };
        if shard.pages < FEWEST {
            for number in shard.pages..FEWEST {
                shard.write(&mut Page::empty(number))?;
            }
            shard.pages = FEWEST;
        }
        // What it ends with has come with its piece, and holds no page yet.
        let mut page = Page::empty(0);
        while shard.pages > FEWEST && shard.read(shard.pages - 1, &mut page).is_err() && page.is_blank() {
            shard.pages -= 1;
        }
        // About, from a few of many: it only decides when the file grows.
        let step = (shard.pages / 256).max(1) as usize;
        let (mut sampled, mut entries) = (0, 0);
        for number in (0..shard.pages).step_by(step) {
            shard.read(number, &mut page)?;
            (sampled, entries) = (sampled + 1, entries + page.len() as u64);
        }
        shard.entries = entries * shard.pages / sampled;
        Ok(shard)
    }

    /// Has all of it on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The page that a key is in: by as many of its bits as there are pages, or by one less where its
    /// page has not been split yet.
    pub(super) fn number(&self, key: Key) -> u64 {
        let bits = self.pages.next_power_of_two();
        let number = key as u64 & (bits - 1);
        if number < self.pages { number } else { number - bits / 2 }
    }

    /// Looks for a key, with a page to read it to; says what its page does.
    pub(super) fn look_up(&self, key: Key, page: &mut Page) -> Result<Looked, BoxError> {
        let number = self.number(key);
        self.read(number, page)?;
        Ok(match page.find(key)? {
            Some(slot) => Looked::Found(page.entry(slot), Place { page: number, slot }),
            None if page.has_spilled() => Looked::Elsewhere,
            None => Looked::Nowhere,
        })
    }

    /// Puts entries in, each in the place of what its key had; `known` says where that is for those that
    /// were looked for since others were entered. Returns those for which there is no room.
    pub(super) fn enter(&mut self, mut entries: Vec<(Key, Entry)>, known: &KeyMap<Place>) -> Result<Spilled, BoxError> {
        // As if all others were new, which costs no more than some room.
        let new = entries.iter().filter(|(key, _)| !known.contains_key(key)).count() as u64;
        let mut split = HashSet::new();
        while (self.entries + new) * 100 > self.pages * SLOTS as u64 * FULL_PERCENT {
            split.insert(self.split()?);
        }
        // Each page is read and written once, and of one key the last entry is the one that stays.
        entries.sort_by_key(|(key, _)| self.number(*key));
        let place = |key| known.get(&key).copied().filter(|place| !split.contains(&place.page));
        let (mut came, mut spilled, mut page) = (0, Vec::new(), Page::empty(0));
        for entries in entries.chunk_by(|(one, _), (next, _)| self.number(*one) == self.number(*next)) {
            let mut others = Vec::new();
            for (key, entry) in entries {
                match place(*key) {
                    Some(Place { page, slot }) => {
                        let at = page * PAGE as u64 + (HEADER + slot * SLOT) as u64;
                        self.file.write_all_at(&slot_of(*key, entry), at)?;
                    }
                    None => others.push((*key, entry)),
                }
            }
            if let [(first, _), ..] = others[..] {
                self.read(self.number(first), &mut page)?;
                for (key, entry) in others {
                    let slot = page.find(key)?;
                    came += u64::from(slot.is_none());
                    if !page.put(slot, &slot_of(key, entry)) {
                        page.set_spilled();
                        spilled.push((key, entry.clone()));
                    }
                }
                self.write(&mut page)?;
            }
        }
        self.entries += came;
        Ok(spilled)
    }

    /// Makes the file a page longer: those of a page's keys go there that have the next bit. Says which
    /// page it was.
    fn split(&mut self) -> Result<u64, BoxError> {
        let new = self.pages;
        let old = new - (1 << new.ilog2());
        let mut page = Page::empty(old);
        self.read(old, &mut page)?;
        page.check()?;
        if new.is_multiple_of(PIECE) {
            self.file.write_all_at(&[0; PIECE as usize * PAGE], new * PAGE as u64)?;
        }
        self.pages += 1;
        let (mut stay, mut go) = (Page::empty(old), Page::empty(new));
        for slot in 0..page.len() {
            let to = if self.number(page.key(slot)) == new { &mut go } else { &mut stay };
            to.push(page.slot(slot));
        }
        if page.has_spilled() {
            stay.set_spilled();
            go.set_spilled();
        }
        // In this order, so that whatever ends the process in between, each entry is where it is
        // looked for.
        self.write(&mut go)?;
        self.write(&mut stay)?;
        Ok(old)
    }

    fn read(&self, number: u64, page: &mut Page) -> Result<(), BoxError> {
        page.number = number;
        self.file.read_exact_at(&mut page.bytes[..], number * PAGE as u64)?;
        if page.checksum() != page.bytes[4..HEADER] || page.len() > SLOTS { Err(page.damaged()) } else { Ok(()) }
    }

    fn write(&self, page: &mut Page) -> Result<(), BoxError> {
        let checksum = page.checksum();
        page.bytes[4..HEADER].copy_from_slice(&checksum);
        Ok(self.file.write_all_at(&page.bytes[..], page.number * PAGE as u64)?)
    }
}

fn slot_of(key: Key, entry: &Entry) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..size_of::<Key>()].copy_from_slice(&key.to_le_bytes());
    slot[size_of::<Key>()..BARE].copy_from_slice(&entry.encode());
    let checksum = xxh3_64(&slot[..BARE]) as u32;
    slot[BARE..].copy_from_slice(&checksum.to_le_bytes());
    slot
}

/// Entries of keys of which some bits are the same.
pub(super) struct Page {
    number: u64,
    bytes: Box<[u8; PAGE]>,
}

impl Page {
    pub(super) fn empty(number: u64) -> Self {
        Self { number, bytes: Box::new([0; PAGE]) }
    }

    /// Whether nothing was ever written here.
    fn is_blank(&self) -> bool {
        self.bytes[..HEADER] == [0; HEADER]
    }

    fn damaged(&self) -> BoxError {
        format!("page {} of its keys is damaged", self.number).into()
    }

    /// Of the header; a page that was written to the place of another is damage, too.
    fn checksum(&self) -> [u8; 4] {
        let mut header = [0; 12];
        header[..4].copy_from_slice(&self.bytes[..4]);
        header[4..].copy_from_slice(&self.number.to_le_bytes());
        (xxh3_64(&header) as u32).to_le_bytes()
    }

    fn len(&self) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[0], self.bytes[1]]))
    }

    fn has_spilled(&self) -> bool {
        self.bytes[2] == 1
    }

    fn set_spilled(&mut self) {
        self.bytes[2] = 1;
    }

    fn slot(&self, slot: usize) -> &[u8] {
        &self.bytes[HEADER + slot * SLOT..][..SLOT]
    }

    fn key(&self, slot: usize) -> Key {
        let mut key = [0; size_of::<Key>()];
        key.copy_from_slice(&self.slot(slot)[..size_of::<Key>()]);
        Key::from_le_bytes(key)
    }

    fn entry(&self, slot: usize) -> Entry {
        let mut entry = [0; Entry::LEN];
        entry.copy_from_slice(&self.slot(slot)[size_of::<Key>()..BARE]);
        Entry::decode(&entry)
    }

    /// Where a key is. What is found is sound, and so is all of a page in which it is not found.
    fn find(&self, key: Key) -> Result<Option<usize>, BoxError> {
        let found = (0..self.len()).find(|slot| self.key(*slot) == key);
        match found {
            Some(slot) => self.check_slot(slot)?,
            None => self.check()?,
        }
        Ok(found)
    }

    fn check(&self) -> Result<(), BoxError> {
        (0..self.len()).try_for_each(|slot| self.check_slot(slot))
    }

    fn check_slot(&self, slot: usize) -> Result<(), BoxError> {
        let (bare, checksum) = self.slot(slot).split_at(BARE);
        if (xxh3_64(bare) as u32).to_le_bytes() == *checksum { Ok(()) } else { Err(self.damaged()) }
    }

    fn push(&mut self, slot: &[u8]) {
        let len = self.len();
        self.bytes[HEADER + len * SLOT..][..SLOT].copy_from_slice(slot);
        self.bytes[..2].copy_from_slice(&(len as u16 + 1).to_le_bytes());
    }

    /// Puts bytes in a slot, or in a new one; says whether there is room.
    fn put(&mut self, slot: Option<usize>, bytes: &[u8]) -> bool {
        match slot {
            Some(slot) => self.bytes[HEADER + slot * SLOT..][..SLOT].copy_from_slice(bytes),
            None if self.len() == SLOTS => return false,
            None => self.push(bytes),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn key(number: u64) -> Key {
        xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes())
    }

    fn entry(row: u32) -> Entry {
        Entry::new(1, row, 0, &ruam_event::Position::new(u64::from(row)).to_string())
    }

    fn places(shard: &Shard, keys: &[Key]) -> KeyMap<Place> {
        let place = |key: &Key| match look_up(shard, *key) {
            Looked::Found(_, place) => Some((*key, place)),
            _ => None,
        };
        keys.iter().filter_map(place).collect()
    }

    fn look_up(shard: &Shard, key: Key) -> Looked {
        shard.look_up(key, &mut Page::empty(0)).unwrap()
    }

    #[test]
    fn what_was_entered_last_is_found_however_the_file_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let mut shard = Shard::open(&path).unwrap();
        let mut spilled = HashMap::new();
        let mut row = 0;
        for round in 0..40_u64 {
            // Half of them are new, and the others are entered once more.
            let numbers = round * 500..round * 500 + 1000;
            let entries: Vec<_> = numbers.zip(row..).map(|(number, row)| (key(number), entry(row))).collect();
            row += 1000;
            // Every other time it is known where they are.
            let keys: Vec<_> = entries.iter().map(|(key, _)| *key).collect();
            let known = if round % 2 == 0 { KeyMap::default() } else { places(&shard, &keys) };
            spilled.extend(shard.enter(entries, &known).unwrap());
            if round % 7 == 0 {
                shard = Shard::open(&path).unwrap();
            }
        }
        assert!(shard.pages > 300, "it has grown: {}", shard.pages);
        for number in 0..20_500_u64 {
            // 500 numbers a round, each in two of them, but for the first and the last.
            let last = (number / 500).min(39) * 1000;
            let expected = entry((last + number - (number / 500).min(39) * 500) as u32);
            let found = match look_up(&shard, key(number)) {
                Looked::Found(entry, _) => Some(entry),
                Looked::Elsewhere => spilled.get(&key(number)).cloned(),
                Looked::Nowhere => None,
            };
            assert_eq!(found.as_ref(), Some(&expected), "{number}");
        }
        assert!(matches!(look_up(&shard, key(1 << 40)), Looked::Nowhere | Looked::Elsewhere));
        assert!(spilled.len() < 100, "few are spilled: {}", spilled.len());
    }

    #[test]
    fn a_full_page_spills() {
        let dir = tempfile::tempdir().unwrap();
        let mut shard = Shard::open(&dir.path().join("keys")).unwrap();
        // All of one page, whatever bits are looked at.
        let entries: Vec<_> = (0..150_u32).map(|row| (Key::from(row) << 64, entry(row))).collect();
        let spilled = shard.enter(entries, &KeyMap::default()).unwrap();
        assert_eq!(spilled.len(), 150 - SLOTS);
        assert!(matches!(look_up(&shard, Key::from(140_u32) << 64), Looked::Elsewhere));
        assert!(matches!(look_up(&shard, Key::from(3_u32) << 64), Looked::Found(..)));
    }

    #[test]
    fn damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let mut shard = Shard::open(&path).unwrap();
        let keys: Vec<_> = (0..500).map(key).collect();
        shard.enter(keys.iter().map(|key| (*key, entry(1))).collect(), &KeyMap::default()).unwrap();
        let of_page: Vec<_> = keys.iter().filter(|key| shard.number(**key) == 5).collect();
        let is_damaged = |shard: &Shard, key: Key| shard.look_up(key, &mut Page::empty(0)).is_err();
        // A slot: its own key, and every one that might have been there.
        let Looked::Found(_, Place { slot, .. }) = look_up(&shard, *of_page[0]) else { panic!("it is there") };
        shard.file.write_all_at(b"damaged", (5 * PAGE + HEADER + slot * SLOT + 3) as u64).unwrap();
        assert!(is_damaged(&shard, *of_page[0]));
        assert!(!is_damaged(&shard, *of_page[1]), "what is found is sound");
        let missing = (500..).map(key).find(|key| shard.number(*key) == 5).unwrap();
        assert!(is_damaged(&shard, missing));
        // The header: all of the page.
        shard.file.write_all_at(&[1], 5 * PAGE as u64).unwrap();
        assert!(of_page.iter().all(|key| is_damaged(&shard, **key)));
        std::fs::write(&path, b"cut").unwrap();
        assert!(Shard::open(&path).is_err());
    }
}
