//! How fast the gateway takes events, and with how much memory.

use std::io::{BufWriter, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use ruam_tests::broker::log_at;
use ruam_tests::installation::unique;
use ruam_tests::{Broker, Installation, Process};

use crate::peak_mb;

mod signer;

use signer::Signer;

/// The events, those before them that are not counted, those of one request, and how many clients send at a time.
const EVENTS: usize = 1_000_000;
const WARM: usize = 500_000;
const OF_ONE: usize = 5_000;
const CLIENTS: usize = 8;
/// How many events are signed.
const SIGNED: usize = 100_000;
/// How many different records the limit sends.
const OF_LIMIT: usize = 100_000;
/// How much is uploaded in one request.
pub const UPLOAD: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(120);

const SPEC: &str = r#"
dataset = "bora.permit"
title = { th = "ใบอนุญาต", en = "Permits" }
description = { th = "ใบอนุญาต", en = "Permits" }
owner = { th = "ก", en = "a" }
contact = { name = "a", email = "a@example.org" }
classification = "internal"
purposes = ["training"]
mode = "append"
source = { kind = "gateway" }
columns = [
  { name = "number", type = "text", title = { th = "เลขที่", en = "Number" } },
  { name = "holder", type = "text", title = { th = "ผู้ถือ", en = "Holder" } },
  { name = "address", type = "text", title = { th = "ที่อยู่", en = "Address" } },
]
"#;

/// What was measured.
pub struct Measured {
    /// Events a second.
    pub events: f64,
    /// Records a second of a producer that sends what the gateway sends into the log, and of one that sends the events
    /// as they come, bare of all else.
    pub limit: f64,
    pub bare: f64,
    /// Events a second that are signed, and how many signatures a second can be checked by all cores.
    pub signed: f64,
    pub checked: f64,
    /// Bytes a second of an upload.
    pub upload: f64,
    /// The most memory, after the events and after the upload.
    pub peak_mb: [u64; 2],
}

/// An event as an agency sends it.
fn event(number: usize) -> String {
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{number}\",\"source\":\"/bora/permit\",\"type\":\"th.go.bora.permit.insert\",\
         \"time\":\"2026-01-31T09:30:00+07:00\",\"data\":{{\"number\":\"{number}\",\"holder\":\"สมชาย ใจดี\",\
         \"address\":\"99/1 ถนนราชดำเนิน แขวงบวรนิเวศ เขตพระนคร กรุงเทพมหานคร 10200\"}}}}"
    )
}

struct Gateway {
    port: String,
    key: String,
}

impl Gateway {
    /// Sends events with numbers from one on, in batches, by all clients; events a second.
    fn send(&self, numbers: Range<usize>, event: impl Fn(usize) -> Result<String>) -> Result<f64> {
        let batches: Vec<_> = numbers
            .clone()
            .step_by(OF_ONE)
            .map(|from| Ok(format!("[{}]", (from..from + OF_ONE).map(&event).collect::<Result<Vec<_>>>()?.join(","))))
            .collect::<Result<_>>()?;
        let begun = Instant::now();
        let send = |client: usize| -> Result<()> {
            let kind = "application/cloudevents-batch+json";
            batches.iter().skip(client).step_by(CLIENTS).try_for_each(|batch| {
                self.post("/v1/events", kind, batch.len() as u64, |out| Ok(out.write_all(batch.as_bytes())?)).map(drop)
            })
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let send = &send;
                    scope.spawn(move || send(client))
                })
                .collect();
            clients.into_iter().try_for_each(|client| client.join().ok().context("a client panicked")?)
        })?;
        Ok(numbers.len() as f64 / begun.elapsed().as_secs_f64())
    }

    /// Sends a body that is written as it goes; the answer.
    fn post(
        &self,
        path: &str,
        kind: &str,
        length: u64,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<String> {
        let socket = TcpStream::connect(format!("127.0.0.1:{}", self.port))?;
        let mut out = BufWriter::with_capacity(1 << 16, socket.try_clone()?);
        write!(
            out,
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nauthorization: Bearer {}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n",
            self.key
        )?;
        write(&mut out)?;
        out.flush()?;
        let mut told = String::new();
        (&socket).read_to_string(&mut told)?;
        ensure!(told.starts_with("HTTP/1.1 202"), "{}", told.chars().take(500).collect::<String>());
        Ok(told)
    }
}

/// Measures it, on Kafka.
pub fn measure() -> Result<Measured> {
    let servers = Broker::Kafka.servers()?.context("a Kafka")?;
    let mut installation = Installation::empty(Broker::Kafka)?;
    let topic = unique();
    installation
        .write_spec("bora/permit", &SPEC.replace("mode =", &format!("topic = {{ name = \"{topic}\" }}\nmode =")))?;
    installation.set("[gateway]\nlisten = \"127.0.0.1:0\"\nquota = { events_per_second = 10000000, bytes_per_second = 10000000000 }\n[sign_on]\ntokens = true\n")?;
    let key = installation.succeed(&["agency", "key", "new", "bora"])?.trim().to_owned();
    let signer = Signer::register(&installation)?;
    let signed = SPEC
        .replace("bora.permit", "bora.licence")
        .replace("mode =", &format!("signatures = \"required\"\ntopic = {{ name = \"{}\" }}\nmode =", unique()));
    installation.write_spec("bora/licence", &signed)?;
    let mut up = installation.start(&["up", "--only", "gateway"])?;
    let gateway = Gateway { port: port(&mut up)?, key };

    let plain = |number| Ok(event(number));
    // This also gives Kafka's virtual machine the time to compile what it runs.
    gateway.send(0..WARM, plain)?;
    let records = sent(&servers, &topic)?;
    // On a shared machine the limit moves, too: it is taken before and after.
    let before = produce(&servers, &records)?;
    let events = gateway.send(WARM..WARM + EVENTS, plain)?;
    let limit = f64::midpoint(before, produce(&servers, &records)?);
    let of_events = peak_mb(up.id())?;
    let bare: Vec<_> = (0..OF_LIMIT).map(|number| Sent { payload: event(number).into(), headers: None }).collect();
    let bare = produce(&servers, &bare)?;
    let signed = gateway.send(0..SIGNED, |number| signer.event(number))?;
    let checked = signer.check(SIGNED)?;

    let row = |number: u64| {
        format!(
            "{{\"number\":\"u{number:012}\",\"holder\":\"สมชาย ใจดี\",\"address\":\"99/1 ถนนราชดำเนิน เขตพระนคร\"}}\n"
        )
    };
    let rows = UPLOAD / row(0).len() as u64;
    let begun = Instant::now();
    gateway.post("/v1/datasets/bora/permit", "application/x-ndjson", rows * row(0).len() as u64, |out| {
        (0..rows).try_for_each(|number| Ok(out.write_all(row(number).as_bytes())?))
    })?;
    let upload = UPLOAD as f64 / begun.elapsed().as_secs_f64();
    let of_upload = peak_mb(up.id())?;
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    Ok(Measured { events, limit, bare, signed, checked, upload, peak_mb: [of_events, of_upload] })
}

fn port(up: &mut Process) -> Result<String> {
    let line = up.wait_for("The gateway is served at", PATIENCE)?;
    let address = line.split("served at ").nth(1).and_then(|rest| rest.split(':').take(2).last());
    Ok(address.context("a port")?.trim().to_owned())
}

/// A record.
struct Sent {
    payload: Vec<u8>,
    headers: Option<OwnedHeaders>,
}

/// The first records of a topic.
fn sent(servers: &str, topic: &str) -> Result<Vec<Sent>> {
    let reader: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", servers).set("group.id", "limit").create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning)?;
    reader.assign(&from)?;
    let mut sent = Vec::new();
    while sent.len() < OF_LIMIT {
        let record = reader.poll(PATIENCE).context("a record")??;
        let headers = record.headers().context("headers")?.detach();
        sent.push(Sent { payload: record.payload().context("a value")?.to_vec(), headers: Some(headers) });
    }
    Ok(sent)
}

/// Records a second that a producer brings into a topic, which does nothing else: these, again and again.
fn produce(servers: &str, records: &[Sent]) -> Result<f64> {
    let topic = unique();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(log_at(servers.to_owned()).ensure_topic(&topic, 1))?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "10")
        .set("compression.type", "lz4")
        .create()?;
    let begun = Instant::now();
    for Sent { payload, headers } in records.iter().cycle().take(EVENTS) {
        let mut record = BaseRecord::<(), [u8]>::to(&topic).payload(payload);
        record.headers = headers.clone();
        while let Err((_, full)) = producer.send(record) {
            record = full;
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(PATIENCE)?;
    Ok(EVENTS as f64 / begun.elapsed().as_secs_f64())
}
