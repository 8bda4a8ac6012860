//! The whole way, as README's first command goes it.

use std::fs;

use anyhow::{Context, Result, ensure};
use ruam_tests::installation::files_in;
use ruam_tests::model::Models;
use ruam_tests::{Broker, Installation};
use sha2::{Digest, Sha256};

/// Generated events; the real areas come on top.
const EVENTS: u64 = 3000;

pub fn tables_hold_what_the_model_says(broker: Broker) -> Result<()> {
    let models = Models::of(EVENTS)?;
    let installation = Installation::new(broker)?;
    let events = EVENTS.to_string();
    let demo = ["demo", "--rate", "0", "--events", &events];
    let said = installation.succeed(&demo)?;
    for expected in ["bora.person", "generated", "found", "planted were", "psql -h", "sha256"] {
        ensure!(said.contains(expected), "the demo does not say `{expected}`:\n{said}");
    }
    models.check(&installation)?;
    let verified = installation.succeed(&["verify"])?;
    ensure!(verified.contains("every record is accounted for"), "{verified}");
    check_extract(&installation)?;

    // A second run finds everything in place, and adds nothing.
    installation.succeed(&demo)?;
    models.check(&installation)?;

    // More events continue what is there.
    let more = Models::of(EVENTS + 1000)?;
    ensure!(more.events() > models.events(), "1000 events more are more");
    let events = (EVENTS + 1000).to_string();
    installation.succeed(&["demo", "--rate", "0", "--events", &events])?;
    more.check(&installation)?;

    // Starting over says what it deletes, and comes to the same.
    let said = installation.succeed(&["demo", "--rate", "0", "--events", &events, "--fresh"])?;
    let lake = installation.data_dir().join("lake");
    ensure!(
        said.contains(&format!("deleting {}", lake.display())) || said.contains("deleting ruam-data/lake"),
        "{said}"
    );
    more.check(&installation)?;
    installation.succeed(&["verify"])?;
    Ok(())
}

/// The extract of the areas: what the manifest says of the files is so.
fn check_extract(installation: &Installation) -> Result<()> {
    let files = files_in(&installation.data_dir().join("extracts"))?;
    let file = |suffix: &str| {
        files
            .iter()
            .find(|file| file.to_string_lossy().ends_with(suffix))
            .with_context(|| format!("no extract ends with {suffix}: {files:?}"))
    };
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(file("manifest.json")?)?)?;
    let csv = fs::read(file(".csv")?)?;
    ensure!(csv.starts_with(b"\xef\xbb\xbf"), "Excel shows Thai only where a CSV begins with a BOM");
    let text = String::from_utf8(csv.clone())?;
    ensure!(text.contains("กรุงเทพมหานคร"), "Thai names come out as Thai");
    let rows = installation.ask("select count(*) from dopa.administrative_area")?[0][0].clone().context("a count")?;
    ensure!(text.lines().count() == rows.parse::<usize>()? + 1, "one line a row, and a header");
    let listed = manifest["files"].as_array().context("files")?;
    ensure!(listed.len() == 2, "CSV and Parquet: {manifest}");
    for entry in listed {
        let name = entry["name"].as_str().context("a name")?;
        let bytes = fs::read(file(name)?)?;
        let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(entry["sha256"] == sum.as_str(), "{name}: {entry} is not {sum}");
    }
    for key in ["sql", "tables", "license"] {
        ensure!(!manifest[key].is_null(), "the manifest has no {key}: {manifest}");
    }
    Ok(())
}
