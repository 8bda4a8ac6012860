//! A real registry of schemas, Apicurio's, fetched by Maven and run for a test.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::curl::curl;
use crate::fetched::{artifact, first_in, has_program, unpack_tar};
use crate::server::{Server, free_port};

/// The last release that runs on Java 17.
const DISTRIBUTION: &str = "io.apicurio:apicurio-registry-app:3.0.9:tar.gz:all";
/// How long a JVM on a busy machine may take until it serves.
const PATIENCE: Duration = Duration::from_secs(300);

/// A registry without any schema. It is gone when this is dropped, or this process ends, however it ends.
#[derive(Debug)]
pub struct Apicurio {
    url: String,
    // Ends before its folder.
    server: Server,
    _dir: TempDir,
}

/// Whether what is needed to run it is at hand.
pub fn is_at_hand() -> bool {
    ["mvn", "java", "tar", "curl"].into_iter().all(has_program)
}

impl Apicurio {
    /// Starts it.
    ///
    /// # Errors
    /// Where Maven cannot fetch it or it does not start, with what it said.
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        unpack_tar(&artifact("apicurio", DISTRIBUTION)?, dir.path())?;
        let program = first_in(dir.path(), |path| path.extension().is_some_and(|kind| kind == "jar"))?;
        let port = free_port()?;
        let mut java = Command::new("java");
        java.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-jar"]).arg(program);
        java.env("QUARKUS_HTTP_HOST", "127.0.0.1").env("QUARKUS_HTTP_PORT", port.to_string());
        let server = Server::start(&java, "KILL", &dir.path().join("apicurio.log"))?;
        let apicurio = Self { url: format!("http://127.0.0.1:{port}"), server, _dir: dir };
        let subjects = format!("{}/subjects", apicurio.as_confluent());
        apicurio.server.reach(PATIENCE, || curl(&[&subjects])).context("Apicurio")?;
        Ok(apicurio)
    }

    /// Where it speaks as the registry of Confluent does.
    pub fn as_confluent(&self) -> String {
        format!("{}/apis/ccompat/v7", self.url)
    }

    /// Where it speaks its own language, to the converters of its makers.
    pub fn own(&self) -> String {
        format!("{}/apis/registry/v2", self.url)
    }
}
