//! An installation of Ruam in a folder of its own, and the program run on it as a user runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

use crate::broker::Broker;
use crate::datasets;
use crate::process::Process;

/// A folder with settings, dataset files and data.
#[derive(Debug)]
pub struct Installation {
    dir: TempDir,
    settings: String,
}

/// The folder that cargo gives to tests for what they want to keep between runs.
pub fn scratch() -> PathBuf {
    // The test binary lies in <target>/<profile>/deps.
    let binary = std::env::current_exe().unwrap_or_default();
    let target = binary.ancestors().nth(3).map_or_else(std::env::temp_dir, Path::to_owned);
    target.join("tmp")
}

impl Installation {
    /// A new installation on a broker, with the datasets that come with the program. On Kafka, which
    /// tests share, its topics have names of their own.
    ///
    /// # Errors
    /// Where the broker cannot be had, or files not be written.
    pub fn new(broker: Broker) -> Result<Self> {
        let installation = Self::empty(broker)?;
        let prefix = (broker == Broker::Kafka).then(unique);
        for name in datasets::ALL {
            let topic = prefix.as_ref().map(|prefix| format!("{prefix}.{}", name.replace('/', ".")));
            installation.write_spec(name, &datasets::text(name, topic.as_deref())?)?;
        }
        Ok(installation)
    }

    /// A new installation without any dataset.
    ///
    /// # Errors
    /// Where the broker cannot be had, or files not be written.
    pub fn empty(broker: Broker) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("specs"))?;
        let mut installation = Self { dir, settings: "[query]\nlisten = \"127.0.0.1:0\"\n".to_owned() };
        if let Some(servers) = broker.servers()? {
            installation.set(&format!("[log]\nbootstrap_servers = \"{servers}\"\nreplication = 1\n"))?;
        }
        installation.set("")?;
        Ok(installation)
    }

    /// Adds to the settings.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn set(&mut self, settings: &str) -> Result<()> {
        self.settings.push_str(settings);
        Ok(fs::write(self.dir.path().join("ruam.toml"), &self.settings)?)
    }

    /// Puts a dataset file in place.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_spec(&self, name: &str, text: &str) -> Result<()> {
        let path = self.spec_path(name);
        fs::create_dir_all(path.parent().context("a dataset has an agency")?)?;
        Ok(fs::write(path, text)?)
    }

    /// The file of a dataset, by `agency/dataset`.
    pub fn spec_path(&self, name: &str) -> PathBuf {
        self.path().join("specs").join(name).with_extension("toml")
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its folder of data.
    pub fn data_dir(&self) -> PathBuf {
        self.path().join("ruam-data")
    }

    /// The program with arguments, to be run in the installation's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).current_dir(self.path());
        command
    }

    /// Starts the program.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Result<Process> {
        Process::start(self.command(arguments))
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments).output()?)
    }

    /// Runs the program, which has to succeed, and returns what it wrote.
    ///
    /// # Errors
    /// Where it fails, with what it said.
    pub fn succeed(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`ruam {}` failed:\n{out}\n{err}", arguments.join(" "));
        Ok(out.into_owned())
    }

    /// Runs the program, which has to refuse, and returns what it said.
    ///
    /// # Errors
    /// Where it succeeds, or ends by a signal or a panic.
    pub fn refuse(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(
            matches!(output.status.code(), Some(1 | 2)),
            "`ruam {}` ended with {}:\n{said}",
            arguments.join(" "),
            output.status
        );
        Ok(said)
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// Where there is none.
    pub fn query(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let file = tempfile::NamedTempFile::new_in(self.path())?;
        self.succeed(&["sql", sql, "--format", "parquet", "--output", &file.path().to_string_lossy()])?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.reopen()?)?.build()?;
        Ok(reader.collect::<Result<_, _>>()?)
    }

    /// The answer to a question, as text: rows of values, none for NULL.
    ///
    /// # Errors
    /// Where there is none.
    pub fn ask(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        crate::tables::values(&self.query(sql)?)
    }
}

/// The program: this binary.
pub fn program() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RUAM_")) {
        command.env_remove(name);
    }
    command.env(crate::AS_RUAM, "1").env_remove("RUST_LOG").env_remove("COLUMNS");
    command
}

/// A name that no other test and no other run of the tests has.
pub fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    format!("t{now:x}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Every file below a folder, sorted.
///
/// # Errors
/// Where the folder cannot be read.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_in(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
