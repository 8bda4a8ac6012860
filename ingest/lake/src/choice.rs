//! Which files of a table are best written anew.
//!
//! What passes through: what each live file says of itself, into the few that one pass makes one of.
//!
//! How it is chosen:
//! - Small files by tiers, as log-structured stores do it, so that a row is rewritten a few times and not
//!   with every commit.
//! - Files of which much is deleted, those first of which most is; and files that are merged with no other
//!   and are not sorted by the columns that they are to be.
//! - No more at a time than two of the largest files. So a pass is short, few rows are deleted of a file
//!   while it is written anew, and what comes to be due is seen soon.

use std::collections::HashMap;

use crate::compact::is_clustered;
use crate::table::ROW_GROUP_ROWS;
use crate::vectors::DataFile;

/// Files of fewer bytes than this are all of one tier.
const SMALLEST: u64 = 64 << 10;
/// A tier's files are up to so many times as large as the tier's below, and so many of them are
/// merged at a time: each row is rewritten about once for each tier.
const STEP: u64 = 8;
/// A file of so many live bytes is merged with no other: of a sorted one much can be left out then.
const LARGEST: u64 = 64 << 20;
/// Of a table that is not sorted, a smaller part is enough, so that what is rewritten at a time is one: of
/// so many parts, but not less than so many bytes.
const PARTS: u64 = 8;
const LEAST: u64 = 4 << 20;
/// The share of deleted rows at which a file is rewritten, in per cent.
const DELETED_PERCENT: u64 = 20;
/// The most live rows that are moved at once.
const MOST_ROWS: u64 = 8 << 20;

/// How much of a table is brought in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// As much as keeps it fast: a file that is not sorted waits until it is merged.
    Usual,
    /// Each file in which there is something to sort.
    All,
}

/// A file as a choice sees it.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Its place among the files, which are in the order in which they came.
    place: usize,
    /// Its rows, deleted ones too.
    records: u64,
    deleted: u64,
    /// About the bytes of its live rows.
    bytes: u64,
    is_clustered: bool,
}

/// The files that are best made one, in the order in which they came; none where the table is in order.
pub(crate) fn choose(files: &[DataFile], cluster_by: &[String], effort: Effort) -> Vec<DataFile> {
    let candidate = |(place, file): (usize, &DataFile)| {
        // A file that says nothing of its rows is another writer's, and left to it.
        let records = file.view.num_records().map(|records| records as u64).filter(|records| *records > 0)?;
        let deleted = file.deleted.len();
        let bytes = file.view.size().unsigned_abs() * records.saturating_sub(deleted) / records;
        Some(Candidate { place, records, deleted, bytes, is_clustered: is_clustered(file, cluster_by) })
    };
    let candidates: Vec<_> = files.iter().enumerate().filter_map(candidate).collect();
    pick(&candidates, !cluster_by.is_empty(), effort).iter().map(|candidate| files[candidate.place].clone()).collect()
}

fn pick(candidates: &[Candidate], is_sorted: bool, effort: Effort) -> Vec<Candidate> {
    let all = candidates.iter().map(|candidate| candidate.bytes).sum::<u64>();
    let largest = if is_sorted { LARGEST } else { (all / PARTS).clamp(LEAST, LARGEST) };
    let is_large = |candidate: &Candidate| candidate.bytes >= largest || candidate.rows() * 2 > MOST_ROWS;
    let is_due = |candidate: &Candidate| {
        // Of one row group, a reader leaves out nothing in whatever order it is.
        let is_sortable = candidate.rows() > ROW_GROUP_ROWS as u64
            && candidate.rows() <= MOST_ROWS
            && (is_large(candidate) || effort == Effort::All);
        candidate.is_worn() || is_sortable && !candidate.is_clustered
    };
    let mut tiers: HashMap<u32, Vec<Candidate>> = HashMap::new();
    let mut due = Vec::new();
    for candidate in candidates {
        if !is_large(candidate) {
            let tier = (candidate.bytes / SMALLEST).checked_ilog(STEP).map_or(0, |tier| tier + 1);
            tiers.entry(tier).or_default().push(*candidate);
        }
        if is_due(candidate) {
            due.push(*candidate);
        }
    }
    let full = tiers.into_iter().filter(|(_, of_tier)| of_tier.len() as u64 >= STEP);
    let mut chosen = full.min_by_key(|(tier, _)| *tier).map(|(_, of_tier)| of_tier).unwrap_or_default();
    due.retain(|due| !chosen.iter().any(|chosen| chosen.place == due.place));
    due.sort_by_key(|candidate| std::cmp::Reverse(candidate.deleted * 1000 / candidate.records));
    chosen.append(&mut due);
    let (mut rows, mut bytes) = (0, 0);
    chosen.retain(|candidate| {
        let fits = rows == 0 || (rows + candidate.rows() <= MOST_ROWS && bytes + candidate.bytes <= 2 * largest);
        if fits {
            (rows, bytes) = (rows + candidate.rows(), bytes + candidate.bytes);
        }
        fits
    });
    // Oldest first, so that the order of the rows stays what it was.
    chosen.sort_unstable_by_key(|candidate| candidate.place);
    match chosen.as_slice() {
        [only] if !is_due(only) => Vec::new(),
        _ => chosen,
    }
}

impl Candidate {
    fn rows(&self) -> u64 {
        self.records.saturating_sub(self.deleted)
    }

    fn is_worn(&self) -> bool {
        self.deleted * 100 >= self.records * DELETED_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a row takes in a file.
    const ROW: u64 = 36;

    /// A table whose keys are changed at random, as often as each other.
    struct Worn {
        files: Vec<Candidate>,
        rewritten: u64,
    }

    impl Worn {
        fn filled(rows: u64) -> Self {
            let files = vec![250_000; (rows / 250_000) as usize];
            Self { files: files.into_iter().map(|records| file(records, 0)).collect(), rewritten: 0 }
        }

        fn live(&self) -> u64 {
            self.files.iter().map(Candidate::rows).sum()
        }

        /// A commit of changes: each file loses its share, and a new one comes.
        fn change(&mut self, changes: u64) {
            let live = self.live();
            for file in &mut self.files {
                *file = self::file(file.records, file.deleted + (file.rows() * changes).div_ceil(live));
            }
            self.files.push(file(live - self.live(), 0));
        }

        /// A pass; says whether there was something to do.
        fn tend(&mut self) -> bool {
            for (place, file) in self.files.iter_mut().enumerate() {
                file.place = place;
            }
            let chosen = pick(&self.files, false, Effort::Usual);
            let rows = chosen.iter().map(Candidate::rows).sum();
            let places: Vec<_> = chosen.iter().map(|candidate| candidate.place).collect();
            self.files.retain(|file| !places.contains(&file.place));
            if rows > 0 {
                self.files.push(file(rows, 0));
            }
            self.rewritten += rows;
            !chosen.is_empty()
        }
    }

    fn file(records: u64, deleted: u64) -> Candidate {
        Candidate { place: 0, records, deleted, bytes: (records - deleted) * ROW, is_clustered: true }
    }

    #[test]
    fn a_table_of_which_all_changes_stays_in_few_files_with_few_deleted_rows() {
        for rows in [2_000_000, 20_000_000] {
            let mut worn = Worn::filled(rows);
            let (commits, changes) = (3 * rows / 10_000, 10_000);
            for commit in 0..commits {
                worn.change(changes);
                if commit % 4 == 0 {
                    worn.tend();
                }
                let deleted: u64 = worn.files.iter().map(|file| file.deleted).sum();
                assert_eq!(worn.live(), rows);
                assert!(worn.files.len() <= 64 + rows as usize / 250_000, "{} files", worn.files.len());
                assert!(deleted * 100 <= worn.live() * 25, "{deleted} deleted rows, of {rows}");
            }
            // Each change is written once by its commit; tiers and deleted rows take the rest.
            let times = worn.rewritten as f64 / (commits * changes) as f64;
            assert!(times <= 8.0, "each changed row was rewritten {times:.1} times");
        }
    }

    #[test]
    fn small_files_are_not_kept_waiting_by_large_ones() {
        let mut files: Vec<_> = (0..16).map(|_| file(250_000, 60_000)).collect();
        files.extend((0..8).map(|_| file(10_000, 0)));
        for (place, file) in files.iter_mut().enumerate() {
            file.place = place;
        }
        let chosen = pick(&files, false, Effort::Usual);
        assert_eq!(chosen.iter().filter(|candidate| candidate.records == 10_000).count(), 8, "{chosen:?}");
        let bytes: u64 = chosen.iter().map(|candidate| candidate.bytes).sum();
        assert!(chosen.len() > 8 && bytes <= 2 * (16 * 190_000 + 80_000) * ROW / PARTS, "{chosen:?}");
    }

    #[test]
    fn a_table_comes_to_rest() {
        let mut worn = Worn::filled(1_000_000);
        for _ in 0..50 {
            worn.change(10_000);
        }
        let passes = (0..200).take_while(|_| worn.tend()).count();
        assert!(passes < 100, "{passes} passes, and no end");
        assert!(worn.files.iter().all(|file| !file.is_worn()));
    }
}
