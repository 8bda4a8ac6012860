//! What clients are told, by each protocol, held against `ruam sql`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ruam_tests::{Broker, Installation, fetched};
use serde_json::{Value, json};

use crate::server::{address, address_of};

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");
const PATIENCE: Duration = Duration::from_secs(90);

/// Statements, each with parameters of a type as text.
const QUESTIONS: &[(&str, &[(&str, &str)])] = &[
    ("select count(*), min(citizen_id) from bora.person version as of 1", &[]),
    ("select count(*) from bora.person version as of 1 where citizen_id > $1", &[("text", "0")]),
    (
        "select disbursement_id, amount, paid_on from cgd.disbursement where amount > $1 and paid_on >= $2 order by 1 limit 7",
        &[("decimal", "1000.50"), ("date", "2024-11-01")],
    ),
    ("select fiscal_year(paid_on), baht_text(sum(amount)) from cgd.disbursement group by 1 order by 1", &[]),
    ("select name_th, name_en from dopa.administrative_area where code = $1", &[("text", "10")]),
    ("select code from dopa.administrative_area where level = 'province' order by code limit $1", &[("integer", "5")]),
    ("select 'ไทย', cast(null as text), cast(1 as bigint), cast(1.5 as double), date '2025-01-31'", &[]),
    ("select count(*) from dopa.administrative_area where name_en like 'Bang/_%' escape '/'", &[]),
];

/// A question with its values in the place of parameters.
fn with_values(sql: &str, parameters: &[(&str, &str)]) -> String {
    parameters.iter().enumerate().fold(sql.to_owned(), |sql, (at, (kind, text))| {
        let value = if matches!(*kind, "text" | "date") { format!("'{text}'") } else { (*text).to_owned() };
        sql.replace(&format!("${}", at + 1), &value)
    })
}

pub fn of_java_are_told_the_same() -> Result<()> {
    let drivers = fetched::class_path("test-jdbc", &format!("{PROGRAMS}/pom.xml"))?;
    let mut installation = Installation::new(Broker::Embedded)?;
    installation.set("flight = \"127.0.0.1:0\"\n")?;
    installation.succeed(&["demo", "--rate", "0", "--events", "1000"])?;
    let lines = QUESTIONS.iter().map(|(sql, parameters)| {
        let parameters = parameters.iter().map(|(kind, text)| format!("\t{kind}={text}"));
        format!("{sql}{}\n", parameters.collect::<String>())
    });
    let questions = installation.data_dir().join("questions.tsv");
    std::fs::write(&questions, lines.collect::<String>())?;
    let mut up = installation.start(&["up", "--only", "query"])?;
    let port = address(&mut up)?;
    let flight = address_of(&mut up, "Arrow Flight SQL")?;
    let output = Command::new("java")
        // Code that runs for less than a minute is not worth the second compiler.
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8", "-Duser.timezone=UTC"])
        // Arrow reads memory with what Java keeps to itself.
        .arg("--add-opens=java.base/java.nio=ALL-UNNAMED")
        .arg("-cp")
        .arg(drivers)
        .arg(format!("{PROGRAMS}/Ask.java"))
        .args([&port, &flight])
        .arg(&questions)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout)?;
    ensure!(told.lines().count() == 2 * QUESTIONS.len(), "both drivers answer each question: {told}");
    for line in told.lines() {
        let (driver, answer) = line.split_once('\t').context("a driver")?;
        let (number, values) = answer.split_once('\t').context("a question")?;
        let (sql, parameters) = QUESTIONS[number.parse::<usize>()?];
        let expected = installation.ask(&with_values(sql, parameters))?;
        let expected: Vec<_> = expected.into_iter().flatten().map(|value| value.unwrap_or("null".to_owned())).collect();
        ensure!(values.split('\t').eq(&expected), "{driver}: {sql}\n{values}\nis not\n{expected:?}");
    }
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    Ok(())
}

pub fn of_python_are_told_the_same() -> Result<()> {
    let python = fetched::python("test-clients", &format!("{PROGRAMS}/requirements.txt"))?;
    let mut installation = Installation::new(Broker::Embedded)?;
    installation.set("flight = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n")?;
    installation.succeed(&["demo", "--rate", "0", "--events", "1000"])?;
    let mut expected = Vec::new();
    for (sql, parameters) in QUESTIONS {
        expected.push(json!(installation.ask(&with_values(sql, parameters))?));
    }
    let questions = installation.data_dir().join("questions.json");
    std::fs::write(&questions, json!(QUESTIONS).to_string())?;
    let mut up = installation.start(&["up", "--only", "query"])?;
    let port = address(&mut up)?;
    let flight = address_of(&mut up, "Arrow Flight SQL")?;
    let http = address_of(&mut up, "HTTP")?;
    let output = Command::new(python)
        .arg(format!("{PROGRAMS}/ask.py"))
        .args([&port, &flight, &http])
        .arg(&questions)
        .env("PGCONNECT_TIMEOUT", "20")
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout)?;
    ensure!(told.lines().count() == 8, "eight clients: {told}");
    for line in told.lines() {
        let told: Value = serde_json::from_str(line)?;
        let answers = told["answers"].as_array().context("answers")?;
        for ((answer, expected), (sql, _)) in answers.iter().zip(&expected).zip(QUESTIONS) {
            ensure!(answer == expected, "{}: {sql}\n{answer}\nis not\n{expected}", told["client"]);
        }
        ensure!(answers.len() == QUESTIONS.len(), "{told}");
    }
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    Ok(())
}
