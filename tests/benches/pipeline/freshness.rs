//! How long a record waits from its arrival in the log until readers see its row, seen from outside:
//! by the times that records have in the log, and those of the commits' files.

use std::fs;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use ruam_event::DatasetSpec;
use ruam_log::embedded::{EmbeddedBroker, EmbeddedSettings};
use ruam_tests::installation::files_in;
use ruam_tests::{Broker, Installation, datasets};
use serde_json::Value;

/// How long events flow, in seconds.
const SECONDS: u64 = 30;

/// What was measured.
pub struct Freshness {
    /// Events a second, as they arrived.
    pub rate: f64,
    /// For how long.
    pub seconds: f64,
    /// Milliseconds, of half of the records.
    pub p50: u64,
    /// Milliseconds, of 99 in a hundred.
    pub p99: u64,
    /// Milliseconds, of all.
    pub longest: u64,
}

/// Lets the events of one dataset flow at a rate, through the whole of the program.
pub fn measure(dataset: &str, rate: u64) -> Result<Freshness> {
    let installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec(dataset, &datasets::text(dataset, None)?)?;
    let spec = datasets::spec(dataset, None)?;
    // The generated datasets share a total; this one's share decides how long it flows.
    let share = share(&spec)?;
    let total = (rate * SECONDS) as f64 / share;
    installation.succeed(&["demo", "--events", &format!("{total:.0}"), "--rate", &rate.to_string()]).or_else(
        |error| {
            // The questions at the end of the demo need all four datasets; the flow is over by then.
            if error.to_string().contains("elapsed:") { Ok(String::new()) } else { Err(error) }
        },
    )?;
    let commits = commits(&installation, dataset, spec.partitions())?;
    let arrivals = arrivals(&installation, &spec.topic(), spec.partitions())?;
    let mut waits = Vec::new();
    let (mut first, mut last) = (i64::MAX, 0);
    for (partition, arrived) in arrivals.iter().enumerate() {
        let commits = &commits[partition];
        for (offset, arrived) in arrived {
            let commit = commits.partition_point(|(next, _)| next <= offset);
            let (_, visible) = commits.get(commit).with_context(|| format!("offset {offset} was not committed"))?;
            waits.push(u64::try_from(visible - arrived).unwrap_or(0));
            (first, last) = (first.min(*arrived), last.max(*arrived));
        }
    }
    waits.sort_unstable();
    ensure!(!waits.is_empty(), "events flowed");
    let at = |quantile: f64| waits[((waits.len() - 1) as f64 * quantile) as usize];
    let seconds = (last - first) as f64 / 1000.0;
    let rate = waits.len() as f64 / seconds;
    Ok(Freshness { rate, seconds, p50: at(0.5), p99: at(0.99), longest: at(1.0) })
}

/// Which part of the generated events is a dataset's.
fn share(spec: &DatasetSpec) -> Result<f64> {
    const TOTAL: u64 = 10_000;
    let events = datasets::events(spec, TOTAL)?;
    Ok(events.len() as f64 / TOTAL as f64)
}

/// For each partition, the next offset after each commit, and when the commit's file was written.
fn commits(installation: &Installation, dataset: &str, partitions: i32) -> Result<Vec<Vec<(i64, i64)>>> {
    let log = installation.data_dir().join("lake").join(dataset).join("_delta_log");
    let mut commits = vec![Vec::new(); usize::try_from(partitions)?];
    for file in files_in(&log)?.iter().filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
        let written = fs::metadata(file)?.modified()?.duration_since(UNIX_EPOCH)?.as_millis();
        for line in fs::read_to_string(file)?.lines() {
            let action: Value = serde_json::from_str(line)?;
            let Some(id) = action["txn"]["appId"].as_str() else { continue };
            // ruam/<dataset>/<topic>/<topic id>/<partition>, and counts one level below that.
            let parts: Vec<_> = id.split('/').collect();
            if let ([_, _, _, id, partition], Some(next)) = (&parts[..], action["txn"]["version"].as_i64())
                && *id != "id"
            {
                commits[partition.parse::<usize>()?].push((next, i64::try_from(written)?));
            }
        }
    }
    Ok(commits)
}

/// For each partition, the offsets of its records and when they arrived.
fn arrivals(installation: &Installation, topic: &str, partitions: i32) -> Result<Vec<Vec<(i64, i64)>>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let dir = installation.data_dir().join("log");
    let broker = runtime.block_on(EmbeddedBroker::start(&dir, EmbeddedSettings::default()))?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.address().to_string())
        .set("group.id", "bench")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut arrivals = vec![Vec::new(); usize::try_from(partitions)?];
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut open = partitions;
    while open > 0 {
        match consumer.poll(std::time::Duration::from_secs(30)).context("the log does not answer")? {
            Ok(message) => {
                let arrived = message.timestamp().to_millis().context("a time")?;
                arrivals[usize::try_from(message.partition())?].push((message.offset(), arrived));
            }
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => return Err(error.into()),
        }
    }
    drop(consumer);
    runtime.block_on(broker.stop());
    Ok(arrivals)
}
