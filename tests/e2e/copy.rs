//! `COPY … TO STDOUT`, by psql.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ruam_tests::{Broker, Installation};

use crate::server::{address, psql};

const PATIENCE: Duration = Duration::from_secs(90);

pub fn psql_takes_answers_as_files() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&["demo", "--rate", "0", "--events", "1500"])?;
    let mut up = installation.start(&["up", "--only", "query"])?;
    let port = address(&mut up)?;
    let question =
        "select code, name_th, name_en, abolished_on, succession_basis from dopa.administrative_area order by code";
    let asked = installation.succeed(&["sql", question, "--format", "csv"])?;

    // Line by line what `ruam sql` writes: more rows than are made into bytes at a time.
    let file = installation.data_dir().join("areas.csv");
    let told = psql(&port, &["-c", &format!("\\copy ({question}) to '{}' csv header", file.display())])?;
    let copied = std::fs::read_to_string(&file)?;
    let rows = asked.lines().count() - 1;
    ensure!(rows > 5000 && told.trim() == format!("COPY {rows}"), "{rows} rows: {told}");
    let differs = copied.lines().zip(asked.lines()).find(|(copied, asked)| copied != asked);
    ensure!(differs.is_none() && copied.lines().count() == rows + 1, "{differs:?}");

    // A table, some of its columns, shorthand, and a table as it was.
    for (copy, as_question) in [
        ("cgd.disbursement (disbursement_id, amount)", "select disbursement_id, amount from cgd.disbursement"),
        (
            "(select reason, column_name from read_rejects('bora.person'))",
            "select reason, column_name from bora.person__rejects",
        ),
        ("(select citizen_id from bora.person version as of 1)", "select citizen_id from bora.person version as of 1"),
    ] {
        let copied = psql(&port, &["-c", &format!("copy {copy} to stdout (format csv)")])?;
        let asked = installation.succeed(&["sql", as_question, "--format", "csv"])?;
        let sorted = |lines: &str, skip| {
            let mut lines: Vec<_> = lines.lines().skip(skip).map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        let (copied, asked) = (sorted(&copied, 0), sorted(&asked, 1));
        ensure!(!copied.is_empty() && copied == asked, "{copy}: {} lines, not {}", copied.len(), asked.len());
    }
    let text = psql(
        &port,
        &["-c", "copy (select E'a\\tb\\\\', null, true, timestamp with time zone '2025-01-01 00:00:00Z') to stdout"],
    )?;
    ensure!(text.starts_with("a\\tb\\\\\t\\N\tt\t2025-01-01 00:00:00"), "{text:?}");

    // What takes too long ends in an error, and not in a count; the connection goes on.
    let long = "copy (select value from generate_series(1, 100000000000)) to stdout";
    let output = Command::new("psql")
        .args(["-X", "-q", "-h", "127.0.0.1", "-p", &port, "-U", "ruam", "-d", "ruam"])
        .args(["-c", "set statement_timeout = '200ms'", "-c", long, "-c", "select 'goes on'"])
        .output()?;
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(error.contains("took longer than the 200ms") && !said.contains("COPY "), "{error}");
    ensure!(said.contains("goes on"), "the connection goes on: {error}");

    for (wrong, expected) in [
        ("copy bora.person from stdin", "rows come in as change events"),
        ("copy bora.person to '/tmp/person'", "\\copy of psql writes a file of yours"),
        ("copy bora.persn to stdout", "bora.persn"),
        ("copy (delete from bora.person) to stdout", "the lake is read-only"),
        ("begin; copy (select 1) to stdout", "Send it alone"),
    ] {
        let error = psql(&port, &["-c", wrong]).err().with_context(|| format!("{wrong} is to fail"))?.to_string();
        ensure!(error.contains(expected), "{wrong}: {error}");
    }
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    Ok(())
}
