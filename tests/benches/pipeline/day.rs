//! What a table takes to be opened after a day of one commit a second, beside the same rows freshly written.
//!
//! The commits follow each other as fast as they can, and the files of the log are given the times that they
//! would have, so that what is kept for an hour or a week is what would be kept then. The last of them do come
//! once a second, as then the work in the background does, and the table is opened between each two.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use ruam_event::Mode;
use ruam_lake::{TableKind, TableName};

use crate::register::{self, Register};
use crate::scans;
use crate::upserts::{fill, some};

const PEOPLE: u64 = 200_000;
/// Changes of a commit.
const CHANGES: usize = 20;
/// A commit a second.
const COMMITS: usize = 24 * 3600;
/// After how many commits the log gets its times.
const DATED: usize = 500;
/// The last commits, after each of which both are opened.
const OPENED: usize = 31;
/// So often each, in turns: the first after a pause finds a machine that has gone to sleep, whatever the table.
const TURNS: usize = 5;
/// Between two of them.
const SECOND: Duration = Duration::from_secs(1);

/// What was measured.
pub struct Day {
    pub commits: usize,
    /// The median of a commit in the first and in the last hour.
    pub first: Duration,
    pub last: Duration,
    /// To open the table; medians.
    pub worn: Duration,
    pub fresh: Duration,
    /// To open it and count its rows; medians.
    pub worn_count: Duration,
    pub fresh_count: Duration,
    /// Files of the log.
    pub log_files: usize,
}

/// Measures all of it.
pub fn measure() -> Result<Day> {
    let commits = std::env::var("RUAM_BENCH_COMMITS").ok().and_then(|count| count.parse().ok()).unwrap_or(COMMITS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let (worn, fresh) = (dir.path().join("worn"), dir.path().join("fresh"));
    runtime.block_on(async {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut register = Register::open(&worn, Mode::Upsert).await?;
        fill(&mut register, &mut 0, PEOPLE).await?;
        let mut times = Vec::with_capacity(commits);
        for number in 1..=commits {
            times.push(register.commit(&some(&mut random, PEOPLE, CHANGES), false).await?);
            if number % DATED == 0 {
                date(&log(&worn))?;
            }
        }
        let hour = (commits / 24).max(1);
        let [first, last] = [&mut times.clone()[..hour], &mut times[commits - hour..]].map(median);
        scans::write_fresh(&scans::engine(&worn)?, &fresh).await?;
        let (mut open, mut count) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        let mut due = tokio::time::interval(SECOND);
        for _ in 0..OPENED {
            register.commit(&some(&mut random, PEOPLE, CHANGES), false).await?;
            due.tick().await;
            for (of, dir) in [&worn, &fresh].into_iter().enumerate().cycle().take(2 * TURNS) {
                let name = TableName::new(&"bench.people".parse()?, TableKind::Rows);
                let begun = Instant::now();
                register::lake(dir)?.table(&name).await?;
                open[of].push(begun.elapsed());
                let begun = Instant::now();
                let answer = scans::ask(&scans::engine(dir)?, "select count(*) from bench.people").await?;
                count[of].push(begun.elapsed());
                ensure!(answer == PEOPLE.to_string(), "{answer} rows");
            }
        }
        drop(register);
        let [[worn_open, fresh_open], [worn_count, fresh_count]] =
            [open, count].map(|times| times.map(|mut times| median(&mut times)));
        let log_files = fs::read_dir(log(&worn))?.count();
        Ok(Day { commits, first, last, worn: worn_open, fresh: fresh_open, worn_count, fresh_count, log_files })
    })
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn log(dir: &Path) -> std::path::PathBuf {
    dir.join("lake/bench/people/_delta_log")
}

/// Gives the files of a log the times that they would have if the last version had come just now and each
/// one before it a second earlier.
fn date(log: &Path) -> Result<()> {
    let mut files = Vec::new();
    for file in fs::read_dir(log)? {
        let file = file?;
        if let Some(version) = file.file_name().to_str().and_then(|name| name.split('.').next()?.parse::<u64>().ok()) {
            files.push((version, file.path()));
        }
    }
    let (last, now) = (files.iter().map(|(version, _)| *version).max().context("a log")?, SystemTime::now());
    for (version, path) in files {
        // A file may be deleted meanwhile, as maintenance goes on.
        if let Ok(file) = File::options().append(true).open(path) {
            file.set_modified(now - Duration::from_secs(last - version))?;
        }
    }
    Ok(())
}
