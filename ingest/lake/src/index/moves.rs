//! Where the rows went of files that were merged into others.
//!
//! What passes through: the place of a row as an entry has it, into the place that it has now. So a
//! compaction of millions of rows changes not one of their entries, but adds a bitmap of a bit per row
//! or less: rows keep their order when files are merged, and a row's new place is a matter of counting
//! those that moved before it. Rows that are sorted on their way keep it as the index counts them (see
//! [`places`](super::places)).
//!
//! Guaranteed: one step leads to where a row is. Where a file is moved that others had been moved into,
//! their moves are made anew to lead to its new place.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use crate::error::BoxError;

/// Where each file's rows are now, by the file's number.
#[derive(Debug, Default)]
pub(super) struct Moves {
    of: HashMap<u32, Move>,
}

/// Rows of a file that are in another now, in the same order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Move {
    /// The number of the other file.
    pub to: u32,
    /// Where in it the first of them is.
    pub first: u32,
    /// The rows that moved; all others were deleted before.
    pub rows: RoaringBitmap,
}

impl Move {
    /// The place of a row in the other file; none where it did not move.
    fn place(&self, row: u32) -> Option<u32> {
        self.rows.contains(row).then(|| self.first + self.rows.rank(row) as u32 - 1)
    }

    /// How many rows moved.
    pub(super) fn len(&self) -> u32 {
        self.rows.len() as u32
    }

    /// This move, and then that of the file which it leads to.
    fn then(&self, next: &Self) -> Self {
        let range = self.first..self.first + self.len();
        let before = next.rows.range_cardinality(..range.start) as u32;
        let mut lost = RoaringBitmap::new();
        lost.insert_range(range.clone());
        lost -= &next.rows;
        // In step, as both are in order: to look up where each is would be to count for each.
        let mut before_it = range.start;
        let mut moved = self.rows.iter();
        let lost = lost.iter().filter_map(|row| {
            let skipped = row - before_it;
            before_it = row + 1;
            moved.nth(skipped as usize)
        });
        let lost: RoaringBitmap = lost.collect();
        let mut rows = &self.rows - lost;
        rows.optimize();
        Self { to: next.to, first: next.first + before, rows }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, BoxError> {
        let mut bytes = Vec::with_capacity(8 + self.rows.serialized_size());
        bytes.extend(self.to.to_be_bytes());
        bytes.extend(self.first.to_be_bytes());
        self.rows.serialize_into(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
        let damaged = || "a damaged move";
        let (to, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let (first, rows) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (to, first) = (u32::from_be_bytes(*to), u32::from_be_bytes(*first));
        Ok(Self { to, first, rows: RoaringBitmap::deserialize_from(rows)? })
    }
}

impl Moves {
    /// Where a row is now: the number of its file, and its place in it.
    pub(super) fn place(&self, file: u32, row: u32) -> Option<(u32, u32)> {
        match self.of.get(&file) {
            Some(moved) => Some((moved.to, moved.place(row)?)),
            None => Some((file, row)),
        }
    }

    /// What changes when the rows of a file move: the moves that led to it, and its own.
    pub(super) fn extended(&self, file: u32, moved: Move) -> Vec<(u32, Move)> {
        let into = self.of.iter().filter(|(_, before)| before.to == file);
        let mut changed: Vec<_> = into.map(|(id, before)| (*id, before.then(&moved))).collect();
        changed.push((file, moved));
        changed
    }

    pub(super) fn insert(&mut self, file: u32, moved: Move) {
        self.of.insert(file, moved);
    }

    pub(super) fn remove(&mut self, file: u32) {
        self.of.remove(&file);
    }

    /// The files whose rows are in a file.
    pub(super) fn those_in(&self, file: u32) -> Vec<u32> {
        self.of.iter().filter(|(_, moved)| moved.to == file).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Some of the rows of a file.
    fn rows() -> impl Strategy<Value = RoaringBitmap> {
        prop::collection::btree_set(0_u32..200, 0..120).prop_map(RoaringBitmap::from_iter)
    }

    proptest! {
        #[test]
        fn two_steps_are_one(first in 0_u32..50, rows in rows(), kept in rows(), further in 0_u32..50) {
            let one = Move { to: 2, first, rows };
            let two = Move { to: 3, first: further, rows: kept };
            let both = one.then(&two);
            for row in 0..200 {
                prop_assert_eq!(both.place(row), one.place(row).and_then(|row| two.place(row)));
            }
            prop_assert_eq!(Move::decode(&both.encode().unwrap()).unwrap(), both);
        }

        #[test]
        fn damage_is_told(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            // Whatever it is, it does not end the process.
            let _ = Move::decode(&bytes);
        }
    }

    #[test]
    fn what_was_moved_twice_is_found_in_one_step() {
        let all = |rows: u32| RoaringBitmap::from_sorted_iter(0..rows).unwrap();
        let mut moves = Moves::default();
        for (file, moved) in [
            (1, Move { to: 9, first: 0, rows: all(10) }),
            (2, Move { to: 9, first: 10, rows: RoaringBitmap::from_iter([0, 5]) }),
            (9, Move { to: 20, first: 100, rows: RoaringBitmap::from_iter([3, 4, 11]) }),
        ] {
            for (id, changed) in moves.extended(file, moved) {
                moves.insert(id, changed);
            }
        }
        assert_eq!(moves.place(1, 3), Some((20, 100)));
        assert_eq!(moves.place(1, 4), Some((20, 101)));
        assert_eq!(moves.place(2, 5), Some((20, 102)));
        assert_eq!(moves.place(2, 0), None);
        assert_eq!(moves.place(1, 0), None);
        assert_eq!(moves.place(7, 7), Some((7, 7)));
    }
}
