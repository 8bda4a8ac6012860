//! The gateway by the wire, with an intake that keeps events in memory.

use std::collections::HashSet;
use std::io;
use std::sync::Mutex;

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use operation::tests::spec;

/// Keeps events in memory; is not there where it is told so.
#[derive(Debug, Default)]
struct Memory {
    seen: Mutex<HashSet<(String, String)>>,
    stored: Mutex<Vec<SentEvent>>,
    away_after: Option<usize>,
}

#[async_trait]
impl Intake for Memory {
    async fn take(&self, _: &DatasetId, events: Vec<SentEvent>) -> Result<Vec<Outcome>, Unavailable> {
        let mut stored = self.stored.lock().unwrap();
        if self.away_after.is_some_and(|after| stored.len() >= after) {
            return Err(Unavailable { what: "the log is away", wait: Duration::from_secs(7) });
        }
        let mut outcomes = Vec::new();
        for event in events {
            let is_new = self.seen.lock().unwrap().insert((event.source.to_string(), event.id.to_string()));
            outcomes.push(if is_new { Outcome::Accepted } else { Outcome::Duplicate });
            stored.extend(is_new.then_some(event));
        }
        Ok(outcomes)
    }
}

struct Gateway {
    address: std::net::SocketAddr,
    intake: Arc<Memory>,
    _stop: tokio_util::sync::DropGuard,
}

fn limits() -> GatewayLimits {
    let quota = Quota { events_per_second: 1_000_000, bytes_per_second: 1 << 40 };
    GatewayLimits { body_bytes: 16 << 20, event_bytes: 1000, quota, quotas: HashMap::new() }
}

impl Gateway {
    async fn with(intake: Memory, limits: GatewayLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, intake, stop) = (listener.local_addr().unwrap(), Arc::new(intake), CancellationToken::new());
        let offered = Offered { spec: Arc::new(spec("upsert")), schema: serde_json::json!({ "type": "object" }) };
        let signers = Signers::open(std::path::Path::new("nowhere"));
        let server = GatewayServer::new(listener, vec![offered], intake.clone(), limits, None, signers, None);
        tokio::spawn(server.serve(stop.clone()));
        Self { address, intake, _stop: stop.drop_guard() }
    }

    async fn new() -> Self {
        Self::with(Memory::default(), limits()).await
    }

    /// Sends a request; gives the status, the head and the body of the answer.
    async fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> (u16, String, Value) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for header in headers {
            head += &format!("{header}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        let (mut from, mut to) = socket.split();
        // An answer may come before all is sent.
        let send = async {
            let _ = to.write_all(&[head.as_bytes(), body].concat()).await;
            io::Result::Ok(())
        };
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(send, from.read_to_end(&mut answer));
        read.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), serde_json::from_str(body).unwrap_or_else(|_| body.into()))
    }

    async fn rows(&self, headers: &[&str], body: &[u8]) -> (u16, String, Value) {
        self.ask("POST", "/v1/datasets/bora/person", headers, body).await
    }
}

fn counts(report: &Value) -> [u64; 4] {
    ["accepted", "duplicate", "rejected", "failed"].map(|name| report[name].as_u64().unwrap())
}

const JSON: &str = "content-type: application/json";

fn event(id: &str, code: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/bora/person","type":"a.insert","data":{{"code":"{code}"}}}}"#
    )
}

#[tokio::test]
async fn events_come_in_three_modes() {
    let gateway = Gateway::new().await;
    let structured = ["content-type: application/cloudevents+json; charset=utf-8"];
    let (status, _, report) = gateway.ask("POST", "/v1/events", &structured, event("1", "a").as_bytes()).await;
    assert_eq!((status, counts(&report)), (202, [1, 0, 0, 0]));
    assert_eq!(report["results"][0], serde_json::json!({ "number": 1, "id": "1", "result": "accepted" }));
    let binary = ["ce-specversion: 1.0", "ce-id: 2", "ce-source: /bora/person", "ce-type: insert", JSON];
    assert_eq!(gateway.ask("POST", "/v1/events", &binary, b"{\"code\":\"b\"}").await.0, 202);
    let batch = format!("[{},{},{}]", event("2", "b"), event("3", "c"), event("4", "").replace("\"code\"", "\"name\""));
    let (status, _, report) = gateway
        .ask("POST", "/v1/events", &["content-type: application/cloudevents-batch+json"], batch.as_bytes())
        .await;
    assert_eq!((status, counts(&report)), (207, [1, 1, 1, 0]));
    assert_eq!(report["results"][2]["why"], "the key column `code` has no value");
    assert_eq!(gateway.intake.stored.lock().unwrap().len(), 3);
    let (status, _, problem) = gateway.ask("POST", "/v1/events", &[JSON], b"{}").await;
    assert_eq!((status, &problem["status"]), (415, &415.into()));
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_stored_once() {
    let gateway = Gateway::new().await;
    let body = b"[{\"code\":\"1\"},{\"code\":\"2\"}]";
    for expected in [[2, 0, 0, 0], [0, 2, 0, 0]] {
        let (status, _, report) = gateway.rows(&[JSON, "idempotency-key: \"r\""], body).await;
        assert_eq!((status, counts(&report)), (202, expected));
    }
    assert_eq!(counts(&gateway.rows(&[JSON], body).await.2), [2, 0, 0, 0]);
}

#[tokio::test]
async fn packed_bodies_of_many_batches_come_through() {
    let gateway = Gateway::new().await;
    let mut lines = String::new();
    for number in 0..20_000 {
        lines += &format!("{{\"_id\":\"{number}\",\"code\":\"{number}\"}}\n");
    }
    let media = "content-type: application/x-ndjson";
    let mut gzip = GzipEncoder::new(Vec::new());
    gzip.write_all(lines.as_bytes()).await.unwrap();
    gzip.shutdown().await.unwrap();
    let gzip = gzip.into_inner();
    let (status, _, report) = gateway.rows(&[media, "content-encoding: gzip"], &gzip).await;
    assert_eq!((status, counts(&report), &report["omitted"]), (202, [20_000, 0, 0, 0], &10_000.into()));
    let mut zstd = ZstdEncoder::new(Vec::new());
    zstd.write_all(lines.as_bytes()).await.unwrap();
    zstd.shutdown().await.unwrap();
    let (status, _, report) = gateway.rows(&[media, "content-encoding: zstd"], &zstd.into_inner()).await;
    assert_eq!((status, counts(&report)), (202, [0, 20_000, 0, 0]));
    // Cut off: what was there is stored, and that the rest is missing is told.
    let (status, _, report) = gateway.rows(&[media, "content-encoding: gzip"], &gzip[..gzip.len() / 2]).await;
    assert_eq!(status, 400);
    assert!(report["problem"]["detail"].as_str().unwrap().starts_with("the body is cut off"), "{}", report["problem"]);
    assert_eq!(gateway.rows(&[media, "content-encoding: br"], b"").await.0, 415);
    // Packed a thousandfold.
    let mut bomb = GzipEncoder::new(Vec::new());
    bomb.write_all(&vec![b'\n'; 17 << 20]).await.unwrap();
    bomb.shutdown().await.unwrap();
    let (status, _, problem) = gateway.rows(&[media, "content-encoding: gzip"], &bomb.into_inner()).await;
    assert_eq!((status, &problem["status"]), (413, &413.into()));
}

#[tokio::test]
async fn what_is_wrong_is_told_where_it_is() {
    let gateway = Gateway::new().await;
    let (status, _, report) = gateway.rows(&[JSON], b"[{\"code\":\"1\"},").await;
    assert_eq!((status, counts(&report)), (400, [1, 0, 0, 0]));
    assert_eq!(
        report["problem"]["detail"],
        "the JSON text is cut off at byte 14 of the body. Nothing from there on was read"
    );
    let (status, _, report) = gateway.rows(&[JSON], format!("{{\"code\":\"{}\"}}", "x".repeat(1000)).as_bytes()).await;
    assert_eq!((status, &report["results"][0]["why"]), (422, &"the row has more than 1000 bytes".into()));
    for (method, path, expected) in [
        ("POST", "/v1/datasets/bora/person?operation=truncate", 400),
        ("POST", "/v1/datasets/bora/person?operatoin=insert", 400),
        ("POST", "/v1/datasets/bora/other", 404),
        ("POST", "/v1/datasets/bora", 404),
        ("DELETE", "/v1/events", 405),
        ("GET", "/v1/datasets/bora/person/schema", 200),
        ("GET", "/openapi.json", 200),
    ] {
        assert_eq!(gateway.ask(method, path, &[JSON], b"").await.0, expected, "{method} {path}");
    }
    assert_eq!(gateway.rows(&[JSON, "origin: https://example.org"], b"{\"code\":\"1\"}").await.0, 403);
    let long = format!("x: {}", "x".repeat(60_000));
    assert_eq!(gateway.rows(&[JSON, &long], b"{\"code\":\"1\"}").await.0, 431);
}

#[tokio::test]
async fn a_log_that_is_away_is_told_with_a_time() {
    let gateway = Gateway::with(Memory { away_after: Some(1), ..Memory::default() }, limits()).await;
    assert_eq!(gateway.rows(&[JSON], b"{\"code\":\"1\"}").await.0, 202);
    let (status, head, report) = gateway.rows(&[JSON], b"{\"_id\":\"x\",\"code\":\"2\"}").await;
    assert_eq!((status, counts(&report)), (503, [0, 0, 0, 1]));
    assert!(head.contains("retry-after: 7"), "{head}");
    assert_eq!(report["results"][0]["id"], "x");
}

#[tokio::test]
async fn who_sends_too_much_is_told_how_long_to_wait() {
    let quota = Quota { events_per_second: 1, ..Quota::default() };
    let gateway = Gateway::with(Memory::default(), GatewayLimits { quota, ..limits() }).await;
    let (status, _, report) = gateway.rows(&[JSON], b"[{\"code\":\"1\"},{\"code\":\"2\"},{\"code\":\"3\"}]").await;
    assert_eq!((status, counts(&report)), (202, [3, 0, 0, 0]));
    let (status, head, _) = gateway.rows(&[JSON], b"{\"code\":\"4\"}").await;
    assert_eq!(status, 429);
    assert!(head.contains("retry-after: "), "{head}");
}

#[tokio::test]
async fn the_page_says_where_it_is() {
    let gateway = Gateway::new().await;
    let (status, head, page) = gateway.ask("GET", "/", &[], b"").await;
    let page = page.as_str().unwrap();
    assert_eq!(status, 200);
    assert!(head.contains("default-src 'none'"), "{head}");
    assert!(page.contains(&format!("curl http://{}/v1/events \\", gateway.address)) && !page.contains("{{"), "{page}");
    let strange = HeaderMap::from_iter([(header::HOST, "a&b".parse().unwrap())]);
    let (mut parts, ()) = axum::http::Request::new(()).into_parts();
    parts.headers = strange;
    assert!(address_of(&parts).is_none());
}

#[test]
fn the_document_describes_every_route() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let described: std::collections::BTreeSet<_> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(described, routes().into_iter().map(|(path, _)| path).collect());
}
