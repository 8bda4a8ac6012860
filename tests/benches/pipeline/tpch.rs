//! The questions of TPC-H, answered by Ruam and by DuckDB from the same files in turns.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ruam_query::EngineSettings;
use ruam_tests::tpch::{self, DuckDb, QUESTIONS, Tpch};

/// How often each is asked; the median counts.
const ROUNDS: usize = 5;
/// What each may take, in bytes.
const MEMORY: usize = 4 << 30;

/// The times of one question.
pub struct Asked {
    pub ours: Duration,
    /// Ours, for somebody who sees by policies.
    pub guarded: Duration,
    pub theirs: Duration,
}

impl Asked {
    /// Ours, as a part of DuckDB's.
    pub fn ratio(&self) -> f64 {
        self.ours.as_secs_f64() / self.theirs.as_secs_f64()
    }

    /// With policies, as a part of ours without.
    pub fn cost(&self) -> f64 {
        self.guarded.as_secs_f64() / self.ours.as_secs_f64()
    }
}

/// The geometric mean.
pub fn mean(ratios: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = ratios.len() as f64;
    (ratios.map(f64::ln).sum::<f64>() / count).exp()
}

/// How large the tables are; of 1, they have 8.7 million rows together.
pub fn scale() -> Result<f64> {
    match std::env::var("RUAM_BENCH_SCALE") {
        Ok(scale) => scale.parse().context("RUAM_BENCH_SCALE is a number"),
        Err(_) => Ok(1.0),
    }
}

/// Measures each question; an answer that is not DuckDB's is an error.
pub fn measure(threads: usize) -> Result<Vec<Asked>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let tpch = Tpch::kept(scale()?)?;
    runtime.block_on(async {
        // What is asked again is to be worked out again.
        let settings = || EngineSettings { memory: MEMORY, result_cache: 0, ..EngineSettings::default() };
        let session = tpch.session(settings())?;
        let guarded = tpch.guarded(settings())?;
        let mut peer = DuckDb::start(&tpch, threads, MEMORY).await?;
        let mut asked = Vec::new();
        for number in 1..=QUESTIONS {
            let question = tpch::question(number)?;
            let (mut ours, mut by_policies, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                theirs.push(peer.ask(&question)?);
                let expected = peer.answer()?;
                for (session, times) in [(&session, &mut ours), (&guarded, &mut by_policies)] {
                    let begun = Instant::now();
                    let answer = tpch::ask(session, &question).await?;
                    times.push(begun.elapsed());
                    tpch::check_same(&answer, &expected).with_context(|| format!("question {number}"))?;
                }
            }
            asked.push(Asked { ours: median(ours), guarded: median(by_policies), theirs: median(theirs) });
        }
        Ok(asked)
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
