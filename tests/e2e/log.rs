//! What the log promises, on either broker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use ruam_event::change::Op;
use ruam_event::envelope::{self, WrittenChange};
use ruam_event::{Change, ChangeEvent, DatasetSpec, OldRow, Position, Row};
use ruam_log::embedded::{EmbeddedBroker, EmbeddedSettings};
use ruam_log::subscriber::Bounds;
use ruam_log::{Delivery, EventName, Lease, Log, LogError, Publisher, Subscriber, TopicLayout, WrittenEvent};
use ruam_tests::broker::log_at;
use ruam_tests::installation::unique;
use ruam_tests::{Broker, datasets};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A log, with whatever it runs on.
struct OpenLog {
    log: Log,
    runtime: Runtime,
    _embedded: Option<(EmbeddedBroker, TempDir)>,
}

impl OpenLog {
    fn of(broker: Broker) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (servers, embedded) = match broker.servers()? {
            Some(servers) => (servers, None),
            None => {
                let dir = tempfile::tempdir()?;
                let broker = runtime.block_on(EmbeddedBroker::start(dir.path(), EmbeddedSettings::default()))?;
                (broker.address().to_string(), Some((broker, dir)))
            }
        };
        Ok(Self { log: log_at(servers), runtime, _embedded: embedded })
    }

    fn topic(&self, spec: &DatasetSpec) -> Result<TopicLayout> {
        Ok(self.runtime.block_on(self.log.ensure_topic(&spec.topic(), spec.partitions()))?)
    }

    fn held(&self, layout: &TopicLayout) -> Result<u64> {
        Ok(self.runtime.block_on(self.log.held(layout))?.iter().map(|range| range.len()).sum())
    }
}

/// Persons with a topic of their own, and some of their events.
fn persons() -> Result<(DatasetSpec, Vec<ChangeEvent>)> {
    let spec = datasets::spec("bora/person", Some(&unique()))?;
    let events = datasets::events(&spec, 1000)?;
    Ok((spec, events))
}

fn publish(log: &OpenLog, spec: &DatasetSpec, layout: &TopicLayout, events: &[ChangeEvent]) -> Result<(u64, u64)> {
    let mut publisher = Publisher::open(&log.log, spec, layout.clone())?;
    let (mut records, mut repeated) = (0, 0);
    for event in events {
        let sent = publisher.publish(event, &|| false)?;
        records += sent.records;
        repeated += sent.repeated;
    }
    publisher.flush(&|| false)?;
    Ok((records, repeated))
}

pub fn a_publisher_goes_on_where_the_log_is(broker: Broker) -> Result<()> {
    let log = OpenLog::of(broker)?;
    let (spec, events) = persons()?;
    let layout = log.topic(&spec)?;
    let half = events.len() / 2;
    ensure!(publish(&log, &spec, &layout, &events[..half])? == (half as u64, 0), "an empty topic takes everything");
    let all = events.len() as u64;
    // The source replays from its beginning: what is there is left out, partition by partition.
    let (records, repeated) = publish(&log, &spec, &layout, &events)?;
    ensure!((records, repeated) == (all - half as u64, half as u64), "{records} more, {repeated} repeated");
    ensure!(log.held(&layout)? == all, "each event is there once");
    ensure!(publish(&log, &spec, &layout, &events)? == (0, all), "nothing is left to publish");

    let mut replay = Vec::new();
    let mut subscriber = subscribe(&log, &spec, &layout, "lake", "one")?;
    read_until(&mut [&mut subscriber], &mut replay, events.len())?;
    // Per partition, the source's order.
    for index in 0..layout.partitions {
        let positions: Vec<_> = replay.iter().filter(|(partition, ..)| *partition == index).map(|(.., p)| *p).collect();
        ensure!(positions.is_sorted() && !positions.is_empty(), "partition {index} keeps the order of its source");
    }
    Ok(())
}

pub fn a_key_that_is_left_is_told_to_its_own_partition() -> Result<()> {
    let log = OpenLog::of(Broker::Embedded)?;
    let (spec, events) = persons()?;
    let layout = log.topic(&spec)?;
    let rows =
        events.iter().filter_map(|event| if let Change::Snapshot(row) = &event.change { Some(row) } else { None });
    let rows: Vec<_> = rows.take(41).collect();
    let take_the_next = |(index, pair): (usize, &[&Row])| ChangeEvent {
        position: Position::new(index as u64 + 1),
        source_time: None,
        change: Change::Update { old: OldRow::Full(pair[0].clone()), new: pair[1].clone() },
    };
    let updates: Vec<_> = rows.windows(2).enumerate().map(take_the_next).collect();
    let (records, _) = publish(&log, &spec, &layout, &updates)?;
    // Of two partitions, a key's next is in the other about every second time.
    ensure!((45..=75).contains(&records), "{records} records of 40 updates");
    ensure!(publish(&log, &spec, &layout, &updates)? == (0, records), "nothing is left to publish");
    ensure!(log.held(&layout)? == records, "each is there once");
    Ok(())
}

/// Where rows have no key, none is left: an update is one record, whatever it tells of the row before.
pub fn an_update_without_a_key_is_one_record() -> Result<()> {
    let log = OpenLog::of(Broker::Embedded)?;
    let text = datasets::text("cgd/disbursement", Some(&unique()))?.replacen("key = [\"disbursement_id\"]\n", "", 1);
    let spec = DatasetSpec::parse("cgd/disbursement.toml", &text)?;
    ensure!(spec.key().is_empty(), "it has no key");
    let layout = log.topic(&spec)?;
    let row = Row::new(["disbursement_id".to_owned()].into_iter().collect(), vec!["1".into()]);
    let update = |position| ChangeEvent {
        position: Position::new(position),
        source_time: None,
        change: Change::Update { old: OldRow::Full(row.clone()), new: row.clone() },
    };
    // They are spread by their positions, so that about half of them lie in either partition.
    let updates: Vec<_> = (1..=40).map(update).collect();
    ensure!(publish(&log, &spec, &layout, &updates)? == (40, 0), "a record for each");
    ensure!(log.held(&layout)? == 40, "each is there once");
    Ok(())
}

/// Whatever is told of a row, its record has its key and lies where that is.
pub fn a_record_has_its_key_whatever_its_source_tells() -> Result<()> {
    let log = OpenLog::of(Broker::Embedded)?;
    let (spec, events) = persons()?;
    let layout = log.topic(&spec)?;
    let row = events.iter().find_map(|event| event.change.row()).context("a row")?;
    let change = |change, position| ChangeEvent { position: Position::new(position), source_time: None, change };
    let told = [
        change(Change::Insert(row.clone()), 1),
        change(Change::Update { old: OldRow::None, new: row.clone() }, 2),
        change(Change::Update { old: OldRow::Full(row.clone()), new: row.clone() }, 3),
        change(Change::Delete(OldRow::Full(row.clone())), 4),
    ];
    let mut publisher = Publisher::open(&log.log, &spec, layout.clone())?;
    for event in &told {
        publisher.publish(event, &|| false)?;
    }
    let written = WrittenChange::new(Op::Update, row, &spec.key());
    let name = EventName { source: "/bora/person", id: "own" };
    let event = WrittenEvent { position: Position::new(5), time: None, change: &written, name, signature: None };
    publisher.publish_written(event, &|| false)?;
    publisher.flush(&|| false)?;
    drop(publisher);

    let mut subscriber = subscribe(&log, &spec, &layout, "lake", "one")?;
    let (mut partitions, mut keys, deadline) = (BTreeSet::new(), Vec::new(), Instant::now() + PATIENCE);
    while keys.len() <= told.len() {
        if let Some(Delivery::Records(records)) = subscriber.next(Duration::from_millis(100))? {
            partitions.insert(records.partition.index);
            keys.extend((0..records.len()).map(|index| records.keys.get(index).map(<[u8]>::to_vec)));
        }
        ensure!(Instant::now() < deadline, "only {} records came", keys.len());
    }
    let mut key = Vec::new();
    ensure!(envelope::encode_key(row, &spec.key(), &mut key), "it has a key");
    ensure!(keys.iter().all(|found| found.as_deref() == Some(&key[..])), "each has the key of its row");
    ensure!(partitions.len() == 1, "all lie in one partition");
    Ok(())
}

fn subscribe(log: &OpenLog, spec: &DatasetSpec, layout: &TopicLayout, lake: &str, who: &str) -> Result<Subscriber> {
    let linger = Duration::from_millis(10);
    let bounds = Bounds { records: 1000, bytes: 1 << 20, linger, prefetch_kbytes: 4096 };
    let from_the_beginning = Box::new(|partitions: &[_]| Ok(vec![None; partitions.len()]));
    Ok(Subscriber::open(&log.log, spec.id(), layout.clone(), lake, who, bounds, from_the_beginning)?)
}

type Seen = Vec<(i32, i64, Option<Position>)>;

/// Reads until so many records have come to any of the subscribers.
fn read_until(subscribers: &mut [&mut Subscriber], seen: &mut Seen, wanted: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < wanted {
        for subscriber in &mut *subscribers {
            if let Some(Delivery::Records(records)) = subscriber.next(Duration::from_millis(100))? {
                let index = records.partition.index;
                seen.extend(records.offsets.iter().zip(&records.positions).map(|(offset, at)| (index, *offset, *at)));
            }
        }
        ensure!(Instant::now() < deadline, "only {} of {wanted} records came", seen.len());
    }
    Ok(())
}

pub fn readers_of_one_lake_share_and_other_lakes_get_all(broker: Broker) -> Result<()> {
    let log = OpenLog::of(broker)?;
    let (spec, events) = persons()?;
    let layout = log.topic(&spec)?;
    let mut first = subscribe(&log, &spec, &layout, "lake-a", "one")?;
    let mut second = subscribe(&log, &spec, &layout, "lake-a", "two")?;
    let mut other = subscribe(&log, &spec, &layout, "lake-b", "one")?;
    // Both of one lake have a partition each before anything is published.
    let (mut of_first, mut of_second) = (0, 0);
    let deadline = Instant::now() + PATIENCE;
    while (of_first, of_second) != (1, 1) {
        for (subscriber, count) in [(&mut first, &mut of_first), (&mut second, &mut of_second)] {
            if let Some(Delivery::Assigned(assigned)) = subscriber.next(Duration::from_millis(100))? {
                *count = assigned.len();
            }
        }
        ensure!(Instant::now() < deadline, "two readers share two partitions: {of_first} and {of_second}");
    }
    publish(&log, &spec, &layout, &events)?;
    let (mut shared, mut alone) = (Vec::new(), Vec::new());
    read_until(&mut [&mut first, &mut second], &mut shared, events.len())?;
    read_until(&mut [&mut other], &mut alone, events.len())?;
    for seen in [&shared, &alone] {
        let places: BTreeSet<_> = seen.iter().map(|(partition, offset, _)| (partition, offset)).collect();
        ensure!(places.len() == events.len() && seen.len() == events.len(), "each record once");
    }
    Ok(())
}

pub fn a_source_has_one_feeder(broker: Broker) -> Result<()> {
    let log = OpenLog::of(broker)?;
    let (spec, _) = persons()?;
    let topic = spec.topic();
    let take = |topic: &str, who: &str| log.runtime.block_on(Lease::take(&log.log, spec.id(), topic, who));
    let held = take(&topic, "one")?;
    let elsewhere = take(&format!("{topic}-other"), "two")?;
    // The holder keeps itself alive while another tries.
    let refused = std::thread::scope(|scope| {
        let other = scope.spawn(|| take(&topic, "two"));
        while !other.is_finished() {
            held.check()?;
            elsewhere.check()?;
        }
        other.join().map_err(|_| anyhow::anyhow!("the other panicked"))
    })?;
    match refused {
        Err(error @ LogError::Held { .. }) => {
            ensure!(error.to_string().contains("another process already publishes `bora.person`"), "{error}");
        }
        Err(error) => bail!("refused, but not for the holder: {error}"),
        Ok(_) => bail!("two feed one source"),
    }
    // Who starts again under the same name takes its own place back, and the old one is out.
    let again = take(&topic, "one")?;
    again.check()?;
    let deadline = Instant::now() + PATIENCE;
    while held.check().is_ok() {
        again.check()?;
        ensure!(Instant::now() < deadline, "the old holder still believes that it holds the lease");
    }
    Ok(())
}

pub fn a_topic_created_anew_is_noticed(broker: Broker) -> Result<()> {
    let log = OpenLog::of(broker)?;
    let (spec, events) = persons()?;
    let layout = log.topic(&spec)?;
    publish(&log, &spec, &layout, &events[..10])?;
    log.runtime.block_on(log.log.check_identity(spec.id(), &layout.topic))?;
    let mut admin = ClientConfig::new();
    admin.set("bootstrap.servers", log.log.servers());
    let admin: AdminClient<DefaultClientContext> = admin.create()?;
    let deleted = log.runtime.block_on(admin.delete_topics(&[&spec.topic()], &AdminOptions::new()))?;
    ensure!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let deadline = Instant::now() + PATIENCE;
    while log.runtime.block_on(log.log.topic(&spec.topic()))?.is_some() {
        ensure!(Instant::now() < deadline, "the topic is still there");
    }
    let anew = log.topic(&spec)?;
    ensure!(anew.topic.id != layout.topic.id, "a new topic has a new id");
    match log.runtime.block_on(log.log.check_identity(spec.id(), &layout.topic)) {
        Err(error @ LogError::Recreated { .. }) => {
            ensure!(error.to_string().contains("ruam resume bora.person --from beginning"), "{error}");
            Ok(())
        }
        other => bail!("a topic created anew passes for the old one: {other:?}"),
    }
}
