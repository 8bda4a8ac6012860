//! What stands beside a payload: Kafka Connect's schema, which says what a column's number or text means.
//!
//! What passes through: the `schema` of a record, read once as long as it stays the same, or for records that have
//! none what their dataset declares; a column's value, into the text that people would write for it.
//!
//! Guaranteed: a column that the schema gives no such [`Meaning`] stays as it is, and so does a value that has none.
//! What a record means depends on no other record.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::Scalar;
use super::meaning::{ConnectType, Meaning, write_decimal};

/// What columns mean, as the last schema said; or what is declared, for records without one.
#[derive(Clone, Debug, Default)]
pub struct Schemas {
    declared: HashMap<String, Meaning>,
    /// The text of the last schema, what it said, and whether it is that of the record that is read.
    text: String,
    learnt: HashMap<String, Meaning>,
    is_of_record: bool,
    /// The text of the last value that was rewritten.
    written: String,
}

impl Schemas {
    /// No schema yet; of records without one, these columns are of these types.
    pub fn declared<'n>(columns: impl IntoIterator<Item = (&'n str, ConnectType)>) -> Self {
        let columns = columns.into_iter().map(|(name, of)| (name.to_owned(), of.into()));
        Self { declared: columns.collect(), ..Self::default() }
    }

    /// Another record is read.
    pub(super) fn begin(&mut self) {
        self.is_of_record = false;
    }

    /// Takes note of the schema of the record that is read.
    pub(super) fn learn(&mut self, text: &str) {
        self.is_of_record = true;
        if text == self.text {
            return;
        }
        text.clone_into(&mut self.text);
        self.learnt.clear();
        let Ok(schema) = serde_json::from_str::<Json>(text) else { return };
        let fields = fields(&schema);
        // An envelope has its rows in it, a key is one.
        let row = fields.iter().find(|(name, field)| *name == "after" && !self::fields(field).is_empty());
        let columns = row.map_or(fields.clone(), |(_, row)| self::fields(row));
        for (column, field) in columns {
            let scale = field.get("parameters").and_then(|parameters| text_of(parameters, "scale")?.parse().ok());
            if let Some(meaning) = text_of(field, "name").and_then(|name| Meaning::of(name, scale)) {
                self.learnt.insert(column.to_owned(), meaning);
            }
        }
    }

    /// A value as the schema means it.
    pub(super) fn read<'a>(&'a mut self, column: &str, value: Scalar<'a>) -> Scalar<'a> {
        let columns = if self.is_of_record { &self.learnt } else { &self.declared };
        if columns.is_empty() {
            return value;
        }
        let Some(meaning) = columns.get(column) else { return value };
        self.written.clear();
        let written = &mut self.written;
        let read = match (*meaning, value) {
            (meaning, Scalar::Number(count)) => {
                count.parse().ok().and_then(|count| meaning.write_count(count, written))
            }
            (Meaning::Zoneless, Scalar::Text(text)) => text.strip_suffix('Z').map(|text| written.push_str(text)),
            (Meaning::Decimal(scale), Scalar::Text(bytes)) => write_base64(bytes, scale, written),
            (Meaning::AnyDecimal, Scalar::Nested(object)) => write_any_decimal(object, written),
            _ => None,
        };
        match (read, *meaning) {
            (None, _) => value,
            (Some(()), Meaning::Decimal(_) | Meaning::AnyDecimal) => Scalar::Number(&self.written),
            (Some(()), _) => Scalar::Text(&self.written),
        }
    }
}

/// The fields of a schema, by name.
fn fields(schema: &Json) -> Vec<(&str, &Json)> {
    let fields = schema.get("fields").and_then(Json::as_array).into_iter().flatten();
    fields.filter_map(|field| Some((text_of(field, "field")?, field))).collect()
}

fn text_of<'s>(object: &'s Json, name: &str) -> Option<&'s str> {
    object.get(name)?.as_str()
}

fn write_base64(bytes: &str, scale: i64, out: &mut String) -> Option<()> {
    write_decimal(&STANDARD.decode(bytes).ok()?, scale, out)
}

fn write_any_decimal(object: &str, out: &mut String) -> Option<()> {
    let object: Json = serde_json::from_str(object).ok()?;
    write_base64(text_of(&object, "value")?, object.get("scale")?.as_i64()?, out)
}

#[cfg(test)]
mod tests {
    use super::super::meaning::{MICROS, NANOS};
    use super::*;
    use proptest::prelude::*;

    fn field(column: &str, name: &str, parameters: &str) -> String {
        format!("{{\"type\":\"int64\",\"optional\":true,\"name\":\"{name}\",{parameters}\"field\":\"{column}\"}}")
    }

    fn read(name: &str, parameters: &str, value: Scalar<'_>) -> String {
        let (key, row) = (field("c", name, parameters), field("other", "x", ""));
        let envelope = format!(
            "{{\"type\":\"struct\",\"fields\":[{{\"type\":\"struct\",\"fields\":[{row},{key}],\"field\":\"after\"}}]}}"
        );
        let flat = format!("{{\"type\":\"struct\",\"fields\":[{row},{key}]}}");
        let [of_envelope, of_flat] = [envelope, flat].map(|schema| {
            let mut schemas = Schemas::default();
            schemas.learn(&schema);
            assert_eq!(schemas.read("other", value), value);
            format!("{:?}", schemas.read("c", value))
        });
        assert_eq!(of_envelope, of_flat);
        of_flat
    }

    #[test]
    fn each_meaning_has_its_text() {
        let (number, text) = (Scalar::Number, Scalar::Text);
        for (name, value, expected) in [
            ("io.debezium.time.Date", number("19797"), "Text(\"2024-03-15\")"),
            ("org.apache.kafka.connect.data.Date", number("-1"), "Text(\"1969-12-31\")"),
            ("io.debezium.time.Time", number("30600001"), "Text(\"08:30:00.001\")"),
            ("io.debezium.time.MicroTime", number("30600000001"), "Text(\"08:30:00.000001\")"),
            ("io.debezium.time.NanoTime", number("1"), "Text(\"00:00:00.000000001\")"),
            ("io.debezium.time.Timestamp", number("1710491400000"), "Text(\"2024-03-15T08:30:00\")"),
            ("io.debezium.time.MicroTimestamp", number("-1"), "Text(\"1969-12-31T23:59:59.999999\")"),
            (
                "io.debezium.time.NanoTimestamp",
                number("1710491400000000001"),
                "Text(\"2024-03-15T08:30:00.000000001\")",
            ),
            ("io.debezium.time.ZonedTimestamp", text("2024-03-15T01:30:00Z"), "Text(\"2024-03-15T01:30:00Z\")"),
            ("io.debezium.time.IsoTimestamp", text("2024-03-15T08:30:00.123Z"), "Text(\"2024-03-15T08:30:00.123\")"),
            ("io.debezium.time.IsoDate", text("2024-03-15Z"), "Text(\"2024-03-15\")"),
            ("io.debezium.time.Date", Scalar::Null, "Null"),
            ("io.debezium.time.Date", number("99999999999999999999"), "Number(\"99999999999999999999\")"),
            ("io.debezium.time.MicroTime", number("-5"), "Number(\"-5\")"),
        ] {
            assert_eq!(read(name, "", value), expected, "{name} {value:?}");
        }
    }

    #[test]
    fn decimals_are_read_digit_for_digit() {
        let decimal = "org.apache.kafka.connect.data.Decimal";
        for (bytes, scale, expected) in [
            ("BNI=", 2, "12.34"),
            ("+y4=", 2, "-12.34"),
            ("AQ==", 3, "0.001"),
            ("/w==", 0, "-1"),
            ("BQ==", -2, "500"),
            // 2 to the 135th.
            ("AIAAAAAAAAAAAAAAAAAAAAAA", 0, "43556142965880123323311949751266331066368"),
        ] {
            let parameters = format!("\"parameters\":{{\"scale\":\"{scale}\"}},");
            let is = read(decimal, &parameters, Scalar::Text(bytes));
            assert_eq!(is, format!("Number({expected:?})"), "{bytes} {scale}");
            let nested = format!("{{\"scale\":{scale},\"value\":\"{bytes}\"}}");
            let is = read("io.debezium.data.VariableScaleDecimal", "", Scalar::Nested(&nested));
            assert_eq!(is, format!("Number({expected:?})"), "{bytes} {scale}");
        }
        // Without its scale a number is not known, and what is no number stays what it is.
        assert_eq!(read(decimal, "", Scalar::Text("BNI=")), "Text(\"BNI=\")");
        assert_eq!(read(decimal, "\"parameters\":{\"scale\":\"2\"},", Scalar::Text("?")), "Text(\"?\")");
    }

    #[test]
    fn what_is_declared_holds_for_records_without_a_schema() {
        let mut schemas = Schemas::declared([("c", ConnectType::Date), ("d", ConnectType::Decimal(2))]);
        let read = |schemas: &mut Schemas| {
            [("c", Scalar::Number("1")), ("d", Scalar::Text("BNI="))]
                .map(|(column, value)| format!("{:?}", schemas.read(column, value)))
        };
        assert_eq!(read(&mut schemas), ["Text(\"1970-01-02\")", "Number(\"12.34\")"]);
        schemas.learn(&format!("{{\"fields\":[{}]}}", field("c", "io.debezium.time.MicroTime", "")));
        assert_eq!(read(&mut schemas), ["Text(\"00:00:00.000001\")", "Text(\"BNI=\")"]);
        schemas.begin();
        assert_eq!(read(&mut schemas)[0], "Text(\"1970-01-02\")");
    }

    proptest! {
        #[test]
        fn whole_numbers_come_back(number: i128, scale in 0_u32..40) {
            let bytes = STANDARD.encode(number.to_be_bytes());
            let is = read("org.apache.kafka.connect.data.Decimal", &format!("\"parameters\":{{\"scale\":\"{scale}\"}},"), Scalar::Text(&bytes));
            let digits: String = is.chars().filter(char::is_ascii_digit).collect();
            let digits = digits.trim_start_matches('0');
            let expected = number.unsigned_abs().to_string();
            prop_assert_eq!(digits, expected.trim_start_matches('0'));
            prop_assert_eq!(is.contains('-'), number < 0);
        }

        #[test]
        fn no_schema_breaks_it(text: String, value: String) {
            let mut schemas = Schemas::default();
            schemas.learn(&text);
            let _ = schemas.read("c", Scalar::Text(&value));
            for meaning in [Meaning::Days, Meaning::TimeOfDay(MICROS), Meaning::Moment(NANOS), Meaning::Decimal(2), Meaning::AnyDecimal] {
                schemas.learnt.insert("c".to_owned(), meaning);
                let _ = schemas.read("c", Scalar::Number(&value));
                let _ = schemas.read("c", Scalar::Nested(&value));
                let _ = schemas.read("c", Scalar::Text(&value));
            }
        }
    }
}
