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

pub mod avro;
mod meaning;
mod reader;
mod schema;
mod written;

use std::io::Write;

pub use meaning::ConnectType;
pub use reader::{
    DecodeError, Decoded, Image, RowSink, Scalar, decode, decode_bare_row, decode_before, decode_cloud_event,
    decode_plain_row, decode_row,
};
pub use schema::Schemas;
pub use written::WrittenChange;

use crate::change::{Change, ChangeEvent, Columns, Occurrence, OldRow, Op, Row, Value};
use crate::dataset::DatasetId;
use crate::position::Position;

/// What Debezium writes for a column that the source did not send because it did not change.
pub const UNCHANGED: &str = "__debezium_unavailable_value";

/// The same where the column's bytes are sent in Base64.
const UNCHANGED_BYTES: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";

/// Header that holds the CloudEvents id.
pub const ID_HEADER: &str = "ce_id";
/// Header that holds the CloudEvents source, within which the id is unique.
pub const SOURCE_HEADER: &str = "ce_source";
/// Header that holds the source position (CloudEvents' `sequence` extension).
pub const SEQUENCE_HEADER: &str = "ce_sequence";
/// Header that holds the signature of an event, with what is signed: a compact JWS.
pub const SIGNATURE_HEADER: &str = "ce_signature";

/// How many attributes an event has at most, its signature included.
pub const ATTRIBUTES: usize = 8;

/// Gives the CloudEvents attributes of an event, as Kafka headers. What it is called is unique within its source.
///
/// The key is not repeated as `ce_subject`, because keys can be personal and headers end up in logs.
pub fn attributes(source: &str, id: &str, event: Occurrence, each: &mut dyn FnMut(&'static str, &[u8])) {
    each("ce_specversion", b"1.0");
    each(ID_HEADER, id.as_bytes());
    each(SOURCE_HEADER, source.as_bytes());
    each("ce_type", event_type(event.op).as_bytes());
    each(SEQUENCE_HEADER, &event.position.to_text());
    each("content-type", b"application/json");
    if let Some(time) = event.source_time {
        each("ce_time", rfc3339(time).as_bytes());
    }
}

fn event_type(op: Op) -> &'static str {
    match op {
        Op::Snapshot => "ruam.change.snapshot",
        Op::Insert => "ruam.change.insert",
        Op::Update => "ruam.change.update",
        Op::Delete => "ruam.change.delete",
        Op::Truncate => "ruam.change.truncate",
    }
}

/// The source of events that have none of their own.
pub fn source_of(dataset: &DatasetId) -> String {
    format!("/{}/{}", dataset.agency(), dataset.name())
}

/// Writes the id of an event that has none of its own: its position.
pub fn write_id(position: Position, out: &mut String) {
    out.clear();
    out.push_str(itoa::Buffer::new().format(position.major));
    if position.minor > 0 {
        out.push('.');
        out.push_str(itoa::Buffer::new().format(position.minor));
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
    write_rows(before, after, out);
    write_rest(dataset, event.occurrence(), out);
}

/// Begins an envelope, with its rows.
fn write_rows(before: Option<&Row>, after: Option<&Row>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"before\":");
    write_row(before, out);
    out.extend_from_slice(b",\"after\":");
    write_row(after, out);
}

/// Ends an envelope: what it says beside its rows.
fn write_rest(dataset: &DatasetId, event: Occurrence, out: &mut Vec<u8>) {
    let (millis, is_snapshot) = (event.source_time.map(|micros| micros.div_euclid(1000)), event.op == Op::Snapshot);
    out.extend_from_slice(b",\"source\":{\"version\":\"");
    out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
    out.extend_from_slice(b"\",\"connector\":\"ruam\",\"name\":\"");
    out.extend_from_slice(dataset.agency().as_bytes());
    out.extend_from_slice(b"\",\"ts_ms\":");
    write_integer(millis, out);
    out.extend_from_slice(b",\"ts_us\":");
    write_integer(event.source_time, out);
    out.extend_from_slice(b",\"snapshot\":\"");
    out.extend_from_slice(if is_snapshot { b"true" } else { b"false" });
    out.extend_from_slice(b"\",\"db\":\"");
    out.extend_from_slice(dataset.agency().as_bytes());
    out.extend_from_slice(b"\",\"table\":\"");
    out.extend_from_slice(dataset.name().as_bytes());
    out.extend_from_slice(b"\",\"sequence\":\"");
    out.extend_from_slice(&event.position.to_text());
    out.extend_from_slice(b"\"},\"op\":\"");
    out.extend_from_slice(event.op.letter().as_bytes());
    out.extend_from_slice(b"\",\"ts_ms\":");
    write_integer(millis, out);
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
    let is_escaped = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    // All bytes are looked at, whatever the first ones are: so it is done many at a time.
    if text.bytes().fold(false, |any, byte| any | is_escaped(byte)) {
        // Writing a str to a Vec fails neither in serde_json nor in io::Write for Vec.
        let _ = serde_json::to_writer(out.by_ref(), text);
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

fn write_integer(number: Option<i64>, out: &mut Vec<u8>) {
    match number {
        Some(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
}

/// Reads the bytes of a record back into the event that they carry: for tools and tests, which
/// have time; workers read straight into columns.
///
/// # Errors
/// Where the bytes are not an envelope.
pub fn decode_event(bytes: &[u8], position: Position, key: &[String]) -> Result<ChangeEvent, DecodeError> {
    let mut collect = Collect::default();
    let mut schemas = Schemas::default();
    let decoded = decode(bytes, &mut schemas, &mut collect)?;
    let row = collect.row();
    let change = match (decoded.op, decoded.image) {
        (Op::Snapshot, _) => Change::Snapshot(row),
        (Op::Insert, _) => Change::Insert(row),
        (Op::Update, _) => Change::Update { old: decode_old(decoded.before, &mut schemas, key)?, new: row },
        (Op::Delete, Image::None) => Change::Delete(OldRow::None),
        (Op::Delete, _) => Change::Delete(old_row(row, key)),
        (Op::Truncate, _) => Change::Truncate,
    };
    Ok(ChangeEvent { position, source_time: decoded.source_time, change })
}

fn decode_old(before: Option<&[u8]>, schemas: &mut Schemas, key: &[String]) -> Result<OldRow, DecodeError> {
    let Some(before) = before else { return Ok(OldRow::None) };
    let mut collect = Collect::default();
    decode_before(before, schemas, &mut collect)?;
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
        self.values.push(value.into());
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
        fn rows_written_before_are_the_same(change in change(), source_time in prop::option::of(0..4_000_000_000_000_000_i64)) {
            let is_whole = !matches!(&change, Change::Update { old: OldRow::Key(_) | OldRow::Full(_), .. });
            let Some(row) = change.row().filter(|_| is_whole).cloned() else { return Ok(()) };
            let event = ChangeEvent { position: Position::new(7), source_time, change };
            let (mut bytes, mut key, mut written) = (Vec::new(), Vec::new(), Vec::new());
            encode(&dataset(), &event, &mut bytes);
            let names = ["c0".to_owned()];
            encode_key(&row, &names, &mut key);
            let change = WrittenChange::new(event.change.op(), &row, &names);
            change.encode(&dataset(), event.occurrence(), &mut written);
            prop_assert_eq!((change.key(), written), (&key[..], bytes));
            prop_assert!(WrittenChange::new(event.change.op(), &row, &[]).key().is_empty());
        }

        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>) {
            let schemas = &mut Schemas::default();
            let _ = decode(&bytes, schemas, &mut Collect::default());
            let _ = decode_row(&bytes, schemas, &mut Collect::default());
            let _ = decode_cloud_event(&bytes, schemas, &mut Collect::default());
        }

        #[test]
        fn no_cut_breaks_it(change in change(), at in 0.0..1.0) {
            let event = ChangeEvent { position: Position::new(1), source_time: Some(1), change };
            let mut bytes = Vec::new();
            encode(&dataset(), &event, &mut bytes);
            let cut = (bytes.len() as f64 * at) as usize;
            prop_assert!(decode(&bytes[..cut], &mut Schemas::default(), &mut Collect::default()).is_err());
        }
    }

    fn decode_text(text: &str) -> Result<Decoded<'_>, DecodeError> {
        decode(text.as_bytes(), &mut Schemas::default(), &mut Collect::default())
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
    fn reads_cloud_events_and_bare_rows() {
        let mut row = Collect::default();
        let text = br#"{"specversion":"1.0","id":"1","source":"/x","data":{"id":1,"name":"a"},"time":"1970-01-01T07:00:01+07:00","type":"th.go.bora.delete"}"#;
        let decoded = decode_cloud_event(text, &mut Schemas::default(), &mut row).unwrap();
        let expected = Decoded { op: Op::Delete, image: Image::Old, source_time: Some(1_000_000), before: None };
        assert_eq!((decoded, row.values), (expected, vec![Value::Number("1".into()), "a".into()]));
        for (text, expected) in [
            ("[]", "not a change event: it is not a JSON object"),
            (r#"{"type":"a.moved","data":{}}"#, "not a change event: `op` is none of c, u, d, r, t"),
            (r#"{"data":{}}"#, "not a change event: it has no `type`"),
            (r#"{"type":"insert"}"#, "not a change event: op `c` has no `data`"),
            (r#"{"type":"insert","data":[]}"#, "not a change event: a row is not an object"),
            (r#"{"type":"insert","data":{},"data":{}}"#, "not a change event: it has two of `data`"),
        ] {
            let decoded = decode_cloud_event(text.as_bytes(), &mut Schemas::default(), &mut Collect::default());
            assert_eq!(decoded.unwrap_err().to_string(), expected, "{text}");
        }
        let mut row = Collect::default();
        let wrapped = br#"{"schema":{"type":"struct","fields":[{"type":"int32","name":"io.debezium.time.Date","field":"day"}]},"payload":{"day":1}}"#;
        decode_bare_row(wrapped, &mut Schemas::default(), &mut row).unwrap();
        assert_eq!(row.values, ["1970-01-02".into()]);
    }

    #[test]
    fn notes_of_transactions_are_no_changes() {
        let note = r#"{"status":"END","id":"571:53195829","ts_ms":1,"event_count":2,"data_collections":[{"data_collection":"public.t","event_count":2}]}"#;
        assert_eq!(decode_text(note).unwrap_err(), DecodeError::Boundary);
        let wrapped = format!("{{\"schema\":{{\"type\":\"struct\"}},\"payload\":{note}}}");
        assert_eq!(decode_text(&wrapped).unwrap_err(), DecodeError::Boundary);
        // What has a row, or lacks one of its parts, is none.
        for other in [note.replace("{\"status\"", "{\"after\":{},\"status\""), note.replace("event_count", "events")] {
            assert_eq!(decode_text(&other).unwrap_err(), DecodeError::NotEnvelope("it has no `op`"));
        }
        let block =
            r#"{"op":"c","after":{"id":1},"transaction":{"id":"1:2","total_order":1,"data_collection_order":1}}"#;
        assert_eq!(decode_text(block).unwrap().op, Op::Insert);
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
        let (mut id, mut headers) = (String::new(), Vec::new());
        write_id(event.position, &mut id);
        attributes(&source_of(&dataset()), &id, event.occurrence(), &mut |name, value| {
            headers.push((name, String::from_utf8(value.to_vec()).unwrap()));
        });
        assert!(headers.len() <= ATTRIBUTES);
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
