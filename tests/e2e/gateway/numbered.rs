//! Agencies number their events, and it is known which are missing.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{PATIENCE, installation, up};

/// What is missing is told until it comes, also by whoever is started next.
pub fn a_gap_is_named_until_it_is_filled() -> Result<()> {
    let installation = installation()?;
    let key = installation.succeed(&["agency", "key", "new", "bora"])?;
    let status = |expected: &str, is_told: bool| {
        let said = installation.succeed(&["status"])?;
        ensure!(said.contains(expected) == is_told, "{expected}: {said}");
        anyhow::Ok(())
    };
    {
        let (mut up, client) = up(&installation, &key)?;
        let send = |source: &str, numbers: &[u64]| {
            let event = |number: &u64| {
                json!({
                    "specversion": "1.0", "id": format!("{source} {number}"), "source": source, "type": "insert",
                    "sequence": number.to_string(), "sequencetype": "Integer", "dataset": "bora.permit",
                    "data": { "number": number.to_string() },
                })
            };
            let batch = serde_json::Value::from(numbers.iter().map(event).collect::<Vec<_>>()).to_string();
            let sent =
                client.post("/v1/events", &["content-type: application/cloudevents-batch+json"], batch.as_bytes())?;
            ensure!(sent.0 == 202, "{}", sent.1);
            anyhow::Ok(())
        };
        send("/one", &[15, 16, 18, 19, 22])?;
        send("/two", &[1, 2, 3])?;
        status("bora.permit: of /one, 3 missing: 17, 20–21", true)?;
        status("/two", false)?;
        status("bora.permit/sequences.json", true)?;
        // What comes late fills its gap, in whichever order.
        send("/one", &[21, 17])?;
        status("bora.permit: of /one, 1 missing: 20", true)?;
        let rows = ["content-type: application/x-ndjson"];
        let sent = client.post(
            "/v1/datasets/bora/permit",
            &rows,
            b"{\"number\":\"1\",\"_sequence\":1}\n{\"number\":\"3\",\"_sequence\":\"3\"}",
        )?;
        ensure!(sent.0 == 202, "{}", sent.1);
        status("bora.permit: of /bora/permit, 1 missing: 2", true)?;
        let sent = client.post("/v1/datasets/bora/permit", &rows, b"{\"number\":\"1\",\"_sequence\":\"x\"}")?;
        ensure!(sent.0 == 422, "{}", sent.1);
        let warned = "events are missing: of /one, 1 missing: 20. Ask the agency to send them";
        up.wait_for(warned, PATIENCE)?;
        up.kill()?;
    }
    status("bora.permit: of /one, 1 missing: 20", true)?;
    let (up, client) = up(&installation, &key)?;
    status("bora.permit: of /one, 1 missing: 20", true)?;
    let sent = client.post(
        "/v1/events",
        &[
            "content-type: application/json",
            "ce-specversion: 1.0",
            "ce-id: late",
            "ce-source: /one",
            "ce-type: insert",
            "ce-dataset: bora.permit",
            "ce-sequence: 20",
        ],
        b"{\"number\":\"20\"}",
    )?;
    ensure!(sent.0 == 202, "{}", sent.1);
    status("of /one", false)?;
    status("bora.permit: of /bora/permit, 1 missing: 2", true)?;
    up.interrupt(PATIENCE)?;
    // What is not wanted any more is forgotten with its file.
    fs::remove_file(installation.data_dir().join("sources/bora.permit/sequences.json"))?;
    status("missing", false)
}
