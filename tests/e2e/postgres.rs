//! A table of a real PostgreSQL is followed: through kills of either side, and never with a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ruam_connectors::{Connection, Feed, Source, Surroundings, conformance};
use ruam_event::{Change, ChangeEvent, DatasetSpec};
use ruam_log::embedded::{EmbeddedBroker, EmbeddedSettings};
use ruam_tests::postgres::{Postgres, Release};
use ruam_tests::{Broker, Installation, Process};

pub mod columns;
pub mod connection;
mod model;

use model::{ensure_same, fold, rows};

const PATIENCE: Duration = Duration::from_secs(60);
/// So many rows stand in the table at first: the snapshot has several parts.
const ROWS: u32 = 9_000;
const LOGICAL: [&str; 1] = ["wal_level=logical"];

const SPEC: &str = r#"
dataset = "bora.register"
title = { th = "ทะเบียน", en = "Register" }
description = { th = "ทะเบียน", en = "Register" }
owner = { th = "ก", en = "a" }
contact = { name = "a", email = "a@example.org" }
classification = "internal"
purposes = ["training"]
mode = "upsert"
key = ["number", "part"]
topic = { partitions = 3 }
columns = [
  { name = "number", type = "integer", title = { th = "เลขที่", en = "Number" } },
  { name = "part", type = "text", title = { th = "ส่วน", en = "Part" } },
  { name = "holder", type = "text", title = { th = "ผู้ถือ", en = "Holder" } },
  { name = "amount", type = "decimal", with = { precision = 20, scale = 4 }, title = { th = "จำนวน", en = "Amount" } },
  { name = "is_open", type = "boolean", title = { th = "เปิด", en = "Open" } },
  { name = "changed", type = "timestamp", title = { th = "แก้ไข", en = "Changed" } },
  { name = "document", type = "text", title = { th = "เอกสาร", en = "Document" } },
]

[source]
kind = "postgres"
with = { connection = "bora", table = "public.register" }
"#;

/// The table, with as many rows; every tenth has a document that is stored apart.
fn table(rows: u32) -> String {
    format!(
        "create domain amount as numeric(20, 4);
         create table register (number bigint, part text collate \"C\", holder text, amount amount, is_open boolean,
             changed timestamptz, document text, primary key (number, part));
         alter table register alter document set storage external;
         insert into register select n, 'ก''\\' || n % 3, 'ผู้ถือ' || chr(9) || n, n / 8.0, n % 2 = 0,
             '2024-03-15 08:30:00+07'::timestamptz + n * interval '1 second',
             case when n % 10 = 0 then repeat(md5(n::text), 100) end from generate_series(1, {rows}) n"
    )
}

/// A random change: any kind, and several in one transaction now and then.
fn change(random: &mut ChaCha8Rng, rows: u32) -> String {
    let number = random.random_range(1..=rows + 50);
    let other = random.random_range(1..=rows * 2);
    match random.random_range(0..12) {
        0 | 1 => format!(
            "insert into register values ({number}, 'new', 'x', 1.5, true, now(), repeat('y', 5000)) on conflict do nothing"
        ),
        2 => format!("delete from register where number = {number}"),
        // Another key.
        3 => format!(
            "update register set number = {other}, part = 'moved' \
             where (number, part) = (select number, part from register where number = {number} order by part limit 1) \
             and not exists (select from register r where r.number = {other} and r.part = 'moved')"
        ),
        4 => format!(
            "begin; update register set amount = amount + 1 where number between {number} and {number} + 30; delete from register where number = {other}; commit"
        ),
        5 => format!(
            "begin; update register set holder = 'nobody'; rollback; update register set is_open = not is_open where number = {number}"
        ),
        6 => format!("update register set document = repeat('z', {}) where number = {number}", 4000 + other),
        // The document is not sent.
        _ => format!("update register set holder = 'h{other}', changed = now() where number = {number}"),
    }
}

fn spec(text: &str) -> Result<DatasetSpec> {
    Ok(DatasetSpec::parse("bora/register.toml", text)?)
}

fn source(spec: &DatasetSpec, server: &Postgres, state: &Path) -> Result<Box<dyn Source>> {
    source_as(spec, server, "postgres", state)
}

fn source_as(spec: &DatasetSpec, server: &Postgres, user: &str, state: &Path) -> Result<Box<dyn Source>> {
    let connections = BTreeMap::from([("bora".to_owned(), Connection::to(server.url(user)))]);
    let surroundings = Surroundings { connections, state: state.to_owned(), ..Surroundings::default() };
    ruam_connectors::open(spec, &surroundings)?.context("a source")
}

/// Snapshot and stream while the table changes: positions grow, any part comes again the same, and what comes makes
/// the table that there is.
pub fn a_source_keeps_its_promises(release: Release) -> Result<()> {
    let (server, state) = (Postgres::start(release, &LOGICAL)?, tempfile::tempdir()?);
    server.run_sql(&table(ROWS))?;
    let spec = spec(SPEC)?;
    let (stop, has_ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let events = std::thread::scope(|scope| {
        let changing = scope.spawn(|| -> Result<()> {
            let mut random = ChaCha8Rng::seed_from_u64(7);
            while !stop.load(Ordering::Acquire) {
                server.run_sql(&change(&mut random, ROWS))?;
            }
            server.run_sql("insert into register values (0, 'end')").map(drop)
        });
        let is_last = |event: &ChangeEvent| match &event.change {
            Change::Insert(row) => row.get("part") == Some(&"end".into()),
            _ => false,
        };
        let checked = (|| {
            let mut first = source(&spec, &server, state.path())?;
            first.open(None)?;
            let (begun, mut seen) = (Instant::now(), 0);
            // Until the snapshot has been told and changes have come behind it.
            while seen < 300 {
                ensure!(begun.elapsed() < PATIENCE, "only {seen} changes come");
                match first.next(1000)? {
                    Feed::Events(events) => {
                        let is_snapshot = |event: &ChangeEvent| matches!(event.change, Change::Snapshot(_));
                        seen = if events.iter().any(is_snapshot) { 0 } else { seen + events.len() };
                    }
                    Feed::Idle => {}
                    Feed::Ended => bail!("it ended"),
                }
            }
            drop(first);
            stop.store(true, Ordering::Release);
            while !has_ended.load(Ordering::Acquire) {
                let ended = server.run_sql("select 1 from register where part = 'end'")?;
                has_ended.store(!ended.is_empty(), Ordering::Release);
            }
            let is_end = |event: &ChangeEvent| matches!(event.change, Change::Insert(_)) && is_last(event);
            let make = || source(&spec, &server, state.path()).unwrap_or_else(|error| panic!("{error:#}"));
            Ok(conformance::check(make, &is_end)?)
        })();
        stop.store(true, Ordering::Release);
        changing.join().unwrap_or_else(|_| bail!("the changes broke off"))?;
        checked
    })?;
    let count = |is: fn(&Change) -> bool| events.iter().filter(|event| is(&event.change)).count();
    let snapshot = count(|change| matches!(change, Change::Snapshot(_)));
    ensure!(snapshot > 8_000 && events.len() > snapshot + 300, "{snapshot} of {} events", events.len());
    ensure_same(&fold(&events)?, &rows(&server)?)?;

    // A second one is refused; one that is let go of can be read at once.
    let mut first = source(&spec, &server, state.path())?;
    first.open(events.last().map(|event| event.position))?;
    let other = tempfile::tempdir()?;
    let second = source(&spec, &server, other.path())?.open(None).err().context("a second reader")?.to_string();
    ensure!(second.contains("somebody else reads the same changes"), "{second}");
    drop(first);
    source(&spec, &server, state.path())?.open(events.last().map(|event| event.position))?;
    Ok(())
}

/// A server on which nothing is prepared says all that is to do, and it is enough.
pub fn what_is_not_in_order_is_told_with_what_mends_it(release: Release) -> Result<()> {
    let (mut server, state) = (Postgres::start(release, &["wal_level=replica"])?, tempfile::tempdir()?);
    let spec = spec(&SPEC.replace("public.register", "civil.register"))?;
    server.run_sql(
        "create role reader login; create schema civil;
         create table civil.register (number bigint, part text, holder text, amount numeric, is_open boolean, \
             changed timestamptz, document text, secret text)",
    )?;
    let refused = |server: &Postgres, spec: &DatasetSpec| {
        let opened = source_as(spec, server, "reader", state.path())?.open(None);
        anyhow::Ok(opened.err().context("it is refused")?.to_string())
    };
    let said = refused(&server, &spec)?;
    for part in [
        "PostgreSQL `bora`: wal_level is replica",
        "ALTER SYSTEM SET wal_level = 'logical'",
        "ALTER ROLE \"reader\" REPLICATION",
        "GRANT USAGE ON SCHEMA \"civil\" TO \"reader\"; GRANT SELECT ON \"civil\".\"register\" TO \"reader\"",
        "ALTER TABLE \"civil\".\"register\" ADD PRIMARY KEY (\"number\", \"part\")",
        "does not declare the columns secret",
        "CREATE PUBLICATION \"ruam_bora_register\" FOR TABLE \"civil\".\"register\"",
    ] {
        ensure!(said.contains(part), "{part} is not in: {said}");
    }
    // Each remedy is SQL as it stands.
    for remedy in said.split("Run as").skip(1) {
        let sql = remedy.split_once(": ").context("SQL")?.1;
        let sql = sql.split(", or, where").next().unwrap_or(sql).split(". ").next().unwrap_or(sql);
        let sql = sql.split("; Declare").next().unwrap_or(sql).trim_end_matches("; ");
        for statement in sql.split("; ").filter(|statement| !statement.is_empty()) {
            server.run_sql(statement)?;
        }
    }
    server.crash_with(&[])?;
    let said = refused(&server, &spec)?;
    ensure!(said.contains("secret") && !said.contains("Run as"), "{said}");
    let spec = self::spec(
        &SPEC
            .replace("public.register", "civil.register")
            .replace("mode = \"upsert\"", "mode = \"upsert\"\nunknown_columns = \"ignore\""),
    )?;
    server.run_sql("insert into civil.register values (1, 'a', 'x', 'NaN', true, 'infinity', null, 'secret')")?;
    let mut reader = source_as(&spec, &server, "reader", state.path())?;
    reader.open(None)?;
    let events = loop {
        match reader.next(10)? {
            Feed::Events(events) => break events,
            Feed::Idle => {}
            Feed::Ended => bail!("it ended"),
        }
    };
    let [ChangeEvent { change: Change::Snapshot(row), .. }] = &events[..] else { bail!("{events:?}") };
    ensure!(row.get("secret").is_none() && row.get("amount") == Some(&"NaN".into()), "{row:?}");
    ensure!(row.get("changed") == Some(&"infinity".into()), "{row:?}");
    Ok(())
}

/// What would be a gap ends in advice: a slot that is dropped, read by others, or of another server; another table.
pub fn a_gap_is_never_passed_over(release: Release) -> Result<()> {
    let (server, state) = (Postgres::start(release, &LOGICAL)?, tempfile::tempdir()?);
    server.run_sql(&table(10))?;
    let spec = spec(SPEC)?;
    let read = |server: &Postgres, after, count: usize| -> Result<Vec<ChangeEvent>> {
        let mut source = source(&spec, server, state.path())?;
        source.open(after)?;
        let mut all = Vec::new();
        while all.len() < count {
            if let Feed::Events(events) = source.next(1000)? {
                all.extend(events);
            }
        }
        let last = all.last().map(|event: &ChangeEvent| event.position).context("an event")?;
        source.release(last)?;
        // Confirmed once the server knows.
        let confirmed = "select 1 from pg_replication_slots where confirmed_flush_lsn - '0/0' >= ";
        let begun = Instant::now();
        while server.run_sql(&format!("{confirmed} {}", last.major))?.is_empty() {
            ensure!(begun.elapsed() < PATIENCE, "what was released is not confirmed");
            source.next(1000)?;
        }
        Ok(all)
    };
    let snapshot = read(&server, None, 10)?;
    let after = snapshot.last().map(|event| event.position);
    server.run_sql("update register set holder = 'x' where number = 3")?;
    let refused = |server: &Postgres| {
        let opened = source(&spec, server, state.path())?.open(after);
        anyhow::Ok(opened.err().context("it is refused")?.to_string())
    };
    // Whoever has read it is gone when the server says so.
    let let_go = || -> Result<()> {
        let begun = Instant::now();
        while !server.run_sql("select 1 from pg_replication_slots where active")?.is_empty() {
            ensure!(begun.elapsed() < PATIENCE, "the slot is not let go of");
        }
        Ok(())
    };
    // Somebody else reads it on.
    let_go()?;
    server.run_sql("select pg_replication_slot_advance('ruam_bora_register', pg_current_wal_lsn())")?;
    let said = refused(&server)?;
    ensure!(
        said.contains("somebody else has read the slot") && said.contains("the changes between are missing"),
        "{said}"
    );
    let drop_slot = "select pg_drop_replication_slot('ruam_bora_register')";
    let_go()?;
    server.run_sql(drop_slot)?;
    let said = refused(&server)?;
    ensure!(said.contains("is gone, and with it the changes since"), "{said}");

    // Another server behind the address, even with a slot and a table of the same names.
    let other = Postgres::start(release, &LOGICAL)?;
    other.run_sql(&table(10))?;
    other.run_sql("create publication ruam_bora_register for table register")?;
    other.run_sql("select pg_create_logical_replication_slot('ruam_bora_register', 'pgoutput')")?;
    let said = refused(&other)?;
    ensure!(said.contains("it is another server"), "{said}");

    // The advice: what is remembered goes, and the table is read again, in the place of what is there.
    std::fs::remove_dir_all(state.path().join("bora.register"))?;
    let again = read(&server, after, 11)?;
    ensure!(again[0].change == Change::Truncate && again[0].position > after.unwrap_or_default(), "{:?}", again[0]);
    ensure_same(&fold(&again)?, &rows(&server)?)?;

    server.run_sql("drop table register")?;
    server.run_sql(&table(5).replace("create domain amount as numeric(20, 4);", ""))?;
    server.run_sql("alter publication ruam_bora_register add table register")?;
    let said = refused(&server)?;
    ensure!(said.contains("is not the table that was read, but another of its name"), "{said}");
    Ok(())
}

/// The disk is full while a part of the snapshot is written; when there is room, it goes on where it was.
pub fn the_disk_is_full() -> Result<()> {
    let (server, state) = (Postgres::start(Release::Installed, &LOGICAL)?, tempfile::tempdir()?);
    server.run_sql(&table(ROWS))?;
    let spec = spec(SPEC)?;
    let mut source = source(&spec, &server, state.path())?;
    let (mut events, mut after) = (Vec::<ChangeEvent>::new(), None);
    for part in 0..2 {
        source.open(after)?;
        // A file on a disk that has no room left.
        let rows = state.path().join(format!("bora.register/chunk-{part}.rows"));
        std::os::unix::fs::symlink("/dev/full", &rows)?;
        let said = loop {
            match source.next(1000) {
                Ok(Feed::Events(more)) => events.extend(more),
                Ok(_) => {}
                Err(error) => break error.to_string(),
            }
        };
        let file = rows.display().to_string();
        ensure!(said.contains(&file) && said.contains("No space left") && said.contains("Make room"), "{said}");
        std::fs::remove_file(rows)?;
        server.run_sql(&format!("update register set holder = 'x' where number = {}", part + 1))?;
        after = events.last().map(|event| event.position);
        ensure!(after.is_some() == (part > 0), "{} events before part {part}", events.len());
    }
    server.run_sql("insert into register values (0, 'end')")?;
    source.open(after)?;
    let is_end = |event: &ChangeEvent| match &event.change {
        Change::Snapshot(row) | Change::Insert(row) => row.get("part") == Some(&"end".into()),
        _ => false,
    };
    // The new row comes before those of other parts or behind them.
    let rows = rows(&server)?;
    while !(events.iter().any(is_end) && fold(&events)?.len() == rows.len()) {
        if let Feed::Events(more) = source.next(1000)? {
            events.extend(more);
        }
    }
    ensure!(events.windows(2).all(|pair| pair[0].position < pair[1].position), "positions grow");
    ensure_same(&fold(&events)?, &rows)
}

/// The whole way into the lake, with both sides killed again and again: at the end it has the rows that the
/// server has.
pub fn the_lake_has_what_the_server_has(release: Release) -> Result<()> {
    let mut server = Postgres::start(release, &LOGICAL)?;
    server.run_sql(&table(ROWS))?;
    let mut installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec("bora/register", SPEC)?;
    installation.set(&format!("[connections.bora]\nurl = \"{}\"\n", server.url("postgres")))?;
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for kill in 1..=8 {
        let mut up = installation.start(&["up"])?;
        let until = Instant::now() + Duration::from_millis(random.random_range(500..4000));
        while Instant::now() < until {
            server.run_sql(&change(&mut random, ROWS))?;
        }
        ensure!(up.run_for(Duration::from_millis(1)), "ended by itself:\n{}", up.said());
        if kill % 4 == 0 {
            // The connector finds its way back.
            server.crash()?;
            server.run_sql("insert into register values (1, 'after the crash') on conflict do nothing")?;
        }
        up.kill()?;
    }
    let up = installation.start(&["up"])?;
    the_lake_becomes_the_table(&installation, &server, up)
}

/// The log is away for a minute, while the table is read and changed.
pub fn the_log_is_away_for_a_minute() -> Result<()> {
    const AWAY: Duration = Duration::from_secs(60);
    let server = Postgres::start(Release::Installed, &LOGICAL)?;
    server.run_sql(&table(ROWS))?;
    let (runtime, folder) = (tokio::runtime::Runtime::new()?, tempfile::tempdir()?);
    let start = |settings| runtime.block_on(EmbeddedBroker::start(folder.path(), settings));
    let broker = start(EmbeddedSettings::default())?;
    let address = broker.address();
    let mut installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec("bora/register", SPEC)?;
    installation.set(&format!(
        "[log]\nbootstrap_servers = \"{address}\"\nreplication = 1\n[connections.bora]\nurl = \"{}\"\n",
        server.url("postgres")
    ))?;
    let mut up = installation.start(&["up"])?;
    let count = |installation: &Installation| installation.ask("select 1 from bora.register limit 1");
    up.run_until(|| Ok(count(&installation).is_ok_and(|rows| !rows.is_empty())), PATIENCE)?;
    runtime.block_on(broker.stop());
    let (mut random, away) = (ChaCha8Rng::seed_from_u64(13), Instant::now());
    while away.elapsed() < AWAY {
        server.run_sql(&change(&mut random, ROWS))?;
    }
    ensure!(up.run_for(Duration::from_millis(1)), "ended by itself:\n{}", up.said());
    let broker = start(EmbeddedSettings { listen: address, ..EmbeddedSettings::default() })?;
    the_lake_becomes_the_table(&installation, &server, up)?;
    runtime.block_on(broker.stop());
    Ok(())
}

/// What was changed last is in the lake at last, and nothing was lost or came twice on the way.
fn the_lake_becomes_the_table(installation: &Installation, server: &Postgres, mut up: Process) -> Result<()> {
    server.run_sql("insert into register values (0, 'end')")?;
    let theirs = server.run_sql(
        "select number, part, holder, amount, is_open::text, (extract(epoch from changed) * 1000000)::bigint, md5(document) \
         from register order by number, part",
    )?;
    let lake = "select number as n, part as p, holder, cast(amount as varchar), cast(is_open as varchar), \
        cast(changed as bigint), md5(document) from bora.register order by n, p";
    let begun = Instant::now();
    loop {
        let mine = installation.ask(lake).unwrap_or_default();
        if mine == theirs {
            break;
        }
        ensure!(up.run_for(Duration::from_millis(100)), "{}", up.said());
        if begun.elapsed() > PATIENCE {
            let [mine, theirs] = [&mine, &theirs].map(|rows| rows.iter().collect::<BTreeSet<_>>());
            let some = |rows: Vec<_>| rows.into_iter().take(5).collect::<Vec<&Vec<_>>>();
            let lacks = some(theirs.difference(&mine).copied().collect());
            let rejects = installation.ask("select * from bora.register__rejects")?;
            bail!(
                "the lake has {:?}, and lacks {lacks:?}; rejected: {rejects:?}",
                some(mine.difference(&theirs).copied().collect())
            );
        }
    }
    // Only of a row that was gone before it was read can it be unknown what an update has left in it.
    let rejected = installation.ask("select count(*) from bora.register__rejects where reason <> 'unknown_row'")?;
    let said = installation.succeed(&["status"])?;
    let kept = said.lines().find(|line| line.starts_with("bora.register: PostgreSQL `bora` keeps "));
    ensure!(kept.is_some_and(|kept| kept.ends_with("MB of its log for the slot ruam_bora_register")), "{said}");
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    ensure!(rejected[0][0].as_deref() == Some("0"), "{rejected:?} rejects");
    installation.succeed(&["verify"])?;
    Ok(())
}
