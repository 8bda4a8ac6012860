//! How fast a table of PostgreSQL is followed, and with how much memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use ruam_connectors::{Connection, Feed, Source, Surroundings};
use ruam_event::{DatasetSpec, Position};
use ruam_log::Publisher;
use ruam_tests::Broker;
use ruam_tests::broker::log_at;
use ruam_tests::installation::Installation;
use ruam_tests::kafka;
use ruam_tests::postgres::{Postgres, Release};

use crate::peak_mb;

/// The rows of the table, and the changes of the stream.
const ROWS: u64 = 2_000_000;
const CHANGES: u64 = 1_000_000;
/// Changes of one transaction, and rows of the one that is large.
const OF_ONE: u64 = 10_000;
pub const LARGE: u64 = 5_000_000;
/// How often what is in the log is released, as the program does.
const RELEASE_EVERY: Duration = Duration::from_secs(1);

const SPEC: &str = r#"
dataset = "bench.accounts"
title = { th = "ก", en = "Accounts" }
description = { th = "ก", en = "Accounts" }
owner = { th = "ก", en = "a" }
contact = { name = "a", email = "a@example.org" }
classification = "internal"
purposes = ["training"]
mode = "upsert"
key = ["aid"]
source = { kind = "postgres", with = { connection = "bench", table = "public.pgbench_accounts" } }
columns = [
  { name = "aid", type = "integer", title = { th = "ก", en = "a" } },
  { name = "bid", type = "integer", title = { th = "ก", en = "b" } },
  { name = "abalance", type = "integer", title = { th = "ก", en = "c" } },
  { name = "filler", type = "text", title = { th = "ก", en = "d" } },
]
"#;

/// Rows or changes a second.
pub struct Speed {
    /// Out of the source, and on into Kafka where there is one.
    pub read: f64,
    pub published: Option<f64>,
    /// The limit.
    pub limit: f64,
}

/// What was measured.
pub struct Measured {
    pub snapshot: Speed,
    pub stream: Speed,
    pub peak_mb: u64,
}

/// A reader of the table, with its place for what it remembers.
struct Reader {
    source: Box<dyn Source>,
    publisher: Option<Publisher>,
}

impl Reader {
    fn new(server: &Postgres, state: &Path, slot: &str, runtime: &tokio::runtime::Runtime) -> Result<Self> {
        let spec = SPEC.replace("pgbench_accounts\"", &format!("pgbench_accounts\", slot = \"{slot}\""));
        let spec = spec.replace("mode = ", &format!("topic = {{ name = \"bench-{slot}\" }}\nmode = "));
        let spec = DatasetSpec::parse("bench/accounts.toml", &spec)?;
        let connections = BTreeMap::from([("bench".to_owned(), Connection::to(server.url("postgres")))]);
        let surroundings = Surroundings { connections, state: state.join(slot), ..Surroundings::default() };
        let source = ruam_connectors::open(&spec, &surroundings)?.context("a source")?;
        let publisher = match slot.ends_with("published") {
            true => {
                let log = log_at(Broker::Kafka.servers()?.context("a Kafka")?);
                let layout = runtime.block_on(log.ensure_topic(&spec.topic(), spec.partitions()))?;
                Some(Publisher::open(&log, &spec, layout)?)
            }
            false => None,
        };
        Ok(Self { source, publisher })
    }

    /// Reads a number of events; says how long it took.
    fn read(&mut self, events: u64) -> Result<Duration> {
        let begun = Instant::now();
        let (mut read, mut released) = (0, Instant::now());
        let never = || false;
        while read < events {
            let Feed::Events(next) = self.source.next(1000)? else { continue };
            read += next.len() as u64;
            if let Some(publisher) = &mut self.publisher {
                for event in &next {
                    publisher.publish(event, &never)?;
                }
            }
            if released.elapsed() > RELEASE_EVERY || read >= events {
                released = Instant::now();
                if let Some(publisher) = &mut self.publisher {
                    publisher.flush(&never)?;
                }
                self.source.release(next.last().context("an event")?.position)?;
            }
        }
        Ok(begun.elapsed())
    }
}

/// Measures it.
pub fn measure() -> Result<Measured> {
    let server =
        Postgres::start(Release::Installed, &["wal_level=logical", "max_wal_size=8GB", "shared_buffers=256MB"])?;
    let state = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let made = Command::new(server.programs().join("pgbench"))
        .args(["-q", "-i", "-s", &(ROWS / 100_000).to_string(), &server.url("postgres")])
        .output()?;
    ensure!(made.status.success(), "pgbench: {}", String::from_utf8_lossy(&made.stderr));
    let slots = match kafka::is_at_hand() {
        true => vec!["ruam_read", "ruam_published"],
        false => vec!["ruam_read"],
    };
    let (mut snapshot, before) = (Vec::new(), runtime.block_on(copy(&server))?);
    for slot in &slots {
        let mut reader = Reader::new(&server, state.path(), slot, &runtime)?;
        reader.source.open(None)?;
        snapshot.push(ROWS as f64 / reader.read(ROWS)?.as_secs_f64());
        // Its last part is released when the end has been told.
        while !matches!(reader.source.next(1000)?, Feed::Idle) {}
    }
    let limit = f64::midpoint(before, runtime.block_on(copy(&server))?);
    let snapshot = Speed { read: snapshot[0], published: snapshot.get(1).copied(), limit };

    // Nobody reads while the changes are made: this is not about how fast the server makes them.
    server.run_sql("select pg_create_logical_replication_slot('limit', 'pgoutput')")?;
    let after = here(&server)?;
    for transaction in 0..CHANGES / OF_ONE {
        let from = transaction * OF_ONE;
        server.run_sql(&format!(
            "update pgbench_accounts set abalance = abalance + 1 where aid > {from} and aid <= {}",
            from + OF_ONE
        ))?;
    }
    let end = server.run_sql("select pg_current_wal_lsn()::text")?[0][0].clone().context("a place")?;
    // What comes behind lets the limit see its end.
    server.run_sql("insert into pgbench_history values (1, 1, 1, 1, now(), '')")?;
    let before = receive(&server, &end)?;
    let mut stream = Vec::new();
    for slot in &slots {
        let mut reader = Reader::new(&server, state.path(), slot, &runtime)?;
        reader.source.open(Some(after))?;
        stream.push(CHANGES as f64 / reader.read(CHANGES)?.as_secs_f64());
    }
    let stream =
        Speed { read: stream[0], published: stream.get(1).copied(), limit: CHANGES as f64 / before.as_secs_f64() };

    // One transaction of many rows.
    let after = here(&server)?;
    server.run_sql(&format!(
        "insert into pgbench_accounts select {ROWS} + n, 1, 0, 'x' from generate_series(1, {LARGE}) n"
    ))?;
    let mut reader = Reader::new(&server, state.path(), slots[0], &runtime)?;
    reader.source.open(Some(after))?;
    reader.read(LARGE)?;
    Ok(Measured { snapshot, stream, peak_mb: peak_mb(std::process::id())? })
}

/// How far the server's log is.
fn here(server: &Postgres) -> Result<Position> {
    let lsn = server.run_sql("select (pg_current_wal_lsn() - '0/0')::text")?;
    Ok(Position::new(lsn[0][0].as_ref().context("a place")?.parse()?))
}

/// Rows a second that `COPY` sends, read and dropped.
async fn copy(server: &Postgres) -> Result<f64> {
    let client = server.connect().await?;
    let begun = Instant::now();
    let mut rows = std::pin::pin!(client.copy_out("copy pgbench_accounts to stdout").await?);
    let mut count = 0_u64;
    while rows.try_next().await?.is_some() {
        count += 1;
    }
    ensure!(count == ROWS, "{count} rows");
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// How long PostgreSQL's own program takes to receive the same changes and drop them.
fn receive(server: &Postgres, end: &str) -> Result<Duration> {
    let begun = Instant::now();
    let received = Command::new(server.programs().join("pg_recvlogical"))
        .args(["--start", "--slot", "limit", "--no-loop", "--file", "/dev/null", "--endpos", end])
        .args(["-o", "proto_version=1", "-o", "publication_names=ruam_read"])
        .args(["-d", &server.url("postgres")])
        .output()?;
    ensure!(received.status.success(), "pg_recvlogical: {}", String::from_utf8_lossy(&received.stderr));
    Ok(begun.elapsed())
}

/// How long pgbench changes its tables, and how often the connector is killed meanwhile.
pub const MINUTES: u64 = 3;
pub const KILLS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(300);

/// pgbench's tables as datasets: the name, its key and its other columns, all of them whole numbers.
const TABLES: [(&str, &str, &[&str]); 4] = [
    ("accounts", "aid", &["bid", "abalance"]),
    ("branches", "bid", &["bbalance"]),
    ("tellers", "tid", &["bid", "tbalance"]),
    ("history", "hid", &["tid", "bid", "aid", "delta"]),
];

/// pgbench runs against the tables while the connector is killed again and again; how many rows and transactions
/// there are in the end, which the lake has as the server has them.
pub fn killed() -> Result<(usize, u64)> {
    let server = Postgres::start(Release::Installed, &["wal_level=logical"])?;
    let pgbench = |arguments: &[&str]| -> Result<Child> {
        let mut command = Command::new(server.programs().join("pgbench"));
        command.args(arguments).arg(server.url("postgres"));
        Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    };
    ensure!(pgbench(&["-q", "-i", "-s", "3"])?.wait()?.success(), "pgbench -i");
    server.run_sql("alter table pgbench_history add hid bigserial primary key")?;
    let mut installation = Installation::empty(Broker::Embedded)?;
    for (name, key, columns) in TABLES {
        let column = |name: &&str| {
            format!("[[columns]]\nname = \"{name}\"\ntype = \"integer\"\ntitle = {{ th = \"ก\", en = \"a\" }}\n")
        };
        let (head, _) = SPEC.split_once("source = ").context("a source")?;
        let head = head.replace("accounts", name).replace("\"aid\"", &format!("\"{key}\""));
        let columns: String = [key].iter().chain(columns).map(column).collect();
        let source =
            format!("[source]\nkind = \"postgres\"\nwith = {{ connection = \"bench\", table = \"pgbench_{name}\" }}\n");
        installation
            .write_spec(&format!("bench/{name}"), &format!("{head}unknown_columns = \"ignore\"\n{columns}{source}"))?;
    }
    installation.set(&format!("[connections.bench]\nurl = \"{}\"\n", server.url("postgres")))?;
    let seconds = MINUTES * 60;
    let mut running = pgbench(&["-n", "-c", "2", "-T", &seconds.to_string()])?;
    let pause = Duration::from_secs(seconds) / (KILLS + 1);
    for _ in 0..KILLS {
        let mut up = installation.start(&["up"])?;
        ensure!(up.run_for(pause), "ended by itself:\n{}", up.said());
        up.kill()?;
    }
    let mut up = installation.start(&["up"])?;
    ensure!(running.wait()?.success(), "pgbench");
    let (mut rows, begun) = (0, Instant::now());
    for (name, key, columns) in TABLES {
        let columns = columns.join(", ");
        let theirs = server.run_sql(&format!("select {key}, {columns} from pgbench_{name} order by {key}"))?;
        // What was changed last is in the lake at last.
        loop {
            let mine = installation.ask(&format!("select {key}, {columns} from bench.{name} order by {key}"));
            if mine.as_ref().is_ok_and(|mine| *mine == theirs) {
                break;
            }
            let mine = mine.map_or(0, |mine| mine.len());
            ensure!(
                begun.elapsed() < PATIENCE,
                "{name}: {mine} rows in the lake are not the {} of the server",
                theirs.len()
            );
            ensure!(up.run_for(Duration::from_millis(200)), "{}", up.said());
        }
        rows += theirs.len();
    }
    up.kill()?;
    let transactions = server.run_sql("select count(*) from pgbench_history")?[0][0].clone();
    Ok((rows, transactions.context("a number")?.parse()?))
}
