//! `ruam maintain`: many small files become few, files that nobody needs go, and the rows stay what
//! they are.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use deltalake::DeltaTable;
use ruam_tests::installation::files_in;
use ruam_tests::model::Models;
use ruam_tests::{Broker, Installation};
use serde_json::Value;

const EVENTS: u64 = 6000;
/// How long the program may take to end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Many small commits, and nothing merged but by hand.
const SMALL_COMMITS: &str = "[worker]\ncommit_interval_ms = 100\nretention_hours = 0\n";

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
    let mut installation = Installation::new(Broker::Embedded)?;
    installation.set(SMALL_COMMITS)?;
    let said = installation.succeed(&["maintain"])?;
    ensure!(said.contains("no tables yet"), "{said}");
    let said = installation.refuse(&["maintain", "bora.persn"])?;
    ensure!(said.contains("bora.persn"), "{said}");

    installation.succeed(&["demo", "--rate", "500", "--events", &EVENTS.to_string()])?;
    let models = Models::of(EVENTS)?;
    let same_rows = || -> Result<()> {
        models.check(&installation)?;
        let said = installation.succeed(&["verify"])?;
        ensure!(said.contains("every record is accounted for"), "{said}");
        Ok(())
    };
    same_rows()?;

    // One dataset, with the tables beside it.
    let (persons, payments) = (state(&installation, "bora.person")?, state(&installation, "msdhs.welfare_payment")?);
    let said = installation.succeed(&["maintain", "msdhs.welfare_payment"])?;
    ensure!(said.contains("msdhs.welfare_payment__rejects") && !said.contains("bora.person"), "{said}");
    ensure!(state(&installation, "bora.person")? == persons, "only what is named is touched");
    ensure!(state(&installation, "msdhs.welfare_payment")?.0 < payments.0, "{payments:?}\n{said}");

    // All of them.
    let said = installation.succeed(&["maintain"])?;
    ensure!(said.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{said}");
    ensure!(said.contains(" files became "), "{said}");
    let merged = state(&installation, "bora.person")?;
    ensure!(merged.0 < persons.0, "{persons:?} became {merged:?}\n{said}");
    same_rows().context("after files were merged")?;

    // Nothing is left to do, until the retention is over.
    let said = installation.succeed(&["maintain"])?;
    ensure!(said.contains("no files were to be merged; 0 B freed"), "{said}");
    ensure!(state(&installation, "bora.person")? == merged, "what is in order is left alone\n{said}");
    let unused = let_retention_pass(&installation)?;
    ensure!(!unused.is_empty() && unused.iter().all(|file| file.exists()), "files wait for the retention: {unused:?}");
    let said = installation.succeed(&["maintain"])?;
    ensure!(!unused.iter().any(|file| file.exists()), "files stayed:\n{said}");
    ensure!(said.contains(" freed") && !said.contains("; 0 B freed"), "{said}");
    same_rows().context("after files were deleted")
}

pub fn it_runs_beside_workers() -> Result<()> {
    let mut installation = Installation::new(Broker::Embedded)?;
    // Workers merge by themselves, too, and are in the way of each other as much as can be.
    installation.set("[worker]\ncommit_interval_ms = 50\n")?;
    // The demo's workers are those of `ruam up`, and end by themselves.
    let mut demo = installation.start(&["demo", "--rate", "1000", "--events", &EVENTS.to_string()])?;
    let mut merged = Vec::new();
    while demo.run_for(Duration::from_millis(1)) {
        merged.push(installation.succeed(&["maintain"])?);
    }
    let (status, said) = demo.wait(PATIENCE)?;
    ensure!(status.success(), "{said}");
    ensure!(merged.iter().any(|said| said.contains(" files became ")), "nothing was merged meanwhile: {merged:?}");
    Models::of(EVENTS)?.check(&installation)?;
    installation.succeed(&["verify"])?;
    Ok(())
}
