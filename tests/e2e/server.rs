//! `ruam up`.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use ruam_tests::{Broker, Installation, Process};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

const PATIENCE: Duration = Duration::from_secs(90);

/// Where SQL is served, as the program says.
pub fn address(up: &mut Process) -> Result<String> {
    address_of(up, "SQL")
}

/// The port of something that is served.
pub fn address_of(up: &mut Process, what: &str) -> Result<String> {
    let line = up.wait_for(&format!("{what} is served at"), PATIENCE)?;
    let address = line.split("served at ").nth(1).and_then(|rest| rest.split(':').take(2).last());
    Ok(address.context("a port")?.trim().to_owned())
}

pub fn psql(port: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new("psql")
        .args(["-X", "-h", "127.0.0.1", "-p", port, "-U", "ruam", "-d", "ruam", "-v", "ON_ERROR_STOP=1"])
        .args(arguments)
        .env("PGCONNECT_TIMEOUT", "20")
        .output()?;
    ensure!(output.status.success(), "psql {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

pub fn psql_asks_the_same() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&["demo", "--rate", "0", "--events", "1000"])?;
    let mut up = installation.start(&["up", "--only", "query"])?;
    let port = address(&mut up)?;
    let population = "select a.name_th, count(*) as persons from bora.person p join dopa.administrative_area a \
         on a.code = substr(p.area_code, 1, 2) group by a.name_th order by persons desc, a.name_th limit 5";
    let changes = "select _change_type, _commit_version, count(*) from table_changes('bora.person', 0) group by 1, 2 order by 2, 1";
    let was = "select count(*), min(citizen_id) from bora.person version as of 1";
    let thai = "select be_text(paid_on), baht_text(amount) from cgd.disbursement order by disbursement_id limit 5";
    for statement in [population, changes, was, thai] {
        let by_psql = psql(&port, &["-A", "-t", "-F", ",", "-c", statement])?;
        let by_sql = installation.succeed(&["sql", statement, "--format", "csv"])?;
        let lines: Vec<_> = by_sql.lines().skip(1).map(str::trim_end).collect();
        ensure!(by_psql.lines().collect::<Vec<_>>() == lines, "psql:\n{by_psql}\nruam sql:\n{by_sql}");
    }
    for (wrong, expected) in [
        ("select * from bora.person version as of 99", "there is no version 99"),
        ("select * from bora.person version as off 1", "Expected: end of statement, found: as"),
        ("delete from bora.person version as of 1", "Expected"),
    ] {
        let error = psql(&port, &["-c", wrong]).err().context("an error")?.to_string();
        ensure!(error.contains(expected), "{wrong}: {error}");
    }

    // What people type first.
    let listed = psql(&port, &["-c", "\\dt *.*"])?;
    ensure!(listed.contains("administrative_area"), "{listed}");
    let described = psql(&port, &["-c", "\\d dopa.administrative_area"])?;
    ensure!(described.contains("abolished_on"), "{described}");
    let typed = psql(
        &port,
        &["-A", "-t", "-c", "select amount, paid_on, recorded_at is null, 'ไทย' from cgd.disbursement limit 1"],
    )?;
    ensure!(typed.contains('.') && typed.contains("ไทย"), "{typed}");
    // Nobody is asked for a password yet, so nobody may write.
    let written = psql(&port, &["-c", "delete from bora.person"]);
    ensure!(written.is_err(), "the lake can be written to: {written:?}");
    // Nor by way of what is explained.
    let file = installation.data_dir().join("written.csv");
    for statement in ["copy (select 1) to", "explain analyze copy (select 1) to"] {
        let written = psql(&port, &["-c", &format!("{statement} '{}'", file.display())]);
        ensure!(written.is_err() && !file.exists(), "{statement}: a file was written: {written:?}");
    }
    let made = psql(&port, &["-c", "select 1 as number into made"]);
    ensure!(made.is_err(), "a table was made: {made:?}");
    let copied = psql(&port, &["-A", "-t", "-c", "select count(*) from bora.person"])?;
    ensure!(copied.trim() != "0", "nothing was deleted");
    let unknown = psql(&port, &["-c", "select * from bora.persn"]).map_err(|error| error.to_string());
    ensure!(unknown.is_err_and(|error| error.contains("bora.person")), "an error says what was meant");
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    Ok(())
}

pub fn a_client_sets_what_is_its_own() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&["demo", "--rate", "0", "--events", "300"])?;
    let mut up = installation.start(&["up", "--only", "query"])?;
    let port = address(&mut up)?;
    let moment = "select timestamp with time zone '2025-01-01 00:00:00Z'";
    let ask = |statements: &[&str]| {
        let each = statements.iter().flat_map(|statement| ["-c", statement]);
        psql(&port, &["-A", "-t", "-q"].into_iter().chain(each).collect::<Vec<_>>())
    };
    let before = ask(&[moment])?;
    let is_at = |told: &str, time: &str, zone: &str| told.starts_with(time) && told.trim().ends_with(zone);
    ensure!(is_at(&before, "2025-01-01 00:00:00", "+00"), "{before}");
    for zone in [
        "set timezone = 'Asia/Bangkok'",
        "set session timezone to 'Asia/Bangkok'",
        "set local time zone 'Asia/Bangkok'",
    ] {
        ensure!(ask(&[zone, "show timezone"])?.trim() == "Asia/Bangkok", "{zone}");
        // What anybody is told is the same moment, whoever has set what.
        ensure!(ask(&[zone, moment])? == before && ask(&[moment])? == before, "after {zone}");
        ensure!(ask(&[zone, "discard all", "show timezone"])?.trim() == "UTC", "after {zone} and discard all");
    }
    for (statement, expected) in [
        ("set datafusion.execution.batch_size = 1", "datafusion.execution.batch_size is a setting of the engine"),
        ("set \"datafusion.execution.batch_size\" = 1", "is a setting of the engine"),
        ("set local datafusion.optimizer.max_passes = 1", "is a setting of the engine"),
        ("reset datafusion.execution.batch_size", "is a setting of the engine"),
        ("set timezone = 'Mars'", "`Mars` is not a time zone"),
    ] {
        let error = ask(&[statement]).err().with_context(|| format!("{statement} is to fail"))?.to_string();
        ensure!(error.contains(expected), "{statement}: {error}");
    }
    // What takes longer is broken off while it is answered, too.
    let long = "select sum(a.value * b.value) from generate_series(1, 1000000) a, generate_series(1, 1000000) b";
    let error = ask(&["set statement_timeout = '300ms'", long]).err().context("an error")?.to_string();
    ensure!(error.contains("the answer took longer than the 300ms that it may"), "{error}");
    tokio::runtime::Runtime::new()?.block_on(whoever_gives_up_is_let_go(&port))?;
    whoever_leaves_waits_no_longer(&port)?;
    for statement in ["reset all", "reset search_path", "set application_name = 'x'", "set extra_float_digits = 3"] {
        ask(&[statement])?;
    }
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    Ok(())
}

/// What nobody waits for any longer ends: of a client that is gone, and of one that has said goodbye.
fn whoever_leaves_waits_no_longer(port: &str) -> Result<()> {
    for (number, last_word) in [(7_000_001, &b""[..]), (7_000_002, b"X\0\0\0\x04")] {
        let mut client = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        let message = |kind: &[u8], body: &[u8]| {
            let length = u32::try_from(body.len() + 4).unwrap_or_default().to_be_bytes();
            [kind, &length, body].concat()
        };
        client.write_all(&message(b"", b"\0\x03\0\0user\0ruam\0\0"))?;
        let long = format!(
            "select sum(a.value * b.value) from generate_series(1, {number}) a, generate_series(1, {number}) b\0"
        );
        client.write_all(&message(b"Q", long.as_bytes()))?;
        wait_in_audit(port, "begun", number)?;
        match last_word {
            [] => client.shutdown(Shutdown::Write)?,
            last_word => client.write_all(last_word)?,
        }
        wait_in_audit(port, "broken_off", number)?;
    }
    Ok(())
}

/// Waits until the audit knows that the question with this number of pairs has begun, or ended so.
fn wait_in_audit(port: &str, event: &str, number: u64) -> Result<()> {
    let audit = format!("select event from ruam.audit where event = '{event}' and sql like '%{number}) b'");
    let deadline = Instant::now() + PATIENCE;
    while psql(port, &["-A", "-t", "-c", &audit])?.trim().is_empty() {
        ensure!(Instant::now() < deadline, "the question of {number} pairs is not {event}");
    }
    Ok(())
}

/// A client may cancel while an answer is worked out and while its rows are sent, and ask on.
async fn whoever_gives_up_is_let_go(port: &str) -> Result<()> {
    let (client, connection) =
        tokio_postgres::connect(&format!("host=127.0.0.1 port={port} user=ruam dbname=ruam"), NoTls).await?;
    tokio::spawn(connection);
    for (what, number) in [("sum(a.value * b.value)", 6_000_001), ("a.value, b.value", 6_000_002)] {
        let sql = format!("select {what} from generate_series(1, {number}) a, generate_series(1, {number}) b");
        let mut rows = std::pin::pin!(client.query_raw(&sql, std::iter::empty::<&str>()).await?);
        if what.starts_with('a') {
            rows.try_next().await?.context("a first row")?;
        }
        // What has not begun cannot be cancelled.
        let asked = port.to_owned();
        tokio::task::spawn_blocking(move || wait_in_audit(&asked, "begun", number)).await??;
        client.cancel_token().cancel_query(NoTls).await?;
        let answered = tokio::time::timeout(PATIENCE, rows.try_for_each(async |_| Ok(()))).await;
        let error = answered.context("it goes on though it was cancelled")?.err().context("nobody waits for it")?;
        ensure!(error.code() == Some(&SqlState::QUERY_CANCELED), "{sql}: {error:?}");
        let row = client.query_one("select 6 * 7", &[]).await?;
        ensure!(row.get::<_, i64>(0) == 42, "{row:?}");
    }
    // Programs tell what is wrong by its code.
    for (sql, code) in [
        ("select * from bora.persn", SqlState::UNDEFINED_TABLE),
        ("select nothing from bora.person", SqlState::UNDEFINED_COLUMN),
        ("select nothing(1)", SqlState::UNDEFINED_FUNCTION),
        ("select 1 / 0", SqlState::DIVISION_BY_ZERO),
        ("selec 1", SqlState::SYNTAX_ERROR),
        ("delete from bora.person", SqlState::READ_ONLY_SQL_TRANSACTION),
    ] {
        let error = client.simple_query(sql).await.err().context(sql)?;
        ensure!(error.code() == Some(&code), "{sql}: {error:?}");
    }
    Ok(())
}

pub fn it_stops_when_asked() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    let mut up = installation.start(&["up"])?;
    address(&mut up)?;
    up.wait_for("running", PATIENCE)?;
    let status = installation.succeed(&["status"])?;
    for part in ["broker", "connectors", "workers", "query"] {
        ensure!(status.contains(&format!("{part}: process {}", up.id())), "{status}");
    }
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success() && said.contains("stopped"), "{said}");
    let status = installation.succeed(&["status"])?;
    ensure!(status.contains("nothing of this installation runs"), "{status}");
    installation.succeed(&["verify"])?;
    Ok(())
}

/// One process for each part, in one data directory.
pub fn parts_run_in_processes_of_their_own(broker: Broker) -> Result<()> {
    let installation = Installation::new(broker)?;
    for name in ["cgd/disbursement", "msdhs/welfare_payment", "bora/person"] {
        std::fs::remove_file(installation.spec_path(name))?;
    }
    // On the embedded broker the first process has it, and the others find it there.
    let mut connectors = installation.start(&["up", "--only", "connectors"])?;
    connectors.wait_for("running", PATIENCE)?;
    let mut workers = installation.start(&["up", "--only", "workers"])?;
    workers.wait_for("running", PATIENCE)?;
    let deadline = Instant::now() + PATIENCE;
    let closed = "select count(*) from dopa.administrative_area where abolished_on is not null";
    loop {
        let found = installation.ask(closed)?;
        if found[0][0].as_deref() == Some("1583") {
            break;
        }
        ensure!(Instant::now() < deadline, "{found:?}\n{}\n{}", connectors.said(), workers.said());
    }
    // A second process for the same part is refused, and says who has it.
    let said = installation.refuse(&["up", "--only", "workers"])?;
    ensure!(said.contains(&format!("in use by process {}", workers.id())), "{said}");
    for process in [workers, connectors] {
        let (status, said) = process.interrupt(PATIENCE)?;
        ensure!(status.success(), "{said}");
    }
    installation.succeed(&["verify"])?;
    Ok(())
}
