//! What a server keeps for its clients between two of their requests: sessions, tickets, prepared statements.
//!
//! Guaranteed: never more than a number of things, and nothing for longer than it lies unused. Where there is no
//! room, what has lain unused for longest makes it. A handle that [`handle`] makes cannot be guessed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Things by their handles.
pub(crate) struct Kept<V> {
    most: usize,
    unused: Duration,
    entries: Mutex<HashMap<String, Entry<V>>>,
}

struct Entry<V> {
    value: V,
    used: Instant,
}

/// A handle that nobody guesses: 122 bits of the system's randomness.
pub(crate) fn handle() -> String {
    Uuid::new_v4().simple().to_string()
}

impl<V: Clone> Kept<V> {
    /// Room for `most` things, each for as long as it does not lie `unused` for longer.
    pub(crate) fn new(most: usize, unused: Duration) -> Self {
        Self { most, unused, entries: Mutex::default() }
    }

    /// What a handle stands for.
    pub(crate) fn get(&self, handle: &str) -> Option<V> {
        let mut entries = self.entries();
        let entry = entries.get_mut(handle)?;
        entry.used = Instant::now();
        Some(entry.value.clone())
    }

    /// Keeps something, unless the handle stands for something already; returns what it stands for.
    pub(crate) fn keep(&self, handle: String, value: V) -> V {
        let mut entries = self.entries();
        if entries.len() >= self.most && !entries.contains_key(&handle) {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.used).map(|(handle, _)| handle.clone());
            oldest.and_then(|oldest| entries.remove(&oldest));
        }
        let entry = entries.entry(handle).or_insert(Entry { value, used: Instant::now() });
        entry.used = Instant::now();
        entry.value.clone()
    }

    /// What a handle stood for until now.
    pub(crate) fn remove(&self, handle: &str) -> Option<V> {
        self.entries().remove(handle).map(|entry| entry.value)
    }

    /// Everything that is kept at this moment.
    pub(crate) fn values(&self) -> Vec<V> {
        self.entries().values().map(|entry| entry.value.clone()).collect()
    }

    /// The entries without those that have lain unused for too long.
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry<V>>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.used.elapsed() <= self.unused);
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn what_was_used_last_stays() {
        let kept = Kept::new(2, LONG);
        kept.keep("a".to_owned(), 1);
        kept.keep("b".to_owned(), 2);
        assert_eq!(kept.get("a"), Some(1));
        kept.keep("c".to_owned(), 3);
        assert_eq!((kept.get("a"), kept.get("b"), kept.get("c")), (Some(1), None, Some(3)));
        assert_eq!((kept.remove("a"), kept.remove("a")), (Some(1), None));
    }

    #[test]
    fn who_comes_first_keeps_the_handle() {
        let kept = Kept::new(1, LONG);
        assert_eq!((kept.keep("a".to_owned(), 1), kept.keep("a".to_owned(), 2)), (1, 1));
    }

    #[test]
    fn what_lies_unused_is_gone() {
        let kept = Kept::new(2, Duration::ZERO);
        kept.keep("a".to_owned(), 1);
        while Instant::now().elapsed() == Duration::ZERO {}
        assert!(kept.get("a").is_none() && kept.values().is_empty());
    }
}
