//! `ruam sql`.

use anyhow::{Context, Result, ensure};
use ruam_tests::{Broker, Installation};

fn with_areas() -> Result<Installation> {
    let installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&["demo", "--rate", "0", "--events", "300"])?;
    Ok(installation)
}

pub fn each_format_says_the_same() -> Result<()> {
    let installation = with_areas()?;
    let sql = "select code, name_th, name_en, abolished_on from dopa.administrative_area where code in ('10', '100205') order by code";
    let expected = [["10", "กรุงเทพมหานคร", "Bangkok", ""], ["100205", "บางซื่อ", "Bang Sue", "2006-01-01"]];

    let csv = installation.succeed(&["sql", sql, "--format", "csv"])?;
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.trim_end().split(',').collect()).collect();
    ensure!(lines[0] == ["code", "name_th", "name_en", "abolished_on"], "{csv}");
    ensure!(lines[1..] == expected, "{csv}");

    let json = installation.succeed(&["sql", sql, "--format", "json"])?;
    let json: Vec<serde_json::Value> = match serde_json::from_str(&json) {
        Ok(serde_json::Value::Array(rows)) => rows,
        _ => json.lines().map(serde_json::from_str).collect::<Result<_, _>>()?,
    };
    for (row, expected) in json.iter().zip(expected) {
        for (name, expected) in ["code", "name_th", "name_en", "abolished_on"].into_iter().zip(expected) {
            ensure!(row[name].as_str().unwrap_or_default() == expected, "{name} of {row} is not {expected}");
        }
    }

    let parquet = installation.ask(sql)?;
    let parquet: Vec<Vec<String>> =
        parquet.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect();
    ensure!(parquet == expected, "{parquet:?}");

    let table = installation.succeed(&["sql", sql])?;
    for value in expected.as_flattened() {
        ensure!(table.contains(value), "{table}");
    }

    // A statement may also come from the input, and a pipe may be closed early.
    let piped = |command: &str| -> Result<String> {
        let program = ruam_tests::installation::program();
        let binary = program.get_program().to_string_lossy().into_owned();
        let output = std::process::Command::new("sh")
            .args(["-c", command, "sh", &binary])
            .current_dir(installation.path())
            .env(ruam_tests::AS_RUAM, "1")
            .output()?;
        ensure!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let answer = piped("echo 'select 6 * 7 as answer' | \"$1\" sql --format csv")?;
    ensure!(answer.lines().nth(1) == Some("42"), "{answer}");
    let head = piped("\"$1\" sql 'select * from dopa.administrative_area' --format csv | head -1")?;
    ensure!(head.starts_with("code,"), "{head}");
    Ok(())
}

pub fn a_wrong_statement_is_explained() -> Result<()> {
    let installation = with_areas()?;
    for (sql, expected) in [
        ("select * from dopa.administrative_aera", "administrative_area"),
        ("select nam_th from dopa.administrative_area", "name_th"),
        ("selec 1", "selec"),
        ("delete from dopa.administrative_area", "only reads"),
        ("create external table t stored as csv location '/etc/passwd'", "only reads"),
    ] {
        let said = installation.refuse(&["sql", sql])?;
        ensure!(said.contains(expected), "`{sql}` is answered without `{expected}`:\n{said}");
    }
    let said = installation.refuse(&["sql", "select 1", "--format", "excel"])?;
    ensure!(said.contains("parquet"), "an unknown format lists the known ones: {said}");
    let count = installation.ask("select count(*) from dopa.administrative_area")?;
    ensure!(count[0][0].as_deref().context("a count")? != "0", "nothing was deleted");
    Ok(())
}
