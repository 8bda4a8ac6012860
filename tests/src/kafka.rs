//! A real Apache Kafka of one node (KRaft, one JVM), fetched by Maven and run for the tests.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::broker::log_at;
use crate::fetched::{class_path, has_program};
use crate::server::Server;

const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kafka/pom.xml");
/// How long a JVM on a busy machine may take until it serves.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a port that another process took in the meantime is replaced.
const ATTEMPTS: usize = 3;

/// A broker that runs until it is stopped, or this process ends, however it ends.
#[derive(Debug)]
pub struct Kafka {
    port: u16,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    // Ends before its folder.
    server: Server,
    dir: TempDir,
}

/// Whether what is needed to run Kafka is at hand.
pub fn is_at_hand() -> bool {
    std::env::var_os("RUAM_TEST_KAFKA").is_some() || (has_program("mvn") && has_program("java"))
}

impl Kafka {
    /// Fetches Kafka, unless an earlier run has, and starts it.
    ///
    /// # Errors
    /// Where Maven cannot fetch it or it does not start, with what it said.
    pub fn start() -> Result<Self> {
        let libraries = class_path("test-kafka", POM)?;
        let mut attempt = 1;
        loop {
            match Self::start_once(&libraries) {
                Err(error) if attempt < ATTEMPTS && format!("{error:#}").contains("Address already in use") => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn start_once(libraries: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let [port, controller] = free_ports()?;
        let properties = dir.path().join("server.properties");
        fs::write(
            &properties,
            format!(
                "process.roles=broker,controller\n\
                 node.id=1\n\
                 controller.quorum.voters=1@127.0.0.1:{controller}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 controller.listener.names=CONTROLLER\n\
                 log.dirs={}\n\
                 offsets.topic.replication.factor=1\n\
                 offsets.topic.num.partitions=4\n\
                 transaction.state.log.replication.factor=1\n\
                 transaction.state.log.min.isr=1\n\
                 group.initial.rebalance.delay.ms=0\n\
                 auto.create.topics.enable=false\n",
                dir.path().join("data").display()
            ),
        )?;
        let java = |class: &str| {
            let mut java = Command::new("java");
            java.arg("-Xmx1g").arg("-cp").arg(libraries).arg(class);
            java
        };
        let format = java("kafka.tools.StorageTool")
            .args(["format", "-t", "cnVhbS10ZXN0cy1rYWZrYQ", "-c"])
            .arg(&properties)
            .output()
            .context("cannot run java")?;
        ensure!(format.status.success(), "cannot format Kafka's storage: {}", String::from_utf8_lossy(&format.stderr));

        let output_path = dir.path().join("kafka.log");
        let mut broker = java("kafka.Kafka");
        broker.arg(&properties);
        let server = Server::start(&broker, "KILL", &output_path)?;
        let kafka = Self { port, running: Mutex::new(Some(Running { server, dir })) };
        let log = log_at(kafka.servers());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        if let Err(error) = runtime.block_on(log.reach(PATIENCE)) {
            let said = fs::read_to_string(&output_path).unwrap_or_default();
            let last: Vec<_> = said.lines().rev().take(30).collect();
            anyhow::bail!("Kafka does not serve: {error}\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        Ok(kafka)
    }

    /// Where it is reached.
    pub fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops it, and waits until it and what it kept are gone.
    pub fn stop(&self) {
        if let Some(Running { server, dir }) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(server);
            let _ = dir.close();
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Two ports that nothing listens at, at this moment.
fn free_ports() -> Result<[u16; 2]> {
    let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}
