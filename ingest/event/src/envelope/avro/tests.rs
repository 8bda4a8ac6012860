//! The independent encoder is the crate apache-avro.

use apache_avro::types::Value as Avro;
use apache_avro::{Decimal, Schema, to_avro_datum};
use proptest::prelude::*;

use super::super::{Collect, UNCHANGED};
use super::*;
use crate::change::Value;

/// A field of each kind, as Kafka Connect's converters declare them.
const ROW: &str = r#"{"type":"record","name":"Value","fields":[
    {"name":"id","type":"long"},
    {"name":"day","type":["null",{"type":"int","connect.version":1,"connect.name":"io.debezium.time.Date"}],"default":null},
    {"name":"moment","type":["null",{"type":"long","connect.name":"org.apache.kafka.connect.data.Timestamp","logicalType":"timestamp-millis"}]},
    {"name":"instant","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
    {"name":"amount","type":["null",{"type":"bytes","scale":2,"precision":9,"connect.name":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"2"},"logicalType":"decimal"}]},
    {"name":"number","type":["null",{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data","fields":[{"name":"scale","type":"int"},{"name":"value","type":"bytes"}],"connect.name":"io.debezium.data.VariableScaleDecimal"}]},
    {"name":"other","type":["null","io.debezium.data.VariableScaleDecimal"]},
    {"name":"is_open","type":["null","boolean"]},
    {"name":"part","type":["null","float","double"]},
    {"name":"feeling","type":{"type":"enum","name":"mood","symbols":["good","bad"]}},
    {"name":"bytes","type":["null","bytes",{"type":"fixed","name":"four","size":4}]},
    {"name":"tags","type":["null",{"type":"array","items":["null","string"]},{"type":"map","values":"mood"}]},
    {"name":"local","type":["null",{"type":"string","connect.name":"io.debezium.time.IsoTimestamp"}]},
    {"name":"note","type":["null","string"]}]}"#;

fn envelope() -> String {
    format!(
        r#"{{"type":"record","name":"Envelope","namespace":"debezium.public.t","fields":[
            {{"name":"before","type":["null",{ROW}],"default":null}},
            {{"name":"after","type":["null","Value"],"default":null}},
            {{"name":"source","type":{{"type":"record","name":"Source","namespace":"io.debezium.connector.postgresql","fields":[
                {{"name":"version","type":"string"}},{{"name":"ts_ms","type":"long"}},{{"name":"ts_us","type":["null","long"]}}]}}}},
            {{"name":"transaction","type":["null",{{"type":"record","name":"block","namespace":"event","fields":[
                {{"name":"id","type":"string"}},{{"name":"total_order","type":"long"}},{{"name":"data_collection_order","type":"long"}}]}}]}},
            {{"name":"op","type":"string"}},
            {{"name":"ts_ms","type":["null","long"]}}]}}"#
    )
}

fn union(branch: u32, value: Avro) -> Avro {
    Avro::Union(branch, Box::new(value))
}

fn some(value: Avro) -> Avro {
    union(1, value)
}

fn record<const N: usize>(fields: [(&str, Avro); N]) -> Avro {
    Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn row(id: i64) -> Avro {
    let number = record([("scale", Avro::Int(9)), ("value", Avro::Bytes(vec![0xff]))]);
    record([
        ("id", Avro::Long(id)),
        ("day", some(Avro::Int(19797))),
        ("moment", some(Avro::TimestampMillis(1_710_491_400_123))),
        ("instant", some(Avro::TimestampMicros(-1))),
        ("amount", some(Avro::Decimal(Decimal::from([0xfb, 0x2e])))),
        ("number", some(number)),
        ("other", union(0, Avro::Null)),
        ("is_open", some(Avro::Boolean(true))),
        ("part", union(2, Avro::Double(-0.1))),
        ("feeling", Avro::Enum(1, "bad".to_owned())),
        ("bytes", some(Avro::Bytes(vec![0, 1]))),
        ("tags", some(Avro::Array(vec![union(0, Avro::Null), some(Avro::String("a".to_owned()))]))),
        ("local", some(Avro::String("2024-03-15T08:30:00Z".to_owned()))),
        ("note", some(Avro::String(UNCHANGED.to_owned()))),
    ])
}

/// What [`row`] is read as.
fn expected(id: i64) -> Vec<Value> {
    let number = |text: &str| Value::Number(text.to_owned());
    vec![
        number(&id.to_string()),
        "2024-03-15".into(),
        "2024-03-15T08:30:00.123".into(),
        "1969-12-31T23:59:59.999999Z".into(),
        number("-12.34"),
        number("-0.000000001"),
        Value::Null,
        Value::Bool(true),
        number("-0.1"),
        "bad".into(),
        "AAE=".into(),
        "".into(),
        "2024-03-15T08:30:00".into(),
        Value::Unchanged,
    ]
}

fn event(op: &str, before: Option<Avro>, after: Option<Avro>) -> Avro {
    let row = |row: Option<Avro>| row.map_or(union(0, Avro::Null), some);
    let source = record([
        ("version", Avro::String("3".to_owned())),
        ("ts_ms", Avro::Long(5)),
        ("ts_us", some(Avro::Long(5_001))),
    ]);
    let block = record([
        ("id", Avro::String("1:2".to_owned())),
        ("total_order", Avro::Long(1)),
        ("data_collection_order", Avro::Long(1)),
    ]);
    record([
        ("before", row(before)),
        ("after", row(after)),
        ("source", source),
        ("transaction", some(block)),
        ("op", Avro::String(op.to_owned())),
        ("ts_ms", union(0, Avro::Null)),
    ])
}

fn encode(schema: &str, value: Avro) -> Vec<u8> {
    to_avro_datum(&Schema::parse_str(schema).unwrap(), value).unwrap()
}

fn read(bytes: &[u8]) -> Result<(Decoded<'_>, Vec<Value>), DecodeError> {
    let mut collect = Collect::default();
    let decoded = AvroSchema::parse(&envelope()).unwrap().decode(bytes, &mut collect)?;
    Ok((decoded, collect.values))
}

#[test]
fn each_kind_of_value_has_its_text() {
    let bytes = encode(&envelope(), event("c", None, Some(row(-7))));
    let (decoded, values) = read(&bytes).unwrap();
    let found = Decoded { op: Op::Insert, image: Image::New, source_time: Some(5_001), before: None };
    assert_eq!((decoded, values), (found, expected(-7)));
    let mut collect = Collect::default();
    AvroSchema::parse(ROW).unwrap().decode_row(&encode(ROW, row(7)), &mut collect).unwrap();
    assert_eq!(collect.values, expected(7));
    assert_eq!(collect.names[..3], ["id", "day", "moment"]);
}

#[test]
fn each_change_has_its_row() {
    let schema = AvroSchema::parse(&envelope()).unwrap();
    let bytes = encode(&envelope(), event("u", Some(row(1)), Some(row(2))));
    let (decoded, values) = read(&bytes).unwrap();
    assert_eq!((decoded.op, decoded.image, values), (Op::Update, Image::New, expected(2)));
    let mut before = Collect::default();
    schema.decode_before(decoded.before.unwrap(), &mut before).unwrap();
    assert_eq!(before.values, expected(1));
    let bytes = encode(&envelope(), event("d", Some(row(3)), None));
    let (decoded, values) = read(&bytes).unwrap();
    assert_eq!((decoded.op, decoded.image, decoded.before, values), (Op::Delete, Image::Old, None, expected(3)));
    let bytes = encode(&envelope(), event("t", None, None));
    assert_eq!(read(&bytes).unwrap().0.image, Image::None);
    for (op, before, after, expected) in [
        ("c", None, None, "not a change event: op `c` has no `after`"),
        ("d", None, Some(row(1)), "not a change event: op `d` has an `after`"),
        ("x", None, Some(row(1)), "not a change event: `op` is none of c, u, d, r, t"),
    ] {
        assert_eq!(read(&encode(&envelope(), event(op, before, after))).unwrap_err().to_string(), expected);
    }
}

#[test]
fn notes_of_transactions_are_no_changes() {
    let note = r#"{"type":"record","name":"TransactionMetadataValue","namespace":"io.debezium.connector.common","fields":[
        {"name":"status","type":"string"},{"name":"id","type":"string"},{"name":"event_count","type":["null","long"]},
        {"name":"data_collections","type":["null",{"type":"array","items":"string"}]},{"name":"ts_ms","type":"long"}]}"#;
    let bytes = encode(
        note,
        record([
            ("status", Avro::String("BEGIN".to_owned())),
            ("id", Avro::String("1:2".to_owned())),
            ("event_count", union(0, Avro::Null)),
            ("data_collections", union(0, Avro::Null)),
            ("ts_ms", Avro::Long(1)),
        ]),
    );
    let decode = |schema: &str, bytes: &[u8]| {
        AvroSchema::parse(schema).unwrap().decode(bytes, &mut Collect::default()).map(|_| ()).unwrap_err()
    };
    assert_eq!(decode(note, &bytes), DecodeError::Boundary);
    assert_eq!(decode(ROW, &encode(ROW, row(1))), DecodeError::NotEnvelope("it has no `op`"));
    assert_eq!(decode("\"long\"", &[2]), DecodeError::NotEnvelope("it is not a record"));
}

#[test]
fn frames_are_those_of_confluent() {
    assert_eq!(unframe(&[0, 0, 0, 1, 2, 3]), Some((258, &[3][..])));
    assert_eq!(unframe(&[0, 0xff, 0, 0, 0]), Some((0xff00_0000, &[][..])));
    for bytes in [&b""[..], b"\x00\x00\x00\x00", b"{\"id\":1}"] {
        assert_eq!(unframe(bytes), None);
    }
}

#[test]
fn what_is_not_as_its_schema_says_is_told_by_place() {
    let nested = |depth: usize| {
        let (open, close) = (r#"{"type":"array","items":"#.repeat(depth), "}".repeat(depth));
        format!(r#"{{"type":"record","name":"r","fields":[{{"name":"a","type":{open}"null"{close}}}]}}"#)
    };
    let list = |items: &str| {
        format!(r#"{{"type":"record","name":"r","fields":[{{"name":"a","type":["null",{items},"r"]}}]}}"#)
    };
    let texts = list("\"string\"");
    // As many as have no end: the highest number, and nothing behind it.
    let endless = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    let deep: Vec<u8> = std::iter::repeat_n(4, 100).chain([0]).collect();
    for (schema, bytes, expected) in [
        (&nested(1), &endless[..], "there are values without end"),
        (&nested(70), &[2; 100], "values lie too deep in each other"),
        (&texts, &[&[2], &endless[..]].concat(), "the bytes end within a value"),
        (&texts, &[2, 1], "a length is below zero"),
        (&texts, &[2, 2, 0xff], "a text is not UTF-8"),
        (&texts, &[9], "a union has no such branch"),
        (&texts, &[0, 0], "there is more than the schema has"),
        (&texts, &deep, "values lie too deep in each other"),
        (&texts, &[0xff; 20], "a number is too long"),
        (&list("\"int\""), &[2, 0xfe, 0xff, 0xff, 0xff, 0x1f], "a number is too large for its type"),
        (&list("\"boolean\""), &[2, 2], "a boolean is neither 0 nor 1"),
        (&list(r#"{"type":"enum","name":"e","symbols":[]}"#), &[2, 0], "an enum has no such symbol"),
    ] {
        let error = AvroSchema::parse(schema).unwrap().decode_row(bytes, &mut Collect::default()).unwrap_err();
        let DecodeError::NotAsSchema { what, .. } = error else { panic!("{error}") };
        assert_eq!(what, expected, "{schema} {bytes:?}");
    }
}

#[test]
fn schemas_are_read_or_refused() {
    let parse = |text: &str| AvroSchema::parse(text).map(drop).map_err(|error| error.0);
    for (text, expected) in [
        ("nonsense", Err("it is not JSON")),
        ("{}", Err("a type has no `type`")),
        ("\"mood\"", Err("it names a type that is not declared")),
        ("7", Err("a type is neither a name nor an object nor a list")),
        (r#"{"type":"fixed","name":"f","size":-1}"#, Err("the size of a fixed type is none")),
        (
            r#"[{"type":"fixed","name":"f","size":1},{"type":"fixed","name":"f","size":1}]"#,
            Err("it declares a name twice"),
        ),
        (r#"{"type":{"type":"map","values":"long"}}"#, Ok(())),
    ] {
        assert_eq!(parse(text), expected, "{text}");
    }
    let many = format!("[{}]", vec!["\"null\""; 10_000].join(","));
    assert_eq!(parse(&many), Err("it has too many types"));
    // Types that others declare.
    let mood = r#"{"type":"enum","name":"mood","namespace":"th.go","symbols":["good"]}"#.to_owned();
    let row = r#"{"type":"record","name":"row","fields":[{"name":"a","type":"th.go.mood"}]}"#;
    assert!(AvroSchema::parse(row).is_err());
    let mut collect = Collect::default();
    AvroSchema::parse_with(&[mood], row).unwrap().decode_row(&[0], &mut collect).unwrap();
    assert_eq!(collect.values, ["good".into()]);
}

proptest! {
    #[test]
    fn values_come_back(id: i64, day: i32, flag: bool, double: f64, float: f32, text: String, raw: Vec<u8>) {
        let schema = r#"{"type":"record","name":"r","fields":[
            {"name":"id","type":"long"},{"name":"day","type":["int","null"]},{"name":"flag","type":"boolean"},
            {"name":"double","type":"double"},{"name":"float","type":"float"},
            {"name":"text","type":["null","bytes","string"]},{"name":"raw","type":"bytes"}]}"#;
        let value = record([
            ("id", Avro::Long(id)),
            ("day", union(0, Avro::Int(day))),
            ("flag", Avro::Boolean(flag)),
            ("double", Avro::Double(double)),
            ("float", Avro::Float(float)),
            ("text", union(2, Avro::String(text.clone()))),
            ("raw", Avro::Bytes(raw.clone())),
        ]);
        let bytes = encode(schema, value);
        let (schema, mut collect) = (AvroSchema::parse(schema).unwrap(), Collect::default());
        schema.decode_row(&bytes, &mut collect).unwrap();
        let number = |value: &Value| match value {
            Value::Number(text) | Value::Text(text) => text.clone(),
            other => format!("{other:?}"),
        };
        let values = &collect.values;
        prop_assert_eq!(number(&values[0]).parse(), Ok(id));
        prop_assert_eq!(number(&values[1]).parse(), Ok(day));
        prop_assert_eq!(&values[2], &Value::Bool(flag));
        prop_assert_eq!(number(&values[3]).parse::<f64>().unwrap().to_bits(), double.to_bits());
        prop_assert_eq!(number(&values[4]).parse::<f32>().unwrap().to_bits(), float.to_bits());
        prop_assert_eq!(&values[5], &Value::Text(text));
        use base64::Engine;
        prop_assert_eq!(&values[6], &Value::Text(base64::engine::general_purpose::STANDARD.encode(raw)));
        for cut in 0..bytes.len() {
            prop_assert!(schema.decode_row(&bytes[..cut], &mut Collect::default()).is_err());
        }
    }

    #[test]
    fn no_bytes_break_it(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
        let _ = read(&bytes);
        let _ = AvroSchema::parse(ROW).unwrap().decode_row(&bytes, &mut Collect::default());
        let _ = AvroSchema::parse(&envelope()).unwrap().decode_before(&bytes, &mut Collect::default());
        // Nearly right.
        let mut event = encode(&envelope(), event("u", Some(row(1)), Some(row(2))));
        let at = at.index(event.len());
        event[at] = byte;
        let _ = read(&event);
    }

    #[test]
    fn no_schema_breaks_it(text: String, at: prop::sample::Index, byte in b' '..b'~', bytes: Vec<u8>) {
        let _ = AvroSchema::parse(&text);
        let mut schema = envelope().into_bytes();
        let at = at.index(schema.len());
        schema[at] = byte;
        if let Ok(schema) = AvroSchema::parse(&String::from_utf8(schema).unwrap()) {
            let _ = schema.decode(&bytes, &mut Collect::default());
        }
    }
}
