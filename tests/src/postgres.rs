//! A real PostgreSQL of its own for a test.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::server::{Server, free_port};

mod release;

pub use release::Release;

/// How long a server on a busy machine may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);
/// Debian's user for it, since it does not run as root.
const USER: &str = "postgres";

/// A server that runs until it is dropped, or this process ends, however it ends.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    programs: PathBuf,
    settings: Vec<String>,
    // Ends before its folder.
    running: Option<Server>,
    dir: TempDir,
}

impl Postgres {
    /// Starts a new server of a release with settings, such as `wal_level=logical`. Everybody on this machine may sign
    /// in.
    ///
    /// # Errors
    /// Where it does not start, with what it said.
    pub fn start(release: Release, settings: &[&str]) -> Result<Self> {
        Self::start_with(release, settings, &[])
    }

    /// The same, with files in its folder that nobody else may read.
    ///
    /// # Errors
    /// Where it does not start, with what it said.
    pub fn start_with(release: Release, settings: &[&str], files: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let programs = release.programs(dir.path())?;
        let port = free_port()?;
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { port, programs, dir, settings, running: None };
        server.give(server.dir.path())?;
        let made = server
            .command("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
            .arg(server.data())
            .output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        for (name, text) in files {
            let path = server.data().join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            server.give(&path)?;
        }
        server.run()?;
        Ok(server)
    }

    /// Stops it at once, as a crash would, and starts it again.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn crash(&mut self) -> Result<()> {
        self.running = None;
        self.run()
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn crash_with(&mut self, settings: &[&str]) -> Result<()> {
        self.settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        self.crash()
    }

    /// The number of its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of its database, for a user.
    pub fn url(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port)
    }

    /// The folder of its own programs.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Executes statements, as the superuser, in one transaction unless they say otherwise; the values of the
    /// rows of all of them, as texts.
    ///
    /// # Errors
    /// Where one fails.
    pub fn run_sql(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        runtime()?.block_on(async {
            let client = self.connect().await?;
            let messages = client.simple_query(sql).await.with_context(|| sql.to_owned())?;
            let row = |message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect())
                }
                _ => None,
            };
            Ok(messages.into_iter().filter_map(row).collect())
        })
    }

    /// A session of the superuser.
    ///
    /// # Errors
    /// Where it cannot be had.
    pub async fn connect(&self) -> Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(USER), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Gives a file or folder to the user that the server runs as.
    fn give(&self, path: &Path) -> Result<()> {
        if is_root() {
            let given = Command::new("chown").arg(USER).arg(path).status()?;
            ensure!(given.success(), "cannot give {} to {USER}", path.display());
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.dir.path()).env("LC_ALL", "C.UTF-8");
        command
    }

    fn run(&mut self) -> Result<()> {
        let mut server = self.command("postgres");
        let port = self.port.to_string();
        server.arg("-D").arg(self.data()).args(["-p", &port, "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", "unix_socket_directories="]);
        for setting in &self.settings {
            server.args(["-c", setting]);
        }
        let server = Server::start(&server, "QUIT", &self.dir.path().join("server.log"))?;
        server.reach(PATIENCE, || self.run_sql("select 1")).context("PostgreSQL")?;
        self.running = Some(server);
        Ok(())
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}
