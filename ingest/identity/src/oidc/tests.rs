use std::net::SocketAddr;
use std::pin::pin;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use url::Url;

use super::*;
use crate::clock::tests::Hand;
use crate::principal::Scope;

pub(crate) mod issuer;

use issuer::{Issuer, Key};

const URL: &str = "https://login.example.go.th";

struct Setting {
    issuer: Arc<Issuer>,
    clock: Arc<Hand>,
    oidc: Oidc,
}

fn settings(url: &str) -> OidcSettings {
    let text = format!("issuer = \"{url}\"\naudience = \"ruam\"\nroles_claim = \"realm_access.roles\"\n");
    toml::from_str(&text).unwrap()
}

fn setting() -> Setting {
    let (issuer, clock) = (Issuer::new(URL), Arc::new(Hand::default()));
    let oidc = Oidc::new(settings(URL), clock.clone(), issuer.clone());
    Setting { issuer, clock, oidc }
}

impl Setting {
    /// Claims that are right now, for an hour.
    fn claims(&self) -> Value {
        let now = self.clock.now().timestamp();
        json!({
            "iss": URL, "aud": ["other", "ruam"], "exp": now + 3600, "nbf": now, "preferred_username": "somchai",
            "pid": "1101700230708", "realm_access": {"roles": ["analyst"]}, "scope": "openid events:bora"
        })
    }

    async fn check(&self, token: String) -> Result<Principal, SignOnError> {
        self.oidc.check(&Secret::new(token)).await
    }

    async fn is_refused(&self, token: String) -> bool {
        matches!(self.check(token).await, Err(SignOnError::Refused))
    }
}

fn header(algorithm: &str, id: &str) -> Value {
    json!({"alg": algorithm, "kid": id, "typ": "JWT"})
}

#[tokio::test]
async fn each_algorithm_signs_in() {
    let setting = setting();
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
        let key = setting.issuer.rotate(algorithm, algorithm);
        let principal = setting.check(key.token(&header(algorithm, algorithm), &setting.claims())).await.unwrap();
        assert_eq!(principal.to_string(), "somchai (OIDC)");
        assert_eq!(principal.roles().iter().collect::<Vec<_>>(), ["analyst"]);
        assert!(principal.may(&Scope::Sql) && principal.may(&Scope::Events("bora".to_owned())));
        assert_eq!(principal.expires().unwrap() - setting.clock.now(), TimeDelta::seconds(3660));
        assert!(!format!("{principal:?}").contains("1101700230708"), "{principal:?}");
        setting.clock.forward(60);
    }
}

#[tokio::test]
async fn claims_have_to_be_right_now() {
    let setting = setting();
    let key = setting.issuer.add("1", "ES256");
    let now = setting.clock.now().timestamp();
    let with = |claim: &str, value: Value| {
        let mut claims = setting.claims();
        claims[claim] = value;
        key.token(&header("ES256", "1"), &claims)
    };
    // Both clocks may differ by a minute.
    setting.check(with("exp", json!(now - 59))).await.unwrap();
    setting.check(with("nbf", json!(now + 60))).await.unwrap();
    for (claim, value) in [
        ("exp", json!(now - 60)),
        ("exp", json!(1e300)),
        ("exp", json!("soon")),
        ("exp", json!(null)),
        ("nbf", json!(now + 61)),
        ("iss", json!("https://login.example.com")),
        ("iss", json!(null)),
        ("aud", json!("another")),
        ("aud", json!([])),
        ("aud", json!(null)),
        ("preferred_username", json!("")),
        ("preferred_username", json!(null)),
    ] {
        assert!(setting.is_refused(with(claim, value.clone())).await, "{claim}: {value}");
    }
}

#[tokio::test]
async fn a_signature_has_to_be_of_the_key_that_is_named() {
    let setting = setting();
    let (one, two) = (setting.issuer.add("1", "ES256"), setting.issuer.add("2", "RS256"));
    let claims = setting.claims();
    setting.check(one.token(&header("ES256", "1"), &claims)).await.unwrap();
    assert!(setting.is_refused(one.token(&header("ES256", "2"), &claims)).await);
    assert!(setting.is_refused(Key::new("ES256").token(&header("ES256", "1"), &claims)).await);
    // The issuer uses this key with RS256 alone.
    assert!(setting.is_refused(Key::new("PS256").token(&header("PS256", "2"), &claims)).await);
    // Two keys, and none is named: with one for each algorithm it is plain which is meant.
    setting.check(two.token(&json!({"alg": "RS256"}), &claims)).await.unwrap();
    setting.issuer.add("3", "ES256");
    setting.clock.forward(3600);
    let claims = setting.claims();
    assert!(setting.is_refused(one.token(&json!({"alg": "ES256"}), &claims)).await);
    setting.check(one.token(&header("ES256", "1"), &claims)).await.unwrap();
    assert!(setting.is_refused(one.token(&json!({"alg": "ES256", "kid": "1", "crit": ["b64"]}), &claims)).await);
}

#[tokio::test]
async fn nobody_signs_with_what_everybody_knows() {
    let setting = setting();
    let key = setting.issuer.add("1", "RS256");
    let claims = setting.claims();
    let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for algorithm in ["none", "HS256", "HS384", "RS1", "ES384"] {
        // The issuer of these tests publishes a shared key, too, as none should.
        for id in ["1", "shared"] {
            assert!(setting.is_refused(key.token(&header(algorithm, id), &claims)).await, "{algorithm} {id}");
            assert!(setting.is_refused(format!("{}.{}.", text(&header(algorithm, id)), text(&claims))).await);
        }
        let message = format!("{}.{}", text(&header(algorithm, "shared")), text(&claims));
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret"), message.as_bytes());
        assert!(setting.is_refused(format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))).await);
    }
}

#[tokio::test]
async fn keys_are_fetched_anew_when_they_are_rotated_and_not_too_often() {
    let setting = setting();
    let old = setting.issuer.add("old", "ES256");
    let token = |key: &Key, id: &str| key.token(&header("ES256", id), &setting.claims());
    for _ in 0..3 {
        setting.check(token(&old, "old")).await.unwrap();
    }
    assert_eq!(setting.issuer.asked(), 1);
    let new = setting.issuer.rotate("new", "ES256");
    assert!(setting.is_refused(token(&new, "new")).await, "it was asked a moment ago");
    setting.clock.forward(10);
    setting.check(token(&new, "new")).await.unwrap();
    assert_eq!(setting.issuer.asked(), 2);
    for id in 0..100 {
        assert!(setting.is_refused(token(&old, &id.to_string())).await);
    }
    assert_eq!(setting.issuer.asked(), 2, "tokens with invented keys do not make others ask");
    assert!(setting.is_refused(token(&old, "old")).await, "what is withdrawn does not count");
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_waited_for() {
    let setting = setting();
    let key = setting.issuer.add("1", "EdDSA");
    let token = || key.token(&header("EdDSA", "1"), &setting.claims());
    setting.issuer.set_down(true);
    for _ in 0..2 {
        let error = setting.check(token()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot fetch the keys of the issuer https://login.example.go.th: it is down. Check that it can be reached from here, and sign_on.oidc.issuer"
        );
        assert!(!error.for_strangers().contains("example"), "{}", error.for_strangers());
    }
    setting.issuer.set_down(false);
    setting.clock.forward(10);
    setting.check(token()).await.unwrap();
    setting.issuer.set_down(true);
    setting.clock.forward(23 * 3600);
    setting.check(token()).await.unwrap();
    setting.clock.forward(3600);
    assert!(matches!(setting.check(token()).await, Err(SignOnError::Issuer { .. })), "a day is too long");
}

#[tokio::test]
async fn nobody_waits_for_an_issuer_that_somebody_waits_for() {
    #[derive(Debug)]
    struct Slow(Arc<Issuer>, Semaphore);
    #[async_trait]
    impl Fetch for Slow {
        async fn get(&self, url: &Url) -> Result<Vec<u8>, String> {
            let _place = self.1.acquire().await;
            self.0.get(url).await
        }
    }
    let setting = setting();
    let slow = Arc::new(Slow(setting.issuer.clone(), Semaphore::new(1)));
    let oidc = Oidc::new(settings(URL), setting.clock.clone(), slow.clone());
    let key = setting.issuer.add("1", "EdDSA");
    let token = || Secret::new(key.token(&header("EdDSA", "1"), &setting.claims()));
    oidc.check(&token()).await.unwrap();
    setting.clock.forward(3600);
    let held = slow.1.acquire().await.unwrap();
    let (first, second) = (token(), token());
    let mut first = pin!(oidc.check(&first));
    tokio::select! {
        biased;
        _ = &mut first => panic!("the issuer has not answered"),
        second = oidc.check(&second) => second.unwrap(),
    };
    drop(held);
    first.await.unwrap();
    assert_eq!(setting.issuer.asked(), 2);
}

#[tokio::test]
async fn an_issuer_over_http_rotates_its_keys() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let issuer = Issuer::new(&url);
    let served = tokio::spawn(serve(listener, issuer.clone()));
    let clock = Arc::new(Hand::default());
    let oidc = Oidc::new(settings(&url), clock.clone(), Arc::new(Http::new().unwrap()));
    for (id, algorithm) in [("1", "RS256"), ("2", "ES256")] {
        let key = issuer.rotate(id, algorithm);
        let claims = json!({
            "iss": url, "aud": "ruam", "exp": clock.now().timestamp() + 60, "preferred_username": "somchai"
        });
        let principal = oidc.check(&Secret::new(key.token(&header(algorithm, id), &claims))).await.unwrap();
        assert_eq!(principal.name(), "somchai");
        clock.forward(10);
    }
    issuer.set_down(true);
    let other = Oidc::new(settings(&url), clock.clone(), Arc::new(Http::new().unwrap()));
    let token = Secret::new(Key::new("ES256").token(&header("ES256", "2"), &json!({})));
    let error = other.check(&token).await.unwrap_err().to_string();
    assert!(error.contains("/.well-known/openid-configuration answers with 404 Not Found. Check"), "{error}");
    served.abort();
    let _ = served.await;
    let other = Oidc::new(settings(&url), clock, Arc::new(Http::new().unwrap()));
    let error = other.check(&token).await.unwrap_err().to_string();
    assert!(error.contains("Connection refused"), "{error}");
}

async fn serve(listener: TcpListener, issuer: Arc<Issuer>) {
    loop {
        let (socket, _): (_, SocketAddr) = listener.accept().await.unwrap();
        let issuer = issuer.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let document = issuer.document(request.uri().path());
            let status = if document.is_some() { 200 } else { 404 };
            let body = Full::new(Bytes::from(document.unwrap_or_default()));
            // Each answer ends its connection, so that the end of the server is one.
            let response = Response::builder().status(status).header("connection", "close").body(body);
            async move { response }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_break_the_check_and_none_sign_in(
        text in prop_oneof![
            ".{0,200}",
            "eyJ[A-Za-z0-9_-]{0,60}[.][A-Za-z0-9_-]{0,60}[.][A-Za-z0-9_-]{0,90}",
        ],
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let setting = setting();
        let key = setting.issuer.add("1", "EdDSA");
        let token = key.token(&header("EdDSA", "1"), &setting.claims());
        prop_assert!(runtime.block_on(setting.check(text)).is_err());
        // One byte of a right token is another.
        let mut bytes = token.clone().into_bytes();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        if let Some(changed) = String::from_utf8(bytes).ok().filter(|changed| *changed != token) {
            prop_assert!(runtime.block_on(setting.check(changed)).is_err());
        }
    }

    #[test]
    fn no_document_breaks_the_keys(document in "[{]\"keys\":[\\[].{0,60}[\\]][}]|.{0,80}") {
        #[derive(Debug)]
        struct Says(String);
        #[async_trait]
        impl Fetch for Says {
            async fn get(&self, url: &Url) -> Result<Vec<u8>, String> {
                let discovery = json!({"issuer": URL, "jwks_uri": format!("{URL}/keys")}).to_string();
                Ok(if url.path() == "/keys" { self.0.clone() } else { discovery }.into_bytes())
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let setting = setting();
        let oidc = Oidc::new(settings(URL), setting.clock.clone(), Arc::new(Says(document)));
        let token = Key::new("EdDSA").token(&header("EdDSA", "1"), &setting.claims());
        prop_assert!(runtime.block_on(oidc.check(&Secret::new(token))).is_err());
    }
}
