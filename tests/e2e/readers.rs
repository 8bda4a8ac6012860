//! The lake's tables as others read them, held against Ruam's own scan.
//!
//! Whoever reads a table gives the same rows, or refuses it; none answers wrongly. That holds for
//! tables with deletion vectors as they were written, after small files were merged, and after
//! unneeded files were deleted while there are vectors again.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ruam_tests::installation::files_in;
use ruam_tests::{Installation, Process, fetched, tables};
use tempfile::TempDir;

use crate::maintain;

/// The programs that read.
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/readers");
/// How long an answer may take on a busy machine, with the start of a JVM before it.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is asked of which table, which the questions call `t`.
const QUESTIONS: &[(&str, &str)] = &[
    ("bora.person", "select * from t"),
    (
        "bora.person",
        "select count(*) as n, count(address_raw) as given, min(birth_date) as first, max(birth_date) as last, \
         max(_source_time) as at from t",
    ),
    ("bora.person", "select citizen_id, area_code from t where birth_date < date '1970-01-01' and sex = 'ชาย'"),
    ("bora.person__rejects", "select * from t"),
    ("dopa.administrative_area", "select code, name_th from t where abolished_on is not null and level = 'district'"),
    ("dopa.administrative_area__changes", "select * from t"),
    ("cgd.disbursement", "select * from t"),
    (
        "cgd.disbursement",
        "select count(*) as n, sum(amount) as total, min(paid_on) as first from t where amount >= 1000.50",
    ),
];
/// The tables that may have deletion vectors: those whose rows are replaced.
const WITH_VECTORS: [&str; 2] = ["bora.person", "dopa.administrative_area"];

/// Somebody who reads tables, and answers one question after the other.
struct Reader {
    name: &'static str,
    reads_vectors: bool,
    process: Process,
    answers: TempDir,
    asked: usize,
}

impl Reader {
    fn start(name: &'static str, command: impl FnOnce(&Path) -> Command) -> Result<Self> {
        let answers = tempfile::tempdir()?;
        let process = Process::start_to_tell(command(answers.path()))?;
        Ok(Self { name, reads_vectors: true, process, answers, asked: 0 })
    }

    /// What it answers, or why it refuses.
    fn ask(&mut self, table: &Path, question: &str) -> Result<Result<Answer, String>> {
        self.asked += 1;
        let answer = self.answers.path().join(format!("answer-{}", self.asked));
        self.process.tell(&format!("{}\t{question}\t{}", table.display(), answer.display()))?;
        let said = self.process.wait_for("reader: ", PATIENCE)?;
        match said.strip_prefix("reader: ").with_context(|| said.clone())? {
            "answered" => {
                let mut files = files_in(&answer)?;
                files.retain(|file| file.extension() == Some(OsStr::new("parquet")));
                let [file] = files.as_slice() else { bail!("{files:?} are not one file") };
                let rows = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.build()?;
                Ok(Ok(Answer::of(&rows.collect::<Result<Vec<_>, _>>()?)?))
            }
            refused => Ok(Err(refused.to_owned())),
        }
    }
}

/// The names of columns, and the rows in an order that no reader decides.
#[derive(PartialEq)]
struct Answer {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Answer {
    fn of(batches: &[RecordBatch]) -> Result<Self> {
        let schema = batches.first().context("an answer without rows says nothing")?.schema();
        let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut rows = tables::values(batches)?;
        rows.sort_unstable();
        Ok(Self { columns, rows })
    }

    /// The first difference to what is expected.
    fn difference(&self, expected: &Self) -> String {
        let differs = self.rows.iter().zip(&expected.rows).find(|(found, expected)| found != expected);
        let (found, wanted) = differs.unzip();
        format!(
            "{} rows of {:?}, not {} of {:?}; the first other one is\n{found:?}, not\n{wanted:?}",
            self.rows.len(),
            self.columns,
            expected.rows.len(),
            expected.columns
        )
    }
}

pub fn of_python_find_what_ruam_finds() -> Result<()> {
    let python = fetched::python("test-readers", &format!("{PROGRAMS}/requirements.txt"))?;
    let start = |name| {
        Reader::start(name, |_| {
            let mut command = Command::new(&python);
            command.arg(format!("{PROGRAMS}/read.py")).arg(name).env("PYTHONUTF8", "1");
            command
        })
    };
    let mut readers = ["delta_rs", "duckdb", "polars"].map(start).into_iter().collect::<Result<Vec<_>>>()?;
    readers.push(Reader { reads_vectors: false, ..start("pyarrow_dataset")? });
    compare(readers)
}

pub fn spark_finds_what_ruam_finds() -> Result<()> {
    let libraries = fetched::class_path("test-spark", &format!("{PROGRAMS}/pom.xml"))?;
    let spark = Reader::start("spark", |folder| {
        let mut command = Command::new("java");
        // Code that runs for less than a minute is not worth the second compiler.
        command.args(["-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        // Spark reads times with what Java keeps to itself.
        command.arg("--add-opens=java.base/sun.util.calendar=ALL-UNNAMED").arg("-cp").arg(libraries);
        command.arg(format!("{PROGRAMS}/Read.java")).arg(folder);
        command
    })?;
    compare(vec![spark])
}

/// Lets readers read tables in each state that Ruam leaves them in.
fn compare(mut readers: Vec<Reader>) -> Result<()> {
    let (installation, events) = maintain::many_small_files()?;
    ensure!(vectors(&installation)? > 0, "rows were replaced by deletion vectors");
    compare_once(&installation, &mut readers).context("as the tables were written")?;

    let merged = installation.succeed(&["maintain"])?;
    compare_once(&installation, &mut readers).with_context(|| format!("after maintenance, which said\n{merged}"))?;

    // Rows of the merged files are replaced, and the files that were merged go.
    maintain::run_demo(&installation, events + 2000)?;
    let unused = maintain::let_retention_pass(&installation)?;
    let deleted = installation.succeed(&["maintain"])?;
    let left: Vec<_> = unused.iter().filter(|file| file.exists()).collect();
    ensure!(!unused.is_empty() && left.is_empty(), "{left:?} of {} are left\n{deleted}", unused.len());
    ensure!(vectors(&installation)? > 0, "rows of merged files are replaced by deletion vectors, too");
    compare_once(&installation, &mut readers).with_context(|| format!("after maintenance, which said\n{deleted}"))
}

fn compare_once(installation: &Installation, readers: &mut [Reader]) -> Result<()> {
    let lake = installation.data_dir().join("lake");
    for (table, question) in QUESTIONS {
        let expected = Answer::of(&installation.query(&question.replacen("from t", &format!("from {table}"), 1))?)?;
        for reader in &mut *readers {
            let found = reader.ask(&lake.join(table.replace('.', "/")), question)?;
            let asked = format!("{} of {table}: {question}", reader.name);
            let is_to_refuse = !reader.reads_vectors && WITH_VECTORS.contains(table);
            match found {
                Ok(_) if is_to_refuse => bail!("{asked}: it does not refuse"),
                Ok(found) => ensure!(found == expected, "{asked}: {}", found.difference(&expected)),
                Err(why) => ensure!(is_to_refuse && why.contains("deletionVectors"), "{asked}: {why}"),
            }
        }
    }
    Ok(())
}

/// How many deletion vectors are in force.
fn vectors(installation: &Installation) -> Result<usize> {
    let table = maintain::table(installation, "bora.person")?;
    let files = table.snapshot()?.log_data();
    Ok(files.iter().filter(|file| file.deletion_vector_descriptor().is_some()).count())
}
