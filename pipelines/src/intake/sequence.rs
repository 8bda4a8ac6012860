//! The numbers that an agency's systems give their events, and which of them are missing.
//!
//! What passes through: of each event that is stored and has a number, its source and that number. A source is
//! followed from the first number that comes of it on; a number that comes late fills its gap. What is missing is
//! kept in a file, before anybody is told that the events are stored, so that it is known after a restart, too.
//!
//! Guaranteed: of a number that was told to be missing no event has been stored, unless its file was lost. What is
//! kept is bounded, however many gaps and sources there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The most sources of a dataset that are followed, and the most gaps of each that are known.
const MOST_SOURCES: usize = 100;
const MOST_GAPS: usize = 100;
/// So many gaps are named in words.
const NAMED: usize = 10;
/// How long a gap has to stand before it is an alarm: events that are sent side by side overtake each other.
const ALARM_AFTER: Duration = Duration::from_secs(10);

/// The numbers of a dataset's events.
#[derive(Debug)]
pub(crate) struct Sequences {
    path: PathBuf,
    kept: Kept,
    is_changed: bool,
    /// When gaps were seen that nobody has been told of, by source and first number.
    untold: BTreeMap<(String, u64), Instant>,
}

/// What the file says.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    sources: BTreeMap<String, Sequence>,
    /// Whether there are more sources than are followed.
    #[serde(default)]
    are_more: bool,
}

/// The numbers of one source.
#[derive(Debug, Serialize, Deserialize)]
struct Sequence {
    /// The first that came, and the greatest.
    first: u64,
    last: u64,
    /// What is missing between the two: the first and the last number of each gap.
    missing: BTreeMap<u64, u64>,
    /// How many numbers are missing in gaps that are not known any more, there being too many.
    forgotten: u64,
    /// How many events came with a number that had come before.
    repeated: u64,
}

impl Sequences {
    /// Those that a folder keeps, which may not be there yet.
    ///
    /// # Errors
    /// Where its file cannot be read, or is not as it was written.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("sequences.json");
        let kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        let mut sequences = Self { path, kept, is_changed: false, untold: BTreeMap::new() };
        let now = Instant::now();
        for (source, sequence) in &sequences.kept.sources {
            sequences.untold.extend(sequence.missing.keys().map(|first| ((source.clone(), *first), now)));
        }
        Ok(sequences)
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the number of an event that is stored; `is_new` where it was not before.
    pub(crate) fn see(&mut self, source: &str, number: u64, is_new: bool, now: Instant) {
        if !self.kept.sources.contains_key(source) {
            if self.kept.sources.len() >= MOST_SOURCES {
                self.is_changed |= !self.kept.are_more;
                self.kept.are_more = true;
                return;
            }
            self.kept.sources.insert(source.to_owned(), Sequence::new(number));
            self.is_changed = true;
            return;
        }
        let Some(sequence) = self.kept.sources.get_mut(source) else { return };
        match sequence.see(number, is_new) {
            Seen::Next => self.is_changed = true,
            Seen::Gap(first) => {
                self.is_changed = true;
                self.untold.insert((source.to_owned(), first), now);
            }
            Seen::Filled { first, rest } => {
                self.is_changed = true;
                let since = self.untold.remove(&(source.to_owned(), first));
                // Of what is left of a gap that was told of nobody is told again.
                for (first, since) in rest.into_iter().flatten().zip(std::iter::repeat(since)) {
                    self.untold.extend(since.map(|since| ((source.to_owned(), first), since)));
                }
            }
            Seen::Before => self.is_changed |= is_new,
        }
    }

    /// Writes the file, if anything has changed.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn keep(&mut self) -> io::Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))?;
        let next = self.path.with_extension("new");
        let mut file = File::create(&next)?;
        file.write_all(&serde_json::to_vec(&self.kept)?)?;
        file.sync_data()?;
        fs::rename(&next, &self.path)?;
        self.is_changed = false;
        Ok(())
    }

    /// The sources of which there are gaps that have stood for a while, and of which nobody has been told, each with
    /// what is missing of it. From now on everybody has.
    pub(crate) fn alarms(&mut self, now: Instant) -> Vec<String> {
        let stands = |since: &Instant| now.saturating_duration_since(*since) >= ALARM_AFTER;
        let sources: BTreeSet<_> =
            self.untold.iter().filter(|(_, since)| stands(since)).map(|((source, _), _)| source.clone()).collect();
        self.untold.retain(|_, since| !stands(since));
        sources.iter().filter_map(|source| self.kept.sources.get(source)?.trouble(source)).collect()
    }

    /// What is missing, a line for each source of which something is.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let mut troubles: Vec<_> =
            self.kept.sources.iter().filter_map(|(source, sequence)| sequence.trouble(source)).collect();
        if self.kept.are_more {
            troubles.push(format!(
                "there are more than {MOST_SOURCES} sources with numbers, and the others are not followed"
            ));
        }
        troubles
    }
}

/// What a number does to what is missing.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// It is the one behind the greatest.
    Next,
    /// Others are missing before it, from this one on.
    Gap(u64),
    /// It was missing, in the gap that begins with `first`; the gaps that are left of that begin with `rest`.
    Filled { first: u64, rest: [Option<u64>; 2] },
    /// It has come before, or is of a time before it was followed.
    Before,
}

impl Sequence {
    fn new(number: u64) -> Self {
        Self { first: number, last: number, missing: BTreeMap::new(), forgotten: 0, repeated: 0 }
    }

    fn see(&mut self, number: u64, is_new: bool) -> Seen {
        if number > self.last {
            let first = std::mem::replace(&mut self.last, number) + 1;
            if first == number {
                return Seen::Next;
            }
            self.missing.insert(first, number - 1);
            self.forget();
            return Seen::Gap(first);
        }
        // CloudEvents' integers begin anew behind the greatest of 32 bits.
        if number == 1 && self.last == i32::MAX as u64 && is_new {
            self.last = number;
            return Seen::Next;
        }
        let gap = self.missing.range(..=number).next_back().map(|(first, last)| (*first, *last));
        let Some((first, last)) = gap.filter(|(_, last)| number <= *last) else {
            self.repeated += u64::from(is_new && number >= self.first);
            return Seen::Before;
        };
        self.missing.remove(&first);
        let before = (first < number).then(|| (first, number - 1));
        let behind = (number < last).then(|| (number + 1, last));
        self.missing.extend(before.into_iter().chain(behind));
        self.forget();
        Seen::Filled { first, rest: [before, behind].map(|gap| gap.map(|(first, _)| first)) }
    }

    /// Forgets the oldest gap where there are too many.
    fn forget(&mut self) {
        if self.missing.len() > MOST_GAPS
            && let Some((first, last)) = self.missing.pop_first()
        {
            self.forgotten = self.forgotten.saturating_add(last - first).saturating_add(1);
        }
    }

    /// What is wrong with the numbers of a source, in words; nothing where nothing is.
    fn trouble(&self, source: &str) -> Option<String> {
        let known = self.missing.iter().fold(0_u64, |sum, (first, last)| sum.saturating_add(last - first + 1));
        let missing = known.saturating_add(self.forgotten);
        let mut told = Vec::new();
        if missing > 0 {
            told.push(format!("{missing} missing: {self}"));
        }
        if self.repeated > 0 {
            told.push(format!("{} came with a number that had come before", self.repeated));
        }
        (!told.is_empty()).then(|| format!("of {source}, {}", told.join("; ")))
    }
}

/// The gaps, but for those that are too many to be named.
impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.forgotten > 0 {
            write!(f, "{} of long ago, ", self.forgotten)?;
        }
        for (index, (first, last)) in self.missing.iter().take(NAMED).enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first}–{last}")?,
            }
        }
        match self.missing.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, ", and {more} gaps more, to {}", self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequences(folder: &Path, numbers: &[u64]) -> Sequences {
        let (mut sequences, now) = (Sequences::open(folder).unwrap(), Instant::now());
        numbers.iter().for_each(|number| sequences.see("/a/b", *number, true, now));
        sequences
    }

    #[test]
    fn what_is_missing_is_named_until_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let mut numbers = sequences(folder.path(), &[15, 16, 18, 19, 22]);
        assert_eq!(numbers.troubles(), ["of /a/b, 3 missing: 17, 20–21"]);
        numbers.keep().unwrap();
        // Also by whom is started next; 3 is of a time before.
        let mut numbers = sequences(folder.path(), &[20, 3, 17]);
        assert_eq!(numbers.troubles(), ["of /a/b, 1 missing: 21"]);
        numbers.see("/a/b", 21, false, Instant::now());
        assert!(numbers.troubles().is_empty());
        numbers.see("/a/b", 21, false, Instant::now());
        assert!(numbers.troubles().is_empty(), "a duplicate is no trouble");
        numbers.see("/a/b", 21, true, Instant::now());
        assert_eq!(numbers.troubles(), ["of /a/b, 1 came with a number that had come before"]);
    }

    #[test]
    fn a_gap_is_an_alarm_once_and_not_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut numbers = sequences(folder.path(), &[1, 5]);
        let now = Instant::now();
        assert!(numbers.alarms(now).is_empty());
        assert_eq!(numbers.alarms(now + ALARM_AFTER), ["of /a/b, 3 missing: 2–4"]);
        numbers.see("/a/b", 3, true, now);
        assert!(numbers.alarms(now + 2 * ALARM_AFTER).is_empty(), "what is left of it is no news");
        // One that is filled in time is none, but for what is left.
        for number in [9, 7, 6] {
            numbers.see("/a/b", number, true, now);
        }
        assert_eq!(numbers.alarms(now + ALARM_AFTER), ["of /a/b, 3 missing: 2, 4, 8"]);
        numbers.keep().unwrap();
        assert_eq!(
            sequences(folder.path(), &[]).alarms(Instant::now() + ALARM_AFTER).len(),
            1,
            "who starts anew is told"
        );
    }

    #[test]
    fn integers_of_cloud_events_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = sequences(folder.path(), &[2_147_483_646, 2_147_483_647, 1, 2, 4]);
        assert_eq!(numbers.troubles(), ["of /a/b, 1 missing: 3"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut numbers = sequences(folder.path(), &(0..=400).map(|number| 2 * number).collect::<Vec<_>>());
        let told = numbers.troubles().remove(0);
        assert!(told.starts_with("of /a/b, 400 missing: 300 of long ago, 601, 603"), "{told}");
        assert!(told.ends_with("619, and 90 gaps more, to 800"), "{told}");
        for source in 0..200 {
            numbers.see(&source.to_string(), u64::MAX, true, Instant::now());
            numbers.see(&source.to_string(), 0, true, Instant::now());
        }
        assert_eq!(numbers.kept.sources.len(), MOST_SOURCES);
        assert!(numbers.troubles().last().unwrap().starts_with("there are more than 100 sources"));
    }

    proptest! {
        #[test]
        fn what_is_missing_is_what_has_not_come(numbers in prop::collection::vec(0_u64..60, 1..60)) {
            let folder = tempfile::tempdir().unwrap();
            let sequences = sequences(folder.path(), &numbers);
            let sequence = &sequences.kept.sources["/a/b"];
            let missing: BTreeSet<_> = sequence.missing.iter().flat_map(|(first, last)| *first..=*last).collect();
            let last = *numbers.iter().max().unwrap();
            let expected: BTreeSet<_> = (numbers[0]..=last).filter(|number| !numbers.contains(number)).collect();
            prop_assert_eq!(missing, expected);
            // Gaps do not touch, so that each is named once.
            prop_assert!(sequence.missing.iter().zip(sequence.missing.iter().skip(1)).all(|(one, two)| one.1 + 1 < *two.0));
        }
    }
}
