//! Topics that others fill: by Debezium in all its ways of sending days, times and decimals, in JSON and in Avro, with
//! rows alone, and with CloudEvents.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ruam_tests::apicurio::Apicurio;
use ruam_tests::broker::{embedded_in, publish};
use ruam_tests::fetched::class_path;
use ruam_tests::installation::unique;
use ruam_tests::postgres::{Postgres, Release};
use ruam_tests::{Broker, Installation, Registry};
use serde_json::json;

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/debezium");
const PATIENCE: Duration = Duration::from_secs(120);

/// What Debezium sends: how days and times are told, how decimals, and what its schema says of columns, as a dataset
/// declares it whose records come without.
const WAYS: [(&str, &str, &str); 4] = [
    (
        "adaptive",
        "precise",
        "day = \"date\", time = \"micro_time\", local = \"micro_timestamp\", short = \"timestamp\", \
         amount = { decimal = 4 }, number = \"variable_scale_decimal\"",
    ),
    (
        "adaptive_time_microseconds",
        "string",
        "day = \"date\", time = \"micro_time\", local = \"micro_timestamp\", short = \"timestamp\"",
    ),
    ("connect", "double", "day = \"date\", time = \"time\", local = \"timestamp\", short = \"timestamp\""),
    (
        "isostring",
        "precise",
        "day = \"iso_date\", time = \"iso_time\", local = \"iso_timestamp\", short = \"iso_timestamp\", \
         amount = { decimal = 4 }, number = \"variable_scale_decimal\"",
    ),
];

/// How records are written: in JSON with their schemas and without, and in Avro.
const ENCODINGS: [&str; 3] = ["json", "plain", "avro"];

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

/// Debezium's engine and our own connector follow one table, and all roads end in equal tables.
pub fn both_roads_end_in_equal_tables() -> Result<()> {
    let libraries = class_path("test-debezium", &format!("{PROGRAMS}/pom.xml"))?;
    let server =
        Postgres::start(Release::Installed, &["wal_level=logical", "max_replication_slots=10", "max_wal_senders=10"])?;
    server.run_sql(TABLE)?;
    let registry = Apicurio::start()?;
    let mut installation = Installation::empty(Broker::Kafka)?;
    installation.set(&format!("[connections.bora]\nurl = \"{}\"\n", server.url("postgres")))?;
    installation.set(&format!("[registry]\nurl = \"{}\"\n", registry.as_confluent()))?;
    let prefix = unique();
    let source = format!(
        "topic = {{ name = \"{prefix}.followed\" }}\nsource = {{ kind = \"postgres\", with = {{ connection = \"bora\", table = \"public.followed\" }} }}"
    );
    installation.write_spec("bora/followed", &spec("followed", &source))?;
    let mut names = Vec::new();
    for (index, (_, _, schema)) in WAYS.iter().enumerate() {
        server.run_sql(&format!("select pg_create_logical_replication_slot('way_{index}', 'pgoutput')"))?;
        for encoding in ENCODINGS {
            let name = format!("way_{index}_{encoding}");
            let more = match encoding {
                "plain" => format!(", schema = {{ {schema} }}"),
                "avro" => ", encoding = \"avro\"".to_owned(),
                _ => String::new(),
            };
            let topic = format!("topic = {{ name = \"{prefix}.{name}\"{more} }}");
            installation.write_spec(&format!("bora/{name}"), &spec(&name, &topic))?;
            names.push(name);
        }
    }
    let mut up = installation.start(&["up"])?;
    up.wait_for("running", PATIENCE)?;
    for change in CHANGES {
        server.run_sql(change)?;
    }
    let servers = Broker::Kafka.servers()?.context("a Kafka")?;
    let folder = tempfile::tempdir()?;
    let mut engines = Vec::new();
    for (index, (times, decimals, _)) in WAYS.iter().enumerate() {
        let out = folder.path().join(index.to_string());
        let engine = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8", "-cp"])
            .arg(&libraries)
            .arg(format!("{PROGRAMS}/Follow.java"))
            .arg(registry.own())
            .args([
                "database.hostname=127.0.0.1",
                "database.user=postgres",
                "database.password=x",
                "database.dbname=postgres",
            ])
            .arg(format!("database.port={}", server.port()))
            .arg(format!("slot.name=way_{index}"))
            // By it schemas are called, which each engine has in another form.
            .arg(format!("topic.prefix=way_{index}"))
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
        let told = told(&fs::read_to_string(out)?)?;
        for (encoding, records) in ENCODINGS.iter().zip(&told) {
            ensure!(records.iter().any(|(_, value)| value.is_empty()), "Debezium sends tombstones");
            publish(&servers, &format!("{prefix}.way_{index}_{encoding}"), records.iter().map(sent))?;
        }
    }
    let columns = "id, day, time, local, short, moment, amount, number, is_open, name, details, feeling, document";
    let ask =
        |name: &str| installation.ask(&format!("select {columns} from bora.{name} order by id")).unwrap_or_default();
    let begun = Instant::now();
    let count = server.run_sql("select count(*) from followed")?[0][0].clone().context("a number")?.parse::<usize>()?;
    let (mut left, mut rows) = (names.clone(), Vec::new());
    while !left.is_empty() {
        rows = ask("followed");
        left.retain(|name| rows.len() != count || ask(name) != rows);
        if begun.elapsed() > PATIENCE {
            let name = &left[0];
            let theirs = ask(name);
            let other = rows.iter().zip(&theirs).find(|(mine, theirs)| mine != theirs);
            let rejects = installation.ask(&format!("select reason, column_name, detail from bora.{name}__rejects"))?;
            anyhow::bail!(
                "{left:?}, of which {name}: {} rows and {} rows, {other:?}; rejected: {rejects:?}\n{}",
                rows.len(),
                theirs.len(),
                up.said()
            );
        }
        ensure!(up.run_for(Duration::from_millis(100)), "{}", up.said());
    }
    ensure!(rows.iter().any(|row| row[7].as_deref() == Some("-0.000000001000000000")), "{rows:?}");
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    // Notes of where transactions begin and end are in each topic, and are left out.
    for name in &names {
        let rejects = installation.ask(&format!("select reason, detail, _offset from bora.{name}__rejects"))?;
        ensure!(rejects.is_empty(), "{name}: {rejects:?}");
    }
    installation.succeed(&["verify"])?;
    Ok(())
}

/// A record's key and value; empty where there is none.
type Told = (Vec<u8>, Vec<u8>);

/// What an engine has told, in each encoding.
fn told(lines: &str) -> Result<[Vec<Told>; ENCODINGS.len()]> {
    let mut told = [const { Vec::new() }; ENCODINGS.len()];
    for line in lines.lines() {
        let parts: Vec<_> = line.split('\t').map(|part| STANDARD.decode(part)).collect::<Result<_, _>>()?;
        ensure!(parts.len() == 2 * ENCODINGS.len(), "{line}");
        for (records, pair) in told.iter_mut().zip(parts.chunks_exact(2)) {
            records.push((pair[0].clone(), pair[1].clone()));
        }
    }
    Ok(told)
}

/// A record as it is published.
fn sent((key, value): &Told) -> (Option<&[u8]>, Option<&[u8]>) {
    (there(key), there(value))
}

/// Bytes, unless there are none.
fn there(bytes: &[u8]) -> Option<&[u8]> {
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

/// A dataset of two columns whose topic somebody else fills.
fn short(name: &str, topic: &str) -> String {
    let columns = "columns = [\n  { name = \"id\", type = \"integer\", title = { th = \"ก\", en = \"a\" } },\n  { name = \"name\", type = \"text\", title = { th = \"ก\", en = \"a\" } },\n]\n";
    let spec = spec(name, &format!("topic = {{ {topic} }}"));
    spec.split_once("columns = [").map_or(String::new(), |(head, _)| format!("{head}{columns}"))
}

/// A registry that does not answer is waited for; what it does not know is the record's fault.
pub fn what_is_wrong_with_avro_is_told() -> Result<()> {
    let registry = Registry::start()?;
    let mut installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec("bora/plain", &short("plain", "encoding = \"avro\", format = \"rows\""))?;
    let said = installation.run(&["check"])?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let problem = "plain.toml:10: topic.encoding: the schemas of records in Avro are in a registry, and ruam.toml has no [registry]";
    ensure!(said.contains(problem), "{said}");
    installation
        .set(&format!("[registry]\nurl = \"{}\"\nusername = \"ruam\"\npassword = \"s3cret\"\n", registry.url()))?;
    installation.write_spec("bora/other", &short("other", "format = \"rows\""))?;

    let row =
        r#"{"type":"record","name":"row","fields":[{"name":"id","type":"long"},{"name":"name","type":"th.go.name"}]}"#;
    let name = r#"{"type":"enum","name":"name","namespace":"th.go","symbols":["ก","b"]}"#;
    let id = registry.add(row);
    let references = json!([{ "name": "th.go.name", "subject": "th.go/name", "version": 3 }]);
    registry.set(&format!("/schemas/ids/{id}"), &json!({ "schema": row, "references": references }));
    registry.set("/subjects/th.go%2Fname/versions/3", &json!({ "schema": name }));
    registry.set("/schemas/ids/77", &json!({ "schema": "message", "schemaType": "PROTOBUF" }));
    registry.be_silent(true);
    registry.need(&format!("authorization: Basic {}", STANDARD.encode("ruam:s3cret")));

    let framed = |id: u32, bytes: &[u8]| [&[0], &id.to_be_bytes()[..], bytes].concat();
    let (first, second) = (framed(id, &[2, 0]), framed(id, &[4, 2]));
    let wrong = [framed(99, &[2, 0]), framed(77, &[2, 0]), framed(id, &[2, 4]), b"{\"id\":1}".to_vec()];
    let values = [&first, &second].into_iter().chain(&wrong).map(|value| (None, Some(&value[..])));
    let gone = (Some(&b"{\"id\":2}"[..]), None);
    let mut up = installation.start(&["up"])?;
    let servers = embedded_in(&mut up)?;
    publish(&servers, "ruam.bora.plain", values.chain([gone]))?;
    publish(&servers, "ruam.bora.other", [(None, Some(&b"{\"id\":1,\"name\":\"a\"}"[..]))])?;
    up.wait_for(
        "does not answer: 503 Service Unavailable is what it says. Start it, or correct registry.url",
        PATIENCE,
    )?;
    up.run_until(|| Ok(installation.ask("select name from bora.other").is_ok_and(|rows| rows.len() == 1)), PATIENCE)?;
    registry.be_silent(false);
    let reasons = ["unknown_schema", "unreadable_schema", "not_as_schema", "not_avro"];
    up.run_until(
        || {
            let rows = installation.ask("select id, name from bora.plain").unwrap_or_default();
            let rejects =
                installation.ask("select reason from bora.plain__rejects order by _offset").unwrap_or_default();
            Ok(rows == [[Some("1".to_owned()), Some("ก".to_owned())]]
                && rejects.iter().map(|reject| reject[0].as_deref()).eq(reasons.map(Some)))
        },
        PATIENCE,
    )?;
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success() && !said.contains("s3cret"), "{said}");
    Ok(())
}

/// A topic of rows, where a record without a value is a delete, and one of CloudEvents.
pub fn rows_and_cloud_events_are_tables() -> Result<()> {
    let installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec("bora/plain", &short("plain", "format = \"rows\""))?;
    installation.write_spec("bora/events", &short("events", "format = \"cloud_events\""))?;
    let mut up = installation.start(&["up"])?;
    let servers = embedded_in(&mut up)?;
    let row = |id: u32, name: &str| (format!("{{\"id\":{id}}}"), format!("{{\"id\":{id},\"name\":\"{name}\"}}"));
    let [first, other, again] = [row(1, "ก"), row(2, "b"), row(1, "ค")];
    let gone = (format!("{{\"id\":{}}}", 2), String::new());
    let texts = [&first, &other, &again, &gone, &("".to_owned(), "[]".to_owned())];
    let records = texts.iter().map(|(key, value)| (there(key.as_bytes()), there(value.as_bytes())));
    publish(&servers, "ruam.bora.plain", records)?;
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
    publish(&servers, "ruam.bora.events", events.iter().map(|event| (None, Some(event.as_bytes()))))?;
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
