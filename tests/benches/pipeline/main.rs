//! How fast, how big and how fresh the way from topic to committed table is, each figure beside the
//! limit that was measured in the same run: these machines are shared, and absolute figures mean
//! little.
//!
//! `cargo bench` runs it, `cargo bench -- memory` a part (speed, memory, freshness). `RUAM_BENCH_EVENTS=N` (1,000,000) sets how many events a throughput is taken
//! over, `RUAM_TEST_KAFKA=host:port` names a Kafka; without one, and without Maven and Java, its lines
//! are left out.

mod backlog;
mod freshness;
mod limit;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use backlog::{Backlog, Drained};
use ruam_tests::{Broker, kafka};

/// What is promised.
const RATIO: f64 = 0.30;
const PEAK_MB: u64 = 600;
const FRESHNESS_MS: u64 = 2000;
/// How often memory is measured.
const RUNS: usize = 3;

fn main() -> ExitCode {
    if ruam_tests::is_ruam() {
        return ruam::main();
    }
    // `cargo test --benches` compiles this and runs it with `--test`: nothing is measured then.
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let result = measure();
    Broker::stop_all();
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("\nnot everything that is promised was measured: see the lines that say SHORT");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures what is asked for; says whether all promises were kept.
fn measure() -> Result<bool> {
    let events = std::env::var("RUAM_BENCH_EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let cores = std::thread::available_parallelism()?.get();
    println!(
        "{events} events, {cores} cores; promised: ratio ≥ {RATIO:.2}, peak ≤ {PEAK_MB} MB, p99 ≤ {FRESHNESS_MS} ms\n"
    );
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    let mut kept = true;
    if is_wanted("speed") {
        kept &= measure_speed(events, cores)?;
    }
    if is_wanted("memory") {
        kept &= measure_memory()?;
    }
    if is_wanted("freshness") {
        kept &= measure_freshness()?;
    }
    Ok(kept)
}

fn measure_speed(events: u64, cores: usize) -> Result<bool> {
    let mut kept = true;
    println!("topic to committed table, against arrow-json and Parquet alone on the same bytes");
    for (name, dataset) in [("append", "cgd/disbursement"), ("upsert", "bora/person")] {
        let values = limit::values(dataset, events)?;
        // On a shared machine the limit moves, too: it is taken before and after.
        let before = limit::events_a_second(&values, cores)?;
        let mut ours = Vec::new();
        for broker in Broker::ALL {
            if broker == Broker::Kafka && !kafka::is_at_hand() {
                println!("  {name:<7}  kafka     left out: install Java 17 and Maven, or set RUAM_TEST_KAFKA");
                continue;
            }
            ours.push((broker, Backlog::fill(broker, dataset, events)?.drain()?));
        }
        let limit = f64::midpoint(before, limit::events_a_second(&values, cores)?);
        for (broker, drained) in ours {
            let ratio = drained.events_a_second() / limit;
            // The promise is about the broker that comes with the program, and appends.
            let counts = broker == Broker::Embedded && name == "append";
            kept &= !counts || ratio >= RATIO;
            println!(
                "  {name:<7}  {:<8}  {:>9.0} events/s   limit {limit:>9.0}   ratio {ratio:.2}   peak {:>4} MB{}",
                broker.name(),
                drained.events_a_second(),
                drained.peak_mb,
                verdict(counts, ratio >= RATIO)
            );
        }
    }

    Ok(kept)
}

fn measure_memory() -> Result<bool> {
    let mut kept = true;
    println!("\npeak memory of the whole process with a backlog (broker, worker and tables in it)");
    for (name, dataset) in [("append", "cgd/disbursement"), ("upsert", "bora/person")] {
        let peak = |millions: u64| -> Result<Drained> {
            let drained = Backlog::fill(Broker::Embedded, dataset, millions * 1_000_000)?.drain()?;
            ensure!(drained.events == millions * 1_000_000, "everything was read");
            Ok(drained)
        };
        // What an allocator keeps differs by a fifth from one run of the same to the next, so that one
        // run of each says nothing: runs alternate, and the highest of each are compared.
        let (mut two, mut four) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            two.push(peak(2)?.peak_mb);
            four.push(peak(4)?.peak_mb);
        }
        let highest = |runs: &[u64]| runs.iter().copied().max().unwrap_or_default();
        let is_kept = highest(&two) <= PEAK_MB && highest(&four) <= highest(&two) * 105 / 100;
        kept &= is_kept;
        println!("  {name:<7}  2 million {two:?} MB   4 million {four:?} MB{}", verdict(true, is_kept));
    }

    Ok(kept)
}

fn measure_freshness() -> Result<bool> {
    let mut kept = true;
    println!("\nfreshness at 5,000 events a second: from arrival in the log to a commit that readers see");
    for (name, dataset) in [("append", "cgd/disbursement"), ("upsert", "bora/person")] {
        let fresh = freshness::measure(dataset, 5000)?;
        kept &= fresh.p99 <= FRESHNESS_MS;
        println!(
            "  {name:<7}  {:>6.0} events/s for {:>2.0} s   p50 {:>4} ms   p99 {:>4} ms   longest {:>4} ms{}",
            fresh.rate,
            fresh.seconds,
            fresh.p50,
            fresh.p99,
            fresh.longest,
            verdict(true, fresh.p99 <= FRESHNESS_MS)
        );
    }
    Ok(kept)
}

fn verdict(counts: bool, is_kept: bool) -> &'static str {
    match (counts, is_kept) {
        (false, _) => "",
        (true, true) => "   ok",
        (true, false) => "   SHORT",
    }
}
