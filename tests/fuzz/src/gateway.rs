//! A gateway whose events are counted and forgotten.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ruam_connectors::gateway::{GatewayLimits, GatewayServer, Intake, Offered, Outcome, Quota, SentEvent, Unavailable};
use ruam_event::{DatasetId, DatasetSpec};
use ruam_identity::Signers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

const SPEC: &str = include_str!("../../../pipelines/specs/bora/person.toml");
const PATIENCE: Duration = Duration::from_secs(60);
const THREADS: &str = "asked by agencies";

/// How many events were stored.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

#[async_trait]
impl Intake for Counter {
    async fn take(&self, _: &DatasetId, events: Vec<SentEvent>) -> Result<Vec<Outcome>, Unavailable> {
        self.0.fetch_add(events.len() as u64, Ordering::SeqCst);
        Ok(vec![Outcome::Accepted; events.len()])
    }
}

/// A gateway, for as long as this process runs.
pub struct Gateway {
    runtime: Runtime,
    address: SocketAddr,
    stored: Arc<Counter>,
}

/// Ways to send: a path, and headers.
const WAYS: [(&str, &str); 12] = [
    ("/v1/events", "content-type: application/cloudevents+json\r\n"),
    ("/v1/events", "content-type: application/cloudevents-batch+json\r\n"),
    ("/v1/events", "content-type: application/json\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /bora/person\r\nce-type: insert\r\n"),
    ("/v1/datasets/bora/person", "content-type: application/json\r\n"),
    ("/v1/datasets/bora/person", "content-type: application/x-ndjson\r\n"),
    ("/v1/datasets/bora/person", "content-type: text/csv\r\n"),
    ("/v1/datasets/bora/person", "content-type: text/csv; charset=tis-620\r\nidempotency-key: 1\r\n"),
    ("/v1/datasets/bora/person", "content-type: text/csv; charset=utf-16le\r\n"),
    ("/v1/datasets/bora/person?operation=delete", "content-type: application/x-ndjson\r\n"),
    ("/v1/datasets/bora/person", "content-type: application/x-ndjson\r\ncontent-encoding: gzip\r\n"),
    ("/v1/datasets/bora/person", "content-type: text/csv\r\ncontent-encoding: zstd\r\n"),
    ("/v1/datasets/bora/nothing", "content-type: text/csv\r\n"),
];

impl Gateway {
    /// Starts it.
    pub fn start() -> Self {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |told| {
            before(told);
            // A panic of the server's own threads ends no test by itself.
            if std::thread::current().name() == Some(THREADS) {
                std::process::abort();
            }
        }));
        let spec = SPEC.replace("kind = \"generated_persons\"", "kind = \"gateway\"");
        let spec = format!("signatures = \"optional\"\n{spec}");
        let spec: String = spec.lines().filter(|line| !line.starts_with("with = {")).flat_map(|line| [line, "\n"]).collect();
        let spec = Arc::new(DatasetSpec::parse("bora/person.toml", &spec).expect("a dataset"));
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(THREADS).enable_all().build();
        let (runtime, stored) = (runtime.expect("threads"), Arc::new(Counter::default()));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let quota = Quota { events_per_second: u32::MAX, bytes_per_second: u64::MAX >> 20 };
        let limits = GatewayLimits { body_bytes: 16 << 20, event_bytes: 64 << 10, quota, quotas: HashMap::new() };
        let offered = vec![Offered { spec, schema: serde_json::json!({}) }];
        let signers = Signers::open(Path::new("nowhere"));
        let server = GatewayServer::new(listener, offered, stored.clone(), limits, None, signers, None);
        runtime.spawn(server.serve(CancellationToken::new()));
        Self { runtime, address, stored }
    }

    /// Sends a body in one of the ways. What is answered is an answer of HTTP, no fault of the server's own, and as
    /// many events are accepted as were stored.
    pub fn send(&self, way: u8, body: &[u8]) {
        let (path, headers) = WAYS[usize::from(way) % WAYS.len()];
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        let before = self.stored.0.load(Ordering::SeqCst);
        let exchange = async {
            let mut socket = TcpStream::connect(self.address).await?;
            socket.set_zero_linger()?;
            // Whoever is refused early is not listened to any more.
            let _ = socket.write_all(&[head.as_bytes(), body].concat()).await;
            let mut told = Vec::new();
            let _ = socket.read_to_end(&mut told).await;
            std::io::Result::Ok(String::from_utf8(told).expect("an answer in UTF-8"))
        };
        let told = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await });
        let told = told.expect("an answer in time").expect("a connection");
        let status = told.get(9..12).unwrap_or_default();
        assert!(matches!(status.as_bytes(), [b'2' | b'4', ..]), "{told}");
        let stored = self.stored.0.load(Ordering::SeqCst) - before;
        let accepted = told.split("\"accepted\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
        let accepted = accepted.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
        assert_eq!(stored, accepted, "{told}");
    }
}
