//! The entries of all keys, in a few files that are read and written at the same time.
//!
//! What passes through: keys, each into the one [`Shard`] that its entry is in. A file system lets one
//! at a time write to a file, so that threads which share one wait for each other.

use std::io;
use std::path::Path;
use std::thread;

use super::entry::Entry;
use super::shard::{Looked, Page, Place, Shard, Spilled};
use crate::error::BoxError;
use crate::keys::{Key, KeyMap};

/// How many files there are; a power of two.
const SHARDS: usize = 4;
/// So many keys are worth more than one thread.
const WORTH: usize = if cfg!(test) { 64 } else { 2048 };

/// The files.
pub(super) struct Pages {
    shards: Vec<Shard>,
}

impl Pages {
    /// Opens the files in a folder, or makes them.
    ///
    /// # Errors
    /// Where they cannot be read or made, or are damaged.
    pub(super) fn open(folder: &Path) -> Result<Self, BoxError> {
        std::fs::create_dir_all(folder)?;
        let shards = (0..SHARDS).map(|shard| Shard::open(&folder.join(shard.to_string()))).collect::<Result<_, _>>()?;
        Ok(Self { shards })
    }

    /// Has all of them on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.shards.iter().try_for_each(Shard::sync)
    }

    /// Looks for keys; says of each what its page does.
    pub(super) fn look_up(&self, keys: &[Key]) -> Result<Vec<Looked>, BoxError> {
        let mut parts: Vec<_> = self.shards.iter().map(|shard| (shard, Vec::new())).collect();
        for (number, key) in keys.iter().enumerate() {
            parts[shard_of(*key)].1.push((number, *key));
        }
        let looked = on_threads(keys.len(), &mut parts, |(shard, keys)| {
            // From the file's beginning to its end: what the system knows of neighbours lies together.
            keys.sort_unstable_by_key(|(_, key)| shard.number(*key));
            let mut page = Page::empty(0);
            keys.iter()
                .map(|(number, key)| Ok((*number, shard.look_up(*key, &mut page)?)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let mut found: Vec<_> = keys.iter().map(|_| Looked::Nowhere).collect();
        looked.into_iter().flatten().for_each(|(number, looked)| found[number] = looked);
        Ok(found)
    }

    /// Puts entries in, each in the place of what its key had; `known` says where that is for those that
    /// were looked for since others were entered. Returns those for which there is no room.
    pub(super) fn enter(&mut self, entries: Vec<(Key, Entry)>, known: &KeyMap<Place>) -> Result<Spilled, BoxError> {
        let count = entries.len();
        let mut parts: Vec<_> = self.shards.iter_mut().map(|shard| (shard, Vec::new())).collect();
        for (key, entry) in entries {
            parts[shard_of(key)].1.push((key, entry));
        }
        let spilled = on_threads(count, &mut parts, |(shard, entries)| shard.enter(std::mem::take(entries), known))?;
        Ok(spilled.into_iter().flatten().collect())
    }
}

/// By bits that pages do not go by.
fn shard_of(key: Key) -> usize {
    (key >> (Key::BITS - SHARDS.ilog2())) as usize
}

/// Does parts of some work, at the same time where it is worth it; their results are in the order of the
/// parts.
fn on_threads<P: Send, R: Send>(
    keys: usize,
    parts: &mut [P],
    work: impl Fn(&mut P) -> Result<R, BoxError> + Sync,
) -> Result<Vec<R>, BoxError> {
    let threads = if keys < WORTH { 1 } else { thread::available_parallelism().map_or(1, usize::from) };
    let work = |parts: &mut [P]| parts.iter_mut().map(&work).collect::<Result<Vec<_>, _>>();
    let done = thread::scope(|scope| {
        let mut shares = parts.chunks_mut(parts.len().div_ceil(threads));
        let first = shares.next();
        let others: Vec<_> = shares.map(|share| scope.spawn(|| work(share))).collect();
        let ended = |_| Err("a thread of the key index ended early".into());
        let first = first.map(work).into_iter();
        first.chain(others.into_iter().map(|thread| thread.join().unwrap_or_else(ended))).collect::<Result<Vec<_>, _>>()
    });
    Ok(done?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes())
    }

    #[test]
    fn every_key_is_found_in_its_file_by_one_thread_and_by_many() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |row| Entry::new(1, row, 0, "");
        let mut pages = Pages::open(dir.path()).unwrap();
        assert!(
            pages.enter((0..3000).map(|row| (key(row), entry(row))).collect(), &KeyMap::default()).unwrap().is_empty()
        );
        for shard in &pages.shards {
            let entries = (0..3000)
                .filter(|row| !matches!(shard.look_up(key(*row), &mut Page::empty(0)).unwrap(), Looked::Nowhere));
            assert!(entries.count() > 600, "each has its share");
        }
        let pages = Pages::open(dir.path()).unwrap();
        for keys in [&(0..4000).map(key).collect::<Vec<_>>()[..], &[key(17)]] {
            for (looked, key) in pages.look_up(keys).unwrap().into_iter().zip(keys) {
                let row = (0..3000).find(|row| self::key(*row) == *key);
                match looked {
                    Looked::Found(found, _) => assert_eq!(Some(found), row.map(entry)),
                    other => assert!(row.is_none(), "{row:?}: {other:?}"),
                }
            }
        }
    }
}
