//! The bytes of a record, column by column into a sink.
//!
//! Each record is checked to be UTF-8 once and as a whole, so that every name and value is a slice of
//! it; only what is escaped is copied.

use std::borrow::Cow;
use std::ops::Range;

use jiter::{Jiter, JiterError, Peek};

use super::UNCHANGED;
use crate::change::Op;

/// Takes the columns of a row as they are read.
///
/// After [`decode`] has failed, what the sink has taken of this row is void.
pub trait RowSink {
    /// Takes one column. The same name may come twice in malformed input.
    fn column(&mut self, name: &str, value: Scalar<'_>);

    /// Whether the columns that follow matter as well. Where they do not, they are not looked at.
    fn wants_more(&self) -> bool {
        true
    }
}

/// A column's value as it stands in the JSON text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// `null`.
    Null,
    /// The source did not send it, because it did not change.
    Unchanged,
    /// `true` or `false`.
    Bool(bool),
    /// A number, in its own spelling.
    Number(&'a str),
    /// A text, unescaped.
    Text(&'a str),
    /// An array or object, as JSON text.
    Nested(&'a str),
}

/// What an envelope says besides its columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decoded<'a> {
    /// The kind of the change.
    pub op: Op,
    /// Which row the sink was given.
    pub image: Image,
    /// When it happened in the source, in microseconds since 1970-01-01 UTC.
    pub source_time: Option<i64>,
    /// The row before an update as JSON text, for [`decode_row`]; as much of it as the source tells.
    pub before: Option<&'a str>,
}

/// Which of the rows of an envelope the sink was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// The row after the change.
    New,
    /// The row before it, of which a delete may know the key only.
    Old,
    /// None: a truncation, or a delete that tells its key in the record's key alone.
    None,
}

/// Why bytes are not a change event. Never holds a value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("not JSON: {what} at byte {at}")]
    NotJson {
        /// What the parser met.
        what: String,
        /// Where.
        at: usize,
    },
    /// JSON, but not an envelope.
    #[error("not a change event: {0}")]
    NotEnvelope(&'static str),
    /// A kind of change that is not known.
    #[error("not a change event: `op` is none of c, u, d, r, t")]
    UnknownOp,
    /// A row is missing or is one too many.
    #[error("not a change event: op `{op}` {problem}")]
    WrongRows {
        /// The kind of change.
        op: &'static str,
        /// What is wrong with its rows.
        problem: &'static str,
    },
}

impl From<JiterError> for DecodeError {
    fn from(error: JiterError) -> Self {
        Self::NotJson { what: error.error_type.to_string(), at: error.index }
    }
}

/// Reads the value of a record into a sink.
///
/// The sink is given the columns of `after`, or for a delete those of `before`.
///
/// # Errors
/// Where the bytes are not an envelope; the sink's row is void then.
pub fn decode<'a>(bytes: &'a [u8], sink: &mut impl RowSink) -> Result<Decoded<'a>, DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let mut parts = Parts::default();
    reader.read_envelope(&mut parts, sink, true)?;
    reader.json.finish()?;
    let op = parts.op.ok_or(DecodeError::NotEnvelope("it has no `op`"))?;
    let wrong = |problem| DecodeError::WrongRows { op: op.letter(), problem };
    let image = match (op, parts.has_after, parts.before) {
        (Op::Truncate, false, None) => Image::None,
        (Op::Truncate, ..) => return Err(wrong("has a row")),
        (Op::Delete, true, _) => return Err(wrong("has an `after`")),
        (Op::Delete, false, None) => Image::None,
        (Op::Delete, false, Some(before)) => {
            Reader::of(before).read_row(sink)?;
            Image::Old
        }
        (_, true, _) => Image::New,
        (_, false, _) => return Err(wrong("has no `after`")),
    };
    let before = parts.before.filter(|_| op == Op::Update);
    Ok(Decoded { op, image, source_time: parts.source_time, before })
}

/// Reads a JSON object of columns, such as a record's key, into a sink; with or without Debezium's
/// `schema`/`payload` wrapping.
///
/// # Errors
/// Where the bytes are not such an object.
pub fn decode_row(bytes: &[u8], sink: &mut impl RowSink) -> Result<(), DecodeError> {
    Reader::new(&bytes[payload_start(bytes).unwrap_or(0)..])?.read_row(sink)
}

/// Where the `payload` of a wrapped object begins, if it is wrapped.
fn payload_start(bytes: &[u8]) -> Option<usize> {
    let mut json = Jiter::new(bytes);
    let mut key = json.next_object_bytes().ok()??;
    let mut wrapped = false;
    loop {
        match key {
            b"schema" => wrapped = true,
            b"payload" if wrapped => return Some(json.current_index()),
            _ => return None,
        }
        json.next_skip().ok()?;
        key = json.next_key_bytes().ok()??;
    }
}

#[derive(Default)]
struct Parts<'a> {
    op: Option<Op>,
    before: Option<&'a str>,
    has_after: bool,
    source_time: Option<i64>,
}

/// A record's text, and how far it is read.
struct Reader<'a> {
    text: &'a str,
    json: Jiter<'a>,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let text = std::str::from_utf8(bytes);
        text.map(Self::of)
            .map_err(|error| DecodeError::NotJson { what: "not UTF-8".to_owned(), at: error.valid_up_to() })
    }

    fn of(text: &'a str) -> Self {
        Self { text, json: Jiter::new(text.as_bytes()) }
    }

    /// The text from an index up to where the reader is.
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.json.current_index()).unwrap_or_default()
    }

    fn read_envelope(
        &mut self,
        parts: &mut Parts<'a>,
        sink: &mut impl RowSink,
        outermost: bool,
    ) -> Result<(), DecodeError> {
        if self.json.peek()? != Peek::Object {
            self.json.next_skip()?;
            self.json.finish()?;
            return Err(DecodeError::NotEnvelope("it is not a JSON object"));
        }
        let mut part = self.json.next_object_bytes()?.map(Part::of);
        while let Some(name) = part {
            match name {
                Part::After if self.json.peek()? != Peek::Null => {
                    if std::mem::replace(&mut parts.has_after, true) {
                        return Err(DecodeError::NotEnvelope("it has two of `after`"));
                    }
                    self.read_row(sink)?;
                }
                Part::Before if self.json.peek()? != Peek::Null => {
                    if self.json.peek()? != Peek::Object {
                        return Err(DecodeError::NotEnvelope("`before` is not an object"));
                    }
                    let start = self.json.current_index();
                    self.json.next_skip()?;
                    if parts.before.replace(self.since(start)).is_some() {
                        return Err(DecodeError::NotEnvelope("it has two of `before`"));
                    }
                }
                Part::Op => {
                    let op = Op::from_letter(self.json.next_str()?).ok_or(DecodeError::UnknownOp)?;
                    if parts.op.replace(op).is_some() {
                        return Err(DecodeError::NotEnvelope("it has two of `op`"));
                    }
                }
                Part::Source if self.json.peek()? == Peek::Object => parts.source_time = self.read_source()?,
                Part::Payload if outermost => self.read_envelope(parts, sink, false)?,
                _ => self.json.next_skip()?,
            }
            part = self.json.next_key_bytes()?.map(Part::of);
        }
        Ok(())
    }

    /// Reads the time of the change, in microseconds; Debezium gives it in up to three units.
    fn read_source(&mut self) -> Result<Option<i64>, DecodeError> {
        let (mut millis, mut micros) = (None, None);
        let mut key = self.json.next_object_bytes()?;
        while let Some(name) = key {
            let unit = match name {
                b"ts_ms" => Some(&mut millis),
                b"ts_us" => Some(&mut micros),
                _ => None,
            };
            let peek = self.json.peek()?;
            let start = self.json.current_index();
            self.json.known_skip(peek)?;
            if let Some(unit) = unit.filter(|_| peek.is_num()) {
                *unit = self.since(start).parse::<i64>().ok();
            }
            key = self.json.next_key_bytes()?;
        }
        Ok(micros.or_else(|| millis.and_then(|millis| millis.checked_mul(1000))))
    }

    fn read_row(&mut self, sink: &mut impl RowSink) -> Result<(), DecodeError> {
        if self.json.peek()? != Peek::Object {
            return Err(DecodeError::NotEnvelope("a row is not an object"));
        }
        let text = self.text;
        let mut next = self.json.next_object_bytes()?.map(|name| place(text, name));
        while let Some(name) = next {
            let name = self.unescaped(name)?;
            let peek = self.json.peek()?;
            let start = self.json.current_index();
            if peek == Peek::String {
                self.json.known_bytes()?;
                let value = self.unescaped(start + 1..self.json.current_index() - 1)?;
                sink.column(&name, if value == UNCHANGED { Scalar::Unchanged } else { Scalar::Text(&value) });
            } else {
                self.json.known_skip(peek)?;
                let value = match peek {
                    Peek::Null => Scalar::Null,
                    Peek::True | Peek::False => Scalar::Bool(peek == Peek::True),
                    Peek::Array | Peek::Object => Scalar::Nested(self.since(start)),
                    _ => Scalar::Number(self.since(start)),
                };
                sink.column(&name, value);
            }
            if !sink.wants_more() {
                break;
            }
            next = self.json.next_key_bytes()?.map(|name| place(text, name));
        }
        Ok(())
    }

    /// What stands between two quotes, which the parser has found to be well formed.
    fn unescaped(&self, within: Range<usize>) -> Result<Cow<'a, str>, DecodeError> {
        let text = self.text.get(within.clone()).unwrap_or_default();
        if !text.as_bytes().contains(&b'\\') {
            return Ok(Cow::Borrowed(text));
        }
        let quoted = self.text.get(within.start - 1..within.end + 1).unwrap_or_default();
        Ok(Cow::Owned(Jiter::new(quoted.as_bytes()).next_str()?.to_owned()))
    }
}

/// Where a part of a text lies in it.
fn place(text: &str, part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

#[derive(Clone, Copy)]
enum Part {
    Before,
    After,
    Source,
    Op,
    Payload,
    Other,
}

impl Part {
    fn of(name: &[u8]) -> Self {
        match name {
            b"before" => Self::Before,
            b"after" => Self::After,
            b"source" => Self::Source,
            b"op" => Self::Op,
            b"payload" => Self::Payload,
            _ => Self::Other,
        }
    }
}
