//! Where an event stands: in the order of its source, and in the log.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Where an event stands in the order of its source.
///
/// Positions of one source only grow, and no two of its events share one. `major` is whatever the
/// source itself counts by (a line, a WAL position, a sequence number); `minor` tells apart events
/// that share it (the changes of one transaction, say).
///
/// The text form has a fixed width, so that text sorts as positions do. It travels as the
/// CloudEvents extension [`sequence`] and stands in every table as the column `_position`.
///
/// [`sequence`]: https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/sequence.md
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// What the source counts by.
    pub major: u64,
    /// The place among events that share `major`.
    pub minor: u32,
}

impl Position {
    /// How many bytes the text form has.
    pub const TEXT_LEN: usize = 31;

    /// A position of a source that needs no second number.
    pub const fn new(major: u64) -> Self {
        Self { major, minor: 0 }
    }

    /// The text form, without an allocation.
    pub fn to_text(self) -> [u8; Self::TEXT_LEN] {
        let mut text = [b'0'; Self::TEXT_LEN];
        write_right_aligned(&mut text[..20], self.major);
        text[20] = b'.';
        write_right_aligned(&mut text[21..], u64::from(self.minor));
        text
    }

    /// Reads the text form; `None` where it is not one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != Self::TEXT_LEN || text[20] != b'.' {
            return None;
        }
        Some(Self { major: parse_digits(&text[..20])?, minor: u32::try_from(parse_digits(&text[21..])?).ok()? })
    }
}

fn write_right_aligned(target: &mut [u8], number: u64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    let blank = target.len() - digits.len();
    target[blank..].copy_from_slice(digits);
}

fn parse_digits(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}.{:010}", self.major, self.minor)
    }
}

/// A text that is not a [`Position`].
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a source position: it has to be 20 digits, a point and 10 digits")]
pub struct InvalidPosition(String);

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text.as_bytes()).ok_or_else(|| InvalidPosition(text.to_owned()))
    }
}

/// What tells a topic from an earlier one of the same name: Kafka's topic id.
///
/// All zero where the broker gives none (Apache Kafka before 2.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u128);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A topic of the log, with its identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// The name that clients use.
    pub name: String,
    /// What the broker calls it, and will not call any other.
    pub id: TopicId,
}

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The topic.
    pub topic: Arc<Topic>,
    /// The partition's number, from 0.
    pub index: i32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic.name, self.index)
    }
}

/// Offsets of one partition: from `start`, up to but without `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffsetRange {
    /// The first offset.
    pub start: i64,
    /// The offset after the last.
    pub end: i64,
}

impl OffsetRange {
    /// How many offsets the range holds.
    pub fn len(&self) -> u64 {
        u64::try_from(self.end - self.start).unwrap_or(0)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_form_round_trips(major: u64, minor: u32) {
            let position = Position { major, minor };
            prop_assert_eq!(Position::parse(&position.to_text()), Some(position));
            prop_assert_eq!(position.to_string().into_bytes(), position.to_text());
        }

        #[test]
        fn text_sorts_as_positions_do(a: (u64, u32), b: (u64, u32)) {
            let (a, b) = (Position { major: a.0, minor: a.1 }, Position { major: b.0, minor: b.1 });
            prop_assert_eq!(a.cmp(&b), a.to_text().cmp(&b.to_text()));
        }

        #[test]
        fn other_text_is_refused(text in "[0-9.]{0,40}") {
            if let Some(position) = Position::parse(text.as_bytes()) {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }
}
