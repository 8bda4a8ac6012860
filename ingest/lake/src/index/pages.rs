//! Keys and their entries on disk, a page read for each.
//!
//! What passes through: a key, into the one page of a file that its entry is in, if there is one.
//!
//! A hash file that grows a page at a time (linear hashing, W. Litwin, VLDB 1980), so that no commit
//! ever waits for all of it to be made larger. Keys are hashes already, and everything the system keeps
//! of the file in its own cache is there again after a restart and none of the process's memory. An LSM
//! tree was tried for this (fjall 3.1): of 20 million keys, 10,000 took it 250 to 300 ms to find, however
//! large its cache, and this file 20.
//!
//! Guaranteed: a page that was damaged is an error and no entry. Pages are written in place and
//! nothing is waited for, so that they are worth nothing after the machine, and not just the process,
//! has failed; the index looks after that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::entry::Entry;
use crate::error::BoxError;
use crate::keys::Key;

const PAGE: usize = 4096;
/// Checksum, number of entries, and whether some that belong here are elsewhere.
const HEADER: usize = 8;
const SLOT: usize = size_of::<Key>() + Entry::LEN;
const SLOTS: usize = (PAGE - HEADER) / SLOT;
/// How full pages are on average when the file grows. Those that were not split yet are up to twice as
/// full as those that were, and are to have room all the same.
const FULL_PERCENT: u64 = 55;
/// Pages that a new file begins with.
const FEWEST: u64 = 8;

/// The file.
pub(super) struct Pages {
    file: File,
    pages: u64,
    /// How many entries there are.
    entries: u64,
}

/// An entry for which its page has no room. It is kept elsewhere, and looked for there as well.
pub(super) type Spilled = Vec<(Key, Entry)>;

/// What a page says of a key.
pub(super) enum Looked {
    Found(Entry),
    /// It is not here, and may be among the spilled.
    Elsewhere,
    Nowhere,
}

impl Pages {
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
        let mut pages = Self { file, pages: len / PAGE as u64, entries: 0 };
        if pages.pages < FEWEST {
            for number in pages.pages..FEWEST {
                pages.write(number, &mut Page::empty())?;
            }
            pages.pages = FEWEST;
        }
        // About, from a few of many: it only decides when the file grows.
        let step = (pages.pages / 256).max(1) as usize;
        let (mut sampled, mut entries) = (0, 0);
        for number in (0..pages.pages).step_by(step) {
            (sampled, entries) = (sampled + 1, entries + pages.read(number)?.len() as u64);
        }
        pages.entries = entries * pages.pages / sampled;
        Ok(pages)
    }

    /// Has all of it on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The page that a key is in: by as many of its bits as there are pages, or by one less where its
    /// page has not been split yet.
    fn number(&self, key: Key) -> u64 {
        let bits = self.pages.next_power_of_two();
        let number = key as u64 & (bits - 1);
        if number < self.pages { number } else { number - bits / 2 }
    }

    /// Looks for a key. `page` is the one that was looked at last, which saves to read it again.
    pub(super) fn look_up(&self, key: Key, page: &mut Option<(u64, Page)>) -> Result<Looked, BoxError> {
        let number = self.number(key);
        let page = match page {
            Some((last, page)) if *last == number => page,
            page => &mut page.insert((number, self.read(number)?)).1,
        };
        Ok(match page.find(key) {
            Some(slot) => Looked::Found(page.entry(slot)),
            None if page.has_spilled() => Looked::Elsewhere,
            None => Looked::Nowhere,
        })
    }

    /// Puts entries in, each in the place of what its key had. Returns those for which there is no room.
    pub(super) fn enter(&mut self, mut entries: Vec<(Key, Entry)>) -> Result<Spilled, BoxError> {
        // As if all of them were new, which costs no more than some room.
        while (self.entries + entries.len() as u64) * 100 > self.pages * SLOTS as u64 * FULL_PERCENT {
            self.split()?;
        }
        entries.sort_by_key(|(key, _)| self.number(*key));
        let mut spilled = Vec::new();
        let mut rest = entries.into_iter().peekable();
        while let Some((key, _)) = rest.peek() {
            let number = self.number(*key);
            let mut page = self.read(number)?;
            while let Some((key, entry)) = rest.next_if(|(key, _)| self.number(*key) == number) {
                let slot = page.find(key);
                self.entries += u64::from(slot.is_none());
                if !page.put(slot, key, &entry) {
                    page.set_spilled();
                    spilled.push((key, entry));
                }
            }
            self.write(number, &mut page)?;
        }
        Ok(spilled)
    }

    /// Makes the file a page longer: those of the page's keys go there that have the next bit.
    fn split(&mut self) -> Result<(), BoxError> {
        let new = self.pages;
        let old = new - (1 << new.ilog2());
        let page = self.read(old)?;
        self.pages += 1;
        let (mut stay, mut go) = (Page::empty(), Page::empty());
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
        self.write(new, &mut go)?;
        self.write(old, &mut stay)
    }

    fn read(&self, number: u64) -> Result<Page, BoxError> {
        let mut page = Page::empty();
        self.file.read_exact_at(&mut page.bytes[..], number * PAGE as u64)?;
        if page.checksum() != page.bytes[..4] || page.len() > SLOTS {
            return Err(format!("page {number} of its keys is damaged").into());
        }
        Ok(page)
    }

    fn write(&self, number: u64, page: &mut Page) -> Result<(), BoxError> {
        let checksum = page.checksum();
        page.bytes[..4].copy_from_slice(&checksum);
        Ok(self.file.write_all_at(&page.bytes[..], number * PAGE as u64)?)
    }
}

/// Entries of keys of which some bits are the same.
pub(super) struct Page {
    bytes: Box<[u8; PAGE]>,
}

impl Page {
    fn empty() -> Self {
        Self { bytes: Box::new([0; PAGE]) }
    }

    fn checksum(&self) -> [u8; 4] {
        (xxh3_64(&self.bytes[4..]) as u32).to_le_bytes()
    }

    fn len(&self) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[4], self.bytes[5]]))
    }

    fn has_spilled(&self) -> bool {
        self.bytes[6] == 1
    }

    fn set_spilled(&mut self) {
        self.bytes[6] = 1;
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
        entry.copy_from_slice(&self.slot(slot)[size_of::<Key>()..]);
        Entry::decode(&entry)
    }

    fn find(&self, key: Key) -> Option<usize> {
        (0..self.len()).find(|slot| self.key(*slot) == key)
    }

    fn push(&mut self, slot: &[u8]) {
        let len = self.len();
        self.bytes[HEADER + len * SLOT..][..SLOT].copy_from_slice(slot);
        self.bytes[4..6].copy_from_slice(&(len as u16 + 1).to_le_bytes());
    }

    /// Puts an entry in a slot, or in a new one; says whether there is room.
    fn put(&mut self, slot: Option<usize>, key: Key, entry: &Entry) -> bool {
        let mut bytes = [0; SLOT];
        bytes[..size_of::<Key>()].copy_from_slice(&key.to_le_bytes());
        bytes[size_of::<Key>()..].copy_from_slice(&entry.encode());
        match slot {
            Some(slot) => self.bytes[HEADER + slot * SLOT..][..SLOT].copy_from_slice(&bytes),
            None if self.len() == SLOTS => return false,
            None => self.push(&bytes),
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

    #[test]
    fn what_was_entered_last_is_found_however_the_file_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let mut pages = Pages::open(&path).unwrap();
        let mut spilled = HashMap::new();
        let mut row = 0;
        for round in 0..40_u64 {
            // Half of them are new, and the others are entered once more.
            let numbers = round * 500..round * 500 + 1000;
            let entries: Vec<_> = numbers.zip(row..).map(|(number, row)| (key(number), entry(row))).collect();
            row += 1000;
            spilled.extend(pages.enter(entries).unwrap());
            if round % 7 == 0 {
                pages = Pages::open(&path).unwrap();
            }
        }
        assert!(pages.pages > 300, "it has grown: {}", pages.pages);
        for number in 0..20_500_u64 {
            // 500 numbers a round, each in two of them, but for the first and the last.
            let last = (number / 500).min(39) * 1000;
            let expected = entry((last + number - (number / 500).min(39) * 500) as u32);
            let found = match pages.look_up(key(number), &mut None).unwrap() {
                Looked::Found(entry) => Some(entry),
                Looked::Elsewhere => spilled.get(&key(number)).cloned(),
                Looked::Nowhere => None,
            };
            assert_eq!(found.as_ref(), Some(&expected), "{number}");
        }
        assert!(matches!(pages.look_up(key(1 << 40), &mut None).unwrap(), Looked::Nowhere | Looked::Elsewhere));
        assert!(spilled.len() < 100, "few are spilled: {}", spilled.len());
    }

    #[test]
    fn a_full_page_spills() {
        let dir = tempfile::tempdir().unwrap();
        let mut pages = Pages::open(&dir.path().join("keys")).unwrap();
        // All of one page, whatever bits are looked at.
        let entries: Vec<_> = (0..150_u32).map(|row| (Key::from(row) << 64, entry(row))).collect();
        let spilled = pages.enter(entries).unwrap();
        assert_eq!(spilled.len(), 150 - SLOTS);
        assert!(matches!(pages.look_up(Key::from(140_u32) << 64, &mut None).unwrap(), Looked::Elsewhere));
        assert!(matches!(pages.look_up(Key::from(3_u32) << 64, &mut None).unwrap(), Looked::Found(_)));
    }

    #[test]
    fn damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let mut pages = Pages::open(&path).unwrap();
        pages.enter((0..500).map(|number| (key(number), entry(1))).collect()).unwrap();
        pages.file.write_all_at(b"damaged", 5 * PAGE as u64 + 100).unwrap();
        let damaged = (0..500).filter(|number| pages.look_up(key(*number), &mut None).is_err()).count();
        assert!(damaged > 0);
        std::fs::write(&path, b"cut").unwrap();
        assert!(Pages::open(&path).is_err());
    }
}
