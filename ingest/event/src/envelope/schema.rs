//! What stands beside a payload: Kafka Connect's schema, which says what a column's number or text means.
//!
//! What passes through: the `schema` of a record, read once as long as it stays the same; a column's value, into
//! the text that people would write for it. Debezium sends a day as a number of days and a decimal as bytes, in
//! ways that its settings choose (`time.precision.mode`, `decimal.handling.mode`); the schema says which.
//!
//! Guaranteed: a column that the schema gives no such meaning stays as it is, and so does a value that has none.
//!
//! <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-temporal-types>

use std::collections::HashMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta};
use serde_json::Value as Json;

use super::Scalar;

/// What columns mean, as the last schema said.
#[derive(Clone, Debug, Default)]
pub struct Schemas {
    /// That schema's text.
    text: String,
    columns: HashMap<String, Meaning>,
    /// The text of the last value that was rewritten.
    written: String,
}

/// What a value stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meaning {
    /// Days since 1970-01-01.
    Days,
    /// A time of day, in so many units a second.
    TimeOfDay(i64),
    /// A point in time of no zone, in so many units a second since 1970-01-01.
    Moment(i64),
    /// A day, time or point in time of no zone, with a letter for one behind it.
    Zoneless,
    /// Bytes of a whole number, of which so many digits stand behind the point.
    Decimal(i64),
    /// The same, and how many each value says.
    AnyDecimal,
}

const MILLIS: i64 = 1_000;
const MICROS: i64 = 1_000_000;
const NANOS: i64 = 1_000_000_000;

impl Meaning {
    fn of(name: &str, scale: Option<i64>) -> Option<Self> {
        Some(match name {
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Self::Days,
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Self::TimeOfDay(MILLIS),
            "io.debezium.time.MicroTime" => Self::TimeOfDay(MICROS),
            "io.debezium.time.NanoTime" => Self::TimeOfDay(NANOS),
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Self::Moment(MILLIS),
            "io.debezium.time.MicroTimestamp" => Self::Moment(MICROS),
            "io.debezium.time.NanoTimestamp" => Self::Moment(NANOS),
            "io.debezium.time.IsoDate" | "io.debezium.time.IsoTime" | "io.debezium.time.IsoTimestamp" => Self::Zoneless,
            "org.apache.kafka.connect.data.Decimal" => Self::Decimal(scale?),
            "io.debezium.data.VariableScaleDecimal" => Self::AnyDecimal,
            _ => return None,
        })
    }
}

impl Schemas {
    /// Takes note of a schema.
    pub(super) fn learn(&mut self, text: &str) {
        if text == self.text {
            return;
        }
        text.clone_into(&mut self.text);
        self.columns.clear();
        let Ok(schema) = serde_json::from_str::<Json>(text) else { return };
        let fields = fields(&schema);
        // An envelope has its rows in it, a key is one.
        let row = fields.iter().find(|(name, field)| *name == "after" && !self::fields(field).is_empty());
        let columns = row.map_or(fields.clone(), |(_, row)| self::fields(row));
        for (column, field) in columns {
            let scale = field.get("parameters").and_then(|parameters| text_of(parameters, "scale")?.parse().ok());
            if let Some(meaning) = text_of(field, "name").and_then(|name| Meaning::of(name, scale)) {
                self.columns.insert(column.to_owned(), meaning);
            }
        }
    }

    /// A value as the schema means it.
    pub(super) fn read<'a>(&'a mut self, column: &str, value: Scalar<'a>) -> Scalar<'a> {
        if self.columns.is_empty() {
            return value;
        }
        let Some(meaning) = self.columns.get(column) else { return value };
        self.written.clear();
        let written = &mut self.written;
        let read = match (*meaning, value) {
            (Meaning::Days, Scalar::Number(days)) => write_day(days, written),
            (Meaning::TimeOfDay(unit), Scalar::Number(count)) => write_time(count, unit, written),
            (Meaning::Moment(unit), Scalar::Number(count)) => write_moment(count, unit, written),
            (Meaning::Zoneless, Scalar::Text(text)) => text.strip_suffix('Z').map(|text| written.push_str(text)),
            (Meaning::Decimal(scale), Scalar::Text(bytes)) => write_decimal(bytes, scale, written),
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

fn write_day(days: &str, out: &mut String) -> Option<()> {
    let day = NaiveDate::default().checked_add_signed(TimeDelta::try_days(days.parse().ok()?)?)?;
    write!(out, "{day}").ok()
}

fn write_time(count: &str, unit: i64, out: &mut String) -> Option<()> {
    let count: i64 = count.parse().ok()?;
    let (seconds, rest) = (count.div_euclid(unit), count.rem_euclid(unit));
    let nanos = rest * (NANOS / unit);
    let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds.try_into().ok()?, nanos.try_into().ok()?)?;
    write!(out, "{time}").ok()
}

fn write_moment(count: &str, unit: i64, out: &mut String) -> Option<()> {
    let count: i64 = count.parse().ok()?;
    let nanos = u32::try_from(count.rem_euclid(unit) * (NANOS / unit)).ok()?;
    let moment = DateTime::from_timestamp(count.div_euclid(unit), nanos)?.naive_utc();
    write!(out, "{}", moment.format("%Y-%m-%dT%H:%M:%S%.f")).ok()
}

fn write_decimal(bytes: &str, scale: i64, out: &mut String) -> Option<()> {
    let bytes = STANDARD.decode(bytes).ok().filter(|bytes| !bytes.is_empty())?;
    // As wide as this are all but a few numbers.
    let digits = match bytes.len() {
        1..=16 => {
            let mut wide = if bytes[0] & 0x80 == 0 { [0; 16] } else { [0xff; 16] };
            wide[16 - bytes.len()..].copy_from_slice(&bytes);
            i128::from_be_bytes(wide).to_string()
        }
        _ => num_bigint::BigInt::from_signed_bytes_be(&bytes).to_string(),
    };
    let (sign, digits) = digits.strip_prefix('-').map_or(("", &digits[..]), |digits| ("-", digits));
    out.push_str(sign);
    let Ok(behind) = usize::try_from(scale) else {
        // A scale below zero stands for zeros before the point.
        out.push_str(digits);
        out.extend(std::iter::repeat_n('0', usize::try_from(-scale).ok().filter(|zeros| *zeros <= MOST_DIGITS)?));
        return Some(());
    };
    if behind == 0 {
        out.push_str(digits);
    } else if digits.len() > behind {
        let (whole, part) = digits.split_at(digits.len() - behind);
        out.extend([whole, ".", part]);
    } else {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (behind - digits.len()).min(MOST_DIGITS)));
        out.push_str(digits);
    }
    Some(())
}

/// A number of PostgreSQL has no more digits on either side of its point.
const MOST_DIGITS: usize = 131_072;

fn write_any_decimal(object: &str, out: &mut String) -> Option<()> {
    let object: Json = serde_json::from_str(object).ok()?;
    write_decimal(text_of(&object, "value")?, object.get("scale")?.as_i64()?, out)
}

#[cfg(test)]
mod tests {
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
                schemas.columns.insert("c".to_owned(), meaning);
                let _ = schemas.read("c", Scalar::Number(&value));
                let _ = schemas.read("c", Scalar::Nested(&value));
                let _ = schemas.read("c", Scalar::Text(&value));
            }
        }
    }
}
