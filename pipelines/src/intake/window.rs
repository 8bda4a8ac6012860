//! The names of the last events, so that one that comes again is known.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use ruam_log::EventName;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// The names of the last so many events at least, and of twice as many at most, each as a hash of 128 bits: that two
/// are the same by chance, or that an agency makes them so, is its own loss only.
#[derive(Debug)]
pub(super) struct Window {
    most: usize,
    /// The newest, and as many of those before them as there may be.
    known: Names,
    before: Names,
}

type Names = HashSet<u128, BuildHasherDefault<Own>>;

/// What is a hash already needs none.
#[derive(Debug, Default)]
struct Own(u64);

impl Hasher for Own {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

impl Window {
    /// A window of so many events.
    pub(super) fn new(most: usize) -> Self {
        Self { most, known: Names::default(), before: Names::default() }
    }

    /// What stands for a name.
    pub(super) fn key(name: EventName<'_>) -> u128 {
        xxh3_128_with_seed(name.id.as_bytes(), xxh3_64(name.source.as_bytes()))
    }

    /// Adds a name; whether it was none of the last. Where there are too many, the oldest go.
    pub(super) fn insert(&mut self, key: u128) -> bool {
        let is_new = !self.before.contains(&key) && self.known.insert(key);
        if self.known.len() >= self.most {
            std::mem::swap(&mut self.known, &mut self.before);
            self.known.clear();
        }
        is_new
    }

    /// Forgets a name.
    pub(super) fn remove(&mut self, key: u128) {
        let _ = self.known.remove(&key) || self.before.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_known_and_older_ones_forgotten() {
        let mut window = Window::new(2);
        assert_eq!(
            [1, 2, 2, 3, 3, 2, 4, 5, 5].map(|key| window.insert(key)),
            [true, true, false, true, false, false, true, true, false]
        );
        assert_eq!((window.known.len(), window.before.len()), (1, 2));
        assert_eq!([5, 4, 3, 2].map(|key| window.insert(key)), [false, false, false, true]);
        window.remove(5);
        window.remove(2);
        assert_eq!([5, 2].map(|key| window.insert(key)), [true, true]);
    }

    #[test]
    fn a_name_is_source_and_id() {
        let key = |source, id| Window::key(EventName { source, id });
        assert_eq!(key("/a/b", "1"), key("/a/b", "1"));
        assert_ne!(key("/a/b", "11"), key("/a/b1", "1"));
    }
}
