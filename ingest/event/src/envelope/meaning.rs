//! What a column's values stand for, where that is more than what they are.
//!
//! What passes through: a count or bytes, into the text that people would write for it. Debezium sends a day as a
//! number of days and a decimal as bytes, in ways that its settings choose (`time.precision.mode`,
//! `decimal.handling.mode`); a schema says which by a name, in JSON as in Avro.
//!
//! Guaranteed: a value that has no such meaning is told by `None`, and stays what it is.
//!
//! <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-temporal-types>

use std::fmt::Write;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta};
use serde::Deserialize;

/// A type that Kafka Connect has beside the primitive ones, as a dataset's file names it where records do not. Those
/// of Connect itself are sent as those of Debezium.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum ConnectType {
    /// `io.debezium.time.Date`: days since 1970-01-01.
    Date,
    /// `io.debezium.time.Time`: a time of day, in milliseconds.
    Time,
    /// `io.debezium.time.MicroTime`: a time of day, in microseconds.
    MicroTime,
    /// `io.debezium.time.NanoTime`: a time of day, in nanoseconds.
    NanoTime,
    /// `io.debezium.time.Timestamp`: a point in time of no zone, in milliseconds since 1970-01-01.
    Timestamp,
    /// `io.debezium.time.MicroTimestamp`: the same in microseconds.
    MicroTimestamp,
    /// `io.debezium.time.NanoTimestamp`: the same in nanoseconds.
    NanoTimestamp,
    /// `io.debezium.time.IsoDate`: a day, with a Z behind it that is no zone.
    IsoDate,
    /// `io.debezium.time.IsoTime`: a time of day, with a Z behind it that is no zone.
    IsoTime,
    /// `io.debezium.time.IsoTimestamp`: a point in time of no zone, with a Z behind it.
    IsoTimestamp,
    /// `org.apache.kafka.connect.data.Decimal`: bytes, of whose number so many digits stand behind the point.
    Decimal(i64),
    /// `io.debezium.data.VariableScaleDecimal`: the same, and each value says how many.
    VariableScaleDecimal,
}

impl ConnectType {
    /// The type of a name; a decimal has its scale beside it.
    fn of(name: &str, scale: Option<i64>) -> Option<Self> {
        Some(match name {
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Self::Date,
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Self::Time,
            "io.debezium.time.MicroTime" => Self::MicroTime,
            "io.debezium.time.NanoTime" => Self::NanoTime,
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Self::Timestamp,
            "io.debezium.time.MicroTimestamp" => Self::MicroTimestamp,
            "io.debezium.time.NanoTimestamp" => Self::NanoTimestamp,
            "io.debezium.time.IsoDate" => Self::IsoDate,
            "io.debezium.time.IsoTime" => Self::IsoTime,
            "io.debezium.time.IsoTimestamp" => Self::IsoTimestamp,
            "org.apache.kafka.connect.data.Decimal" => Self::Decimal(scale?),
            "io.debezium.data.VariableScaleDecimal" => Self::VariableScaleDecimal,
            _ => return None,
        })
    }
}

/// What a value stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Meaning {
    /// Days since 1970-01-01.
    Days,
    /// A time of day, in so many units a second.
    TimeOfDay(i64),
    /// A point in time of no zone, in so many units a second since 1970-01-01.
    Moment(i64),
    /// A point in time, in so many units a second since 1970-01-01 UTC.
    Instant(i64),
    /// A day, time or point in time of no zone, with a letter for one behind it.
    Zoneless,
    /// Bytes of a whole number, of which so many digits stand behind the point.
    Decimal(i64),
    /// The same, and how many each value says.
    AnyDecimal,
}

pub(super) const MILLIS: i64 = 1_000;
pub(super) const MICROS: i64 = 1_000_000;
pub(super) const NANOS: i64 = 1_000_000_000;

/// A number of PostgreSQL has no more digits on either side of its point.
const MOST_DIGITS: usize = 131_072;

impl Meaning {
    /// What the name of a schema of Kafka Connect says; a decimal has its scale beside it.
    pub(super) fn of(name: &str, scale: Option<i64>) -> Option<Self> {
        ConnectType::of(name, scale).map(Self::from)
    }

    /// Writes what a count stands for.
    pub(super) fn write_count(self, count: i64, out: &mut String) -> Option<()> {
        match self {
            Self::Days => write_day(count, out),
            Self::TimeOfDay(unit) => write_time(count, unit, out),
            Self::Moment(unit) => write_moment(count, unit, out),
            Self::Instant(unit) => {
                write_moment(count, unit, out)?;
                out.push('Z');
                Some(())
            }
            Self::Zoneless | Self::Decimal(_) | Self::AnyDecimal => None,
        }
    }
}

impl From<ConnectType> for Meaning {
    fn from(of: ConnectType) -> Self {
        match of {
            ConnectType::Date => Self::Days,
            ConnectType::Time => Self::TimeOfDay(MILLIS),
            ConnectType::MicroTime => Self::TimeOfDay(MICROS),
            ConnectType::NanoTime => Self::TimeOfDay(NANOS),
            ConnectType::Timestamp => Self::Moment(MILLIS),
            ConnectType::MicroTimestamp => Self::Moment(MICROS),
            ConnectType::NanoTimestamp => Self::Moment(NANOS),
            ConnectType::IsoDate | ConnectType::IsoTime | ConnectType::IsoTimestamp => Self::Zoneless,
            ConnectType::Decimal(scale) => Self::Decimal(scale),
            ConnectType::VariableScaleDecimal => Self::AnyDecimal,
        }
    }
}

fn write_day(days: i64, out: &mut String) -> Option<()> {
    let day = NaiveDate::default().checked_add_signed(TimeDelta::try_days(days)?)?;
    write!(out, "{day}").ok()
}

fn write_time(count: i64, unit: i64, out: &mut String) -> Option<()> {
    let (seconds, rest) = (count.div_euclid(unit), count.rem_euclid(unit));
    let nanos = rest * (NANOS / unit);
    let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds.try_into().ok()?, nanos.try_into().ok()?)?;
    write!(out, "{time}").ok()
}

fn write_moment(count: i64, unit: i64, out: &mut String) -> Option<()> {
    let nanos = u32::try_from(count.rem_euclid(unit) * (NANOS / unit)).ok()?;
    let moment = DateTime::from_timestamp(count.div_euclid(unit), nanos)?.naive_utc();
    write!(out, "{}", moment.format("%Y-%m-%dT%H:%M:%S%.f")).ok()
}

/// Writes the number that bytes hold, the highest first, with so many digits behind its point.
pub(super) fn write_decimal(bytes: &[u8], scale: i64, out: &mut String) -> Option<()> {
    // As wide as this are all but a few numbers.
    let digits = match bytes.len() {
        1..=16 => {
            let mut wide = if bytes[0] & 0x80 == 0 { [0; 16] } else { [0xff; 16] };
            wide[16 - bytes.len()..].copy_from_slice(bytes);
            i128::from_be_bytes(wide).to_string()
        }
        17..=MOST_DIGITS => num_bigint::BigInt::from_signed_bytes_be(bytes).to_string(),
        _ => return None,
    };
    let (sign, digits) = digits.strip_prefix('-').map_or(("", &digits[..]), |digits| ("-", digits));
    let Ok(behind) = usize::try_from(scale) else {
        // A scale below zero stands for zeros before the point.
        let zeros = usize::try_from(scale.checked_neg()?).ok().filter(|zeros| *zeros <= MOST_DIGITS)?;
        out.extend([sign, digits]);
        out.extend(std::iter::repeat_n('0', zeros));
        return Some(());
    };
    if behind > MOST_DIGITS {
        return None;
    }
    out.push_str(sign);
    if behind == 0 {
        out.push_str(digits);
    } else if digits.len() > behind {
        let (whole, part) = digits.split_at(digits.len() - behind);
        out.extend([whole, ".", part]);
    } else {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', behind - digits.len()));
        out.push_str(digits);
    }
    Some(())
}
