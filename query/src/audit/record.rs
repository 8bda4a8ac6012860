//! A record of the account, and how it is chained to those before it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What an account tells of one question.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// When, by RFC 3339 in UTC.
    pub at: String,
    /// What happened.
    pub event: Event,
    /// Which question: its beginning and its end have the same.
    pub query: String,
    /// Who asked.
    pub who: String,
    /// Their roles; empty for the system itself.
    pub roles: Vec<String>,
    /// What they asked with, and from where.
    pub client: String,
    /// What for.
    pub purpose: Option<String>,
    /// What they asked, with pseudonyms instead of numbers of citizens.
    pub sql: String,
    /// The tables that were read, each with its columns.
    pub tables: Vec<(String, Vec<String>)>,
    /// The tables of which something was hidden, and what.
    pub policies: Vec<(String, String)>,
    /// The pseudonyms of the persons who were asked for by number.
    pub subjects: Vec<String>,
    /// Whether numbers of citizens were read as they are.
    pub shows_persons: bool,
    /// Whether the answer is one that was given before, and kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// How many rows the answer had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How many bytes of memory they took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
}

/// What happened to a question.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Its answer begins.
    #[default]
    Begun,
    /// All of its answer was given.
    Answered,
    /// Its answer was broken off: by an error, a limit, or whoever asked.
    BrokenOff,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Begun => "begun",
            Self::Answered => "answered",
            Self::BrokenOff => "broken_off",
        })
    }
}

/// SHA-256 of all that comes before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Hash([u8; 32]);

/// Where an account ends: how many records it has, and the hash of them all. Noted down elsewhere, it shows
/// whether its end was cut off since.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Head {
    pub(super) number: u64,
    pub(super) hash: Hash,
}

impl Head {
    /// How many records the account has.
    pub fn records(&self) -> u64 {
        self.number
    }

    /// The head after another record's text.
    pub(super) fn after(self, text: &[u8]) -> Self {
        let hash = Sha256::new().chain_update(self.hash.0).chain_update(self.number.to_be_bytes()).chain_update(text);
        Self { number: self.number + 1, hash: Hash(hash.finalize().into()) }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, hex::encode(self.hash.0))
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(number, hash)| Some((number.parse().ok()?, hash.parse().ok()?)));
        let (number, hash) =
            parts.ok_or_else(|| format!("`{text}` is not a head. Give what `ruam audit verify` printed"))?;
        Ok(Self { number, hash })
    }
}

impl FromStr for Hash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map(|()| Self(hash)).map_err(|_| ())
    }
}

/// What a line has before its number, its hash and its record, and at its end. The record is hashed as it
/// stands, so that a line is taken apart and not read as a whole.
const PARTS: [&str; 4] = ["{\"number\":", ",\"hash\":\"", "\",\"record\":", "}"];

/// A line that has been read.
pub(super) struct Chained {
    pub(super) number: u64,
    pub(super) hash: Hash,
    pub(super) text: String,
    pub(super) record: Record,
}

impl Chained {
    /// The line of a record that comes after a head, and the head after it.
    pub(super) fn line(head: Head, record: &Record) -> serde_json::Result<(Head, Vec<u8>)> {
        let record = serde_json::to_string(record)?;
        let after = head.after(record.as_bytes());
        let [number, hash, text, end] = PARTS;
        let line = format!("{number}{}{hash}{}{text}{record}{end}\n", head.number, hex::encode(after.hash.0));
        Ok((after, line.into_bytes()))
    }

    /// None where it is no line of an account.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let [number, hash, text, end] = PARTS;
        let line = std::str::from_utf8(line).ok()?.strip_prefix(number)?.strip_suffix(end)?;
        let (number, line) = line.split_once(hash)?;
        let (hash, text) = line.split_once(text)?;
        let (number, hash, record) = (number.parse().ok()?, hash.parse().ok()?, serde_json::from_str(text).ok()?);
        Some(Self { number, hash, text: text.to_owned(), record })
    }
}
