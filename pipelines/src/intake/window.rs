//! The names of the last events, so that one that comes again is known.

use std::collections::{HashSet, VecDeque};

use ruam_log::EventName;
use xxhash_rust::xxh3::Xxh3;

/// The names of the last so many events, each as a hash of 128 bits: that two are the same by chance, or that an
/// agency makes them so, is its own loss only.
#[derive(Debug)]
pub(super) struct Window {
    most: usize,
    known: HashSet<u128>,
    /// In the order in which they came.
    order: VecDeque<u128>,
}

impl Window {
    /// A window of so many events.
    pub(super) fn new(most: usize) -> Self {
        Self { most, known: HashSet::new(), order: VecDeque::new() }
    }

    /// What stands for a name.
    pub(super) fn key(name: EventName<'_>) -> u128 {
        let mut hash = Xxh3::new();
        // With its length, a source ends where it ends.
        hash.update(&name.source.len().to_le_bytes());
        hash.update(name.source.as_bytes());
        hash.update(name.id.as_bytes());
        hash.digest128()
    }

    /// Whether a name is one of the last.
    pub(super) fn has(&self, key: u128) -> bool {
        self.known.contains(&key)
    }

    /// Adds a name, if it is new. Where there are too many, the oldest goes.
    pub(super) fn insert(&mut self, key: u128) {
        if !self.known.insert(key) {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_known_and_older_ones_forgotten() {
        let mut window = Window::new(2);
        [1, 2, 1, 3].into_iter().for_each(|key| window.insert(key));
        assert_eq!([1, 2, 3].map(|key| window.has(key)), [false, true, true]);
        assert_eq!((window.known.len(), window.order.len()), (2, 2));
    }

    #[test]
    fn a_name_is_source_and_id() {
        let key = |source, id| Window::key(EventName { source, id });
        assert_eq!(key("/a/b", "1"), key("/a/b", "1"));
        assert_ne!(key("/a/b", "11"), key("/a/b1", "1"));
    }
}
