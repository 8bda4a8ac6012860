//! What a table is to be: its rows by key, as events make it, and as the server has it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use ruam_event::{Change, ChangeEvent, Row, Value};
use ruam_tests::postgres::Postgres;

/// Rows by key, in the form of the events.
pub(super) type Model = BTreeMap<(String, String), BTreeMap<String, Value>>;

fn key(row: &Row) -> Result<(String, String)> {
    match (row.get("number"), row.get("part")) {
        (Some(Value::Number(number)), Some(Value::Text(part))) => Ok((number.clone(), part.clone())),
        other => bail!("a key is {other:?}"),
    }
}

/// What the events make of a table.
pub(super) fn fold(events: &[ChangeEvent]) -> Result<Model> {
    let mut model = Model::new();
    for event in events {
        match &event.change {
            Change::Snapshot(new) | Change::Insert(new) => {
                model.insert(key(new)?, columns(new, None)?);
            }
            Change::Update { old, new } => {
                let before = old.row().map(key).transpose()?.unwrap_or(key(new)?);
                let before = model.remove(&before);
                model.insert(key(new)?, columns(new, before.as_ref())?);
            }
            Change::Delete(old) => {
                model.remove(&key(old.row().context("a delete has its key")?)?);
            }
            Change::Truncate => model.clear(),
        }
    }
    Ok(model)
}

fn columns(row: &Row, before: Option<&BTreeMap<String, Value>>) -> Result<BTreeMap<String, Value>> {
    let value = |(name, value): (&str, &Value)| {
        let value = match value {
            Value::Unchanged => before.and_then(|before| before.get(name)).context("what is unchanged was there")?,
            value => value,
        };
        Ok((name.to_owned(), value.clone()))
    };
    row.iter().map(value).collect()
}

/// The table as the server has it, in the same form.
pub(super) fn rows(server: &Postgres) -> Result<Model> {
    let sql = "set timezone = 'UTC'; select number, part, holder, amount, is_open, changed, document from register";
    let mut model = Model::new();
    for row in server.run_sql(sql)? {
        let [number, part, holder, amount, is_open, changed, document] =
            <[_; 7]>::try_from(row).map_err(|row| anyhow::anyhow!("{row:?}"))?;
        let text = |text: Option<String>| text.map_or(Value::Null, Value::Text);
        let digits = |text: Option<String>| text.map_or(Value::Null, Value::Number);
        let key = (number.clone().unwrap_or_default(), part.clone().unwrap_or_default());
        let values = [
            ("number", digits(number)),
            ("part", text(part)),
            ("holder", text(holder)),
            ("amount", digits(amount)),
            ("is_open", is_open.map_or(Value::Null, |is| Value::Bool(is == "t"))),
            ("changed", text(changed)),
            ("document", text(document)),
        ];
        model.insert(key, values.map(|(name, value)| (name.to_owned(), value)).into());
    }
    Ok(model)
}

pub(super) fn ensure_same(is: &Model, should: &Model) -> Result<()> {
    for key in is.keys().chain(should.keys()).collect::<BTreeSet<_>>() {
        ensure!(is.get(key) == should.get(key), "{key:?}: {:?} instead of {:?}", is.get(key), should.get(key));
    }
    Ok(())
}
