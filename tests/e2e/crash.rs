//! The process is killed, again and again, in the middle of its work.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ruam_tests::installation::files_in;
use ruam_tests::model::Models;
use ruam_tests::{Broker, Installation};

/// Generated events: more than flow in all the time that the kills leave.
const EVENTS: u64 = 30_000;
/// The most events a second of each source, so that they flow while the kills come.
const RATE: &str = "150";
/// How long a stop may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often it is killed.
const KILLS: usize = 20;

pub fn nothing_is_lost_and_nothing_twice(broker: Broker) -> Result<()> {
    let seed = std::env::var("RUAM_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    // Named where the test fails, to run it again with the same moments.
    crash(broker, seed).with_context(|| format!("with RUAM_TEST_SEED={seed}"))
}

/// Ctrl-C comes in the middle of everything, with more events waiting than the producer takes.
pub fn stopping_loses_nothing(broker: Broker) -> Result<()> {
    let mut installation = Installation::new(broker)?;
    // Only clients of a cluster take such settings; the embedded broker's queue is the usual one.
    installation.set("[log.properties]\n\"queue.buffering.max.messages\" = \"500\"\n")?;
    let events = EVENTS.to_string();
    let demo = ["demo", "--events", &events, "--rate", "0"];
    let mut stopped = 0;
    for moment in [700, 1000, 1300, 1600, 1900] {
        let mut running = installation.start(&demo)?;
        if !running.run_for(Duration::from_millis(moment)) {
            break;
        }
        let (status, said) = running.interrupt(PATIENCE)?;
        ensure!(status.success(), "{said}");
        ensure!(!said.contains("ERROR"), "{said}");
        stopped += u32::from(said.contains("goes on from here"));
    }
    ensure!(stopped > 0, "it was stopped on its way");
    installation.succeed(&demo)?;
    Models::of(EVENTS)?.check(&installation)?;
    installation.succeed(&["verify"])?;
    Ok(())
}

/// The log of a table that events flow to.
fn log_files(installation: &Installation) -> Result<Vec<PathBuf>> {
    let log = installation.data_dir().join("lake/bora/person/_delta_log");
    if log.is_dir() { files_in(&log) } else { Ok(Vec::new()) }
}

fn crash(broker: Broker, seed: u64) -> Result<()> {
    let installation = Installation::new(broker)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let events = EVENTS.to_string();
    let mut seen = Vec::new();
    for kill in 1..=KILLS {
        let mut demo = installation.start(&["demo", "--events", &events, "--rate", RATE])?;
        // Most come anywhere in its start and work, some surely after a commit, however slow the machine.
        if kill % 5 == 0 {
            let before = log_files(&installation)?;
            demo.run_until(|| Ok(log_files(&installation)? != before), PATIENCE)?;
        }
        let moment = Duration::from_millis(random.random_range(100..5000));
        ensure!(demo.run_for(moment), "ended by itself before kill {kill}:\n{}", demo.said());
        demo.kill()?;
        // Any state that a crash leaves can be read, and its books balance.
        if kill % 5 == 0 {
            installation.succeed(&["verify"])?;
            let rows = installation
                .ask("select (select count(*) from bora.person) + (select count(*) from cgd.disbursement)")?;
            seen.push(rows[0][0].clone().unwrap_or_default().parse::<u64>()?);
        }
    }
    let begun: Vec<_> = seen.windows(2).filter(|pair| pair[0] < pair[1]).collect();
    ensure!(!begun.is_empty(), "events flowed between the kills: {seen:?}");
    installation.succeed(&["demo", "--events", &events, "--rate", "0"])?;
    Models::of(EVENTS)?.check(&installation)?;
    installation.succeed(&["verify"])?;
    Ok(())
}
