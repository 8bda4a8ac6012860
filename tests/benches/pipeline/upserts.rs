//! What a commit of changed rows costs by the size of the table, beside delta-rs MERGE of the same
//! rows, beside plain appends of them, and what the writer takes for it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use deltalake::DeltaTable;
use deltalake::datafusion::prelude::{SessionContext, col};
use deltalake::protocol::SaveMode;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ruam_event::Mode;

use crate::peak_mb;
use crate::register::{self, KEY, Register};
use crate::scans;

/// The sizes that are measured, in millions of rows, and that of the comparisons.
const SIZES: [u64; 3] = [1, 5, 20];
const COMPARED: u64 = 5;
/// The rows of a measured commit, and how many of those.
pub const CHANGES: usize = 10_000;
const COMMITS: usize = 150;
/// How many commits' rows are made before they are committed.
const AT_A_TIME: usize = 15;
/// The rows of a commit that fills the table.
pub const FILLED: usize = 250_000;
/// How often the peer merges; the fastest counts.
const MERGES: usize = 3;

/// What was measured.
pub struct Upserts {
    /// The times of the commits at each size in millions of rows.
    pub commits: Vec<(u64, Times)>,
    /// Changed rows a second, one commit after another, where the peers are compared.
    pub upserts_a_second: f64,
    /// The same rows as plain appends.
    pub appends_a_second: f64,
    /// A MERGE of as many changes by delta-rs.
    pub merge: Duration,
    /// The most memory of the process while it was only a writer.
    pub peak_mb: u64,
    /// To make the index of the largest size anew.
    pub rebuild: Duration,
    /// To read the key column of the same table.
    pub key_scan: Duration,
}

/// Times of many of the same.
pub struct Times(Vec<Duration>);

impl Times {
    /// Half took no longer.
    pub fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    pub fn mean(&self) -> Duration {
        self.0.iter().sum::<Duration>() / self.0.len() as u32
    }

    pub fn longest(&self) -> Duration {
        self.0[self.0.len() - 1]
    }
}

/// Measures all of it.
pub fn measure() -> Result<Upserts> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = tempfile::tempdir()?;
    runtime.block_on(async {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut register = Register::open(&dir.path().join("upserts"), Mode::Upsert).await?;
        let (mut commits, mut upserts_a_second, mut filled) = (Vec::new(), 0.0, 0);
        for size in SIZES {
            fill(&mut register, &mut filled, size * 1_000_000).await?;
            // The files of a first load are merged once, and not each time that a row changes.
            register.settle().await?;
            let times = change(&mut register, &mut random, filled).await?;
            if size == COMPARED {
                upserts_a_second = CHANGES as f64 / times.mean().as_secs_f64();
            }
            commits.push((size, times));
        }
        let peak_mb = peak_mb(std::process::id())?;
        drop(register);
        let rebuild = register::rebuild(&dir.path().join("upserts")).await?;
        let key_scan = scan_keys(&dir.path().join("upserts"), filled).await?;
        let mut appended = Register::open(&dir.path().join("appends"), Mode::Append).await?;
        let times = change(&mut appended, &mut random, COMPARED * 1_000_000).await?;
        let appends_a_second = CHANGES as f64 / times.mean().as_secs_f64();
        let merge = merge(&dir.path().join("merged"), &mut random).await?;
        Ok(Upserts { commits, upserts_a_second, appends_a_second, merge, peak_mb, rebuild, key_scan })
    })
}

/// Commits new people until there are so many.
pub async fn fill(register: &mut Register, filled: &mut u64, until: u64) -> Result<()> {
    while *filled < until {
        let people: Vec<_> = (*filled..until).take(FILLED).collect();
        register.commit(&people, true).await?;
        *filled += people.len() as u64;
    }
    Ok(())
}

/// Commits changes of people one after another, without a pause in which something might be done that no
/// commit's time tells of.
async fn change(register: &mut Register, random: &mut ChaCha8Rng, people: u64) -> Result<Times> {
    let mut times = Vec::with_capacity(COMMITS);
    while times.len() < COMMITS {
        let made = (0..AT_A_TIME).map(|_| register.batches(&some(random, people, CHANGES)));
        for batches in made.collect::<Result<Vec<_>>>()? {
            times.push(register.commit_batches(batches, false).await?);
        }
    }
    times.sort_unstable();
    Ok(Times(times))
}

/// Reads the key of each row, as a query does; the fastest of three.
async fn scan_keys(dir: &Path, people: u64) -> Result<Duration> {
    let engine = scans::engine(dir)?;
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        let answer = scans::ask(&engine, &format!("select count({KEY}), max({KEY}) from bench.people")).await?;
        fastest = fastest.min(begun.elapsed());
        ensure!(answer.starts_with(&format!("{people} ")), "each key was read: {answer}");
    }
    Ok(fastest)
}

/// So many people, at random.
pub fn some(random: &mut ChaCha8Rng, people: u64, changes: usize) -> Vec<u64> {
    (0..changes).map(|_| random.random_range(0..people)).collect()
}

/// The same changes of a table of the same rows by delta-rs.
async fn merge(dir: &Path, random: &mut ChaCha8Rng) -> Result<Duration> {
    fs::create_dir_all(dir)?;
    let url = deltalake::ensure_table_uri(dir.to_string_lossy())?;
    let mut table = DeltaTable::try_from_url(url).await?;
    for first in (0..COMPARED * 1_000_000).step_by(FILLED) {
        let people: Vec<_> = (first..first + FILLED as u64).collect();
        table = table.write([register::rows(&people, first as i64)?]).with_save_mode(SaveMode::Append).await?;
    }
    let mut fastest = Duration::MAX;
    for round in 0..MERGES {
        let mut people = some(random, COMPARED * 1_000_000, CHANGES);
        people.sort_unstable();
        people.dedup();
        let changed = register::rows(&people, ((round + 1) * 1_000_000_000) as i64)?;
        let columns: Vec<_> = changed.schema().fields().iter().map(|field| field.name().clone()).collect();
        let source = SessionContext::new().read_batch(changed)?;
        let begun = Instant::now();
        let merging = table
            .merge(source, col(format!("target.{KEY}")).eq(col(format!("source.{KEY}"))))
            .with_source_alias("source")
            .with_target_alias("target")
            .when_matched_update(|update| {
                columns.iter().fold(update, |update, name| update.update(name.as_str(), col(format!("source.{name}"))))
            })?
            .when_not_matched_insert(|insert| {
                columns.iter().fold(insert, |insert, name| insert.set(name.as_str(), col(format!("source.{name}"))))
            })?;
        let (merged, metrics) = merging.await?;
        fastest = fastest.min(begun.elapsed());
        (metrics.num_target_rows_updated == people.len()).then_some(()).context("the peer updated other rows")?;
        table = merged;
    }
    Ok(fastest)
}
