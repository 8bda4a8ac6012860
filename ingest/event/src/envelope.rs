//! A change event as bytes: Debezium's JSON envelope, and CloudEvents' attributes beside it.
//!
//! What passes through: a [`ChangeEvent`] on its way into the log, by [`encode`] and
//! [`attributes`]; the bytes of a record on their way out of it, by [`decode`], column by column
//! into a [`RowSink`]. The hot path's sink writes into Arrow builders and the tests' sink builds a
//! [`Row`], so that both go through the same reader and no tree of JSON values is ever made.
//!
//! Guaranteed: what [`encode`] writes, [`decode`] reads back the same. Numbers keep their digits.
//! Errors name the place in the bytes and never repeat a value, which may be personal.
//!
//! Envelope: <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events>,
//! with or without the `schema`/`payload` wrapping. CloudEvents in Kafka's binary mode:
//! <https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md>.

use std::io::Write;

use jiter::{Jiter, JiterError, Peek};

use crate::change::{Change, ChangeEvent, Columns, OldRow, Op, Row, Value};
use crate::dataset::DatasetId;
use crate::position::Position;

/// What Debezium writes for a column that the source did not send because it did not change.
pub const UNCHANGED: &str = "__debezium_unavailable_value";

/// Header that holds the CloudEvents id.
pub const ID_HEADER: &str = "ce_id";
/// Header that holds the source position (CloudEvents' `sequence` extension).
pub const SEQUENCE_HEADER: &str = "ce_sequence";

/// The CloudEvents attributes of an event, as Kafka headers.
///
/// `ce_id` is unique within `ce_source`: the position is. The key is not repeated as `ce_subject`,
/// because keys can be personal and headers end up in logs.
pub fn attributes(dataset: &DatasetId, event: &ChangeEvent) -> impl Iterator<Item = (&'static str, String)> {
    let source = format!("/{}/{}", dataset.agency(), dataset.name());
    [
        ("ce_specversion", "1.0".to_owned()),
        (ID_HEADER, event_id(event.position)),
        ("ce_source", source),
        ("ce_type", format!("ruam.change.{}", event.change.op().word())),
        (SEQUENCE_HEADER, event.position.to_string()),
        ("content-type", "application/json".to_owned()),
    ]
    .into_iter()
    .chain(event.source_time.map(|time| ("ce_time", rfc3339(time))))
}

fn event_id(position: Position) -> String {
    match position.minor {
        0 => position.major.to_string(),
        minor => format!("{}.{minor}", position.major),
    }
}

/// Microseconds since 1970-01-01 UTC in the form of RFC 3339.
fn rfc3339(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros)
        .unwrap_or_default()
        .to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// Writes the value of the record that carries an event.
pub fn encode(dataset: &DatasetId, event: &ChangeEvent, out: &mut Vec<u8>) {
    let (before, after) = match &event.change {
        Change::Snapshot(row) | Change::Insert(row) => (None, Some(row)),
        Change::Update { old, new } => (old.row(), Some(new)),
        Change::Delete(old) => (old.row(), None),
        Change::Truncate => (None, None),
    };
    out.extend_from_slice(b"{\"before\":");
    write_row(before, out);
    out.extend_from_slice(b",\"after\":");
    write_row(after, out);
    out.extend_from_slice(b",\"source\":{\"version\":\"");
    out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
    out.extend_from_slice(b"\",\"connector\":\"ruam\",\"name\":\"");
    out.extend_from_slice(dataset.agency().as_bytes());
    out.extend_from_slice(b"\",\"ts_ms\":");
    write_integer(event.source_time.map(|micros| micros.div_euclid(1000)), out);
    out.extend_from_slice(b",\"ts_us\":");
    write_integer(event.source_time, out);
    out.extend_from_slice(b",\"snapshot\":\"");
    out.extend_from_slice(if event.change.op() == Op::Snapshot { b"true" } else { b"false" });
    out.extend_from_slice(b"\",\"db\":\"");
    out.extend_from_slice(dataset.agency().as_bytes());
    out.extend_from_slice(b"\",\"table\":\"");
    out.extend_from_slice(dataset.name().as_bytes());
    out.extend_from_slice(b"\",\"sequence\":\"");
    out.extend_from_slice(&event.position.to_text());
    out.extend_from_slice(b"\"},\"op\":\"");
    out.extend_from_slice(event.change.op().letter().as_bytes());
    out.extend_from_slice(b"\",\"ts_ms\":");
    write_integer(event.source_time.map(|micros| micros.div_euclid(1000)), out);
    out.extend_from_slice(b",\"transaction\":null}");
}

/// Writes the key of the record that carries a row: the key columns as a JSON object, which
/// decides the partition. Returns whether the row has them all.
pub fn encode_key(row: &Row, key: &[String], out: &mut Vec<u8>) -> bool {
    let mut complete = true;
    out.push(b'{');
    for (index, name) in key.iter().enumerate() {
        let value = row.get(name).unwrap_or(&Value::Null);
        complete &= !matches!(value, Value::Null | Value::Unchanged);
        write_column(index, name, value, out);
    }
    out.push(b'}');
    complete
}

fn write_row(row: Option<&Row>, out: &mut Vec<u8>) {
    let Some(row) = row else {
        out.extend_from_slice(b"null");
        return;
    };
    out.push(b'{');
    for (index, (name, value)) in row.iter().enumerate() {
        write_column(index, name, value, out);
    }
    out.push(b'}');
}

fn write_column(index: usize, name: &str, value: &Value, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
    write_text(name, out);
    out.push(b':');
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Unchanged => write_text(UNCHANGED, out),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(digits) => out.extend_from_slice(digits.as_bytes()),
        Value::Text(text) => write_text(text, out),
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Writing a str to a Vec fails neither in serde_json nor in io::Write for Vec.
    let _ = serde_json::to_writer(out.by_ref(), text);
}

fn write_integer(number: Option<i64>, out: &mut Vec<u8>) {
    match number {
        Some(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
}

/// Takes the columns of a row as they are read.
///
/// After [`decode`] has failed, what the sink has taken of this row is void.
pub trait RowSink {
    /// Takes one column. The same name may come twice in malformed input.
    fn column(&mut self, name: &str, value: Scalar<'_>);
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
pub struct Decoded {
    /// The kind of the change.
    pub op: Op,
    /// Which row the sink was given.
    pub image: Image,
    /// When it happened in the source, in microseconds since 1970-01-01 UTC.
    pub source_time: Option<i64>,
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
/// The sink is given the columns of `after`, or for a delete those of `before`. `tape` is a buffer
/// for escaped texts that is kept from record to record.
///
/// # Errors
/// Where the bytes are not an envelope; the sink's row is void then.
pub fn decode(bytes: &[u8], tape: &mut Vec<u8>, sink: &mut impl RowSink) -> Result<Decoded, DecodeError> {
    let mut json = Jiter::with_tape(bytes, std::mem::take(tape));
    let mut parts = Parts::default();
    let result = read_envelope(&mut json, &mut parts, sink, true);
    let result = result.and_then(|()| json.finish().map_err(DecodeError::from));
    *tape = json.into_tape();
    result?;
    let op = parts.op.ok_or(DecodeError::NotEnvelope("it has no `op`"))?;
    let wrong = |problem| DecodeError::WrongRows { op: op.letter(), problem };
    let image = match (op, parts.has_after, parts.before) {
        (Op::Truncate, false, None) => Image::None,
        (Op::Truncate, ..) => return Err(wrong("has a row")),
        (Op::Delete, true, _) => return Err(wrong("has an `after`")),
        (Op::Delete, false, None) => Image::None,
        (Op::Delete, false, Some(before)) => {
            decode_row(before, tape, sink)?;
            Image::Old
        }
        (_, true, _) => Image::New,
        (_, false, _) => return Err(wrong("has no `after`")),
    };
    Ok(Decoded { op, image, source_time: parts.source_time })
}

/// Reads a JSON object of columns, such as a record's key, into a sink; with or without Debezium's
/// `schema`/`payload` wrapping.
///
/// # Errors
/// Where the bytes are not such an object.
pub fn decode_row(bytes: &[u8], tape: &mut Vec<u8>, sink: &mut impl RowSink) -> Result<(), DecodeError> {
    let mut json = Jiter::with_tape(bytes, std::mem::take(tape));
    let result = match payload_start(bytes) {
        Some(start) => {
            let mut inner = Jiter::new(&bytes[start..]);
            read_row(&mut inner, sink)
        }
        None => read_row(&mut json, sink),
    };
    *tape = json.into_tape();
    result
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
    before: Option<&'a [u8]>,
    has_after: bool,
    source_time: Option<i64>,
}

fn read_envelope<'a>(
    json: &mut Jiter<'a>,
    parts: &mut Parts<'a>,
    sink: &mut impl RowSink,
    outermost: bool,
) -> Result<(), DecodeError> {
    if json.peek()? != Peek::Object {
        json.next_skip()?;
        json.finish()?;
        return Err(DecodeError::NotEnvelope("it is not a JSON object"));
    }
    let mut part = json.next_object_bytes()?.map(Part::of);
    while let Some(name) = part {
        match name {
            Part::After if json.peek()? != Peek::Null => {
                if std::mem::replace(&mut parts.has_after, true) {
                    return Err(DecodeError::NotEnvelope("it has two of `after`"));
                }
                read_row(json, sink)?;
            }
            Part::Before if json.peek()? != Peek::Null => {
                if json.peek()? != Peek::Object {
                    return Err(DecodeError::NotEnvelope("`before` is not an object"));
                }
                let start = json.current_index();
                json.next_skip()?;
                if parts.before.replace(json.slice_to_current(start)).is_some() {
                    return Err(DecodeError::NotEnvelope("it has two of `before`"));
                }
            }
            Part::Op => {
                let op = Op::from_letter(json.next_str()?).ok_or(DecodeError::UnknownOp)?;
                if parts.op.replace(op).is_some() {
                    return Err(DecodeError::NotEnvelope("it has two of `op`"));
                }
            }
            Part::Source if json.peek()? == Peek::Object => parts.source_time = read_source(json)?,
            Part::Payload if outermost => read_envelope(json, parts, sink, false)?,
            _ => json.next_skip()?,
        }
        part = json.next_key_bytes()?.map(Part::of);
    }
    Ok(())
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

/// Reads the time of the change, in microseconds; Debezium gives it in up to three units.
fn read_source(json: &mut Jiter<'_>) -> Result<Option<i64>, DecodeError> {
    let (mut millis, mut micros) = (None, None);
    let mut key = json.next_object_bytes()?;
    while let Some(name) = key {
        let unit = match name {
            b"ts_ms" => Some(&mut millis),
            b"ts_us" => Some(&mut micros),
            _ => None,
        };
        let peek = json.peek()?;
        match unit {
            Some(unit) if peek.is_num() => {
                let digits = json.known_number_bytes(peek)?;
                *unit = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<i64>().ok());
            }
            _ => json.known_skip(peek)?,
        }
        key = json.next_key_bytes()?;
    }
    Ok(micros.or_else(|| millis.and_then(|millis| millis.checked_mul(1000))))
}

fn read_row(json: &mut Jiter<'_>, sink: &mut impl RowSink) -> Result<(), DecodeError> {
    if json.peek()? != Peek::Object {
        return Err(DecodeError::NotEnvelope("a row is not an object"));
    }
    // The parser lends out one string at a time, so that a name has to be put aside while its
    // value is read; column names are short, and the buffer is on the stack.
    let mut name = NameBuffer::default();
    let mut more = name.take(json.next_object()?);
    while more {
        let peek = json.peek()?;
        let value = match peek {
            Peek::Null => {
                json.known_null()?;
                Scalar::Null
            }
            Peek::True | Peek::False => Scalar::Bool(json.known_bool(peek)?),
            Peek::String => match json.known_str()? {
                UNCHANGED => Scalar::Unchanged,
                text => Scalar::Text(text),
            },
            Peek::Array | Peek::Object => {
                let start = json.current_index();
                json.known_skip(peek)?;
                Scalar::Nested(utf8(json.slice_to_current(start), start)?)
            }
            _ => {
                let at = json.current_index();
                Scalar::Number(utf8(json.known_number_bytes(peek)?, at)?)
            }
        };
        sink.column(name.as_str(), value);
        more = name.take(json.next_key()?);
    }
    Ok(())
}

fn utf8(bytes: &[u8], at: usize) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::NotJson { what: "not UTF-8".to_owned(), at })
}

/// A copy of a column name; longer names than any column may have are cut, and match none.
struct NameBuffer {
    bytes: [u8; 128],
    len: usize,
}

impl Default for NameBuffer {
    fn default() -> Self {
        Self { bytes: [0; 128], len: 0 }
    }
}

impl NameBuffer {
    fn take(&mut self, name: Option<&str>) -> bool {
        let Some(name) = name else { return false };
        self.len = name.floor_char_boundary(self.bytes.len());
        self.bytes[..self.len].copy_from_slice(&name.as_bytes()[..self.len]);
        true
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

/// Reads the bytes of a record back into the event that they carry: for tools and tests, which
/// have time; workers read straight into columns.
///
/// # Errors
/// Where the bytes are not an envelope.
pub fn decode_event(bytes: &[u8], position: Position, key: &[String]) -> Result<ChangeEvent, DecodeError> {
    let mut collect = Collect::default();
    let decoded = decode(bytes, &mut Vec::new(), &mut collect)?;
    let row = collect.row();
    let change = match (decoded.op, decoded.image) {
        (Op::Snapshot, _) => Change::Snapshot(row),
        (Op::Insert, _) => Change::Insert(row),
        (Op::Update, _) => Change::Update { old: decode_old(bytes, key)?, new: row },
        (Op::Delete, Image::None) => Change::Delete(OldRow::None),
        (Op::Delete, _) => Change::Delete(old_row(row, key)),
        (Op::Truncate, _) => Change::Truncate,
    };
    Ok(ChangeEvent { position, source_time: decoded.source_time, change })
}

fn decode_old(bytes: &[u8], key: &[String]) -> Result<OldRow, DecodeError> {
    let mut json = Jiter::new(bytes);
    let mut parts = Parts::default();
    read_envelope(&mut json, &mut parts, &mut Collect::default(), true)?;
    let Some(before) = parts.before else { return Ok(OldRow::None) };
    let mut collect = Collect::default();
    decode_row(before, &mut Vec::new(), &mut collect)?;
    Ok(old_row(collect.row(), key))
}

fn old_row(row: Row, key: &[String]) -> OldRow {
    let only_key = row.iter().all(|(name, _)| key.iter().any(|key| key == name));
    if only_key { OldRow::Key(row) } else { OldRow::Full(row) }
}

#[derive(Default)]
struct Collect {
    names: Vec<String>,
    values: Vec<Value>,
}

impl Collect {
    fn row(self) -> Row {
        Row::new(Columns::from(self.names), self.values)
    }
}

impl RowSink for Collect {
    fn column(&mut self, name: &str, value: Scalar<'_>) {
        self.names.push(name.to_owned());
        self.values.push(match value {
            Scalar::Null => Value::Null,
            Scalar::Unchanged => Value::Unchanged,
            Scalar::Bool(bool) => Value::Bool(bool),
            Scalar::Number(digits) => Value::Number(digits.to_owned()),
            Scalar::Text(text) | Scalar::Nested(text) => Value::Text(text.to_owned()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dataset() -> DatasetId {
        "bora.person".parse().unwrap()
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            Just(Value::Unchanged),
            any::<bool>().prop_map(Value::Bool),
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?".prop_map(Value::Number),
            any::<String>().prop_map(Value::Text),
            "[ก-๙\"\\\\\n ]{0,20}".prop_map(Value::Text),
        ]
        .prop_filter("the placeholder is not a text", |value| *value != Value::Text(UNCHANGED.to_owned()))
    }

    fn row(width: usize) -> impl Strategy<Value = Row> {
        let names: Columns = (0..width).map(|index| format!("c{index}")).collect();
        prop::collection::vec(value(), width).prop_map(move |values| Row::new(names.clone(), values))
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            row(4).prop_map(Change::Snapshot),
            row(4).prop_map(Change::Insert),
            (row(4), row(4)).prop_map(|(old, new)| Change::Update { old: OldRow::Full(old), new }),
            row(4).prop_map(|new| Change::Update { old: OldRow::None, new }),
            row(1).prop_map(|old| Change::Delete(OldRow::Key(old))),
            row(4).prop_map(|old| Change::Delete(OldRow::Full(old))),
            Just(Change::Delete(OldRow::None)),
            Just(Change::Truncate),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(change in change(), major: u64, minor: u32, source_time in prop::option::of(-1_000_000_000_000_000_i64..4_000_000_000_000_000)) {
            let position = Position { major, minor };
            let event = ChangeEvent { position, source_time, change };
            let mut bytes = Vec::new();
            encode(&dataset(), &event, &mut bytes);
            let key = ["c0".to_owned()];
            prop_assert_eq!(decode_event(&bytes, position, &key).unwrap(), event.clone());
            let wrapped = [b"{\"schema\":{\"type\":\"struct\"},\"payload\":", &bytes[..], b"}"].concat();
            prop_assert_eq!(decode_event(&wrapped, position, &key).unwrap(), event);
        }

        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>) {
            let _ = decode(&bytes, &mut Vec::new(), &mut Collect::default());
            let _ = decode_row(&bytes, &mut Vec::new(), &mut Collect::default());
        }

        #[test]
        fn no_cut_breaks_it(change in change(), at in 0.0..1.0) {
            let event = ChangeEvent { position: Position::new(1), source_time: Some(1), change };
            let mut bytes = Vec::new();
            encode(&dataset(), &event, &mut bytes);
            let cut = (bytes.len() as f64 * at) as usize;
            prop_assert!(decode(&bytes[..cut], &mut Vec::new(), &mut Collect::default()).is_err());
        }
    }

    fn decode_text(text: &str) -> Result<Decoded, DecodeError> {
        decode(text.as_bytes(), &mut Vec::new(), &mut Collect::default())
    }

    #[test]
    fn errors_say_where_and_show_no_value() {
        for (text, expected) in [
            ("{\"after\":{\"id\":\"1112034563562\"", "not JSON: EOF while parsing an object at byte 30"),
            ("[1]", "not a change event: it is not a JSON object"),
            ("not json", "not JSON: expected ident at byte 1"),
            ("{}", "not a change event: it has no `op`"),
            ("{\"op\":\"x\"}", "not a change event: `op` is none of c, u, d, r, t"),
            ("{\"op\":\"c\",\"after\":null}", "not a change event: op `c` has no `after`"),
            ("{\"op\":\"d\",\"after\":{}}", "not a change event: op `d` has an `after`"),
            ("{\"op\":\"c\",\"after\":5}", "not a change event: a row is not an object"),
            ("{\"op\":\"c\",\"after\":{},\"after\":{}}", "not a change event: it has two of `after`"),
        ] {
            assert_eq!(decode_text(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn reads_what_debezium_writes() {
        let text = r#"{"before":null,"after":{"id":1,"name":"สมชาย","pay":12.50,"tags":["a"],"ok":true,"note":"__debezium_unavailable_value"},
            "source":{"version":"3.0.0.Final","connector":"postgresql","name":"s","ts_ms":1711234567890,"snapshot":"first","db":"x","sequence":"[null,\"24\"]","schema":"public","table":"t","txId":1,"lsn":24,"xmin":null},
            "transaction":null,"op":"r","ts_ms":1711234567999,"ts_us":1711234567999000}"#;
        let event = decode_event(text.as_bytes(), Position::new(1), &["id".to_owned()]).unwrap();
        assert_eq!(event.source_time, Some(1_711_234_567_890_000));
        let Change::Snapshot(row) = event.change else { unreachable!("op is r") };
        let values: Vec<_> = row.iter().map(|(_, value)| value.clone()).collect();
        assert_eq!(
            values,
            [
                Value::Number("1".into()),
                "สมชาย".into(),
                Value::Number("12.50".into()),
                "[\"a\"]".into(),
                Value::Bool(true),
                Value::Unchanged
            ]
        );
    }

    #[test]
    fn attributes_are_cloudevents() {
        let event = ChangeEvent {
            position: Position { major: 7, minor: 2 },
            source_time: Some(951_782_400_000_001),
            change: Change::Truncate,
        };
        let headers: Vec<_> = attributes(&dataset(), &event).collect();
        let of = |name| headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str());
        assert_eq!(of("ce_id"), Some("7.2"));
        assert_eq!(of("ce_source"), Some("/bora/person"));
        assert_eq!(of("ce_time"), Some("2000-02-29T00:00:00.000001Z"));
        assert_eq!(of("ce_sequence"), Some("00000000000000000007.0000000002"));
    }

    #[test]
    fn key_decides_the_partition() {
        let row = Row::new(Columns::from(["a".to_owned(), "b".to_owned()]), vec!["x".into(), Value::Null]);
        let mut out = Vec::new();
        assert!(encode_key(&row, &["a".to_owned()], &mut out));
        assert_eq!(out, br#"{"a":"x"}"#);
        assert!(!encode_key(&row, &["b".to_owned()], &mut Vec::new()));
    }
}
