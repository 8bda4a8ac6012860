//! `ruam maintain`: many small files become few, files that nobody needs go, and the rows stay what
//! they are.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use deltalake::DeltaTable;
use ruam_tests::installation::files_in;
use ruam_tests::model::Models;
use ruam_tests::{Broker, Installation};
use serde_json::Value;

/// Many small commits, and nothing merged but by hand.
const SMALL_COMMITS: &str = "[worker]\ncommit_interval_ms = 100\nretention_hours = 0\n";
/// Datasets whose tables come to be of many files.
const WORN: [&str; 2] = ["bora.person", "msdhs.welfare_payment"];
/// How many files are enough to be merged.
const ENOUGH: usize = 8;
/// How long the program may take to end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// An installation whose tables are of many small files, and how many events it took. What a busy
/// machine commits at once is only a part of that many, so that events come until there are enough.
pub fn many_small_files() -> Result<(Installation, u64)> {
    let mut installation = Installation::new(Broker::Embedded)?;
    installation.set(SMALL_COMMITS)?;
    for events in (1..=20).map(|run| run * 10_000) {
        run_demo(&installation, events)?;
        let files: Vec<_> = WORN.iter().map(|name| state(&installation, name)).collect::<Result<_>>()?;
        if files.iter().all(|(files, _)| *files >= ENOUGH) {
            return Ok((installation, events));
        }
    }
    bail!("tables are not of many small files after 200,000 events")
}

/// Brings events, as the demo does, slowly enough for many commits.
pub fn run_demo(installation: &Installation, events: u64) -> Result<String> {
    installation.succeed(&demo(&events.to_string()))
}

fn demo(events: &str) -> [&str; 5] {
    ["demo", "--rate", "2500", "--events", events]
}

/// A table of the installation's lake, as delta-rs sees it.
pub fn table(installation: &Installation, name: &str) -> Result<DeltaTable> {
    let folder = installation.data_dir().join("lake").join(name.replace('.', "/"));
    let table = deltalake::open_table(deltalake::ensure_table_uri(folder.to_string_lossy())?);
    Ok(tokio::runtime::Runtime::new()?.block_on(table)?)
}

/// Lets more time pass than any file of these tests has to wait, for all that maintenance keeps the time
/// of; says which files wait.
pub fn let_retention_pass(installation: &Installation) -> Result<Vec<PathBuf>> {
    const TWO_HOURS: u64 = 2 * 3_600_000;
    let mut waiting = Vec::new();
    for file in files_in(&installation.data_dir().join("lake"))? {
        if !file.ends_with("_ruam/unused.json") {
            continue;
        }
        let folder = file.ancestors().nth(2).context("a table's folder")?;
        let mut looks: Value = serde_json::from_slice(&fs::read(&file)?)?;
        let since = looks["since"].as_object().context("since when files are unused")?;
        waiting.extend(since.keys().map(|path| folder.join(path)));
        let noted = looks.as_object_mut().into_iter().flat_map(|looks| looks.values_mut());
        for time in noted.filter_map(Value::as_object_mut).flat_map(|times| times.values_mut()) {
            *time = (time.as_u64().context("a time")? - TWO_HOURS).into();
        }
        fs::write(&file, serde_json::to_vec(&looks)?)?;
    }
    Ok(waiting)
}

/// How many files a table has, and its version.
fn state(installation: &Installation, name: &str) -> Result<(usize, Option<u64>)> {
    let table = table(installation, name)?;
    Ok((table.get_file_uris()?.count(), table.version()))
}

pub fn small_files_become_few() -> Result<()> {
    let (installation, events) = many_small_files()?;
    let models = Models::of(events)?;
    let balances = || -> Result<()> {
        let said = installation.succeed(&["verify"])?;
        ensure!(said.contains("every record is accounted for"), "{said}");
        Ok(())
    };
    balances()?;

    // One dataset, with the tables beside it.
    let [persons, payments] = WORN.map(|name| state(&installation, name));
    let (persons, payments) = (persons?, payments?);
    let said = installation.succeed(&["maintain", "msdhs.welfare_payment"])?;
    ensure!(said.contains("msdhs.welfare_payment__rejects") && !said.contains("bora.person"), "{said}");
    ensure!(state(&installation, "bora.person")? == persons, "only what is named is touched");
    let found = state(&installation, "msdhs.welfare_payment")?;
    ensure!(found.0 < payments.0, "{payments:?} became {found:?}\n{said}");

    // All of them.
    let said = installation.succeed(&["maintain"])?;
    ensure!(said.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{said}");
    ensure!(said.contains(" files became "), "{said}");
    let merged = state(&installation, "bora.person")?;
    ensure!(merged.0 < persons.0, "{persons:?} became {merged:?}\n{said}");
    models.check(&installation).context("after files were merged")?;
    balances()?;

    // Nothing is left to do, until the retention is over.
    let said = installation.succeed(&["maintain"])?;
    ensure!(said.contains("no files were to be merged; 0 files deleted"), "{said}");
    ensure!(state(&installation, "bora.person")? == merged, "what is in order is left alone\n{said}");
    let unused = let_retention_pass(&installation)?;
    ensure!(!unused.is_empty() && unused.iter().all(|file| file.exists()), "files wait for the retention: {unused:?}");
    let said = installation.succeed(&["maintain"])?;
    ensure!(!unused.iter().any(|file| file.exists()), "files stayed:\n{said}");
    ensure!(said.contains(&format!("; {} files deleted", unused.len())), "{} were to go:\n{said}", unused.len());
    models.check(&installation).context("after files were deleted")?;
    balances()
}

pub fn it_begins_no_tables() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    let said = installation.succeed(&["maintain"])?;
    ensure!(said.contains("no tables yet"), "{said}");
    ensure!(!installation.data_dir().join("lake/bora").exists(), "a table has begun");
    let said = installation.refuse(&["maintain", "bora.persn"])?;
    ensure!(said.contains("bora.persn"), "{said}");
    Ok(())
}

pub fn it_runs_beside_workers() -> Result<()> {
    let mut installation = Installation::new(Broker::Embedded)?;
    installation.set(SMALL_COMMITS)?;
    let (mut events, mut merged) = (0, 0);
    // Until files were merged while workers went on committing to the same tables.
    while merged == 0 {
        events += 10_000;
        ensure!(events <= 200_000, "nothing is merged beside workers");
        // The demo's workers are those of `ruam up`, and end by themselves.
        let mut workers = installation.start(&demo(&events.to_string()))?;
        while workers.run_for(Duration::from_millis(1)) {
            let said = installation.succeed(&["maintain"])?;
            merged += u32::from(said.contains(" files became ") && workers.run_for(Duration::ZERO));
        }
        let (status, said) = workers.wait(PATIENCE)?;
        ensure!(status.success(), "{said}");
    }
    Models::of(events)?.check(&installation)?;
    installation.succeed(&["verify"])?;
    Ok(())
}
