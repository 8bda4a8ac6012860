//! The data and the questions of the benchmark TPC-H, and DuckDB to ask the same.
//!
//! What passes through: the rows that tpchgen makes, as change events through the broker and the workers
//! of an installation into tables like any other; the questions of TPC-H with the values of its validation
//! run, each in a file; the answers of Ruam and of DuckDB, which reads the very files of those tables.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ruam_event::change::{Columns, Row, Value};
use ruam_event::{Change, ChangeEvent, DatasetSpec, Position};
use ruam_lake::{Lake, LiveFiles, TableKind, TableName};
use ruam_query::{Caller, Engine, EngineSettings, Policies, PseudonymKey, QueryDataset, Session};
use ruam_transform::{Transform, reject};
use tokio::runtime::Runtime;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

use crate::backlog::Backlog;
use crate::{Broker, Installation, Process, fetched, tables};

/// The folder of the questions and of the program that asks DuckDB.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tpch");
/// The libraries of Python, those of the tests with readers.
const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/readers/requirements.txt");

/// How long the tables may take to be filled, and an answer of DuckDB.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The tables, each with its key.
const TABLES: [(&str, &[&str]); 8] = [
    ("region", &["r_regionkey"]),
    ("nation", &["n_nationkey"]),
    ("supplier", &["s_suppkey"]),
    ("customer", &["c_custkey"]),
    ("part", &["p_partkey"]),
    ("partsupp", &["ps_partkey", "ps_suppkey"]),
    ("orders", &["o_orderkey"]),
    ("lineitem", &["l_orderkey", "l_linenumber"]),
];

/// Somebody who does not see all.
const ANALYST: &str = "analyst";

/// How many questions there are.
pub const QUESTIONS: usize = 22;

/// A question, from 1 on.
///
/// # Errors
/// Where there is none.
pub fn question(number: usize) -> Result<String> {
    let text = fs::read_to_string(format!("{FOLDER}/q{number:02}.sql"))?;
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("--")).map(str::trim).collect();
    Ok(lines.join(" "))
}

/// The rows of a table at a scale: of 1, the largest table has 6 million.
fn rows(table: &str, scale: f64) -> Result<Box<dyn Iterator<Item = Result<RecordBatch, arrow::error::ArrowError>>>> {
    Ok(match table {
        "region" => Box::new(RegionArrow::new(RegionGenerator::new(scale, 1, 1))),
        "nation" => Box::new(NationArrow::new(NationGenerator::new(scale, 1, 1))),
        "supplier" => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1))),
        "customer" => Box::new(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1))),
        "part" => Box::new(PartArrow::new(PartGenerator::new(scale, 1, 1))),
        "partsupp" => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1))),
        "orders" => Box::new(OrderArrow::new(OrderGenerator::new(scale, 1, 1))),
        "lineitem" => Box::new(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1))),
        _ => anyhow::bail!("TPC-H has no table `{table}`"),
    })
}

/// The file of a table's dataset, whose topic others fill.
fn spec_text(table: &str, key: &[&str], columns: &SchemaRef) -> Result<String> {
    let mut text = format!(
        r#"dataset = "tpch.{table}"
title = {{ th = "{table} (ข้อมูลทดสอบ)", en = "{table} (generated data)" }}
description = {{ th = "ข้อมูลทดสอบ TPC-H", en = "A table of the benchmark TPC-H" }}
owner = {{ th = "ทดสอบ", en = "Tests" }}
contact = {{ name = "Tests", email = "tests@example.org" }}
classification = "open"
purposes = ["testing"]
generated = true
mode = "upsert"
key = {key:?}

[topic]
name = "tpch.{table}"
partitions = 1
"#
    );
    for field in columns.fields() {
        let name = field.name();
        let semantic = match field.data_type() {
            DataType::Int32 | DataType::Int64 => "type = \"integer\"".to_owned(),
            DataType::Decimal128(precision, scale) => {
                format!("type = \"decimal\"\nwith = {{ precision = {precision}, scale = {scale} }}")
            }
            DataType::Date32 => "type = \"date\"".to_owned(),
            DataType::Utf8View => "type = \"text\"".to_owned(),
            other => anyhow::bail!("there is no semantic type for {other}"),
        };
        text.push_str(&format!(
            "\n[[columns]]\nname = \"{name}\"\n{semantic}\nrequired = true\ntitle = {{ th = \"{name}\", en = \"{name}\" }}\n"
        ));
    }
    Ok(text)
}

/// The datasets at a scale: the name of each file, and its text.
fn specs(scale: f64) -> Result<Vec<(String, String)>> {
    let spec = |(table, key): &(&str, &[&str])| {
        let columns = rows(table, scale)?.next().context("a table has rows")??.schema();
        Ok((format!("tpch/{table}"), spec_text(table, key, &columns)?))
    };
    TABLES.iter().map(spec).collect()
}

/// Calls for the event that brings each row of a table.
fn for_each_event(table: &str, scale: f64, each: &mut dyn FnMut(&ChangeEvent) -> Result<()>) -> Result<()> {
    let mut position = 0;
    for batch in rows(table, scale)? {
        let batch = batch?;
        let names: Columns = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let options = FormatOptions::default();
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let is_text = |index: usize| matches!(batch.column(index).data_type(), DataType::Utf8View | DataType::Date32);
        for row in 0..batch.num_rows() {
            let value = |(index, column): (usize, &ArrayFormatter<'_>)| {
                let text = column.value(row).to_string();
                if is_text(index) { Value::Text(text) } else { Value::Number(text) }
            };
            let values = columns.iter().enumerate().map(value).collect();
            position += 1;
            let change = Change::Insert(Row::new(names.clone(), values));
            each(&ChangeEvent { position: Position::new(position), source_time: None, change })?;
        }
    }
    Ok(())
}

/// The tables at some scale, in a folder.
pub struct Tpch {
    folder: PathBuf,
    /// The name of each dataset's file, and its text.
    specs: Vec<(String, String)>,
    lake: Lake,
    datasets: Vec<Arc<QueryDataset>>,
}

impl Tpch {
    /// The tables at a scale, which are made at the first call and kept.
    ///
    /// # Errors
    /// Where they cannot be made.
    pub fn kept(scale: f64) -> Result<Self> {
        let specs = specs(scale)?;
        let folder = fetched::made("tpch", &format!("{scale} {specs:?}"), |folder| fill(folder, scale, &specs))?;
        Self::open(&folder, specs)
    }

    /// The tables at a scale, made in an empty folder.
    ///
    /// # Errors
    /// Where they cannot be made.
    pub fn fill(folder: &Path, scale: f64) -> Result<Self> {
        let specs = specs(scale)?;
        fill(folder, scale, &specs)?;
        Self::open(folder, specs)
    }

    fn open(folder: &Path, specs: Vec<(String, String)>) -> Result<Self> {
        let dataset = |(name, text): &(String, String)| {
            let spec = DatasetSpec::parse(&format!("{name}.toml"), text)?;
            let rows = Transform::new(&spec, 1 << 20)?.schema().clone();
            let (spec, rejects) = (Arc::new(spec), reject::SCHEMA.clone());
            Ok(Arc::new(QueryDataset { spec, rows, rejects, changes: None }))
        };
        let datasets = specs.iter().map(dataset).collect::<Result<_>>()?;
        Ok(Self { lake: Lake::open(&lake_in(folder), &BTreeMap::new())?, folder: folder.to_owned(), specs, datasets })
    }

    /// The program, which serves the tables over PostgreSQL's protocol, and what it runs on. It keeps no answers.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn serve(&self, memory_mb: usize) -> Result<(Installation, Process)> {
        let mut installation = Installation::empty(Broker::Embedded)?;
        // The settings of queries come first.
        // What is asked again is worked out again.
        installation.set(&format!(
            "memory_mb = {memory_mb}\nresult_cache_mb = 0\n[lake]\nurl = {:?}\n",
            lake_in(&self.folder)
        ))?;
        for (name, text) in &self.specs {
            installation.write_spec(name, text)?;
        }
        let up = installation.start(&["up", "--only", "query"])?;
        Ok((installation, up))
    }

    /// A session over the tables, for somebody who sees all.
    ///
    /// # Errors
    /// Where it cannot be set up.
    pub fn session(&self, settings: EngineSettings) -> Result<Session> {
        let engine = Engine::new(self.lake.clone(), self.datasets.clone(), Policies::default(), settings)?;
        Ok(engine.session(Caller::system("bench"))?)
    }

    /// The same, for somebody in the role of an analyst: of each table they see the rows that a condition lets
    /// pass, which are all, and not its comments.
    ///
    /// # Errors
    /// Where it cannot be set up.
    pub fn guarded(&self, settings: EngineSettings) -> Result<Session> {
        let mut text = format!("role = \"{ANALYST}\"\n");
        for (table, key) in TABLES {
            let (key, prefix) = (key[0], key[0].split('_').next().unwrap_or_default());
            text.push_str(&format!("[[grant]]\ndatasets = [\"tpch.{table}\"]\nrows = \"{key} >= 0\"\n"));
            // The comments of others are asked for by questions 10, 13 and 16.
            if matches!(table, "lineitem" | "part" | "partsupp" | "nation" | "region") {
                text.push_str(&format!("masks = [{{ column = \"{prefix}_comment\", with = \"null\" }}]\n"));
            }
        }
        let files = [("policies/analyst.toml".to_owned(), text)];
        let policies = Policies::read(&files, &self.datasets, &PseudonymKey::new(vec![7; 32]));
        let policies = policies.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
        let engine = Engine::new(self.lake.clone(), self.datasets.clone(), policies, settings)?;
        Ok(engine.session(Caller::new(ANALYST, [ANALYST.to_owned()], "bench"))?)
    }

    /// The files of each table.
    ///
    /// # Errors
    /// Where a table does not open.
    async fn files(&self) -> Result<Vec<(&str, Vec<PathBuf>)>> {
        let mut tables = Vec::new();
        for dataset in &self.datasets {
            let name = TableName::new(dataset.spec.id(), TableKind::Rows);
            let table = self.lake.table(&name).await?;
            let folder = table.table_url().to_file_path().ok().context("a lake of files")?;
            let files = LiveFiles::default().of(&name, &table).await?;
            ensure!(files.iter().all(|file| file.live.is_none()), "{name} has deleted rows");
            let files = files.iter().map(|file| folder.join(file.meta.location.as_ref())).collect();
            tables.push((dataset.spec.id().name(), files));
        }
        Ok(tables)
    }
}

fn lake_in(folder: &Path) -> String {
    folder.join("lake").to_string_lossy().into_owned()
}

/// Has an installation fill its tables from topics.
fn fill(folder: &Path, scale: f64, specs: &[(String, String)]) -> Result<()> {
    let runtime = Runtime::new()?;
    let mut installation = Installation::empty(Broker::Embedded)?;
    installation.set(&format!("[lake]\nurl = {:?}\n", lake_in(folder)))?;
    let mut backlogs = Vec::new();
    for ((name, text), (table, _)) in specs.iter().zip(TABLES) {
        installation.write_spec(name, text)?;
        let spec = DatasetSpec::parse(&format!("{name}.toml"), text)?;
        let events = |each: &mut dyn FnMut(&ChangeEvent) -> Result<()>| for_each_event(table, scale, each);
        backlogs.push(Backlog::publish(&runtime, (&installation, Broker::Embedded), spec, events)?);
    }
    let mut up = installation.start(&["up", "--only", "workers"])?;
    for backlog in &backlogs {
        backlog.wait(&runtime, &lake_in(folder), &mut up, PATIENCE)?;
    }
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    installation.succeed(&["verify"])?;
    // What it would have done some time later by itself.
    installation.succeed(&["maintain"]).map(drop)
}

/// An answer.
///
/// # Errors
/// Where there is none.
pub async fn ask(session: &Session, question: &str) -> Result<Vec<RecordBatch>> {
    Ok(session.query(question).await?.try_collect().await?)
}

/// DuckDB in a process of its own, with the files of the tables as views of the same names.
pub struct DuckDb {
    process: Process,
    answer: tempfile::NamedTempFile,
}

impl DuckDb {
    /// Starts it with as many threads, and as much memory in bytes.
    ///
    /// # Errors
    /// Where it cannot be fetched or started.
    pub async fn start(tpch: &Tpch, threads: usize, memory: usize) -> Result<Self> {
        let python = fetched::python("test-readers", REQUIREMENTS)?;
        let answer = tempfile::Builder::new().suffix(".parquet").tempfile()?;
        let mut command = Command::new(python);
        command.arg(format!("{FOLDER}/duckdb_peer.py")).arg(threads.to_string()).arg(memory.to_string());
        command.arg(answer.path()).arg(serde_json::to_string(&tpch.files().await?)?);
        Ok(Self { process: Process::start_to_tell(command)?, answer })
    }

    /// Asks, and says how long the answer took.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn ask(&mut self, question: &str) -> Result<Duration> {
        self.process.tell(question)?;
        let said = self.process.wait_for("duckdb: ", PATIENCE)?;
        let seconds = said.strip_prefix("duckdb: ").and_then(|said| said.parse().ok());
        Ok(Duration::from_secs_f64(seconds.with_context(|| format!("{question}: {said}"))?))
    }

    /// What it has answered last.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn answer(&self) -> Result<Vec<RecordBatch>> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(self.answer.reopen()?)?.build()?;
        Ok(reader.collect::<Result<_, _>>()?)
    }
}

/// Checks that two answers have the same rows in the same order: numbers exactly, but for those that
/// DuckDB works out as floats (averages and ratios), of which the last digit that both have may be another.
///
/// # Errors
/// Where they differ, and where first.
pub fn check_same(ours: &[RecordBatch], theirs: &[RecordBatch]) -> Result<()> {
    let schema = theirs.first().context("an answer")?.schema();
    let is_float: Vec<_> = schema.fields().iter().map(|field| field.data_type() == &DataType::Float64).collect();
    let (ours, theirs) = (tables::values(ours)?, tables::values(theirs)?);
    ensure!(ours.len() == theirs.len(), "{} rows, and DuckDB has {}", ours.len(), theirs.len());
    for (row, (our, their)) in ours.iter().zip(&theirs).enumerate() {
        let same = our.len() == their.len()
            && our.iter().zip(their).zip(&is_float).all(|((our, their), is_float)| match (our, their) {
                (Some(our), Some(their)) => is_same(our, their, *is_float),
                _ => our == their,
            });
        ensure!(same, "row {row}: {our:?}, and DuckDB has {their:?}");
    }
    Ok(())
}

fn is_same(our: &str, their: &str, is_float: bool) -> bool {
    let (Ok(a), Ok(b)) = (our.parse::<f64>(), their.parse::<f64>()) else { return our == their };
    let places = |text: &str| text.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i32);
    match is_float {
        true => (a - b).abs() <= 10_f64.powi(-places(our).min(places(their))).max(a.abs() * 1e-12),
        // 1.50 is 1.5.
        false => trimmed(our) == trimmed(their),
    }
}

fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}
