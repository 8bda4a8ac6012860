//! Rows that moved to another file, followed there.
//!
//! What passes through: what a new file says of where its rows came from, into a [`Move`] of each old
//! file. Where the rows were sorted on their way, the index goes on counting them in the order in which
//! it knew them, and notes in [`Places`](super::places::Places) where each of them is.
//!
//! Guaranteed: what cannot be followed is read, as if it were new: a file that nothing is known of, or
//! that was made of files that were gone before the index knew them.
//!
//! What it costs may stand in the way of a commit: for each row that was sorted, four bytes and a bit are
//! read and as many written, and up to twelve are in memory meanwhile. No key is read and no entry changes.

use std::ops::Range;

use deltalake::DeltaTable;
use roaring::RoaringBitmap;

use super::moves::Move;
use super::{KeyIndex, Number};
use crate::compact::{self, Origin, Source};
use crate::error::BoxError;
use crate::places::{self, NOWHERE};
use crate::vectors::{self, DataFile};

/// Fewer rows than these that move with one file are entered anew, so that what is kept of moves stays
/// a small part of what is kept of rows.
const LEAST_MOVED: u32 = if cfg!(test) { 3 } else { 1024 };

/// What is still to be entered of a file.
pub(super) enum Rest {
    All,
    /// Some rows, in the order in which they are in the file: where each is, and its number in the index.
    Rows(Vec<(u32, u32)>),
}

/// What is known of the rows that moved to a file.
struct Moved {
    /// By the number of the file that they were in.
    moves: Vec<(u32, Move)>,
    /// Where each is now, by its number; none where they are the same.
    places: Option<Vec<u32>>,
}

impl Rest {
    pub(super) fn ranges(&self) -> Option<Vec<Range<u32>>> {
        match self {
            Self::All => None,
            Self::Rows(rows) => Some(rows.iter().map(|(place, _)| *place..place + 1).collect()),
        }
    }

    /// The number of a row, by its place in the file.
    pub(super) fn number(&self, place: u32) -> Result<u32, BoxError> {
        let Self::Rows(rows) = self else { return Ok(place) };
        let index = rows.binary_search_by_key(&place, |(place, _)| *place);
        Ok(rows[index.map_err(|_| "a row that nobody asked for")?].1)
    }
}

impl KeyIndex {
    /// Learns where rows have moved to a file from others that are entered; says which of its rows are
    /// to be entered all the same.
    pub(super) async fn follow(&mut self, table: &DeltaTable, file: &DataFile, id: u32) -> Result<Rest, BoxError> {
        let Some(Moved { moves, places }) = self.moved(table, file, id).await? else { return Ok(Rest::All) };
        let (few, many): (Vec<_>, Vec<_>) = moves.into_iter().partition(|(_, moved)| moved.len() < LEAST_MOVED);
        if many.is_empty() {
            return Ok(Rest::All);
        }
        if let Some(places) = &places {
            self.places.write(id, places)?;
        }
        let (path, number) = (file.view.path(), Number { id, is_whole: false, has_places: places.is_some() });
        let mut batch = self.database.batch();
        batch.insert(&self.files, path.as_ref(), number.encode());
        for (file, moved) in &many {
            batch.insert(&self.moved, file.to_be_bytes(), moved.encode()?);
        }
        for (file, _) in &few {
            batch.remove(&self.moved, file.to_be_bytes());
        }
        batch.commit()?;
        self.numbers.insert(path.into_owned(), number);
        let numbers = few.iter().flat_map(|(_, moved)| moved.first..moved.first + moved.len());
        let mut rest: Vec<_> =
            numbers.map(|row| (places.as_ref().map_or(row, |places| places[row as usize]), row)).collect();
        rest.sort_unstable();
        // What had moved to a file before is among the rows of that file.
        rest.dedup();
        few.iter().for_each(|(file, _)| self.moves.remove(*file));
        many.into_iter().for_each(|(file, moved)| self.moves.insert(file, moved));
        Ok(Rest::Rows(rest))
    }

    /// What a file says of where its rows came from; none where that cannot be followed.
    async fn moved(&self, table: &DeltaTable, file: &DataFile, id: u32) -> Result<Option<Moved>, BoxError> {
        let Some(Origin { sources, places }) = compact::origin(file) else { return Ok(None) };
        let known = sources.iter().map(|source| self.numbers.get(&source.path).filter(|number| number.is_whole));
        let Some(known) = known.collect::<Option<Vec<_>>>() else { return Ok(None) };
        let sorted = match &places {
            Some(name) => match places::read(table, name).await {
                Ok(places) => Some(places),
                Err(error) => {
                    tracing::debug!(%error, name, "it cannot be seen where rows were moved to; they are read again");
                    return Ok(None);
                }
            },
            None => None,
        };
        // Where a row is now, by how many were read before it.
        let place = |read: u32| match &sorted {
            Some(places) => places.get(read as usize).copied().ok_or("fewer places than rows that moved"),
            None => Ok(read),
        };
        let rows = sources.iter().map(|source| source.rows as usize).sum();
        let has_places = sorted.is_some() || known.iter().any(|number| number.has_places);
        let mut places = has_places.then(|| Vec::with_capacity(rows));
        let (mut moves, mut first) = (Vec::with_capacity(sources.len()), 0);
        for (source, number) in sources.iter().zip(known) {
            let Some(live) = live(table, source).await else { return Ok(None) };
            let count = live.len() as u32;
            let mut rows = if number.has_places {
                let mut now = vec![NOWHERE; source.rows as usize];
                for (row, read) in live.iter().zip(first..) {
                    *now.get_mut(row as usize).ok_or("a row beyond the last of its file")? = place(read)?;
                }
                let mut rows = RoaringBitmap::new();
                self.places.each(number.id, |row, before| {
                    if let Some(now) = now.get(before as usize).filter(|now| **now != NOWHERE) {
                        rows.insert(row);
                        places.get_or_insert_default().push(*now);
                    }
                })?;
                rows
            } else {
                if let Some(places) = &mut places {
                    for read in first..first + count {
                        places.push(place(read)?);
                    }
                }
                live
            };
            if rows.len() as u32 != count {
                return Err("a file has other rows than are known of it".into());
            }
            rows.optimize();
            moves.extend(self.moves.extended(number.id, Move { to: id, first, rows }));
            first += count;
        }
        Ok(Some(Moved { moves, places }))
    }
}

/// The rows of a file that moved; none where that cannot be seen any more.
async fn live(table: &DeltaTable, source: &Source) -> Option<RoaringBitmap> {
    let mut rows = RoaringBitmap::new();
    rows.insert_range(0..source.rows);
    if let Some(vector) = &source.deleted {
        let Ok(deleted) = vectors::read(table, vector).await else {
            tracing::debug!(file = source.path, "a vector of a merged file is gone; its rows are read again");
            return None;
        };
        deleted.bitmaps().filter(|(high, _)| *high == 0).for_each(|(_, deleted)| rows -= deleted);
    }
    Some(rows)
}
