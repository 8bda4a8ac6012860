//! Agencies send events by HTTP: in all ways, by who may, through a crash.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ruam_tests::{Broker, Installation, Process, fetched};
use serde_json::Value;

use crate::server::address_of;

pub mod keycloak;
pub mod numbered;
pub mod oidc;
pub mod signed;

const PATIENCE: Duration = Duration::from_secs(90);
const SETTINGS: &str = "[gateway]\nlisten = \"127.0.0.1:0\"\n[sign_on]\ntokens = true\n";
/// Each event is a row, so that one that is stored twice is seen.
pub(super) const SPEC: &str = r#"
dataset = "bora.permit"
title = { th = "ใบอนุญาต", en = "Permits" }
description = { th = "ใบอนุญาต", en = "Permits" }
owner = { th = "ก", en = "a" }
contact = { name = "a", email = "a@example.org" }
classification = "internal"
purposes = ["training"]
mode = "append"
key = ["number"]
topic = { partitions = 3 }
source = { kind = "gateway" }
columns = [
  { name = "number", type = "text", title = { th = "เลขที่", en = "Number" } },
  { name = "holder", type = "text", title = { th = "ผู้ถือ", en = "Holder" } },
]
"#;

/// A gateway, as a client of it sees it.
struct Client {
    port: String,
    key: String,
}

impl Client {
    /// Sends a request; gives the status and the answer.
    fn post(&self, path: &str, headers: &[&str], body: &[u8]) -> Result<(u16, Value)> {
        let mut socket = TcpStream::connect(format!("127.0.0.1:{}", self.port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n",
            self.key,
            body.len()
        );
        headers.iter().for_each(|header| request.extend([header, "\r\n"]));
        socket.write_all(&[request.as_bytes(), b"\r\n", body].concat())?;
        let mut told = String::new();
        socket.read_to_string(&mut told)?;
        let (head, body) = told.split_once("\r\n\r\n").context("an answer")?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        Ok((status, serde_json::from_str(body).with_context(|| told.clone())?))
    }

    /// Sends an upload of 100 rows with a number; says how many were accepted, and how many were there already.
    fn upload(&self, number: usize) -> Result<(u64, u64)> {
        let rows: String =
            (0..100).map(|row| format!("{{\"number\":\"{number}-{row}\",\"holder\":\"ก\"}}\n")).collect();
        let key = format!("idempotency-key: upload {number}");
        let headers = ["content-type: application/x-ndjson", &key];
        let (status, report) = self.post("/v1/datasets/bora/permit", &headers, rows.as_bytes())?;
        ensure!(status == 202, "{report}");
        let count = |name: &str| report[name].as_u64().context("a count");
        Ok((count("accepted")?, count("duplicate")?))
    }
}

fn up(installation: &Installation, key: &str) -> Result<(Process, Client)> {
    let mut up = installation.start(&["up"])?;
    let port = address_of(&mut up, "The gateway")?;
    Ok((up, Client { port, key: key.trim().to_owned() }))
}

fn installation() -> Result<Installation> {
    let mut installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec("bora/permit", SPEC)?;
    installation.set(SETTINGS)?;
    Ok(installation)
}

fn event(id: &str, source: &str) -> String {
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"{source}\",\"type\":\"th.go.bora.insert\",\"data\":{{\"number\":\"{id}\"}}}}"
    )
}

/// What is sent in any way is stored as it was sent, by whoever may send it and nobody else.
pub fn what_agencies_send_is_stored() -> Result<()> {
    let installation = installation()?;
    let said = installation.succeed(&["check"])?;
    ensure!(said.contains("the gateway at 127.0.0.1:0, for 1 datasets: right"), "{said}");
    let key = installation.succeed(&["agency", "key", "new", "bora", "--name", "register"])?;
    let other = installation.succeed(&["agency", "key", "new", "cgd"])?;
    let (mut up, client) = up(&installation, &key)?;

    let structured = "content-type: application/cloudevents+json";
    let (status, report) = client.post("/v1/events", &[structured], event("a", "/bora/permit").as_bytes())?;
    ensure!(status == 202 && report["results"][0]["result"] == "accepted", "{report}");
    let batch = format!("[{},{}]", event("a", "/bora/permit"), event("b", "https://bora.go.th/bora/permit"));
    let (status, report) =
        client.post("/v1/events", &["content-type: application/cloudevents-batch+json"], batch.as_bytes())?;
    ensure!(status == 202 && report["accepted"] == 1 && report["duplicate"] == 1, "{report}");
    let binary = [
        "ce-specversion: 1.0",
        "ce-id: c",
        "ce-source: /bora/permit",
        "ce-type: insert",
        "content-type: application/json",
    ];
    ensure!(client.post("/v1/events", &binary, b"{\"number\":\"c\"}")?.0 == 202);
    // ใบ in TIS-620, as Excel writes it.
    let csv = ["content-type: text/csv; charset=tis-620"];
    let (status, report) = client.post("/v1/datasets/bora/permit", &csv, b"_id,number,holder\nd,d,\xe3\xba\n,,x\n")?;
    ensure!(status == 207 && report["results"][1]["why"] == "the key column `number` has no value", "{report}");
    let json = ["content-type: application/json"];
    ensure!(client.post("/v1/datasets/bora/permit", &json, b"{\"number\":\"e\"}")?.0 == 202);

    for (key, expected) in [(other.trim(), 403), ("ruam_0", 401)] {
        let stranger = Client { port: client.port.clone(), key: key.to_owned() };
        ensure!(stranger.post("/v1/datasets/bora/permit", &json, b"{\"number\":\"x\"}")?.0 == expected, "{expected}");
        let (status, report) = stranger.post("/v1/events", &[structured], event("x", "/bora/permit").as_bytes())?;
        ensure!([401, 422].contains(&status), "{report}");
    }
    let listed = installation.succeed(&["agency", "key", "list", "bora"])?;
    ensure!(listed.contains("register") && !listed.contains("cgd"), "{listed}");
    let id = key.split('_').nth(1).context("an id")?;
    installation.succeed(&["agency", "key", "revoke", id])?;
    ensure!(client.post("/v1/datasets/bora/permit", &json, b"{\"number\":\"x\"}")?.0 == 401, "it was revoked");
    let status = installation.succeed(&["status"])?;
    ensure!(
        status.contains(&format!("gateway: process {} (ruam up) at 127.0.0.1:{}", up.id(), client.port)),
        "{status}"
    );

    let question = "select number, holder, _event_id from bora.permit order by number";
    up.run_until(|| Ok(installation.ask(question).is_ok_and(|rows| rows.len() == 5)), PATIENCE)?;
    let rows = installation.ask(question)?;
    let text = |row: usize, column: usize| rows[row][column].as_deref();
    ensure!((0..4).all(|row| text(row, 0) == text(row, 2)), "each is called as it was sent: {rows:?}");
    ensure!(text(3, 1) == Some("ใบ") && text(4, 0) == Some("e"), "{rows:?}");
    up.interrupt(PATIENCE)?;
    installation.succeed(&["verify"])?;
    Ok(())
}

/// It is killed while uploads come. What was answered is there, and sent again all of it is there once.
pub fn a_crash_loses_nothing_and_doubles_nothing() -> Result<()> {
    let installation = installation()?;
    let key = installation.succeed(&["agency", "key", "new", "bora"])?;
    let mut answered = Vec::new();
    let mut next = 0;
    for _ in 0..2 {
        let (mut up, client) = up(&installation, &key)?;
        // The first upload shows that it takes some; then it is killed while others are under way.
        answered.push(next);
        client.upload(next)?;
        let killed = AtomicBool::new(false);
        let done = std::thread::scope(|scope| {
            let (client, killed) = (&client, &killed);
            let senders: Vec<_> = (0..2)
                .map(|sender| {
                    scope.spawn(move || {
                        let mut done = Vec::new();
                        for number in (next + 1 + sender..).step_by(2) {
                            match client.upload(number) {
                                Ok(_) => done.push(number),
                                Err(_) if killed.load(Ordering::Acquire) => break,
                                Err(error) => return Err(error),
                            }
                        }
                        Ok(done)
                    })
                })
                .collect();
            up.run_for(Duration::from_millis(700));
            killed.store(true, Ordering::Release);
            up.kill()?;
            let mut done = Vec::new();
            for sender in senders {
                done.extend(sender.join().expect("a sender does not panic")?);
            }
            anyhow::Ok(done)
        })?;
        next = done.iter().max().map_or(next, |last| *last) + 3;
        answered.extend(done);
    }
    ensure!(answered.len() > 4, "uploads were answered before the kills: {answered:?}");
    let (mut up, client) = up(&installation, &key)?;
    for number in 0..next {
        let (accepted, duplicate) = client.upload(number)?;
        ensure!(accepted + duplicate == 100, "{accepted} and {duplicate}");
        ensure!(
            !answered.contains(&number) || duplicate == 100,
            "upload {number} was answered, and {accepted} were lost"
        );
    }
    let expected = (100 * next).to_string();
    let question = "select count(*), count(distinct number), count(distinct _event_id) from bora.permit";
    let rows = || installation.ask(question).map(|rows| rows[0].clone());
    up.run_until(
        || {
            Ok(rows().is_ok_and(|row| {
                row[0].as_deref() >= Some(expected.as_str()) && row[0].as_ref().map(String::len) >= Some(expected.len())
            }))
        },
        PATIENCE,
    )?;
    let row = rows()?;
    ensure!(row.iter().all(|count| count.as_deref() == Some(expected.as_str())), "{row:?}, and not {expected}");
    up.interrupt(PATIENCE)?;
    installation.succeed(&["verify"])?;
    Ok(())
}

/// The API does what its own OpenAPI document says: no answer is a fault of the server, or one that is not described.
pub fn its_api_is_as_it_says() -> Result<()> {
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway");
    let python = fetched::python("test-gateway", &format!("{FOLDER}/requirements.txt"))?;
    let mut installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec("bora/permit", SPEC)?;
    installation.set("[gateway]\nlisten = \"127.0.0.1:0\"\n")?;
    let mut up = installation.start(&["up", "--only", "gateway"])?;
    let port = address_of(&mut up, "The gateway")?;
    let checked = Command::new(python)
        .args(["-c", "from schemathesis.cli import schemathesis; schemathesis()"])
        .args(["--config-file", &format!("{FOLDER}/schemathesis.toml")])
        .args(["run", &format!("http://127.0.0.1:{port}/openapi.json"), "--no-color", "--generation-deterministic"])
        .args(["--max-examples", "100", "--request-timeout", "60"])
        // It sends events of datasets that nobody has, which are refused though their form is right; and it takes a
        // text of a CSV file, or a header without a value, for one that is wrong.
        .args(["--exclude-checks", "positive_data_acceptance,negative_data_rejection"])
        .current_dir(installation.path())
        .output()?;
    let told = String::from_utf8_lossy(&checked.stdout);
    ensure!(checked.status.success() && told.contains("4 selected / 4 total"), "{told}");
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    Ok(())
}
