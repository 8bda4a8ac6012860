//! What it costs to find a row by its key in a large table.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ruam_event::Mode;
use ruam_tests::fetched;

use crate::register::{Register, citizen_id};
use crate::scans::{ask, engine};
use crate::upserts::fill;

/// The rows of the table, and how many are looked for.
pub const PEOPLE: u64 = 20_000_000;
const LOOKUPS: usize = 501;

/// How long it took.
pub struct Looked {
    /// The first of all, of which nothing has been read yet.
    pub first: Duration,
    pub median: Duration,
    pub p99: Duration,
}

/// Measures it.
pub fn measure() -> Result<Looked> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = fetched::made("people", &PEOPLE.to_string(), |folder| {
        runtime.block_on(async {
            let mut register = Register::open(folder, Mode::Upsert).await?;
            fill(&mut register, &mut 0, PEOPLE).await?;
            register.settle().await
        })
    })?;
    runtime.block_on(async {
        let engine = engine(&folder)?;
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut times = Vec::with_capacity(LOOKUPS);
        for _ in 0..=LOOKUPS {
            let id = citizen_id(random.random_range(0..PEOPLE));
            let begun = Instant::now();
            let row = ask(&engine, &format!("select * from bench.people where citizen_id = '{id}'")).await?;
            times.push(begun.elapsed());
            ensure!(row.starts_with(&id), "{id}: {row}");
        }
        let first = times.remove(0);
        times.sort_unstable();
        Ok(Looked { first, median: times[LOOKUPS / 2], p99: times[LOOKUPS * 99 / 100] })
    })
}
