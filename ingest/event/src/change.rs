//! A change in an agency's system of record.

use std::sync::Arc;

use crate::position::Position;

/// The names of a row's columns, shared by all rows of a dataset.
pub type Columns = Arc<[String]>;

/// One thing that happened to one row (or, for [`Change::Truncate`], to all of them).
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeEvent {
    /// Where the event stands in the order of its source.
    pub position: Position,
    /// When it happened there, in microseconds since 1970-01-01 UTC, if the source knows.
    pub source_time: Option<i64>,
    /// What happened.
    pub change: Change,
}

impl ChangeEvent {
    /// All of it but the rows.
    pub fn occurrence(&self) -> Occurrence {
        Occurrence { op: self.change.op(), position: self.position, source_time: self.source_time }
    }
}

/// What kind of thing happened, where in the order of its source, and when: a [`ChangeEvent`] without its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The kind.
    pub op: Op,
    /// As of [`ChangeEvent`].
    pub position: Position,
    /// As of [`ChangeEvent`].
    pub source_time: Option<i64>,
}

/// What happened to a row.
///
/// The kinds are those that change data capture knows; an old row is only as complete as the
/// source made it ([`OldRow`]), and a column that the source left out says so
/// ([`Value::Unchanged`]) instead of passing for NULL.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The row stood there when the source was first read.
    Snapshot(Row),
    /// The row was created.
    Insert(Row),
    /// The row was changed.
    Update {
        /// The row before.
        old: OldRow,
        /// The row after.
        new: Row,
    },
    /// The row was deleted.
    Delete(OldRow),
    /// All rows were deleted at once.
    Truncate,
}

impl Change {
    /// The letter that Debezium gives the kind (`op`).
    pub fn op(&self) -> Op {
        match self {
            Self::Snapshot(_) => Op::Snapshot,
            Self::Insert(_) => Op::Insert,
            Self::Update { .. } => Op::Update,
            Self::Delete(_) => Op::Delete,
            Self::Truncate => Op::Truncate,
        }
    }

    /// The row that it concerns: as it stands after the change, or, where none does, as it stood before. None where
    /// that is not known, or all rows are concerned.
    pub fn row(&self) -> Option<&Row> {
        match self {
            Self::Snapshot(row) | Self::Insert(row) | Self::Update { new: row, .. } => Some(row),
            Self::Delete(old) => old.row(),
            Self::Truncate => None,
        }
    }
}

/// The kind of a change without its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// `r`: read in a snapshot.
    Snapshot = b'r',
    /// `c`: created.
    Insert = b'c',
    /// `u`: updated.
    Update = b'u',
    /// `d`: deleted.
    Delete = b'd',
    /// `t`: truncated.
    Truncate = b't',
}

impl Op {
    /// Reads Debezium's letter.
    pub fn from_letter(letter: &str) -> Option<Self> {
        Some(match letter {
            "r" => Self::Snapshot,
            "c" => Self::Insert,
            "u" => Self::Update,
            "d" => Self::Delete,
            "t" => Self::Truncate,
            _ => return None,
        })
    }

    /// Debezium's letter.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Snapshot => "r",
            Self::Insert => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Truncate => "t",
        }
    }

    /// The word that people read.
    pub fn word(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
        }
    }

    /// Reads the word for a change of one row: all but a truncation.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Insert, Self::Update, Self::Delete, Self::Snapshot].into_iter().find(|op| op.word() == word)
    }

    /// Whether a row stands after the change.
    pub fn leaves_row(self) -> bool {
        matches!(self, Self::Snapshot | Self::Insert | Self::Update)
    }
}

/// A time of RFC 3339 in microseconds since 1970-01-01 UTC, if a text is one.
pub fn micros_of(time: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(time).ok().map(|time| time.timestamp_micros())
}

/// A row as it was before a change: as much of it as the source tells.
#[derive(Clone, Debug, PartialEq)]
pub enum OldRow {
    /// Nothing.
    None,
    /// The key columns only.
    Key(Row),
    /// Every column.
    Full(Row),
}

impl OldRow {
    /// The columns that are known.
    pub fn row(&self) -> Option<&Row> {
        match self {
            Self::None => None,
            Self::Key(row) | Self::Full(row) => Some(row),
        }
    }
}

/// Values with the names of their columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    columns: Columns,
    values: Vec<Value>,
}

impl Row {
    /// Pairs values with names. Names without a value are [`Value::Null`]; values past the last
    /// name are dropped.
    pub fn new(columns: Columns, mut values: Vec<Value>) -> Self {
        values.resize(columns.len(), Value::Null);
        Self { columns, values }
    }

    /// Names and values, in the order of the columns.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.columns.iter().map(String::as_str).zip(&self.values)
    }

    /// The value of a column.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.iter().find(|(column, _)| *column == name).map(|(_, value)| value)
    }
}

/// A value as the source gave it, before any normalisation.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// The source did not say, because the value did not change (PostgreSQL's TOAST).
    Unchanged,
    /// True or false.
    Bool(bool),
    /// A number in JSON's spelling, digit for digit; never through a float.
    Number(String),
    /// Anything else.
    Text(String),
}

impl Value {
    /// About how many bytes it takes to write.
    pub(crate) fn about_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 5,
            Self::Unchanged => 32,
            Self::Number(text) | Self::Text(text) => text.len(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number.to_string())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
