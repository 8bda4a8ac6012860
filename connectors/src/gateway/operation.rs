//! What an agency says that has happened to a row, and whether its dataset can follow that.

use ruam_event::change::{Op, micros_of};
use ruam_event::envelope::WrittenChange;
use ruam_event::{DatasetSpec, Mode, Row, Value};

/// The words for what can have happened to a row, for messages. All rows at once cannot be deleted by the gateway.
pub(super) const WORDS: &str = "insert, update, delete or snapshot";

/// The change of a row of a dataset.
///
/// # Errors
/// Where the dataset has no such changes, or the row does not say which it is.
pub(super) fn change(op: Op, row: &Row, spec: &DatasetSpec) -> Result<WrittenChange, String> {
    let key = spec.key();
    let has = |name: &&String| !matches!(row.get(name), None | Some(Value::Null | Value::Unchanged));
    if let Some(missing) = key.iter().find(|name| !has(name)) {
        return Err(format!("the key column `{missing}` has no value"));
    }
    if spec.mode == Mode::Append && !matches!(op, Op::Insert | Op::Snapshot) {
        return Err("rows are only added to this dataset: the operation can be insert or snapshot".to_owned());
    }
    if op.leaves_row() {
        return Ok(WrittenChange::new(op, row, &key));
    }
    // Of what is deleted only the key matters, and nobody checks the rest.
    let values = key.iter().map(|name| row.get(name).cloned().unwrap_or(Value::Null)).collect();
    Ok(WrittenChange::new(op, &Row::new(key.clone().into(), values), &key))
}

/// A time of RFC 3339, in microseconds since 1970-01-01 UTC.
///
/// # Errors
/// Where it is not one.
pub(super) fn micros(time: &str) -> Result<i64, String> {
    micros_of(time).ok_or_else(|| "the time is not one of RFC 3339, such as 2026-01-31T09:30:00+07:00".to_owned())
}

/// An event's number among those of its source.
///
/// # Errors
/// Where it is none.
pub(super) fn sequence(text: &str) -> Result<u64, String> {
    let is_number = (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| is_number)
        .ok_or_else(|| "the number in the sequence has to have 1 to 18 decimal digits, and nothing else".to_owned())
}

/// Whether a text can be an event's id or source: it is kept with the row, and shown on one line.
///
/// # Errors
/// Where it cannot.
pub(super) fn check_name(text: &str, what: &str) -> Result<(), String> {
    let is_plain = || text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || !text.chars().any(char::is_control);
    if text.is_empty() || text.len() > 256 || !is_plain() {
        return Err(format!("the {what} has to have 1 to 256 bytes, none of them a control character"));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SPEC: &str = r#"
dataset = "bora.person"
title = { th = "ก", en = "a" }
description = { th = "ก", en = "a" }
owner = { th = "ก", en = "a" }
contact = { name = "a", email = "a@example.org" }
classification = "internal"
purposes = ["training"]
mode = "upsert"
key = ["code"]
source = { kind = "gateway" }
columns = [
  { name = "code", type = "text", title = { th = "ก", en = "a" } },
  { name = "name", type = "text", title = { th = "ก", en = "a" } },
]
"#;

    pub(in crate::gateway) fn spec(mode: &str) -> DatasetSpec {
        DatasetSpec::parse("specs/bora/person.toml", &SPEC.replace("\"upsert\"", &format!("\"{mode}\""))).unwrap()
    }

    /// The same, whose events are signed.
    pub(in crate::gateway) fn signed_spec(signatures: &str) -> DatasetSpec {
        let text = SPEC.replacen("mode =", &format!("signatures = \"{signatures}\"\nmode ="), 1);
        DatasetSpec::parse("specs/bora/person.toml", &text).unwrap()
    }

    fn row(columns: &[(&str, Value)]) -> Row {
        let (names, values): (Vec<_>, Vec<_>) =
            columns.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).unzip();
        Row::new(names.into(), values)
    }

    #[test]
    fn a_row_has_to_say_which_it_is() {
        let spec = spec("upsert");
        for columns in [vec![("name", "a".into())], vec![("code", Value::Null)], vec![("code", Value::Unchanged)]] {
            let error = change(Op::Insert, &row(&columns), &spec).unwrap_err();
            assert_eq!(error, "the key column `code` has no value");
        }
        let deleted = change(Op::Delete, &row(&[("name", "a".into()), ("code", "1".into())]), &spec).unwrap();
        assert_eq!(deleted, WrittenChange::new(Op::Delete, &row(&[("code", "1".into())]), &["code".to_owned()]));
    }

    #[test]
    fn what_is_only_added_to_takes_no_deletes() {
        let of = |op| change(op, &row(&[("code", "1".into())]), &spec("append"));
        assert!(of(Op::Insert).is_ok() && of(Op::Snapshot).is_ok());
        assert!(of(Op::Update).unwrap_err().starts_with("rows are only added to this dataset"));
        assert!(of(Op::Delete).is_err());
    }

    #[test]
    fn numbers_are_decimal() {
        assert_eq!([sequence("17"), sequence("0000000000000000017")].map(|number| number.ok()), [Some(17), None]);
        assert_eq!(sequence("007"), Ok(7));
        assert!(["", "-1", "+1", "1.0", "๑", "0x1"].iter().all(|text| sequence(text).is_err()));
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        assert_eq!(micros("1970-01-01T07:00:00.000001+07:00"), Ok(1));
        assert!(micros("2026-01-31").is_err());
    }
}
