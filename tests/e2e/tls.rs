//! Each way in, encrypted: who is asked shows a certificate, and who asks in clear is not heard.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, KeyPair};
use ruam_tests::{Broker, Installation};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::server::{address, address_of};

const PATIENCE: Duration = Duration::from_secs(90);

/// Connects to a port of this machine, which has to show a certificate that is trusted.
async fn encrypted(port: &str, trusted: &CertificateDer<'static>, protocol: &str) -> Result<TlsStream<TcpStream>> {
    encrypted_as(port, trusted, protocol, None).await
}

/// The same for somebody who shows a certificate, too.
async fn encrypted_as(
    port: &str,
    trusted: &CertificateDer<'static>,
    protocol: &str,
    shown: Option<&CertifiedKey<KeyPair>>,
) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots);
    let mut config = match shown {
        None => config.with_no_client_auth(),
        Some(shown) => {
            let key = PrivateKeyDer::try_from(shown.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
            config.with_client_auth_cert(vec![shown.cert.der().clone()], key)?
        }
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let socket = TcpStream::connect(format!("127.0.0.1:{port}")).await?;
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, socket).await?)
}

async fn flight(port: &str, trusted: &CertificateDer<'static>) -> Result<FlightSqlServiceClient<Channel>> {
    let (port, trusted) = (port.to_owned(), trusted.clone());
    let connect = tower::service_fn(move |_: Uri| {
        let (port, trusted) = (port.clone(), trusted.clone());
        async move { encrypted(&port, &trusted, "h2").await.map(TokioIo::new).map_err(io::Error::other) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connect).await?;
    Ok(FlightSqlServiceClient::new(channel))
}

/// The answer to a question.
pub(super) async fn ask(
    client: &mut FlightSqlServiceClient<Channel>,
    sql: &str,
) -> arrow_flight::error::Result<String> {
    let info = client.execute(sql.to_owned(), None).await?;
    let mut batches = Vec::new();
    for ticket in info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket) {
        batches.extend(client.do_get(ticket).await?.try_collect::<Vec<_>>().await?);
    }
    Ok(pretty_format_batches(&batches)?.to_string())
}

/// Whether an error says that nobody has signed in.
pub(super) fn is_unknown(error: &arrow_flight::error::FlightError) -> bool {
    matches!(error, arrow_flight::error::FlightError::Tonic(status) if status.code() == Code::Unauthenticated)
}

/// What a server of HTTP says to a question, be it in clear or not.
async fn post(socket: impl AsyncRead + AsyncWrite + Unpin, token: &str) -> Result<String> {
    post_to(socket, "/v1/sql", r#"{"sql": "select 6 * 7 as answer"}"#, token).await
}

/// What a server of HTTP says to JSON.
async fn post_to(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    body: &str,
    token: &str,
) -> Result<String> {
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n");
    let head = format!("{head}authorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n", body.len());
    socket.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut told = Vec::new();
    // Who is not heard may be cut off.
    let _ = socket.read_to_end(&mut told).await;
    Ok(String::from_utf8_lossy(&told).into_owned())
}

fn psql(port: &str, token: &str, settings: &str) -> Result<(bool, String)> {
    let settings = format!("host=localhost hostaddr=127.0.0.1 port={port} user=token dbname=ruam {settings}");
    let mut command = Command::new("psql");
    command.args(["-X", "-w", "-A", "-t", "-c", "select 6 * 7", &settings]);
    let output = command.env("PGPASSWORD", token).env("PGCONNECT_TIMEOUT", "20").output()?;
    Ok((output.status.success(), String::from_utf8([output.stdout, output.stderr].concat())?))
}

pub fn each_way_in_is_encrypted() -> Result<()> {
    let mut installation = Installation::new(Broker::Embedded)?;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (certificate, key) = (installation.path().join("tls.crt"), installation.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let other_file = installation.path().join("other.crt");
    std::fs::write(&other_file, other.cert.pem())?;
    installation.set("flight = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n[sign_on]\ntokens = true\n")?;
    installation.set(&format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n"))?;
    let token = installation.succeed(&["token", "new", "dashboard", "--role", "analyst"])?;
    let token = token.trim();
    let mut up = installation.start(&["up", "--only", "query"])?;
    let (postgres, flight_port) = (address(&mut up)?, address_of(&mut up, "Arrow Flight SQL")?);
    let http = address_of(&mut up, "HTTP")?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = flight(&flight_port, made.cert.der()).await.context("Flight SQL, encrypted")?;
        client.set_token(token.to_owned());
        let answer = ask(&mut client, "select 6 * 7 as answer").await?;
        ensure!(answer.contains("| 42 "), "{answer}");
        ensure!(flight(&flight_port, other.cert.der()).await.is_err(), "another certificate was trusted");
        let in_clear = Endpoint::from_shared(format!("http://127.0.0.1:{flight_port}"))?.connect_lazy();
        let mut in_clear = FlightSqlServiceClient::new(in_clear);
        in_clear.set_token(token.to_owned());
        ensure!(ask(&mut in_clear, "select 1").await.is_err(), "Flight SQL answers in clear");

        let told = post(encrypted(&http, made.cert.der(), "http/1.1").await?, token).await?;
        ensure!(told.starts_with("HTTP/1.1 200") && told.contains(r#"[{"answer":42}"#), "{told}");
        ensure!(encrypted(&http, other.cert.der(), "http/1.1").await.is_err(), "another certificate was trusted");
        let told = post(TcpStream::connect(format!("127.0.0.1:{http}")).await?, token).await?;
        ensure!(!told.contains("HTTP/") && !told.contains("42"), "HTTP answers in clear: {told}");
        anyhow::Ok(())
    })?;
    let verified = |root: &std::path::Path| format!("sslmode=verify-full sslrootcert={}", root.display());
    let (done, said) = psql(&postgres, token, &verified(&certificate))?;
    ensure!(done && said.trim() == "42", "{said}");
    let (done, said) = psql(&postgres, token, &verified(&other_file))?;
    ensure!(!done && said.contains("certificate verify failed"), "{said}");
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success() && !said.contains(token), "{said}");
    Ok(())
}

/// Where agencies have to show certificates, no key is enough without one.
pub fn agencies_show_certificates() -> Result<()> {
    let mut installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec("bora/permit", crate::gateway::SPEC)?;
    let [made, agency, stranger] =
        ["localhost", "agency", "stranger"].map(|name| rcgen::generate_simple_self_signed([name.to_owned()]));
    let (made, agency, stranger) = (made?, agency?, stranger?);
    let [certificate, key, issuers] = ["tls.crt", "tls.key", "agencies.pem"].map(|name| installation.path().join(name));
    std::fs::write(&certificate, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    std::fs::write(&issuers, agency.cert.pem())?;
    installation.set(&format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nclient_certificates = {issuers:?}\n[sign_on]\ntokens = true\n"
    ))?;
    installation.set(&format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n"))?;
    let token = installation.succeed(&["agency", "key", "new", "bora"])?;
    let token = token.trim();
    let mut up = installation.start(&["up", "--only", "gateway"])?;
    let port = address_of(&mut up, "The gateway")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let send = async |shown: Option<&CertifiedKey<KeyPair>>, token: &str| {
            let socket = encrypted_as(&port, made.cert.der(), "http/1.1", shown).await?;
            post_to(socket, "/v1/datasets/bora/permit", "{\"number\":\"1\"}", token).await
        };
        let told = send(Some(&agency), token).await?;
        ensure!(told.starts_with("HTTP/1.1 202"), "{told}");
        let told = send(Some(&agency), "ruam_nobody").await?;
        ensure!(told.starts_with("HTTP/1.1 401"), "{told}");
        for shown in [None, Some(&stranger)] {
            // That the certificate is not enough is heard with the handshake, or behind it.
            let told = send(shown, token).await.unwrap_or_default();
            ensure!(told.is_empty(), "{told}");
        }
        anyhow::Ok(())
    })?;
    let (status, said) = up.interrupt(PATIENCE)?;
    ensure!(status.success() && !said.contains(token), "{said}");
    Ok(())
}
