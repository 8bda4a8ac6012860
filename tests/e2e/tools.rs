//! What the tools of analysts ask when they connect: psql for real, others from files in `tests/tools`.
//!
//! A file has a statement in each block, with what the tool reads of its answer (`-- reads:`) and rows that
//! have to be there (`-- finds:`, of values that stand in one row). `:bora` and `:person` are the numbers of a
//! schema and of a table, which tools look up before.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ruam_tests::{Broker, Installation, Process};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::server::{address, psql};

const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools");
const PATIENCE: Duration = Duration::from_secs(90);

fn serve() -> Result<(Installation, Process, String)> {
    let installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&["demo", "--rate", "0", "--events", "300"])?;
    let mut up = installation.start(&["up", "--only", "query"])?;
    let port = address(&mut up)?;
    Ok((installation, up, port))
}

pub fn psql_finds_its_way() -> Result<()> {
    let (_installation, up, port) = serve()?;
    for (command, expected) in [
        ("\\d", &["bora|person|table", "dopa|administrative_area__history|view", "ruam|versions|view"][..]),
        ("\\dt", &["bora|person|table", "cgd|disbursement|table"]),
        ("\\dt+ bora.*", &["bora|person|table", "ทะเบียน"]),
        ("\\dv", &["dopa|administrative_area__history|view"]),
        ("\\dv *.*", &["information_schema|columns|view"]),
        ("\\di *.*", &["bora|person_pkey|index"]),
        ("\\dn", &["bora|ruam", "ruam|ruam"]),
        ("\\df", &[]),
        ("\\l", &["ruam|ruam|UTF"]),
        ("\\du", &["system|"]),
        (
            "\\d bora.person",
            &["citizen_id|text||not null|", "birth_date|date|", "\"person_pkey\" PRIMARY KEY, btree (citizen_id)"],
        ),
        ("\\d+ bora.person", &["citizen_id|text||not null|", "(Citizen", "\"person_pkey\" PRIMARY KEY"]),
        ("\\d person", &["citizen_id|text|"]),
        ("\\d cgd.disbursement", &["amount|numeric("]),
        ("\\d dopa.administrative_area__history", &["valid_from|", "is_current|boolean"]),
    ] {
        let said = psql(&port, &["-A", "-c", command]).with_context(|| command.to_owned())?;
        for part in expected {
            ensure!(said.contains(part), "{command} does not say `{part}`:\n{said}");
        }
        ensure!(!said.contains("postgres"), "{command} speaks of what is not here:\n{said}");
    }
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    Ok(())
}

/// A statement of a tool.
struct Asked {
    sql: String,
    reads: Vec<String>,
    finds: Vec<Vec<String>>,
}

impl Asked {
    /// The statements of a file.
    fn all(text: &str) -> Vec<Self> {
        let said = |line: &str, key: &str| line.strip_prefix("-- ")?.strip_prefix(key).map(str::to_owned);
        let blocks = text.split("\n\n").map(|block| {
            let lines = || block.lines();
            let sql: Vec<_> = lines().filter(|line| !line.starts_with("--")).collect();
            let reads = lines().filter_map(|line| said(line, "reads: "));
            let finds = lines().filter_map(|line| said(line, "finds: "));
            Self {
                sql: sql.join("\n"),
                reads: reads.flat_map(|names| names.split(", ").map(str::to_owned).collect::<Vec<_>>()).collect(),
                finds: finds.map(|values| values.split(" | ").map(str::to_owned).collect()).collect(),
            }
        });
        blocks.filter(|asked| !asked.sql.trim().is_empty()).collect()
    }

    /// Holds an answer against what the tool reads.
    fn check(&self, columns: &[String], rows: &[Vec<Option<String>>]) -> Result<()> {
        for name in &self.reads {
            ensure!(columns.contains(name), "the column `{name}` is not one of {columns:?}");
        }
        // A value is the whole of one, or part of a text.
        let has = |row: &[Option<String>], part: &String| {
            row.iter().flatten().any(|value| value == part || (part.len() > 8 && value.contains(part.as_str())))
        };
        for values in &self.finds {
            ensure!(
                rows.iter().any(|row| values.iter().all(|value| has(row, value))),
                "no row has {values:?}; the first of {} are {:?}",
                rows.len(),
                &rows[..rows.len().min(3)]
            );
        }
        Ok(())
    }
}

pub fn each_tool_learns_what_there_is() -> Result<()> {
    let (_installation, up, port) = serve()?;
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(TOOLS)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    ensure!(files.len() >= 6, "there are {} files in {TOOLS}", files.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut wrong = Vec::new();
        for file in &files {
            let tool = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let asked = Asked::all(&std::fs::read_to_string(file)?);
            ensure!(!asked.is_empty(), "{tool} asks nothing");
            for error in replayed(&port, &asked).await? {
                wrong.push(format!("{tool}: {error}"));
            }
        }
        if !wrong.is_empty() {
            bail!("{} answers are not what a tool reads:\n{}", wrong.len(), wrong.join("\n\n"));
        }
        Ok(())
    })?;
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    Ok(())
}

/// What a tool is not answered as it needs, in a session of its own.
async fn replayed(port: &str, statements: &[Asked]) -> Result<Vec<String>> {
    let (client, connection) =
        tokio_postgres::connect(&format!("host=127.0.0.1 port={port} user=ruam dbname=ruam"), NoTls).await?;
    let connection = tokio::spawn(connection);
    let number = async |sql: &str| -> Result<String> {
        let (_, rows) = simple(&client, sql).await?;
        rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).context("a number")
    };
    let bora = number("select oid from pg_catalog.pg_namespace where nspname = 'bora'").await?;
    let person = format!("select oid from pg_catalog.pg_class where relname = 'person' and relnamespace = {bora}");
    let person = number(&person).await?;
    let mut wrong = Vec::new();
    for asked in statements {
        let sql = asked.sql.replace(":bora", &bora).replace(":person", &person);
        let mut said = |problem: String| wrong.push(format!("{problem}\n{}", asked.sql));
        let rows = match simple(&client, &sql).await {
            Ok((columns, rows)) => {
                if let Err(error) = asked.check(&columns, &rows) {
                    said(error.to_string());
                }
                rows.len()
            }
            Err(error) => {
                said(format!("{error:#}"));
                continue;
            }
        };
        // The same by the extended protocol, where the answer is binary.
        match extended(&client, &sql).await {
            Ok((columns, found)) => {
                let is_moved = sql.starts_with("FETCH");
                if let Some(name) = asked.reads.iter().find(|name| !columns.contains(name) && !is_moved) {
                    said(format!("by the extended protocol, {name} is not one of {columns:?}"));
                } else if found != rows && !is_moved {
                    said(format!("by the extended protocol there are {found} rows, not {rows}"));
                }
            }
            Err(error) => said(format!("by the extended protocol: {error:#}")),
        }
    }
    drop(client);
    connection.await??;
    Ok(wrong)
}

type Rows = Vec<Vec<Option<String>>>;

async fn simple(client: &Client, sql: &str) -> Result<(Vec<String>, Rows)> {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for message in client.simple_query(sql).await.map_err(explained)? {
        match message {
            SimpleQueryMessage::RowDescription(told) => {
                columns = told.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
            }
            _ => {}
        }
    }
    Ok((columns, rows))
}

async fn extended(client: &Client, sql: &str) -> Result<(Vec<String>, usize)> {
    let statement = client.prepare(sql).await.map_err(explained)?;
    let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    Ok((columns, client.query(&statement, &[]).await.map_err(explained)?.len()))
}

/// An error with what the server said.
fn explained(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(told) => anyhow::anyhow!("{told}"),
        None => error.into(),
    }
}
