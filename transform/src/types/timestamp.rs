//! Points in time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field};
use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime};

use super::{OptionError, SemanticType, options};
use crate::origin::{timestamp_type, utc};
use crate::reject::Reason;

const NOT_A_TIMESTAMP: Reason = Reason::new("not_a_timestamp", "the value is not a date with a time of day");
const SECONDS_PER_HOUR: i32 = 3600;

/// A point in time, from ISO 8601 text or a count since 1970, stored in UTC to the microsecond.
#[derive(Debug)]
pub struct Timestamp {
    zone: FixedOffset,
    unit: Unit,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Hours ahead of UTC of a text that names no zone. Thailand: 7, all year.
    #[serde(default = "thailand")]
    zone: i8,
    /// The unit of a plain number.
    #[serde(default)]
    unit: Unit,
}

fn thailand() -> i8 {
    7
}

#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    S,
    #[default]
    Ms,
    Us,
}

impl Timestamp {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        let Options { zone, unit } = options(table)?;
        let zone = FixedOffset::east_opt(i32::from(zone) * SECONDS_PER_HOUR)
            .filter(|_| (-12..=14).contains(&zone))
            .ok_or_else(|| OptionError::new(format!("{zone} is not a time zone"), "Use hours ahead of UTC, from -12 to 14"))?;
        Ok(Self { zone, unit })
    }

    fn parse(&self, text: &str) -> Option<i64> {
        let text = text.trim();
        if let Ok(count) = text.parse::<i64>() {
            return match self.unit {
                Unit::S => count.checked_mul(1_000_000),
                Unit::Ms => count.checked_mul(1000),
                Unit::Us => Some(count),
            };
        }
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Some(time.timestamp_micros());
        }
        ["%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z"]
            .iter()
            .find_map(|format| DateTime::parse_from_str(text, format).ok())
            .map(|time| time.timestamp_micros())
            .or_else(|| self.parse_local(text))
    }

    fn parse_local(&self, text: &str) -> Option<i64> {
        let local = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
            .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
        Some(local.and_local_timezone(self.zone).single()?.timestamp_micros())
    }
}

impl SemanticType for Timestamp {
    fn fields(&self, column: &str) -> Vec<Field> {
        let data_type: DataType = timestamp_type();
        vec![Field::new(column, data_type, true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        let mut times = TimestampMicrosecondBuilder::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            let time = text.and_then(|text| self.parse(text));
            if time.is_none() && text.is_some() {
                fault(row, NOT_A_TIMESTAMP);
            }
            times.append_option(time);
        }
        vec![Arc::new(times.finish().with_timezone(utc()))]
    }

    fn describe(&self) -> String {
        format!("a point in time in ISO 8601 (the zone is UTC{} where none is named), stored in UTC", self.zone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{run, texts};
    use super::*;

    #[test]
    fn zones_and_units() {
        let timestamp = Timestamp::new(&toml::Table::new()).unwrap();
        let good = [
            "2024-03-15T08:30:00+07:00",
            "2024-03-15T01:30:00Z",
            "2024-03-15 08:30:00",
            "2024-03-15 08:30",
            "2024-03-15 08:30:00.000000+07",
            "1710466200000",
            "2024-03-15",
        ];
        let (arrays, faults) = run(&timestamp, &good);
        assert_eq!(faults, []);
        let values: Vec<_> = texts(&arrays).into_iter().flatten().collect();
        assert_eq!(values[..6], vec!["2024-03-15T01:30:00Z"; 6][..]);
        assert_eq!(values[6], "2024-03-14T17:00:00Z");
        assert_eq!(run(&timestamp, &["", "x", "2024-02-30 10:00", "15/03/2567"]).1.len(), 4);
        let seconds = Timestamp::new(&toml::from_str("unit = 's'").unwrap()).unwrap();
        assert_eq!(texts(&run(&seconds, &["1710466200"]).0)[0].as_deref(), Some("2024-03-15T01:30:00Z"));
        assert!(Timestamp::new(&toml::from_str("zone = 20").unwrap()).is_err());
    }
}
