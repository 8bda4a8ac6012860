//! The shape of the repository, and its first page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ruam_tests::{Broker, Installation};
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Which crates of the house each crate may know. Arrows run downward only.
const ARROWS: [(&str, &[&str]); 10] = [
    ("ruam-event", &[]),
    ("ruam-door", &["ruam-identity"]),
    ("ruam-identity", &["ruam-event"]),
    ("ruam-log", &["ruam-event"]),
    ("ruam-lake", &["ruam-event"]),
    ("ruam-transform", &["ruam-event"]),
    ("ruam-connectors", &["ruam-door", "ruam-event", "ruam-identity"]),
    // Questions are judged by the same rules as what comes in: `thai_id_valid` is the type's own.
    ("ruam-query", &["ruam-door", "ruam-event", "ruam-identity", "ruam-lake", "ruam-transform"]),
    (
        "ruam",
        &["ruam-connectors", "ruam-event", "ruam-identity", "ruam-lake", "ruam-log", "ruam-query", "ruam-transform"],
    ),
    (
        "ruam-tests",
        &[
            "ruam",
            "ruam-connectors",
            "ruam-event",
            "ruam-identity",
            "ruam-lake",
            "ruam-log",
            "ruam-query",
            "ruam-transform",
        ],
    ),
];

/// Who alone may know what.
const ALONE: [(&str, &[&str]); 5] = [
    ("jsonwebtoken", &["ruam-identity"]),
    ("rdkafka", &["ruam-log", "ruam-tests"]),
    ("deltalake", &["ruam-lake", "ruam-query", "ruam-tests"]),
    ("datafusion", &["ruam-query"]),
    (
        "tokio",
        &["ruam", "ruam-connectors", "ruam-door", "ruam-identity", "ruam-lake", "ruam-log", "ruam-query", "ruam-tests"],
    ),
];

/// The packages of the workspace and what each needs to run.
fn packages() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let output = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(ROOT)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned).context("a name");
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let needs = package["dependencies"].as_array().context("dependencies")?;
        let needs = needs.iter().filter(|need| need["kind"].is_null()).map(|need| text(&need["name"]));
        packages.insert(text(&package["name"])?, needs.collect::<Result<_>>()?);
    }
    Ok(packages)
}

pub fn arrows_run_downward() -> Result<()> {
    let packages = packages()?;
    let names: BTreeSet<_> = packages.keys().map(String::as_str).collect();
    ensure!(names == ARROWS.iter().map(|(name, _)| *name).collect(), "every crate has its place: {names:?}");
    for (name, allowed) in ARROWS {
        for need in packages[name].iter().filter(|need| names.contains(need.as_str())) {
            ensure!(allowed.contains(&need.as_str()), "{name} may not know {need}");
        }
    }
    for (library, allowed) in ALONE {
        for (name, _) in packages.iter().filter(|(_, needs)| needs.contains(library)) {
            ensure!(allowed.contains(&name.as_str()), "{name} may not know {library}");
        }
    }
    Ok(())
}

pub fn the_top_level_is_the_given_one() -> Result<()> {
    let given = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "LICENSE",
        "ingest",
        "transform",
        "query",
        "connectors",
        "pipelines",
        "tests",
    ];
    let output = Command::new("git").args(["ls-files"]).current_dir(ROOT).output()?;
    let files = String::from_utf8(output.stdout)?;
    if !output.status.success() || files.is_empty() {
        // Not a clone but an unpacked archive, which has no list of its files.
        return Ok(());
    }
    let found: BTreeSet<_> = files.lines().filter_map(|file| file.split('/').next()).collect();
    for name in &found {
        ensure!(given.contains(name) || name.starts_with('.'), "{name} has no place at the top level");
    }
    for name in given {
        ensure!(found.contains(name), "{name} is missing");
    }
    let licence = std::fs::read_to_string(Path::new(ROOT).join("LICENSE"))?;
    ensure!(licence.contains("Apache License") && licence.contains("Version 2.0"), "the licence is Apache-2.0");
    Ok(())
}

pub fn the_readme_names_every_crate() -> Result<()> {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md"))?;
    for (name, _) in ARROWS {
        ensure!(readme.contains(&format!("`{name}`")), "README's map does not name `{name}`");
    }
    for command in ["cargo run --release -- demo", "cargo test --workspace"] {
        ensure!(readme.contains(command), "README does not name `{command}`");
    }
    // Every subcommand that README shows exists.
    let help = Installation::empty(Broker::Embedded)?.succeed(&["--help"])?;
    for line in readme.lines().filter_map(|line| line.trim().strip_prefix("ruam ")) {
        let command = line.split_whitespace().find(|word| !word.starts_with('-')).unwrap_or_default();
        ensure!(help.contains(&format!("  {command} ")), "README shows `ruam {line}`, and there is no `{command}`");
    }
    Ok(())
}

pub fn every_command_has_help() -> Result<()> {
    let installation = Installation::empty(Broker::Embedded)?;
    let help = installation.succeed(&["--help"])?;
    let commands = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).context("commands")?;
    let commands: Vec<_> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for expected in ["demo", "up", "check", "sql", "status", "datasets", "verify", "rejects", "completions"] {
        ensure!(commands.contains(&expected), "`{expected}` is missing from {commands:?}");
    }
    for command in commands {
        let help = installation.succeed(&[command, "--help"])?;
        ensure!(help.contains("Usage:") && help.lines().count() > 5, "{help}");
        for line in help.lines() {
            ensure!(line.chars().count() <= 100, "too long for a terminal: {line}");
        }
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = installation.succeed(&["completions", shell])?;
        ensure!(script.contains("rejects"), "{script}");
    }
    Ok(())
}
