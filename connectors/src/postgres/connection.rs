//! How a database is reached.
//!
//! What passes through: `[connections.<name>]` of `ruam.toml` into sessions for SQL and for replication, both
//! under the same settings. Guaranteed: to another machine only by TLS, with the server's certificate verified,
//! unless the address says `sslmode=disable`; passwords do not print.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgwire_replication::{ReplicationClient, ReplicationConfig, TlsConfig};
use ruam_event::Secret;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::values;
use crate::source::SourceError;

/// What the server sees as the name of the program.
const NAME: &str = "ruam";
/// How long a server may take to answer a connection's start.
const REACH: Duration = Duration::from_secs(10);
/// How long a slot may take to be let go of by a connection that has just ended.
const SLOT_FREE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(100);

/// A database that datasets are read from: `[connections.<name>]` of `ruam.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Where it is and who reads it: `postgres://user:password@host:5432/database`.
    url: Secret,
    /// Certificates, in PEM, that the server's has to lead to. None: those that browsers know.
    ca: Option<PathBuf>,
}

/// A connection's settings, read.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Its name in `ruam.toml`.
    name: String,
    config: Config,
    host: String,
    is_encrypted: bool,
    ca: Option<PathBuf>,
}

impl Connection {
    /// At an address.
    pub fn to(url: impl Into<String>) -> Self {
        Self { url: Secret::new(url), ca: None }
    }

    /// The same, where the server's certificate has to lead to one of a file of certificates in PEM.
    #[must_use]
    pub fn trusting(self, ca: impl Into<PathBuf>) -> Self {
        Self { ca: Some(ca.into()), ..self }
    }

    /// Whether the settings can be read.
    ///
    /// # Errors
    /// Where the address is not one.
    pub(crate) fn check(&self, name: &str) -> Result<(), SourceError> {
        self.server(name).map(drop)
    }

    /// Reads the settings.
    ///
    /// # Errors
    /// Where the address is not one.
    pub(super) fn server(&self, name: &str) -> Result<Server, SourceError> {
        let refused = |problem: &str| SourceError::Refused {
            what: format!("connection `{name}`"),
            problem: problem.to_owned(),
            remedy: format!(
                "Write url = \"postgres://user:password@host:5432/database\" into [connections.{name}] of ruam.toml, the password as ${{NAME}}"
            ),
        };
        // What is wrong with it may tell the password.
        let mut config: Config =
            self.url.reveal().parse().map_err(|_| refused("the address is not one of PostgreSQL"))?;
        let host = match config.get_hosts() {
            [Host::Tcp(host)] => host.clone(),
            #[cfg(unix)]
            [Host::Unix(path)] => path.to_string_lossy().into_owned(),
            _ => return Err(refused("the address has to name one host")),
        };
        if config.get_user().is_none_or(str::is_empty) || config.get_dbname().is_none_or(str::is_empty) {
            return Err(refused("the address names no user or no database"));
        }
        config.application_name(NAME).options(values::options()).connect_timeout(REACH);
        let is_here = host.starts_with('/')
            || host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let is_encrypted = match config.get_ssl_mode() {
            SslMode::Disable => false,
            SslMode::Prefer => !is_here,
            _ => true,
        };
        config.ssl_mode(if is_encrypted { SslMode::Require } else { SslMode::Disable });
        Ok(Server { name: name.to_owned(), config, host, is_encrypted, ca: self.ca.clone() })
    }
}

/// That a dataset names a connection which there is not.
pub(crate) fn missing(name: &str) -> SourceError {
    SourceError::Refused {
        what: format!("connection `{name}`"),
        problem: format!("ruam.toml has no connection `{name}`"),
        remedy: format!("Add [connections.{name}] with url = \"postgres://…\" to it"),
    }
}

impl Server {
    /// What people call it.
    pub(super) fn what(&self) -> String {
        format!("PostgreSQL `{}`", self.name)
    }

    /// Who reads it.
    pub(super) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    pub(super) fn refused(&self, problem: impl Into<String>, remedy: impl Into<String>) -> SourceError {
        SourceError::Refused { what: self.what(), problem: problem.into(), remedy: remedy.into() }
    }

    pub(super) fn unreachable(&self, problem: impl Into<String>) -> SourceError {
        SourceError::Unreachable { what: self.what(), problem: problem.into() }
    }

    /// An error of a session, and whether somebody has to act on it.
    pub(super) fn failed(&self, error: &tokio_postgres::Error) -> SourceError {
        let Some(told) = error.as_db_error() else {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            return self.unreachable(format!("{error}{cause}"));
        };
        let remedy = match *told.code() {
            SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                "Correct the user or password of its connection in ruam.toml, or let it in by pg_hba.conf"
            }
            SqlState::INVALID_CATALOG_NAME => "Correct the database of its connection in ruam.toml",
            SqlState::INSUFFICIENT_PRIVILEGE => "Give the user of the connection that right",
            _ => return self.unreachable(told.message()),
        };
        self.refused(told.message(), remedy)
    }

    /// A session for SQL. Its connection lives on the runtime that this is called on.
    ///
    /// # Errors
    /// Where the server cannot be reached, or does not let the user in.
    pub(super) async fn connect(&self) -> Result<Client, SourceError> {
        let client = if self.is_encrypted {
            let tls = MakeRustlsConnect::new(client_config(self)?);
            let (client, connection) = self.config.connect(tls).await.map_err(|error| self.failed(&error))?;
            tokio::spawn(connection);
            client
        } else {
            let (client, connection) = self.config.connect(NoTls).await.map_err(|error| self.failed(&error))?;
            tokio::spawn(connection);
            client
        };
        Ok(client)
    }

    /// The changes of a slot, from where it stands; with the identity of the server that they come from.
    ///
    /// # Errors
    /// Where the server cannot be reached, or somebody else reads the slot.
    pub(super) async fn stream(&self, slot: &str) -> Result<(ReplicationClient, String), SourceError> {
        let begun = tokio::time::Instant::now();
        loop {
            let started = tokio::time::timeout(REACH, self.start(slot)).await;
            let error = match started {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it did not begin to send changes in time".to_owned(),
            };
            let is_read = error.contains("is active for PID");
            if !is_read {
                return Err(self.unreachable(error));
            }
            if begun.elapsed() > SLOT_FREE {
                return Err(self.unreachable(format!("somebody else reads the same changes: {error}")));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn start(&self, slot: &str) -> pgwire_replication::Result<(ReplicationClient, String)> {
        let password = self.config.get_password().map(String::from_utf8_lossy).unwrap_or_default();
        let database = self.config.get_dbname().unwrap_or_default();
        let tls = if self.is_encrypted { TlsConfig::verify_full(self.ca.clone()) } else { TlsConfig::disabled() };
        let config = ReplicationConfig::new(&self.host, self.user(), password, database, slot, slot)
            .with_port(self.config.get_ports().first().copied().unwrap_or(5432))
            .with_tls(tls)
            .with_options(values::options())
            .with_application_name(NAME)
            .with_status_interval(Duration::from_secs(1));
        let mut client = ReplicationClient::connect_gated(config).await?;
        let system = client.identify_system().await?.system_id;
        client.start().await?;
        client.wait_started().await?;
        Ok((client, system))
    }
}

fn client_config(server: &Server) -> Result<ClientConfig, SourceError> {
    let mut roots = RootCertStore::empty();
    match &server.ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in certificates(server, path)? {
                roots.add(certificate).map_err(|error| not_certificates(server, path, &error.to_string()))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| server.unreachable(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(server: &Server, path: &Path) -> Result<Vec<CertificateDer<'static>>, SourceError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| not_certificates(server, path, &error.to_string()))
}

fn not_certificates(server: &Server, path: &Path, problem: &str) -> SourceError {
    server.refused(
        format!("the certificates in {} cannot be used: {problem}", path.display()),
        "Name a file of certificates in PEM as `ca` of its connection in ruam.toml",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_are_reached_by_tls_only() {
        for (url, is_encrypted) in [
            ("postgres://u:p@127.0.0.1/d", false),
            ("postgres://u:p@localhost:6432/d", false),
            ("postgres://u:p@db.example.th/d", true),
            ("postgres://u:p@db.example.th/d?sslmode=disable", false),
            ("postgres://u:p@127.0.0.1/d?sslmode=require", true),
        ] {
            assert_eq!(Connection::to(url).server("bora").unwrap().is_encrypted, is_encrypted, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for url in ["postgres://u:s3cret@h:port/d", "postgres://u:s3cret@a,b/d", "postgres://:s3cret@h/d"] {
            let error = Connection::to(url).server("bora").unwrap_err().to_string();
            assert!(error.starts_with("connection `bora`: the address") && !error.contains("s3cret"), "{error}");
        }
    }
}
