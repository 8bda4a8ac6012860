//! Which columns a table has, and of which types.

use anyhow::{Context, Result, bail, ensure};
use ruam_connectors::Feed;
use ruam_event::{Change, ChangeEvent, Value};
use ruam_tests::postgres::{Postgres, Release};

use super::{LOGICAL, SPEC, source, spec, table};

/// Columns come, go and are called otherwise; a truncation is one.
pub fn they_come_and_go(release: Release) -> Result<()> {
    let (server, state) = (Postgres::start(release, &LOGICAL)?, tempfile::tempdir()?);
    server.run_sql(&table(3))?;
    let spec = spec(&SPEC.replace("mode = \"upsert\"", "mode = \"upsert\"\nunknown_columns = \"ignore\""))?;
    let mut source = source(&spec, &server, state.path())?;
    source.open(None)?;
    let mut take = |count: usize| -> Result<Vec<ChangeEvent>> {
        let mut events = Vec::new();
        while events.len() < count {
            if let Feed::Events(more) = source.next(count - events.len())? {
                events.extend(more);
            }
        }
        Ok(events)
    };
    take(3)?;
    let new_of = |events: &[ChangeEvent]| match events {
        [ChangeEvent { change: Change::Update { new, .. } | Change::Insert(new), .. }] => Ok(new.clone()),
        other => bail!("{other:?}"),
    };
    server
        .run_sql("alter table register add note text; update register set note = 'n', holder = 'a' where number = 1")?;
    let row = new_of(&take(1)?)?;
    ensure!(row.get("note").is_none() && row.get("holder") == Some(&"a".into()), "{row:?}");
    server.run_sql("alter table register drop holder; update register set is_open = null where number = 2")?;
    let row = new_of(&take(1)?)?;
    ensure!(row.get("holder").is_none() && row.get("is_open") == Some(&Value::Null), "{row:?}");
    server.run_sql(
        "alter table register rename note to holder; insert into register (number, part, holder) values (9, 'p', 'h')",
    )?;
    let row = new_of(&take(1)?)?;
    ensure!(row.get("holder") == Some(&"h".into()), "{row:?}");
    server.run_sql("truncate register")?;
    ensure!(take(1)?[0].change == Change::Truncate);
    server.run_sql("create type mood as enum ('good'); alter table register add feeling mood; insert into register (number, part) values (1, 'p')")?;
    ensure!(new_of(&take(1)?)?.get("part") == Some(&"p".into()));
    Ok(())
}

/// Every type has one text, in the snapshot and in the stream.
pub fn each_type_has_one_text(release: Release) -> Result<()> {
    let columns = [
        ("amount numeric", "'NaN'", Value::Text("NaN".into())),
        (
            "wide numeric",
            "12345678901234567890.12345678901234567890",
            Value::Number("12345678901234567890.12345678901234567890".into()),
        ),
        ("small smallint", "-1", Value::Number("-1".into())),
        ("real float4", "0.1", Value::Number("0.1".into())),
        ("double float8", "'-Infinity'", "-Infinity".into()),
        ("is_it boolean", "true", Value::Bool(true)),
        ("day date", "'infinity'", "infinity".into()),
        ("long_ago date", "'0044-03-15 BC'", "0044-03-15 BC".into()),
        ("at time", "'08:30:00.000001'", "08:30:00.000001".into()),
        ("at_zone timetz", "'08:30:00+07'", "08:30:00+07".into()),
        ("local timestamp", "'2024-03-15 08:30:00.5'", "2024-03-15 08:30:00.5".into()),
        ("moment timestamptz", "'2024-03-15 08:30:00+07'", "2024-03-15 01:30:00+00".into()),
        ("never timestamptz", "'-infinity'", "-infinity".into()),
        ("span interval", "'1 day 2 hours'", "P1DT2H".into()),
        ("name uuid", "'6ECD8C99-4036-403D-BF84-CF8400F67836'", "6ecd8c99-4036-403d-bf84-cf8400f67836".into()),
        ("details jsonb", "'{\"b\":1,\"a\":\"ก\"}'", "{\"a\": \"ก\", \"b\": 1}".into()),
        ("raw json", "'{\"b\":1, \"b\":2}'", "{\"b\":1, \"b\":2}".into()),
        ("words text[]", "array['a', 'b c', null]", "{a,\"b c\",NULL}".into()),
        ("mood mood", "'good'", "good".into()),
        ("bytes bytea", "'\\xDEAD'", "\\xdead".into()),
        ("address inet", "'10.0.0.1/8'", "10.0.0.1/8".into()),
        ("share share", "0.25", Value::Number("0.25".into())),
        ("period daterange", "'[2024-01-01,2024-02-01)'", "[2024-01-01,2024-02-01)".into()),
        ("said text", "E'a\\tb\\n\\\\c'", "a\tb\n\\c".into()),
        ("nothing text", "null", Value::Null),
    ];
    let (server, state) = (Postgres::start(release, &LOGICAL)?, tempfile::tempdir()?);
    let declared: Vec<_> = columns.iter().map(|(declared, ..)| *declared).collect();
    let values: Vec<_> = columns.iter().map(|(_, value, _)| *value).collect();
    server.run_sql(&format!(
        "create type mood as enum ('good'); create domain share as numeric(3, 2) check (value <= 1);
         create table register (number bigint, part text, {}, primary key (number, part));
         insert into register values (1, 'p', {})",
        declared.join(", "),
        values.join(", ")
    ))?;
    let (head, _) = SPEC.split_once("  { name = \"holder\"").context("columns")?;
    let column =
        |name: &str| format!("  {{ name = \"{name}\", type = \"text\", title = {{ th = \"ก\", en = \"a\" }} }},\n");
    let names = || declared.iter().filter_map(|declared| declared.split(' ').next());
    let (_, source_text) = SPEC.split_once("[source]").context("a source")?;
    let text = format!("{head}{}]\n[source]{source_text}", names().map(column).collect::<String>());
    let mut source = source(&spec(&text)?, &server, state.path())?;
    source.open(None)?;
    let mut take = || loop {
        match source.next(1) {
            Ok(Feed::Events(events)) => break Ok(events),
            Ok(Feed::Idle) => {}
            other => bail!("{other:?}"),
        }
    };
    let snapshot = take()?;
    server.run_sql("update register set number = 1")?;
    let stream = take()?;
    let (Change::Snapshot(read), Change::Update { new, .. }) = (&snapshot[0].change, &stream[0].change) else {
        bail!("{snapshot:?} {stream:?}");
    };
    ensure!(read == new, "{read:?} is not {new:?}");
    for (name, (_, value, expected)) in names().zip(&columns) {
        ensure!(read.get(name) == Some(expected), "{name} = {value}: {:?}", read.get(name));
    }
    Ok(())
}
