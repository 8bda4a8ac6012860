//! A real Keycloak, which gives tokens of OIDC, fetched by Maven and run for a test.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::curl::curl;
use crate::fetched::{artifact, first_in, has_program, unpack};
use crate::server::{Server, free_port};

const DISTRIBUTION: &str = "org.keycloak:keycloak-quarkus-dist:26.7.3:zip";
/// How long a JVM on a busy machine may take until it serves.
const PATIENCE: Duration = Duration::from_secs(300);
/// Who may set it up, with which password.
const ADMIN: &str = "admin";
const REALM: &str = "state";

/// A server with one realm. It is gone when this is dropped, or this process ends, however it ends.
#[derive(Debug)]
pub struct Keycloak {
    url: String,
    // Ends before its folder.
    server: Server,
    _dir: TempDir,
}

/// Whether what is needed to run it is at hand.
pub fn is_at_hand() -> bool {
    ["mvn", "java", "jar", "curl"].into_iter().all(has_program)
}

impl Keycloak {
    /// Starts it, with a realm in which there is nobody.
    ///
    /// # Errors
    /// Where Maven cannot fetch it or it does not start, with what it said.
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        unpack(&artifact("keycloak", DISTRIBUTION)?, dir.path())?;
        let port = free_port()?;
        let mut program = Command::new("sh");
        program.arg(first_in(dir.path(), Path::is_dir)?.join("bin/kc.sh")).args(["start-dev", "--http-host=127.0.0.1"]);
        program.arg(format!("--http-port={port}")).env("JAVA_OPTS_KC_HEAP", "-Xmx512m");
        program.env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN).env("KC_BOOTSTRAP_ADMIN_PASSWORD", ADMIN);
        let server = Server::start(&program, "TERM", &dir.path().join("keycloak.log"))?;
        let keycloak = Self { url: format!("http://127.0.0.1:{port}"), server, _dir: dir };
        keycloak.server.reach(PATIENCE, || keycloak.admin()).context("Keycloak")?;
        keycloak.set_up("", &json!({ "realm": REALM, "enabled": true }))?;
        Ok(keycloak)
    }

    /// Who the tokens are of.
    pub fn issuer(&self) -> String {
        format!("{}/realms/{REALM}", self.url)
    }

    /// Adds something to the realm, as its administrator: `/clients`, with what Keycloak's Admin REST API says of one.
    ///
    /// # Errors
    /// Where it is not taken.
    pub fn add(&self, what: &str, of: &Value) -> Result<()> {
        self.set_up(&format!("/{REALM}{what}"), of)
    }

    /// What there is in the realm.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn get(&self, what: &str) -> Result<Value> {
        let address = format!("{}/admin/realms/{REALM}{what}", self.url);
        answer(&["-H", &format!("authorization: Bearer {}", self.admin()?), &address])
    }

    /// A token for a grant: `grant_type=client_credentials` and so on.
    ///
    /// # Errors
    /// Where none is given.
    pub fn token(&self, grant: &[&str]) -> Result<String> {
        self.token_of(REALM, grant)
    }

    fn token_of(&self, realm: &str, grant: &[&str]) -> Result<String> {
        let address = format!("{}/realms/{realm}/protocol/openid-connect/token", self.url);
        let form = grant.iter().flat_map(|field| ["--data-urlencode", field]);
        let given = answer(&form.chain([&*address]).collect::<Vec<_>>())?;
        Ok(given["access_token"].as_str().with_context(|| format!("no token: {given}"))?.to_owned())
    }

    fn admin(&self) -> Result<String> {
        let names = [format!("username={ADMIN}"), format!("password={ADMIN}")];
        self.token_of("master", &["grant_type=password", "client_id=admin-cli", &names[0], &names[1]])
    }

    fn set_up(&self, path: &str, what: &Value) -> Result<()> {
        let (address, sign_on) = (format!("{}/admin/realms{path}", self.url), self.admin()?);
        let headers = ["-H", &format!("authorization: Bearer {sign_on}"), "-H", "content-type: application/json"];
        curl(&[&headers[..], &["--data", &what.to_string(), &address]].concat()).map(drop)
    }
}

fn answer(arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_slice(&curl(arguments)?)?)
}
