//! Topics that others fill: by Debezium in all its ways of sending days, times and decimals, with rows alone, and
//! with CloudEvents.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use ruam_tests::broker::log_at;
use ruam_tests::fetched::class_path;
use ruam_tests::installation::unique;
use ruam_tests::postgres::Postgres;
use ruam_tests::{Broker, Installation, Process};

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/debezium");
const PATIENCE: Duration = Duration::from_secs(120);

/// What Debezium sends: how days and times are told, and how decimals.
const WAYS: [(&str, &str); 4] = [
    ("adaptive", "precise"),
    ("adaptive_time_microseconds", "string"),
    ("connect", "double"),
    ("isostring", "precise"),
];

const TABLE: &str = "
    create type mood as enum ('good', 'bad');
    create table followed (id bigint primary key, day date, time time, local timestamp, short timestamp(3),
        moment timestamptz, amount numeric(20, 4), number numeric, is_open boolean, name uuid, details jsonb, feeling mood,
        document text);
    alter table followed alter document set storage external;
    create publication followed for table followed;";

/// All that happens to a table, after slots have been made.
const CHANGES: [&str; 8] = [
    "insert into followed select n, date '2024-02-28' + n, time '08:30:00.123' + n * interval '1 minute', \
        timestamp '2024-03-15 08:30:00.123' + n * interval '1 day', timestamp '1969-12-31 23:59:59.999', \
        '2024-03-15 08:30:00.123+07', n * 1.0625 - 5, n * 1.5, n % 2 = 0, '6ecd8c99-4036-403d-bf84-cf8400f67836', \
        '{\"a\": \"ก\"}', 'good', case when n % 5 = 0 then repeat(md5(n::text), 200) end from generate_series(1, 20) n",
    "update followed set amount = -12345678.9012, feeling = 'bad' where id <= 3 or id = 10",
    "update followed set document = 'short' where id = 2",
    "delete from followed where id in (5, 6)",
    "begin; insert into followed (id) values (100); update followed set day = '0099-01-01' where id = 100; commit",
    // Another key.
    "update followed set id = 200, document = 'new' where id = 7",
    "insert into followed (id, number) values (300, -0.000000001)",
    "insert into followed (id, document) values (0, 'the-very-end')",
];

fn spec(name: &str, rest: &str) -> String {
    let column = |(name, kind): (&str, &str)| {
        format!("  {{ name = \"{name}\", type = \"{kind}\", title = {{ th = \"ก\", en = \"a\" }} }},\n")
    };
    let columns: String = [
        ("id", "integer"),
        ("day", "date"),
        ("time", "text"),
        ("local", "timestamp"),
        ("short", "timestamp"),
        ("moment", "timestamp"),
        ("amount", "decimal\", with = { precision = 20, scale = 4 }, description = { th = \"ก\", en = \"a\" }, classification = \"internal"),
        ("number", "decimal\", with = { precision = 38, scale = 18 }, description = { th = \"ก\", en = \"a\" }, classification = \"internal"),
        ("is_open", "boolean"),
        ("name", "text"),
        ("details", "text"),
        ("feeling", "text"),
        ("document", "text"),
    ]
    .map(column)
    .concat();
    format!(
        "dataset = \"bora.{name}\"\ntitle = {{ th = \"ก\", en = \"a\" }}\ndescription = {{ th = \"ก\", en = \"a\" }}\n\
         owner = {{ th = \"ก\", en = \"a\" }}\ncontact = {{ name = \"a\", email = \"a@example.org\" }}\n\
         classification = \"internal\"\npurposes = [\"training\"]\nmode = \"upsert\"\nkey = [\"id\"]\n{rest}\ncolumns = [\n{columns}]\n"
    )
}

/// Debezium's engine and our own connector follow one table, and both roads end in equal tables.
pub fn both_roads_end_in_equal_tables() -> Result<()> {
    let libraries = class_path("test-debezium", &format!("{PROGRAMS}/pom.xml"))?;
    let server = Postgres::start(&["wal_level=logical", "max_replication_slots=10", "max_wal_senders=10"])?;
    server.run_sql(TABLE)?;
    let mut installation = Installation::empty(Broker::Kafka)?;
    installation.set(&format!("[connections.bora]\nurl = \"{}\"\n", server.url("postgres")))?;
    let prefix = unique();
    let source = format!(
        "topic = {{ name = \"{prefix}.followed\" }}\nsource = {{ kind = \"postgres\", with = {{ connection = \"bora\", table = \"public.followed\" }} }}"
    );
    installation.write_spec("bora/followed", &spec("followed", &source))?;
    for (index, _) in WAYS.iter().enumerate() {
        server.run_sql(&format!("select pg_create_logical_replication_slot('way_{index}', 'pgoutput')"))?;
        let topic = format!("topic = {{ name = \"{prefix}.way_{index}\" }}");
        installation.write_spec(&format!("bora/way_{index}"), &spec(&format!("way_{index}"), &topic))?;
    }
    let mut up = installation.start(&["up"])?;
    up.wait_for("running", PATIENCE)?;
    for change in CHANGES {
        server.run_sql(change)?;
    }
    let servers = Broker::Kafka.servers()?.context("a Kafka")?;
    let folder = tempfile::tempdir()?;
    let mut engines = Vec::new();
    for (index, (times, decimals)) in WAYS.iter().enumerate() {
        let out = folder.path().join(index.to_string());
        let engine = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8", "-cp"])
            .arg(&libraries)
            .arg(format!("{PROGRAMS}/Follow.java"))
            .args([
                "database.hostname=127.0.0.1",
                "database.user=postgres",
                "database.password=x",
                "database.dbname=postgres",
            ])
            .arg(format!("database.port={}", server.port()))
            .arg(format!("slot.name=way_{index}"))
            .args([
                "publication.name=followed",
                "publication.autocreate.mode=disabled",
                "table.include.list=public.followed",
            ])
            .args(["snapshot.mode=no_data", "skipped.operations=none"])
            .arg(format!("time.precision.mode={times}"))
            .arg(format!("decimal.handling.mode={decimals}"))
            .stdout(fs::File::create(&out)?)
            .stderr(fs::File::create(folder.path().join(format!("{index}.said")))?)
            .stdin(Stdio::null())
            .spawn()?;
        engines.push((engine, out));
    }
    for (index, (mut engine, out)) in engines.into_iter().enumerate() {
        ensure!(engine.wait()?.success(), "{}", fs::read_to_string(folder.path().join(format!("{index}.said")))?);
        let told = fs::read_to_string(out)?;
        let records: Vec<_> = told.lines().filter_map(|line| line.split_once('\t')).collect();
        ensure!(records.iter().any(|(_, value)| value.is_empty()), "Debezium sends tombstones");
        publish(&servers, &format!("{prefix}.way_{index}"), &records)?;
    }
    let columns = "id, day, time, local, short, moment, amount, number, is_open, name, details, feeling, document";
    let ask =
        |name: &str| installation.ask(&format!("select {columns} from bora.{name} order by id")).unwrap_or_default();
    let begun = Instant::now();
    let count = server.run_sql("select count(*) from followed")?[0][0].clone().context("a number")?.parse::<usize>()?;
    let (mut left, mut rows) = ((0..WAYS.len()).collect::<Vec<_>>(), Vec::new());
    while !left.is_empty() {
        rows = ask("followed");
        left.retain(|index| rows.len() != count || ask(&format!("way_{index}")) != rows);
        if begun.elapsed() > PATIENCE {
            let index = left[0];
            let theirs = ask(&format!("way_{index}"));
            let other = rows.iter().zip(&theirs).find(|(mine, theirs)| mine != theirs);
            let rejects =
                installation.ask(&format!("select reason, column_name, detail from bora.way_{index}__rejects"))?;
            anyhow::bail!(
                "{:?}: {} rows and {} rows, {other:?}; rejected: {rejects:?}",
                WAYS[index],
                rows.len(),
                theirs.len()
            );
        }
        ensure!(up.run_for(Duration::from_millis(100)), "{}", up.said());
    }
    ensure!(rows.iter().any(|row| row[7].as_deref() == Some("-0.000000001000000000")), "{rows:?}");
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    installation.succeed(&["verify"])?;
    Ok(())
}

/// A topic of rows, where a record without a value is a delete, and one of CloudEvents.
pub fn rows_and_cloud_events_are_tables() -> Result<()> {
    let installation = Installation::empty(Broker::Embedded)?;
    let short = |name: &str, format: &str| {
        let columns = "columns = [\n  { name = \"id\", type = \"integer\", title = { th = \"ก\", en = \"a\" } },\n  { name = \"name\", type = \"text\", title = { th = \"ก\", en = \"a\" } },\n]\n";
        let spec = spec(name, &format!("topic = {{ format = \"{format}\" }}"));
        spec.split_once("columns = [").map_or(String::new(), |(head, _)| format!("{head}{columns}"))
    };
    installation.write_spec("bora/plain", &short("plain", "rows"))?;
    installation.write_spec("bora/events", &short("events", "cloud_events"))?;
    let mut up = installation.start(&["up"])?;
    let servers = embedded(&mut up)?;
    let row = |id: u32, name: &str| (format!("{{\"id\":{id}}}"), format!("{{\"id\":{id},\"name\":\"{name}\"}}"));
    let [first, other, again] = [row(1, "ก"), row(2, "b"), row(1, "ค")];
    let gone = (format!("{{\"id\":{}}}", 2), String::new());
    let texts = [&first, &other, &again, &gone, &("".to_owned(), "[]".to_owned())];
    let records: Vec<_> = texts.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    publish(&servers, "ruam.bora.plain", &records)?;
    let event = |kind: &str, data: &str| {
        format!(
            "{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/x\",\"type\":\"th.go.bora.{kind}\",\"time\":\"2024-03-15T08:30:00+07:00\",\"data\":{data}}}"
        )
    };
    let events = [
        event("insert", &first.1),
        event("insert", &other.1),
        event("update", &again.1),
        event("delete", "{\"id\":2}"),
        event("moved", "{\"id\":3}"),
    ];
    let records: Vec<_> = events.iter().map(|event| ("", event.as_str())).collect();
    publish(&servers, "ruam.bora.events", &records)?;
    let begun = Instant::now();
    for name in ["plain", "events"] {
        loop {
            let rows = installation.ask(&format!("select id, name from bora.{name}")).unwrap_or_default();
            let rejects = installation.ask(&format!("select reason from bora.{name}__rejects")).unwrap_or_default();
            let is_right = rows == [[Some("1".to_owned()), Some("ค".to_owned())]]
                && rejects == [[Some("not_an_event".to_owned())]];
            if is_right {
                break;
            }
            ensure!(begun.elapsed() < PATIENCE, "{name}: {rows:?}, {rejects:?}\n{}", up.said());
            ensure!(up.run_for(Duration::from_millis(100)), "{}", up.said());
        }
    }
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    installation.succeed(&["verify"])?;
    Ok(())
}

/// Where the broker inside a process listens.
fn embedded(up: &mut Process) -> Result<String> {
    let line = up.wait_for("the log answers", PATIENCE)?;
    let address = line.split("127.0.0.1:").nth(1).context("an address")?;
    Ok(format!("127.0.0.1:{}", address.split(|c: char| !c.is_ascii_digit()).next().context("a port")?))
}

/// Publishes keys and values as they are, nothing where they are empty.
fn publish(servers: &str, topic: &str, records: &[(&str, &str)]) -> Result<()> {
    let log = log_at(servers.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(log.ensure_topic(topic, 1))?;
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", servers).create()?;
    for (key, value) in records {
        let mut record = BaseRecord::<str, str>::to(topic).partition(0);
        record.key = Some(*key).filter(|key| !key.is_empty());
        record.payload = Some(*value).filter(|value| !value.is_empty());
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(PATIENCE)?;
    Ok(())
}
