//! Made-up agencies, for the demo, for training and for tests.
//!
//! Every row here is invented from a seed; no person, company or payment is real. What is made up is
//! made up the same each time, and a longer run begins with the events of a shorter one, so that a
//! demo can be stopped, continued and enlarged.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use ruam_event::{ChangeEvent, Columns, DatasetSpec, Position};

use crate::Surroundings;
use crate::source::{Feed, Source, SourceError};

mod calendar;
pub(crate) mod disbursements;
mod names;
mod payments;
pub(crate) mod persons;
pub(crate) mod welfare_payments;

pub use payments::{PlantedPayment, planted_payments};

/// How many events the generated sources come to, all together, unless a run says otherwise.
pub const DEFAULT_TOTAL: u64 = 200_000;

/// The options of every generated source.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What everything is made from. Sources that are to fit together have the same.
    seed: u64,
}

/// Makes the events of one source, one after another.
trait Generator: Send {
    /// How many of the events of all generated sources are this one's, in per cent.
    const SHARE: u64;

    fn new(seed: u64, columns: Columns) -> Result<Self, SourceError>
    where
        Self: Sized;

    /// The event with a number, counted from 0. Numbers come in order.
    fn event(&mut self, number: u64) -> ChangeEvent;
}

/// A generator as a source.
struct Generated<G> {
    seed: u64,
    columns: Columns,
    count: u64,
    generator: Option<G>,
    /// The number of the next event, and of the first that is given out.
    next: u64,
    first: u64,
}

fn open<G: Generator + 'static>(
    spec: &DatasetSpec,
    with: &toml::Table,
    surroundings: &Surroundings,
) -> Result<Box<dyn Source>, String> {
    let Options { seed } = crate::options(with)?;
    let count = events_of::<G>(surroundings.generated_total.unwrap_or(DEFAULT_TOTAL));
    Ok(Box::new(Generated::<G> { seed, columns: spec.column_names(), count, generator: None, next: 0, first: 0 }))
}

fn events_of<G: Generator>(total: u64) -> u64 {
    total * G::SHARE / 100
}

impl<G: Generator> Source for Generated<G> {
    fn open(&mut self, after: Option<Position>) -> Result<(), SourceError> {
        // What came before is made again and left out: the state of a made-up agency is the sum of
        // what has happened in it.
        self.generator = Some(G::new(self.seed, self.columns.clone())?);
        self.next = 0;
        self.first = after.map_or(0, |after| after.major);
        Ok(())
    }

    fn next(&mut self, limit: usize) -> Result<Feed, SourceError> {
        let Some(generator) = &mut self.generator else { return Ok(Feed::Ended) };
        let mut events = Vec::with_capacity(limit);
        while self.next < self.count && events.len() < limit {
            let event = generator.event(self.next);
            if self.next >= self.first {
                events.push(event);
            }
            self.next += 1;
        }
        Ok(if events.is_empty() { Feed::Ended } else { Feed::Events(events) })
    }
}

/// The position of an event with a number.
fn position(number: u64) -> Position {
    Position::new(number + 1)
}

/// When a made-up event happened: one every so often from 1 October 2024 (the first day of fiscal
/// year BE 2568) on, in microseconds since 1970-01-01 UTC.
fn source_time(number: u64, every_ms: i64) -> i64 {
    const BEGIN: i64 = 1_727_715_600_000_000;
    BEGIN + i64::try_from(number).unwrap_or(i64::MAX / 1_000_000) * every_ms * 1000
}

/// Chance that belongs to a thing by its number, whatever was made before it.
fn chance(seed: u64, stream: u64, number: u64) -> ChaCha8Rng {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    chance.set_stream(stream);
    chance.set_word_pos(u128::from(number) * 64);
    chance
}

/// The citizen ID of the person with a number: valid, and no real person's as far as that can be
/// said of a number (the digits after the district count from 0).
fn citizen_id(areas: &[String], seed: u64, number: u64) -> String {
    use rand::Rng;
    let mut chance = chance(seed, 1, number);
    let kind = *[1, 1, 1, 1, 2, 3, 3, 5].get(chance.random_range(0..8)).unwrap_or(&1);
    let district = &areas[chance.random_range(0..areas.len())][..4];
    with_check_digit(&format!("{kind}{district}{number:07}"))
}

/// Twelve digits and the check digit that belongs to them.
fn with_check_digit(digits: &str) -> String {
    let sum: u32 = digits.bytes().zip((2..=13).rev()).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    format!("{digits}{}", (11 - sum % 11) % 10)
}

/// The digits of a text in Thai.
fn thai_digits(text: &str) -> String {
    let digit = |c: char| c.to_digit(10).and_then(|digit| char::from_u32('๐' as u32 + digit)).unwrap_or(c);
    text.chars().map(digit).collect()
}
