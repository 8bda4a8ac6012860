//! Agencies sign in with tokens of an issuer: OAuth's client credentials.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use ruam_tests::{Broker, Installation};
use serde_json::{Value, json};

use super::{Client, PATIENCE, SPEC, event, up};

/// An issuer of tokens, whose documents are served for as long as the tests run.
struct Issuer {
    url: String,
    pair: Ed25519KeyPair,
}

impl Issuer {
    fn start() -> Result<Self> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok().context("a key")?;
        let pair = Ed25519KeyPair::from_pkcs8(made.as_ref()).ok().context("a key")?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let keys =
            json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "one", "alg": "EdDSA", "use": "sig", "x": x }] });
        let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let mut lines = BufReader::new(&socket).lines().map_while(Result::ok);
                let asked = lines.next().unwrap_or_default();
                let _ = lines.find(|line| line.is_empty());
                let body = if asked.contains("/keys") { &keys } else { &discovery }.to_string();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = (&socket).write_all(&[head, body].concat().into_bytes());
            }
        });
        Ok(Self { url, pair })
    }

    /// A token as the issuer gives it to a client for its credentials: of no person, with a scope.
    fn token(&self, claims: Value) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut all =
            json!({ "iss": self.url, "aud": "ruam", "exp": now + 300, "client_id": "register", "sub": "register" });
        claims.as_object().into_iter().flatten().for_each(|(name, value)| all[name] = value.clone());
        let [header, claims] = [json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "one" }), all]
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signature = self.pair.sign(format!("{header}.{claims}").as_bytes());
        Ok(format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A token with the scope of an agency's events sends those, and none else sends anything.
pub fn a_token_of_the_issuer_sends_events_of_its_agency() -> Result<()> {
    let issuer = Issuer::start()?;
    let mut installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec("bora/permit", SPEC)?;
    installation.set(&format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\n[sign_on.oidc]\nissuer = \"{}\"\naudience = \"ruam\"\nname_claim = \"client_id\"\n",
        issuer.url
    ))?;
    let token = issuer.token(json!({ "scope": "openid events:bora" }))?;
    let (mut up, client) = up(&installation, &token)?;
    let structured = ["content-type: application/cloudevents+json"];
    let send = |client: &Client, id: &str| client.post("/v1/events", &structured, event(id, "/bora/permit").as_bytes());
    let (status, report) = send(&client, "a")?;
    ensure!(status == 202 && report["accepted"] == 1, "{report}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (header_and_claims, _) = token.rsplit_once('.').context("a token")?;
    let forged = format!("{header_and_claims}.{}", URL_SAFE_NO_PAD.encode([7; 64]));
    for (what, token, expected) in [
        ("another agency's", issuer.token(json!({ "scope": "events:cgd" }))?, 422),
        ("no scope", issuer.token(json!({}))?, 422),
        ("another audience", issuer.token(json!({ "scope": "events:bora", "aud": "other" }))?, 401),
        ("expired", issuer.token(json!({ "scope": "events:bora", "exp": now - 3600 }))?, 401),
        ("another issuer", issuer.token(json!({ "scope": "events:bora", "iss": "https://login.example.go.th" }))?, 401),
        ("forged", forged, 401),
    ] {
        let stranger = Client { port: client.port.clone(), key: token };
        let (status, report) = send(&stranger, "x")?;
        ensure!(status == expected, "{what}: {report}");
        let rows = ["content-type: application/json"];
        let (status, report) = stranger.post("/v1/datasets/bora/permit", &rows, b"{\"number\":\"x\"}")?;
        ensure!(status == if expected == 422 { 403 } else { 401 }, "{what}: {report}");
    }
    let question = "select number from bora.permit";
    up.run_until(|| Ok(installation.ask(question).is_ok_and(|rows| !rows.is_empty())), PATIENCE)?;
    ensure!(installation.ask(question)? == [[Some("a".to_owned())]], "nobody else's event is stored");
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success() && !said.contains(&token), "the log holds a token: {said}");
    Ok(())
}
