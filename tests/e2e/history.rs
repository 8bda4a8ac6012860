//! What was, as it is and as it was known, and what changed between two versions.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ruam_tests::broker::{embedded_in, publish};
use ruam_tests::{Broker, Installation};

const PATIENCE: Duration = Duration::from_secs(90);

fn values(rows: &[&[&str]]) -> Vec<Vec<Option<String>>> {
    rows.iter().map(|row| row.iter().map(|value| Some((*value).to_owned())).collect()).collect()
}

/// Rows that changes leave, when each that went takes one away that came.
const LEFT: &str = "select citizen_id, full_name, area_code, _offset, _partition from table_changes('bora.person', 0) \
     group by 1, 2, 3, 4, 5 having sum(case when _change_type in ('insert', 'update_postimage') then 1 else -1 end) = 1 \
     order by citizen_id";
const ROWS: &str = "select citizen_id, full_name, area_code, _offset, _partition from bora.person order by citizen_id";

pub fn changes_lead_from_version_to_version() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    // The second run replaces so many rows of the first that their files are worth merging.
    for events in ["6000", "12000"] {
        installation.succeed(&["demo", "--rate", "0", "--events", events])?;
    }
    let kinds = "select _change_type, count(*) from table_changes('bora.person', 0) group by 1 order by 1";
    let before = installation.ask(kinds)?;
    let names: Vec<_> = before.iter().filter_map(|row| row[0].as_deref()).collect();
    ensure!(names == ["delete", "insert", "update_postimage", "update_preimage"], "{before:?}");
    ensure!(before[2][1] == before[3][1], "an update has two images: {before:?}");
    ensure!(installation.ask(LEFT)? == installation.ask(ROWS)?, "all changes together come to the table");

    let versions = installation
        .ask("select version from ruam.versions where table_name = 'bora.person' and records > 0 order by version")?;
    ensure!(versions.len() > 1, "several commits: {versions:?}");
    let version = |at: usize| versions[at][0].clone().context("a version");
    let (from, to) = (version(1)?, version(versions.len() - 1)?);
    let of_range = installation.ask(&format!(
        "select distinct _commit_version from table_changes('bora.person', {from}, {to}) order by _commit_version"
    ))?;
    ensure!(of_range == versions[1..], "{of_range:?} is not {versions:?} from its second on");
    let fits = installation.ask(
        "select count(*) from table_changes('bora.person', 0) c join ruam.versions v \
         on v.table_name = 'bora.person' and v.version = c._commit_version \
         where v.committed_at <> c._commit_timestamp or v.records is null",
    )?;
    ensure!(fits == values(&[&["0"]]), "{fits:?}");
    // A table as it was has the rows that the changes up to then had left.
    for version in [&from, &to] {
        let left = installation.ask(&LEFT.replace("'bora.person', 0", &format!("'bora.person', 0, {version}")))?;
        let was = installation.ask(&ROWS.replace("bora.person", &format!("bora.person version as of {version}")))?;
        ensure!(left == was && !was.is_empty(), "version {version}: {} and {} rows", left.len(), was.len());
    }
    let rejects = installation.ask(
        "select count(*) = (select count(*) from bora.person__rejects) from table_changes('bora.person__rejects', 0)",
    )?;
    ensure!(rejects == values(&[&["true"]]), "a table of rejects changes, too: {rejects:?}");

    // Rows that move are no changes.
    installation.succeed(&["maintain"])?;
    let merged = installation
        .ask("select count(*) > 0 from ruam.versions where table_name = 'bora.person' and operation = 'OPTIMIZE'")?;
    ensure!(merged == values(&[&["true"]]), "files were merged: {merged:?}");
    ensure!(installation.ask(kinds)? == before, "maintenance changes nothing");
    ensure!(installation.ask(LEFT)? == installation.ask(ROWS)?, "all changes together come to the table");

    for (sql, expected) in [
        ("select * from table_changes('bora.persn', 0)", "Did you mean `bora.person`?"),
        (
            "select * from table_changes('bora.person', 999)",
            "there is no version 999 of table `bora.person` yet: the newest is",
        ),
        ("select * from table_changes('bora.person', 5, 3)", "version 3 is before version 5"),
        ("select * from table_changes('bora.person')", "Write table_changes('agency.dataset', from)"),
    ] {
        let said = installation.refuse(&["sql", sql])?;
        ensure!(said.contains(expected), "`{sql}` is answered without `{expected}`:\n{said}");
    }
    Ok(())
}

pub fn areas_have_been_in_force_for_their_time() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&["demo", "--rate", "0", "--events", "300"])?;
    let by_date = installation.ask(
        "select level, count(*) from dopa.administrative_area \
         where abolished_on is null or abolished_on > date '2010-01-01' group by level order by level",
    )?;
    let by_history = installation.ask(
        "select level, count(*) from dopa.administrative_area__history \
         where (valid_from is null or valid_from <= date '2010-01-01') and (valid_to is null or valid_to > date '2010-01-01') \
         and known_from <= now() and (known_to is null or known_to > now()) and abolished_on is null group by level order by level",
    )?;
    ensure!(by_date == by_history, "{by_date:?} are not {by_history:?}");
    let one = installation.ask(
        "select valid_from, valid_to, _op, is_current from dopa.administrative_area__history \
         where code = '100205' and known_to is null order by valid_from nulls first",
    )?;
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        [None, text("2006-01-01"), text("snapshot"), text("false")],
        [text("2006-01-01"), None, text("update"), text("true")],
    ];
    ensure!(one == expected, "{one:?}");
    Ok(())
}

const MOVED: &str = r#"dataset = "test.plot"
title = { th = "แปลง", en = "Plots" }
description = { th = "ก", en = "a" }
owner = { th = "กรม", en = "Department" }
contact = { name = "x", email = "x@example.org" }
classification = "internal"
purposes = ["training"]
mode = "upsert"
key = ["number"]
history = true
effective = "since"
topic = { name = "plots", partitions = 1 }
columns = [
    { name = "number", type = "integer", title = { th = "เลข", en = "Number" } },
    { name = "owner", type = "text", title = { th = "เจ้าของ", en = "Owner" } },
    { name = "since", type = "be_date", title = { th = "ตั้งแต่", en = "Since" } },
]
"#;

/// A table whose rows have an identity of their own, so that their numbers change.
pub fn a_row_takes_another_key() -> Result<()> {
    let installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec("test/plot", MOVED)?;
    let row =
        |number: u32, owner: &str, since: &str| format!(r#"{{"owner":"{owner}","number":{number},"since":"{since}"}}"#);
    let event = |op: &str, before: &str, after: &str, day: u32| {
        // Days after 2024-01-01.
        let micros = 1_704_067_200_000_000 + i64::from(day) * 86_400_000_000;
        format!(r#"{{"op":"{op}","before":{before},"after":{after},"source":{{"ts_us":{micros}}}}}"#)
    };
    let (one, two, three) = (row(1, "a", "1/2/2567"), row(2, "a", "1/3/2567"), row(3, "b", "1/2/2567"));
    let events = [
        event("c", "null", &one, 0),
        event("c", "null", &three, 0),
        event("u", &one, &two, 40),
        event("d", &three, "null", 50),
        // What was deleted comes again, and the number that was left is given to another.
        event("c", "null", &row(3, "c", "1/4/2567"), 60),
        event("c", "null", &row(1, "d", "1/5/2567"), 70),
    ];
    let mut up = installation.start(&["up"])?;
    let records = events.iter().map(|event| (Some(&b"id"[..]), Some(event.as_bytes())));
    publish(&embedded_in(&mut up)?, "plots", records)?;
    let deadline = Instant::now() + PATIENCE;
    while installation.ask("select count(*) from test.plot where owner = 'd'")? != values(&[&["1"]]) {
        ensure!(Instant::now() < deadline, "not all events arrived:\n{}", up.said());
    }
    let verified = installation.succeed(&["verify"])?;
    ensure!(verified.contains("every record is accounted for"), "{verified}");
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");

    let rows = installation.ask("select number, owner from test.plot order by number")?;
    ensure!(rows == values(&[&["1", "d"], &["2", "a"], &["3", "c"]]), "{rows:?}");
    for (day, expected) in [
        ("2024-01-15", &[][..]),
        ("2024-02-05", &[&["1", "a"][..], &["3", "b"]]),
        ("2024-03-05", &[&["2", "a"]]),
        ("2024-06-01", &[&["1", "d"], &["2", "a"], &["3", "c"]]),
    ] {
        let found = installation.ask(&format!(
            "select number, owner from test.plot__history where valid_from <= date '{day}' \
             and (valid_to is null or valid_to > date '{day}') and known_to is null order by number"
        ))?;
        ensure!(found == values(expected), "{day}: {found:?} is not {expected:?}");
    }
    Ok(())
}
