//! The bytes of a record, column by column into a sink.
//!
//! Each record is checked to be UTF-8 once and as a whole, so that every name and value is a slice of
//! it; only what is escaped is copied.

use std::borrow::Cow;
use std::ops::Range;

use jiter::{Jiter, JiterError, Peek};

use super::schema::Schemas;
use super::{UNCHANGED, UNCHANGED_BYTES};
use crate::change::{Op, Value, micros_of};

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
    /// An array or object: its text in JSON, nothing in Avro.
    Nested(&'a str),
}

impl From<Scalar<'_>> for Value {
    fn from(scalar: Scalar<'_>) -> Self {
        match scalar {
            Scalar::Null => Self::Null,
            Scalar::Unchanged => Self::Unchanged,
            Scalar::Bool(bool) => Self::Bool(bool),
            Scalar::Number(digits) => Self::Number(digits.to_owned()),
            Scalar::Text(text) | Scalar::Nested(text) => Self::Text(text.to_owned()),
        }
    }
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
    /// The row before an update as it stands in the bytes, for [`decode_before`] or that of its
    /// [schema](super::avro::AvroSchema::decode_before); as much of it as the source tells.
    pub before: Option<&'a [u8]>,
}

impl Decoded<'_> {
    /// What a record says that is a row and nothing else.
    pub fn new_row() -> Self {
        Self { op: Op::Insert, image: Image::New, source_time: None, before: None }
    }
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
    /// Not as its schema of Avro has it.
    #[error("not as its schema has it: {what} at byte {at}")]
    NotAsSchema {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
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
    /// Debezium's note of where a transaction begins or ends: there is no change in it, and nothing is wrong.
    #[error("not a change event: it says where a transaction begins or ends")]
    Boundary,
}

impl From<JiterError> for DecodeError {
    fn from(error: JiterError) -> Self {
        Self::NotJson { what: error.error_type.to_string(), at: error.index }
    }
}

/// Reads the value of a record into a sink.
///
/// The sink is given the columns of `after`, or for a delete those of `before`. What the schema beside them says is
/// in `schemas` from then on.
///
/// # Errors
/// Where the bytes are not an envelope; the sink's row is void then.
pub fn decode<'a>(bytes: &'a [u8], schemas: &mut Schemas, sink: &mut impl RowSink) -> Result<Decoded<'a>, DecodeError> {
    schemas.begin();
    let mut reader = Reader::new(bytes, schemas)?;
    let mut parts = Parts::default();
    reader.read_envelope(&mut parts, sink, true)?;
    reader.json.finish()?;
    let op = parts.op.ok_or(if parts.is_boundary() {
        DecodeError::Boundary
    } else {
        DecodeError::NotEnvelope("it has no `op`")
    })?;
    let image = image(op, parts.has_after, parts.before.is_some())?;
    if let (Image::Old, Some(before)) = (image, parts.before) {
        Reader::of(before, schemas).read_row(sink)?;
    }
    let before = parts.before.filter(|_| op == Op::Update).map(str::as_bytes);
    Ok(Decoded { op, image, source_time: parts.source_time, before })
}

/// Which of the rows that an envelope has is that of its change.
pub(super) fn image(op: Op, has_after: bool, has_before: bool) -> Result<Image, DecodeError> {
    let wrong = |problem| Err(DecodeError::WrongRows { op: op.letter(), problem });
    match (op, has_after, has_before) {
        (Op::Truncate, false, false) | (Op::Delete, false, false) => Ok(Image::None),
        (Op::Truncate, ..) => wrong("has a row"),
        (Op::Delete, true, _) => wrong("has an `after`"),
        (Op::Delete, false, true) => Ok(Image::Old),
        (_, true, _) => Ok(Image::New),
        (_, false, _) => wrong("has no `after`"),
    }
}

/// Reads a JSON object of columns, such as a record's key, into a sink; with or without Debezium's
/// `schema`/`payload` wrapping. Without it, what columns mean is what is declared.
///
/// # Errors
/// Where the bytes are not such an object.
pub fn decode_row(bytes: &[u8], schemas: &mut Schemas, sink: &mut impl RowSink) -> Result<(), DecodeError> {
    schemas.begin();
    let payload = match wrapped(bytes) {
        Some((schema, payload)) => {
            schemas.learn(std::str::from_utf8(&bytes[schema]).unwrap_or_default());
            payload
        }
        None => 0,
    };
    Reader::new(&bytes[payload..], schemas)?.read_row(sink)
}

/// Reads what [`Decoded`] has as the row before an update, after that was read with the same `schemas`.
///
/// # Errors
/// Where it is not an object of columns.
pub fn decode_before(before: &[u8], schemas: &mut Schemas, sink: &mut impl RowSink) -> Result<(), DecodeError> {
    Reader::new(before, schemas)?.read_row(sink)
}

/// Reads a JSON object of columns that is nothing else: no wrapping, and nothing behind it.
///
/// # Errors
/// Where the text is not such an object; the sink's row is void then.
pub fn decode_plain_row(text: &str, sink: &mut impl RowSink) -> Result<(), DecodeError> {
    let mut schemas = Schemas::default();
    let mut reader = Reader::of(text, &mut schemas);
    reader.read_row(sink)?;
    Ok(reader.json.finish()?)
}

/// Reads the value of a record that is a row and nothing else: a new one, or another in the place of the one of its
/// key.
///
/// # Errors
/// Where the bytes are not such a row; the sink's row is void then.
pub fn decode_bare_row(
    bytes: &[u8],
    schemas: &mut Schemas,
    sink: &mut impl RowSink,
) -> Result<Decoded<'static>, DecodeError> {
    decode_row(bytes, schemas, sink)?;
    Ok(Decoded::new_row())
}

/// Reads the value of a record that is a CloudEvent in structured mode, whose `data` is a row and whose `type` ends
/// with what has happened to it: `insert`, `update`, `delete` or `snapshot`.
///
/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>
///
/// # Errors
/// Where the bytes are not such an event; the sink's row is void then.
pub fn decode_cloud_event(
    bytes: &[u8],
    schemas: &mut Schemas,
    sink: &mut impl RowSink,
) -> Result<Decoded<'static>, DecodeError> {
    schemas.begin();
    let mut reader = Reader::new(bytes, schemas)?;
    if reader.json.peek()? != Peek::Object {
        return Err(DecodeError::NotEnvelope("it is not a JSON object"));
    }
    let (mut op, mut has_data, mut source_time) = (None, false, None);
    let text = reader.text;
    let mut next = reader.json.next_object_bytes()?.map(|name| place(text, name));
    while let Some(name) = next {
        match &*reader.unescaped(name)? {
            "type" => {
                let word = reader.json.next_str()?;
                let word = word.rsplit('.').next().unwrap_or_default();
                op = Some(Op::from_word(word).ok_or(DecodeError::UnknownOp)?);
            }
            "time" if reader.json.peek()? == Peek::String => source_time = micros_of(reader.json.next_str()?),
            "data" if std::mem::replace(&mut has_data, true) => {
                return Err(DecodeError::NotEnvelope("it has two of `data`"));
            }
            "data" => {
                reader.read_row(sink)?;
            }
            _ => reader.json.next_skip()?,
        }
        next = reader.json.next_key_bytes()?.map(|name| place(text, name));
    }
    reader.json.finish()?;
    let op = op.ok_or(DecodeError::NotEnvelope("it has no `type`"))?;
    if !has_data {
        return Err(DecodeError::WrongRows { op: op.letter(), problem: "has no `data`" });
    }
    let image = if op == Op::Delete { Image::Old } else { Image::New };
    Ok(Decoded { op, image, source_time, before: None })
}

/// Where the `schema` of a wrapped object is and its `payload` begins, if it is wrapped.
fn wrapped(bytes: &[u8]) -> Option<(Range<usize>, usize)> {
    let mut json = Jiter::new(bytes);
    if json.next_object_bytes().ok()?? != b"schema" {
        return None;
    }
    let start = json.current_index();
    json.next_skip().ok()?;
    let schema = start..json.current_index();
    (json.next_key_bytes().ok()?? == b"payload").then(|| (schema, json.current_index()))
}

#[derive(Default)]
struct Parts<'a> {
    op: Option<Op>,
    before: Option<&'a str>,
    has_after: bool,
    source_time: Option<i64>,
    /// Which parts it has of Debezium's notes of where a transaction begins and ends, a bit for each.
    noted: u8,
}

impl Parts<'_> {
    /// Whether it is one of those notes.
    fn is_boundary(&self) -> bool {
        self.noted == 0b1111 && !self.has_after && self.before.is_none()
    }
}

/// A record's text, and how far it is read.
struct Reader<'a, 's> {
    text: &'a str,
    json: Jiter<'a>,
    schemas: &'s mut Schemas,
}

impl<'a, 's> Reader<'a, 's> {
    fn new(bytes: &'a [u8], schemas: &'s mut Schemas) -> Result<Self, DecodeError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| DecodeError::NotJson { what: "not UTF-8".to_owned(), at: error.valid_up_to() })?;
        Ok(Self::of(text, schemas))
    }

    fn of(text: &'a str, schemas: &'s mut Schemas) -> Self {
        Self { text, json: Jiter::new(text.as_bytes()), schemas }
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
                Part::Schema if outermost => {
                    let start = self.json.current_index();
                    self.json.next_skip()?;
                    self.schemas.learn(self.since(start));
                }
                Part::Payload if outermost => self.read_envelope(parts, sink, false)?,
                Part::Noted(bit) => {
                    parts.noted |= bit;
                    self.json.next_skip()?;
                }
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
                let value = if value == UNCHANGED || value == UNCHANGED_BYTES {
                    Scalar::Unchanged
                } else {
                    Scalar::Text(&value)
                };
                sink.column(&name, self.schemas.read(&name, value));
            } else {
                self.json.known_skip(peek)?;
                let value = match peek {
                    Peek::Null => Scalar::Null,
                    Peek::True | Peek::False => Scalar::Bool(peek == Peek::True),
                    Peek::Array | Peek::Object => Scalar::Nested(self.since(start)),
                    _ => Scalar::Number(self.since(start)),
                };
                sink.column(&name, self.schemas.read(&name, value));
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
    Schema,
    Payload,
    Noted(u8),
    Other,
}

impl Part {
    fn of(name: &[u8]) -> Self {
        match name {
            b"before" => Self::Before,
            b"after" => Self::After,
            b"source" => Self::Source,
            b"op" => Self::Op,
            b"schema" => Self::Schema,
            b"payload" => Self::Payload,
            b"status" => Self::Noted(1),
            b"id" => Self::Noted(2),
            b"event_count" => Self::Noted(4),
            b"data_collections" => Self::Noted(8),
            _ => Self::Other,
        }
    }
}
