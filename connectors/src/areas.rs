//! The administrative areas of Thailand: real data of the Department of Provincial Administration,
//! as GeoThai has collected it (see `data/geothai/NOTICE`).
//!
//! Every code is first seen as it stands: the source has no dates of creation, and says so by giving
//! these events no time. Then the codes that were abolished are closed, in the order of their dates,
//! each with its successors and what the succession is known from.

use ruam_event::{Change, ChangeEvent, Columns, DatasetSpec, OldRow, Position, Row, Value};
use serde::de::DeserializeOwned;

use crate::source::{Feed, Source, SourceError};
use crate::{Surroundings, options};

const PROVINCES: &str = include_str!("../data/geothai/provinces.json");
const DISTRICTS: &str = include_str!("../data/geothai/districts.json");
const SUBDISTRICTS: &str = include_str!("../data/geothai/subdistricts.json");
const ABOLISHED: &str = include_str!("../data/geothai/abolished.json");
const NOTICES: &str = include_str!("../data/geothai/abolished-sources.json");

/// Hours between midnight in Thailand and in UTC.
const ZONE_HOURS: i64 = 7;

/// Code, Thai name and English name.
type Area = (String, String, String);
/// The same and post codes.
type Subdistrict = (String, String, String, String);
/// Code, Thai name, English name, date abolished, successors, basis, date in force, notice.
type Abolished = (String, String, Option<String>, String, String, Option<String>, Option<String>, Option<usize>);

struct Areas {
    columns: Columns,
    events: Vec<ChangeEvent>,
    next: usize,
}

pub(crate) fn open(spec: &DatasetSpec, with: &toml::Table, _: &Surroundings) -> Result<Box<dyn Source>, String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct None {}
    options::<None>(with)?;
    Ok(Box::new(Areas { columns: spec.column_names(), events: Vec::new(), next: 0 }))
}

fn read<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, SourceError> {
    serde_json::from_str(text)
        .map_err(|error| SourceError::Unreadable { what: what.to_owned(), problem: error.to_string() })
}

/// The codes that are in force, of all levels.
pub(crate) fn subdistrict_codes() -> Result<Vec<String>, SourceError> {
    let subdistricts: Vec<Subdistrict> = read("subdistricts.json", SUBDISTRICTS)?;
    Ok(subdistricts.into_iter().map(|(code, ..)| code).collect())
}

impl Areas {
    fn events(&self) -> Result<Vec<ChangeEvent>, SourceError> {
        let provinces: Vec<Area> = read("provinces.json", PROVINCES)?;
        let districts: Vec<Area> = read("districts.json", DISTRICTS)?;
        let subdistricts: Vec<Subdistrict> = read("subdistricts.json", SUBDISTRICTS)?;
        let mut abolished: Vec<Abolished> = read("abolished.json", ABOLISHED)?;
        let notices: Vec<String> = read("abolished-sources.json", NOTICES)?;
        abolished.sort_by(|a, b| (&a.3, &a.0).cmp(&(&b.3, &b.0)));

        let plain = provinces
            .into_iter()
            .chain(districts)
            .map(|(code, thai, english)| self.area(&code, &thai, Some(&english), None));
        let with_posts =
            subdistricts.iter().map(|(code, thai, english, posts)| self.area(code, thai, Some(english), Some(posts)));
        let gone = abolished.iter().map(|area| self.area(&area.0, &area.1, area.2.as_deref(), None));
        let mut changes: Vec<(Option<i64>, Change)> =
            plain.chain(with_posts).chain(gone).map(|row| (None, Change::Snapshot(row))).collect();
        for area in &abolished {
            let old = OldRow::Full(self.area(&area.0, &area.1, area.2.as_deref(), None));
            let new = self.closed(area, &notices)?;
            changes.push((Some(midnight(&area.3)?), Change::Update { old, new }));
        }
        let number = |(index, (source_time, change))| ChangeEvent {
            position: Position::new(index as u64 + 1),
            source_time,
            change,
        };
        Ok(changes.into_iter().enumerate().map(number).collect())
    }

    fn row(&self, value: impl Fn(&str) -> Value) -> Row {
        Row::new(self.columns.clone(), self.columns.iter().map(|name| value(name)).collect())
    }

    fn area(&self, code: &str, thai: &str, english: Option<&str>, posts: Option<&str>) -> Row {
        self.row(|column| match column {
            "code" => code.into(),
            "level" => level(code).into(),
            "name_th" => thai.into(),
            "name_en" => english.into(),
            "parent_code" => (code.len() > 2).then(|| &code[..code.len() - 2]).into(),
            "post_codes" => posts.into(),
            _ => Value::Null,
        })
    }

    fn closed(&self, area: &Abolished, notices: &[String]) -> Result<Row, SourceError> {
        let (code, thai, english, abolished_on, successors, basis, in_force_on, notice) = area;
        let notice = match notice {
            Some(index) => Some(notices.get(*index).ok_or_else(|| SourceError::Unreadable {
                what: "abolished.json".to_owned(),
                problem: format!("code {code} names notice {index}, which abolished-sources.json does not have"),
            })?),
            None => None,
        };
        let open = self.area(code, thai, english.as_deref(), None);
        Ok(self.row(|column| match column {
            "abolished_on" => abolished_on.as_str().into(),
            "successors" => Some(successors.as_str()).filter(|codes| !codes.is_empty()).into(),
            "succession_basis" => basis.as_deref().into(),
            "in_force_on" => in_force_on.as_deref().into(),
            "notice" => notice.map(String::as_str).into(),
            _ => open.get(column).cloned().unwrap_or(Value::Null),
        }))
    }
}

fn level(code: &str) -> &'static str {
    match code.len() {
        2 => "province",
        4 => "district",
        _ => "subdistrict",
    }
}

/// The beginning of a day in Thailand, in microseconds since 1970-01-01 UTC.
fn midnight(date: &str) -> Result<i64, SourceError> {
    let unreadable =
        || SourceError::Unreadable { what: "abolished.json".to_owned(), problem: format!("`{date}` is not a date") };
    let date: chrono::NaiveDate = date.parse().map_err(|_| unreadable())?;
    let midnight = date.and_hms_opt(0, 0, 0).ok_or_else(unreadable)?;
    Ok(midnight.and_utc().timestamp_micros() - ZONE_HOURS * 3_600_000_000)
}

impl Source for Areas {
    fn open(&mut self, after: Option<Position>) -> Result<(), SourceError> {
        if self.events.is_empty() {
            self.events = self.events()?;
        }
        self.next = after.map_or(0, |after| self.events.partition_point(|event| event.position <= after));
        Ok(())
    }

    fn next(&mut self, limit: usize) -> Result<Feed, SourceError> {
        let end = (self.next + limit).min(self.events.len());
        let events = self.events[self.next..end].to_vec();
        self.next = end;
        Ok(if events.is_empty() { Feed::Ended } else { Feed::Events(events) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;
    use ruam_event::change::Op;

    fn areas() -> Box<dyn Source> {
        let columns = ["code", "level", "parent_code", "abolished_on", "successors", "succession_basis", "notice"];
        Box::new(Areas { columns: columns.map(str::to_owned).into(), events: Vec::new(), next: 0 })
    }

    #[test]
    fn every_code_is_seen_and_the_abolished_are_closed_in_order() {
        let events = conformance::check(areas, &|_| false).unwrap();
        assert_eq!(events.len(), 77 + 928 + 7436 + 1583 + 1583);
        let closings: Vec<_> = events.iter().filter(|event| event.change.op() == Op::Update).collect();
        assert_eq!(closings.len(), 1583);
        assert!(closings.is_sorted_by_key(|event| event.source_time));
        let text = |event: &ChangeEvent, column: &str| match &event.change {
            Change::Update { new, .. } => new.get(column).cloned(),
            _ => None,
        };
        let closing = closings.iter().find(|event| text(event, "code") == Some("100205".into())).unwrap();
        assert_eq!(text(closing, "successors"), Some("102901".into()));
        assert_eq!(text(closing, "parent_code"), Some("1002".into()));
        assert_eq!(text(closing, "succession_basis"), Some("name".into()));
        assert_eq!(closing.source_time, Some(1_136_048_400_000_000), "2006-01-01 in Bangkok");
    }
}
