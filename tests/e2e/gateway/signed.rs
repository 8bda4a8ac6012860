//! Agencies sign their events: what they have signed is checked, and found beside the row.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, KeyPair, UnparsedPublicKey};
use ruam_tests::signer::Pair;
use ruam_tests::{Broker, Installation};
use serde_json::{Value, json};

use super::{Client, PATIENCE, SETTINGS, SPEC, up};

/// What is signed of an event, in which there are no numbers.
fn text(event: &Value) -> String {
    let of = ["data", "dataset", "id", "sequence", "source", "time", "type"];
    sorted(of.iter().filter_map(|name| Some((*name, event.get(name)?))).collect())
}

/// An object, with its members in the order of their names.
fn sorted(members: BTreeMap<&str, &Value>) -> String {
    let members = members.into_iter().map(|(name, value)| match value.as_object() {
        Some(object) => format!("\"{name}\":{}", sorted(object.iter().map(|(name, value)| (&**name, value)).collect())),
        None => format!("\"{name}\":{value}"),
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn event(id: &str) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/bora/permit", "type": "th.go.bora.insert", "data": { "number": id, "holder": "สมชาย" } })
}

fn signed(mut event: Value, signature: String) -> Value {
    event["signature"] = signature.into();
    event
}

fn installation() -> Result<Installation> {
    let mut installation = Installation::empty(Broker::Embedded)?;
    let required = SPEC.replacen("mode =", "signatures = \"required\"\nmode =", 1);
    installation.write_spec("bora/permit", &required)?;
    installation
        .write_spec("bora/licence", &required.replace("bora.permit", "bora.licence").replace("required", "optional"))?;
    installation.write_spec("bora/note", &SPEC.replace("bora.permit", "bora.note"))?;
    installation.set(SETTINGS)?;
    Ok(installation)
}

fn send(client: &Client, event: &Value) -> Result<(u16, Value)> {
    client.post("/v1/events", &["content-type: application/cloudevents+json"], event.to_string().as_bytes())
}

fn accepted((status, report): (u16, Value), count: u64) -> Result<()> {
    ensure!(status == 202 && report["accepted"] == count, "{report}");
    Ok(())
}

fn refused((_, report): (u16, Value), expected: &str) -> Result<()> {
    let why = report["results"][0]["why"].as_str().unwrap_or_default();
    ensure!(report["rejected"] == 1 && why.contains(expected), "not `{expected}`: {report}");
    Ok(())
}

/// What is signed by a key of the agency is taken in every way of sending it, and its signature lies beside the row,
/// by which anybody can check it.
pub fn what_is_signed_is_kept_with_its_row() -> Result<()> {
    let installation = installation()?;
    let key = installation.succeed(&["agency", "key", "new", "bora"])?;
    let [one, two] = [Pair::ed25519()?, Pair::p256()?];
    let [first, second] = [one.register(&installation, "bora")?, two.register(&installation, "bora")?];
    let (mut up, client) = up(&installation, &key)?;

    let sign = |pair: &Pair, kid: &str, event: &Value| pair.sign(pair.alg(), kid, &text(event));
    let (a, b, c) = (event("a"), event("b"), event("c"));
    let (of_a, of_b, of_c) = (sign(&one, &first, &a)?, sign(&two, &second, &b)?, sign(&one, &first, &c)?);
    accepted(send(&client, &signed(a.clone(), of_a.clone()))?, 1)?;
    // As a batch, in which members stand in another order, and numbers and texts are written otherwise.
    let batch = format!(
        "[{{\"signature\": \"{of_b}\", \"data\": {{\"holder\": \"\\u0e2a\\u0e21\\u0e0a\\u0e32\\u0e22\", \"number\": \"b\"}},\n\
         \"type\": \"th.go.bora.insert\", \"traceparent\": \"x\", \"source\": \"/bora/permit\", \"id\": \"b\", \"specversion\": \"1.0\"}}]"
    );
    accepted(client.post("/v1/events", &["content-type: application/cloudevents-batch+json"], batch.as_bytes())?, 1)?;
    let headers = [
        "ce-specversion: 1.0",
        "ce-id: c",
        "ce-source: /bora/permit",
        "ce-type: th.go.bora.insert",
        "content-type: application/json",
        &format!("ce-signature: {of_c}"),
    ];
    accepted(client.post("/v1/events", &headers, c["data"].to_string().as_bytes())?, 1)?;
    // Rows, which are signed as the events that they are.
    let row = |id: &str, more: Value| {
        let mut event = json!({ "id": id, "source": "/bora/permit", "type": "insert", "data": { "number": id } });
        more.as_object().into_iter().flatten().for_each(|(name, value)| event[name] = value.clone());
        event
    };
    let d = row("d", json!({ "time": "2026-01-31T09:30:00+07:00", "sequence": "4" }));
    let of_d = sign(&one, &first, &d)?;
    let sent = json!({ "number": "d", "_id": "d", "_time": d["time"], "_sequence": 4, "_signature": of_d });
    let json_rows = ["content-type: application/json"];
    accepted(client.post("/v1/datasets/bora/permit", &json_rows, sent.to_string().as_bytes())?, 1)?;
    let e = row("e", json!({ "type": "snapshot", "data": { "number": "e", "holder": null } }));
    let of_e = sign(&two, &second, &e)?;
    let csv = format!("_id,_signature,number,holder\ne,{of_e},e,\n");
    let csv_rows = ["content-type: text/csv"];
    accepted(client.post("/v1/datasets/bora/permit?operation=snapshot", &csv_rows, csv.as_bytes())?, 1)?;
    // Where it is left to the agency.
    let f = |data: Value| json!({ "specversion": "1.0", "id": "f", "source": "/x", "type": "insert", "dataset": "bora.licence", "data": data });
    accepted(send(&client, &f(json!({ "number": "f" })))?, 1)?;

    let question = "select number, _signature from bora.permit order by number";
    up.run_until(|| Ok(installation.ask(question).is_ok_and(|rows| rows.len() == 5)), PATIENCE)?;
    let rows = installation.ask(question)?;
    for (row, (event, detached)) in rows.iter().zip([(&a, of_a), (&b, of_b), (&c, of_c), (&d, of_d), (&e, of_e)]) {
        let whole = row[1].as_deref().context("a signature")?;
        let parts: Vec<_> = whole.split('.').collect();
        ensure!(parts.len() == 3 && format!("{}..{}", parts[0], parts[2]) == detached, "{whole}");
        ensure!(URL_SAFE_NO_PAD.decode(parts[1])? == text(event).into_bytes(), "{whole}");
    }
    // Checked with nothing but the row and the key.
    let Pair::Ed25519(pair) = &one else { anyhow::bail!("a key of Ed25519") };
    let (input, signature) = rows[0][1].as_deref().and_then(|whole| whole.rsplit_once('.')).context("a JWS")?;
    let key = UnparsedPublicKey::new(&ED25519, pair.public_key());
    ensure!(key.verify(input.as_bytes(), &URL_SAFE_NO_PAD.decode(signature)?).is_ok(), "{input}");
    let unsigned = || installation.ask("select _signature from bora.licence");
    up.run_until(|| Ok(unsigned().is_ok_and(|rows| rows == [[None]])), PATIENCE)?;
    ensure!(installation.refuse(&["sql", "select _signature from bora.note"])?.contains("_signature"), "it takes none");

    // Whoever sees masked values does not see what was signed.
    let folder = installation.path().join("policies");
    fs::create_dir(&folder)?;
    let grant = "role = \"analyst\"\n[[grant]]\ndatasets = [\"bora.permit\"]\nmasks = [{ column = \"holder\" }]\n";
    fs::write(folder.join("analyst.toml"), grant)?;
    let seen = ["sql", "--roles", "analyst", "--purpose", "training", "--format", "csv"];
    let count = "select count(*) as rows, count(_signature) as signatures from bora.permit";
    let said = installation.succeed(&[&seen[..], &[count]].concat())?;
    ensure!(said.contains("5,0"), "{said}");
    up.interrupt(PATIENCE)?;
    installation.succeed(&["verify"])?;
    Ok(())
}

/// What is not signed by a key of the agency as it has come is refused, and it is said why.
pub fn what_is_not_signed_as_it_should_be_is_refused() -> Result<()> {
    let installation = installation()?;
    let key = installation.succeed(&["agency", "key", "new", "bora"])?;
    let [one, two, other, nobodys] = [Pair::ed25519()?, Pair::p256()?, Pair::ed25519()?, Pair::ed25519()?];
    let [first, second] = [one.register(&installation, "bora")?, two.register(&installation, "bora")?];
    let others = other.register(&installation, "cgd")?;
    let (up, client) = up(&installation, &key)?;

    let right = event("a");
    let signature = one.sign("EdDSA", &first, &text(&right))?;
    refused(send(&client, &right)?, "the event has to be signed")?;
    let row = ["content-type: application/json"];
    let sent = client.post("/v1/datasets/bora/permit", &row, b"{\"_id\":\"a\",\"number\":\"a\"}")?;
    refused(sent, "the event has to be signed")?;
    let sent = json!({ "number": "a", "_signature": signature });
    let sent = client.post("/v1/datasets/bora/permit", &row, sent.to_string().as_bytes())?;
    refused(sent, "a row that is signed has to have `_id`")?;
    // A signature counts for one event.
    for (member, value) in [
        ("data", json!({ "number": "a", "holder": "สมหญิง" })),
        ("id", "b".into()),
        ("type", "th.go.bora.snapshot".into()),
        ("source", "/bora/licence".into()),
        ("dataset", "bora.licence".into()),
        ("time", "2026-01-31T09:30:00+07:00".into()),
        ("sequence", "1".into()),
    ] {
        let mut changed = right.clone();
        changed[member] = value;
        let told = "the key that it names has not signed this event as it has come";
        refused(send(&client, &signed(changed, signature.clone()))?, told).context(member)?;
    }
    for (pair, alg, kid, expected) in [
        (&other, "EdDSA", &others, "its `kid` names no key that is registered for this agency"),
        (&nobodys, "EdDSA", &"x".to_owned(), "its `kid` names no key that is registered for this agency"),
        (&other, "EdDSA", &first, "the key that it names has not signed this event as it has come"),
        (&one, "HS256", &first, "its `alg` is not EdDSA and not ES256"),
        (&one, "none", &first, "its `alg` is not EdDSA and not ES256"),
        (&one, "ES256", &first, "its `alg` is not that of the key"),
    ] {
        refused(send(&client, &signed(right.clone(), pair.sign(alg, kid, &text(&right))?))?, expected)?;
    }
    refused(send(&client, &signed(right.clone(), "x".to_owned()))?, "it is no detached JWS")?;
    let mut note = right.clone();
    note["source"] = "/bora/note".into();
    let of_note = one.sign("EdDSA", &first, &text(&note))?;
    refused(send(&client, &signed(note, of_note))?, "its dataset takes no signatures")?;
    let mut large = right.clone();
    large["data"]["number"] = json!(9_007_199_254_740_993_u64);
    refused(send(&client, &signed(large, signature.clone()))?, "a number has more digits than a double holds")?;

    // A key that is revoked counts no longer, and the other still does.
    let of_b = two.sign("ES256", &second, &text(&event("b")))?;
    accepted(send(&client, &signed(event("b"), of_b))?, 1)?;
    installation.succeed(&["agency", "signer", "revoke", &second])?;
    let of_c = two.sign("ES256", &second, &text(&event("c")))?;
    refused(send(&client, &signed(event("c"), of_c))?, "the key that it names has been revoked")?;
    accepted(send(&client, &signed(right, signature))?, 1)?;
    let listed = installation.succeed(&["agency", "signer", "list", "bora"])?;
    ensure!(listed.contains(&first) && listed.contains("revoked") && !listed.contains(&others), "{listed}");
    let keys: Value = serde_json::from_str(&installation.succeed(&["agency", "signer", "list", "--jwks"])?)?;
    ensure!(keys["keys"].as_array().is_some_and(|keys| keys.len() == 3), "{keys}");
    let again = installation.path().join("again");
    fs::write(&again, two.public())?;
    let said = installation.refuse(&["agency", "signer", "add", "bora", &again.to_string_lossy()])?;
    ensure!(said.contains("the key is revoked already, for `bora`"), "{said}");
    fs::write(&again, "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n")?;
    let said = installation.refuse(&["agency", "signer", "add", "bora", &again.to_string_lossy()])?;
    ensure!(said.contains("it is a private key") && !said.contains("hunter2"), "{said}");
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success(), "{said}");
    Ok(())
}
