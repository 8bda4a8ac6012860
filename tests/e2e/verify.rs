//! `ruam verify` finds what it is there to find.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ruam_tests::installation::files_in;
use ruam_tests::{Broker, Installation};
use serde_json::Value;

/// The commits of a table, first to last.
fn commits(table: &Path) -> Result<Vec<PathBuf>> {
    let mut commits = files_in(&table.join("_delta_log"))?;
    commits.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    Ok(commits)
}

/// A commit that adds a file of rows, and that file's action.
fn an_add(table: &Path) -> Result<(PathBuf, String, Value)> {
    for commit in commits(table)? {
        let text = fs::read_to_string(&commit)?;
        for line in text.lines() {
            let action: Value = serde_json::from_str(line)?;
            if action.get("add").is_some() {
                return Ok((commit, text, action));
            }
        }
    }
    anyhow::bail!("no commit of {} adds a file", table.display())
}

pub fn what_is_lost_or_doubled_is_found() -> Result<()> {
    let installation = Installation::new(Broker::Embedded)?;
    installation.succeed(&["demo", "--rate", "0", "--events", "1000"])?;
    installation.succeed(&["verify"])?;
    let table = installation.data_dir().join("lake/cgd/disbursement");
    let (commit, text, add) = an_add(&table)?;

    // A file of rows goes missing from the table.
    let without: Vec<_> = text.lines().filter(|line| !line.starts_with("{\"add\"")).collect();
    fs::write(&commit, without.join("\n") + "\n")?;
    let said = installation.refuse(&["verify"])?;
    ensure!(said.contains("MISSING"), "{said}");
    // Others are fine, and one may be asked for alone.
    installation.succeed(&["verify", "bora.person"])?;
    fs::write(&commit, &text)?;
    installation.succeed(&["verify"])?;

    // A file of rows is in the table twice.
    let name = add["add"]["path"].as_str().context("a path")?;
    let double = format!("{name}.double.parquet");
    fs::copy(table.join(name), table.join(&double))?;
    let mut again = add.clone();
    again["add"]["path"] = double.into();
    fs::write(&commit, format!("{text}{again}\n"))?;
    let said = installation.refuse(&["verify"])?;
    ensure!(said.contains("DOUBLED") || said.contains("TOO MANY"), "{said}");
    Ok(())
}
