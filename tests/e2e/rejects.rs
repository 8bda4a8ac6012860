//! Records that no connector of ours wrote, and that are wrong.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ruam_tests::broker::{embedded_in, publish};
use ruam_tests::{Broker, Installation, installation};

const PATIENCE: Duration = Duration::from_secs(90);

/// A dataset whose topic somebody else fills.
fn spec(topic: &str) -> String {
    format!(
        r#"dataset = "test.birth"
title = {{ th = "การเกิด", en = "Births" }}
description = {{ th = "ก", en = "a" }}
owner = {{ th = "กรม", en = "Department" }}
contact = {{ name = "x", email = "x@example.org" }}
classification = "internal"
purposes = ["training"]
mode = "upsert"
key = ["citizen_id"]
topic = {{ name = "{topic}", partitions = 1 }}
columns = [
    {{ name = "citizen_id", type = "thai_citizen_id", title = {{ th = "เลข", en = "ID" }} }},
    {{ name = "born", type = "be_date", required = true, title = {{ th = "วันเกิด", en = "Born" }} }},
]
"#
    )
}

/// The largest record, in bytes.
const LIMIT: usize = 2000;

/// Key, value and what becomes of it: the reason of a reject and its column; none for a row.
type Published = (Option<&'static str>, Option<Vec<u8>>, Option<(&'static str, Option<&'static str>)>);

fn records() -> Vec<Published> {
    let event = |row: &str| Some(format!(r#"{{"before":null,"after":{row},"op":"c","ts_ms":1}}"#).into_bytes());
    vec![
        (Some("1"), event(r#"{"citizen_id":"1101700230708","born":"๑๓ เมษายน ๒๕๖๗"}"#), None),
        (Some("2"), Some(b"\xff\xfe not JSON {".to_vec()), Some(("not_json", None))),
        (Some("3"), Some(br#"{"hello":"world"}"#.to_vec()), Some(("not_an_event", None))),
        (Some("4"), Some(br#"[1,2,3]"#.to_vec()), Some(("not_an_event", None))),
        (
            Some("5"),
            event(r#"{"citizen_id":"1101700230708","born":"1 ม.ค. 2560","weight":3200}"#),
            Some(("unknown_column", Some("weight"))),
        ),
        (
            Some("6"),
            event(r#"{"citizen_id":"1101700230708","born":"31 กุมภาพันธ์ 2560"}"#),
            Some(("impossible_date", Some("born"))),
        ),
        (
            Some("7"),
            event(r#"{"citizen_id":"1101700230709","born":"1 มกราคม 2560"}"#),
            Some(("wrong_check_digit", Some("citizen_id"))),
        ),
        (Some("8"), event(r#"{"citizen_id":"1101700230708"}"#), Some(("missing", Some("born")))),
        (
            Some("9"),
            event(&format!(r#"{{"citizen_id":"1101700230708","born":"{}"}}"#, "1".repeat(LIMIT))),
            Some(("too_large", None)),
        ),
        (
            Some("10"),
            event(r#"{"citizen_id":["1101700230708"],"born":"1 มกราคม 2560"}"#),
            Some(("nested_value", Some("citizen_id"))),
        ),
    ]
}

pub fn bad_records_are_kept_with_reason_and_place(broker: Broker) -> Result<()> {
    let mut installation = Installation::empty(broker)?;
    let topic = installation::unique();
    installation.write_spec("test/birth", &spec(&topic))?;
    installation.set(&format!("[limits]\nmax_record_bytes = {LIMIT}\n"))?;
    let mut up = installation.start(&["up"])?;
    // The worker waits for whoever makes the topic.
    let servers = match broker.servers()? {
        Some(servers) => servers,
        None => embedded_in(&mut up)?,
    };
    let records = records();
    publish(&servers, &topic, records.iter().map(|(key, value, _)| (key.map(str::as_bytes), value.as_deref())))?;
    let wanted = records.len();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counts = installation
            .ask("select (select count(*) from test.birth) + (select count(*) from test.birth__rejects)")?;
        if counts[0][0].as_deref() == Some(&wanted.to_string()) {
            break;
        }
        ensure!(Instant::now() < deadline, "{counts:?} of {wanted} records arrived:\n{}", up.said());
    }
    let verified = installation.succeed(&["verify"])?;
    ensure!(verified.contains("every record is accounted for"), "{verified}");
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    ensure!(!said.contains("110170023070"), "personal values never reach the log: {said}");

    let rows = installation.ask("select citizen_id, born from test.birth")?;
    ensure!(rows == [[Some("1101700230708".to_owned()), Some("2024-04-13".to_owned())]], "{rows:?}");
    let rejects = installation.ask(
        "select _offset, reason, column_name, _topic, _partition, detail, encode(raw_key, 'hex'), encode(raw_value, 'hex') \
         from test.birth__rejects order by _offset",
    )?;
    let expected: Vec<_> = records.into_iter().enumerate().filter(|(_, (_, _, reject))| reject.is_some()).collect();
    ensure!(rejects.len() == expected.len(), "{rejects:#?}");
    for (found, (offset, (key, value, reject))) in rejects.iter().zip(expected) {
        let (reason, column) = reject.context("a reject")?;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let place = [Some(offset.to_string()), Some(reason.to_owned())];
        ensure!(found[..2] == place, "offset {offset}: {found:?} is not {reason}");
        // A column that is not declared has no place in the schema, and its name may be anything.
        ensure!(reason == "unknown_column" || found[2].as_deref() == column, "offset {offset}: {found:?}");
        ensure!(found[3].as_deref() == Some(&topic) && found[4].as_deref() == Some("0"), "{found:?}");
        ensure!(found[5].as_deref().is_some_and(|detail| !detail.contains("1101700230")), "{found:?}");
        ensure!(found[6] == key.map(|key| hex(key.as_bytes())), "offset {offset}: the key is kept as it came");
        ensure!(found[7] == value.as_deref().map(hex), "offset {offset}: the value is kept as it came");
    }

    let listed = installation.succeed(&["rejects", "list"])?;
    ensure!(listed.contains("impossible_date") && !listed.contains("กุมภาพันธ์"), "no values unless asked for: {listed}");
    let listed =
        installation.succeed(&["rejects", "list", "--raw", "--reason", "impossible_date", "--format", "json"])?;
    ensure!(listed.contains("กุมภาพันธ์") && listed.contains(&format!("{topic}/0/5")), "{listed}");
    Ok(())
}
