//! Keycloak as the issuer: systems of agencies send events, and people ask, by the tokens that it gives.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use ruam_event::Secret;
use ruam_identity::{Authenticator, Credentials, SignOnSettings};
use ruam_tests::keycloak::Keycloak;
use ruam_tests::{Broker, Installation};
use serde_json::json;

use super::{Client, PATIENCE, SPEC, event, up};

/// As an administrator sets it up by the console: a system with the scope of its agency's events, one without, and a
/// person with a role. When Keycloak signs by another key, its tokens count all the same.
pub fn its_tokens_let_systems_send_and_people_ask() -> Result<()> {
    let keycloak = Keycloak::start()?;
    let for_ruam = json!({
        "name": "for ruam", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
        "config": { "included.custom.audience": "ruam", "access.token.claim": "true" },
    });
    keycloak.add(
        "/client-scopes",
        &json!({
            "name": "events:bora", "protocol": "openid-connect", "attributes": { "include.in.token.scope": "true" },
        }),
    )?;
    let usual = ["basic", "profile", "roles"];
    for (name, scopes) in [("register", [&usual[..], &["events:bora"]].concat()), ("other", usual.to_vec())] {
        keycloak.add(
            "/clients",
            &json!({
                "clientId": name, "secret": name, "serviceAccountsEnabled": true, "standardFlowEnabled": false,
                "defaultClientScopes": scopes, "protocolMappers": [for_ruam],
            }),
        )?;
    }
    keycloak.add(
        "/clients",
        &json!({
            "clientId": "portal", "publicClient": true, "directAccessGrantsEnabled": true, "protocolMappers": [for_ruam],
        }),
    )?;
    keycloak.add("/roles", &json!({ "name": "state-analysts" }))?;
    keycloak.add(
        "/users",
        &json!({
            "username": "somchai", "enabled": true, "email": "somchai@example.org", "firstName": "ก", "lastName": "ข",
            "credentials": [{ "type": "password", "value": "correct horse battery", "temporary": false }],
        }),
    )?;
    let person = keycloak.get("/users?username=somchai")?;
    let role = keycloak.get("/roles/state-analysts")?;
    let id = person[0]["id"].as_str().unwrap_or_default();
    keycloak.add(&format!("/users/{id}/role-mappings/realm"), &json!([role]))?;

    let mut installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec("bora/permit", SPEC)?;
    let oidc = format!(
        "issuer = \"{}\"\naudience = \"ruam\"\nroles_claim = \"realm_access.roles\"\nroles = {{ state-analysts = \"analyst\" }}\n",
        keycloak.issuer()
    );
    installation.set(&format!("[gateway]\nlisten = \"127.0.0.1:0\"\n[sign_on.oidc]\n{oidc}"))?;
    let token_of = |client: &str| {
        let (id, secret) = (format!("client_id={client}"), format!("client_secret={client}"));
        keycloak.token(&["grant_type=client_credentials", &id, &secret])
    };
    let structured = ["content-type: application/cloudevents+json"];
    let send = |client: &Client, id: &str| client.post("/v1/events", &structured, event(id, "/bora/permit").as_bytes());

    let (mut up, client) = up(&installation, &token_of("register")?)?;
    let (status, report) = send(&client, "a")?;
    ensure!(status == 202 && report["accepted"] == 1, "{report}");
    let (status, report) = send(&Client { port: client.port.clone(), key: token_of("other")? }, "x")?;
    ensure!(status == 422, "it has no scope: {report}");

    let signed_by = |token: &str| token.split('.').next().map(ToOwned::to_owned);
    keycloak.add(
        "/components",
        &json!({
            "name": "next", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
            "config": { "priority": ["200"], "algorithm": ["RS256"] },
        }),
    )?;
    let next = Client { port: client.port.clone(), key: token_of("register")? };
    ensure!(signed_by(&next.key) != signed_by(&client.key), "it signs by another key");
    // It is not asked for its keys again within some seconds, whatever the keys are that tokens name.
    up.run_until(|| Ok(send(&next, "b")?.0 == 202), PATIENCE)?;
    let (status, report) = send(&client, "a")?;
    ensure!(status == 202 && report["duplicate"] == 1, "the key before counts for as long as it is told: {report}");

    let question = "select number from bora.permit order by number";
    up.run_until(|| Ok(installation.ask(question).is_ok_and(|rows| rows.len() == 2)), PATIENCE)?;
    ensure!(installation.ask(question)? == [[Some("a".to_owned())], [Some("b".to_owned())]], "nothing else is stored");
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success() && !said.contains(&client.key), "the log holds a token: {said}");

    let settings: SignOnSettings = toml::from_str(&format!("[oidc]\n{oidc}"))?;
    let server = Authenticator::open(&settings, installation.path())?;
    let names = ["grant_type=password", "client_id=portal", "username=somchai", "password=correct horse battery"];
    let credentials = Credentials::Token(Secret::new(keycloak.token(&names)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let person = runtime.block_on(server.authenticate(&credentials, IpAddr::V4(Ipv4Addr::LOCALHOST)))?;
    ensure!(person.name() == "somchai" && person.roles().iter().eq(["analyst"]), "{person:?}");
    Ok(())
}
