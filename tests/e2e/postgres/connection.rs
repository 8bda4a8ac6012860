//! How the server is reached.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ruam_connectors::{Connection, Feed, Source, Surroundings};
use ruam_tests::postgres::{Postgres, Release};
use ruam_tests::{Broker, Installation};

use super::{SPEC, spec, table};

/// Both sessions are encrypted, with a server whose certificate is trusted and no other.
pub fn it_is_reached_by_tls() -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server = Postgres::start_with(
        Release::Installed,
        &["wal_level=logical", "ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"],
        &[("server.crt", &certificate), ("server.key", &key)],
    )?;
    server.run_sql(&table(1))?;
    let (spec, state) = (spec(SPEC)?, tempfile::tempdir()?);
    let open = |host: &str, trusted: &str| -> Result<(Box<dyn Source>, Result<(), String>)> {
        let ca = state.path().join("ca.pem");
        std::fs::write(&ca, trusted)?;
        let url = format!("postgres://postgres:x@{host}:{}/postgres?sslmode=require", server.port());
        let connections = BTreeMap::from([("bora".to_owned(), Connection::to(url).trusting(ca))]);
        let surroundings = Surroundings { connections, state: state.path().to_owned(), ..Surroundings::default() };
        let mut source = ruam_connectors::open(&spec, &surroundings)?.context("a source")?;
        let opened = source.open(None).map_err(|error| error.to_string());
        Ok((source, opened))
    };
    for (host, trusted) in [("localhost", other.cert.pem()), ("127.0.0.1", certificate.clone())] {
        let refused = open(host, &trusted)?.1.err().context("a certificate that is not trusted")?;
        ensure!(refused.contains("certificate"), "{refused}");
    }
    let (mut source, opened) = open("localhost", &certificate)?;
    ensure!(opened.is_ok(), "{opened:?}");
    let sessions =
        "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'ruam' and ssl";
    ensure!(server.run_sql(sessions)?[0][0].as_deref() == Some("2"), "both are encrypted");
    while !matches!(source.next(10)?, Feed::Events(_)) {}
    Ok(())
}

/// What a file says of its source is checked without connecting to anything.
pub fn its_connection_is_checked() -> Result<()> {
    let mut installation = Installation::empty(Broker::Embedded)?;
    installation.write_spec("bora/register", SPEC)?;
    let said = installation.refuse(&["check"])?;
    ensure!(said.contains("register.toml:24: source.with.connection: ruam.toml has no connection `bora`"), "{said}");
    installation.set("[connections.bora]\nurl = \"postgres://u:s3cret@/d\"\n")?;
    let said = installation.refuse(&["check"])?;
    ensure!(said.contains("register.toml:24") && said.contains("the address has to name one host"), "{said}");
    ensure!(!said.contains("s3cret"), "{said}");
    Ok(())
}
