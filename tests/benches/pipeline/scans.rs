//! What a scan of a table costs after many commits of changed rows, beside the same rows freshly written.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use arrow::compute::concat_batches;
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use ruam_event::{DatasetSpec, Mode};
use ruam_query::{Engine, EngineSettings, Policies, QueryDataset};
use ruam_transform::reject;
use tokio::time::MissedTickBehavior;

use crate::register::{self, OFFSET, Register};
use crate::upserts::{CHANGES, FILLED, fill, some};

const PEOPLE: u64 = 2_000_000;
const COMMITS: usize = 1000;
/// Between two commits, as the worker has it where nothing else is set.
const INTERVAL: Duration = Duration::from_millis(500);
/// How often each is scanned, in turns; the fastest counts.
const SCANS: usize = 7;

/// What is asked, and what it is called.
const QUESTIONS: [(&str, &str); 2] = [
    (
        "full",
        "select count(*), sum(octet_length(citizen_id)), sum(octet_length(name)), min(born), max(area_code), count(income), \
         max(_event_id), sum(_offset), sum(octet_length(_position)), max(_source_time) from bench.people",
    ),
    ("filtered", "select count(*), min(citizen_id), max(name) from bench.people where area_code = '100123'"),
];

const SPEC: &str = r#"
dataset = "bench.people"
title = { th = "ทะเบียน", en = "A register" }
description = { th = "ทะเบียน", en = "A register of people" }
owner = { th = "ทดสอบ", en = "Bench" }
contact = { name = "Bench", email = "bench@example.org" }
classification = "internal"
purposes = ["training"]
generated = true
mode = "upsert"
key = ["citizen_id"]

[source]
kind = "generated_people"

[[columns]]
name = "citizen_id"
type = "text"
title = { th = "เลข", en = "Number" }
"#;

/// The scans of one question: its name, and the times.
pub struct Scanned {
    pub question: &'static str,
    /// Of the table that was committed to.
    pub worn: Duration,
    /// Of the same rows, freshly written.
    pub fresh: Duration,
}

/// Measures all of it.
pub fn measure() -> Result<Vec<Scanned>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let (worn, fresh) = (dir.path().join("worn"), dir.path().join("fresh"));
    runtime.block_on(async {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut register = Register::open(&worn, Mode::Upsert).await?;
        fill(&mut register, &mut 0, PEOPLE).await?;
        let mut due = tokio::time::interval(INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..COMMITS {
            due.tick().await;
            register.commit(&some(&mut random, PEOPLE, CHANGES), false).await?;
        }
        drop(register);
        let worn = engine(&worn)?;
        write_fresh(&worn, &fresh).await?;
        let fresh = engine(&fresh)?;
        let mut scanned = Vec::new();
        for (question, sql) in QUESTIONS {
            let mut fastest = [Duration::MAX; 2];
            let mut answers = [String::new(), String::new()];
            for _ in 0..SCANS {
                for (of, engine) in [&worn, &fresh].into_iter().enumerate() {
                    let begun = Instant::now();
                    answers[of] = ask(engine, sql).await?;
                    fastest[of] = fastest[of].min(begun.elapsed());
                }
            }
            ensure!(answers[0] == answers[1], "{question}: {} and {}", answers[0], answers[1]);
            scanned.push(Scanned { question, worn: fastest[0], fresh: fastest[1] });
        }
        Ok(scanned)
    })
}

/// Writes the rows that a register has now into another, each once, in the order in which they came.
pub async fn write_fresh(worn: &Engine, dir: &Path) -> Result<()> {
    let mut rows = worn.query(&format!("select * from bench.people order by {OFFSET}")).await?;
    let mut fresh = Register::open(dir, Mode::Upsert).await?;
    let (mut waiting, mut count) = (Vec::new(), 0);
    while let Some(batch) = rows.try_next().await? {
        count += batch.num_rows();
        waiting.push(batch);
        if count >= FILLED {
            fresh.copy(&concat_batches(&rows.schema(), &waiting)?).await?;
            (waiting, count) = (Vec::new(), 0);
        }
    }
    if count > 0 { fresh.copy(&concat_batches(&rows.schema(), &waiting)?).await } else { Ok(()) }
}

/// An engine over the register in a folder.
pub fn engine(dir: &Path) -> Result<Engine> {
    let dataset = QueryDataset {
        spec: Arc::new(DatasetSpec::parse("bench/people.toml", SPEC)?),
        rows: register::schema(),
        rejects: reject::SCHEMA.clone(),
        changes: None,
    };
    // What is asked again is to be worked out again.
    let settings = EngineSettings { result_cache: 0, ..EngineSettings::default() };
    Ok(Engine::new(register::lake(dir)?, vec![Arc::new(dataset)], Policies::default(), settings)?)
}

/// The answer, a line of values.
pub async fn ask(engine: &Engine, sql: &str) -> Result<String> {
    let batches: Vec<_> = engine.query(sql).await?.try_collect().await?;
    let mut values = Vec::new();
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
        for column in batch.columns() {
            values.push(array_value_to_string(column, 0)?);
        }
    }
    Ok(values.join(" "))
}
