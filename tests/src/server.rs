//! A server of another make, beside Ruam.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often is looked whether it serves.
const LOOK: Duration = Duration::from_millis(50);
/// How many of its last lines tell why it does not.
const LAST_LINES: usize = 40;

/// A port that nothing listens at, at this moment.
///
/// # Errors
/// Where there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A server that runs until this is dropped or this process ends, however it ends.
#[derive(Debug)]
pub struct Server {
    shell: Child,
    said: PathBuf,
}

impl Server {
    /// Starts a program, which a signal (`TERM`) stops; what it says is added to a file.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(program: &Command, signal: &str, said: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(said)?;
        let mut shell = Command::new("sh");
        // The shell ends the server when its own input ends, which it does when this process ends.
        shell.args([
            "-c",
            "\"$@\" < /dev/null & pid=$!; cat > /dev/null; kill -s \"$0\" $pid; wait $pid 2> /dev/null",
            signal,
        ]);
        shell.arg(program.get_program()).args(program.get_args());
        shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = program.get_current_dir() {
            shell.current_dir(folder);
        }
        let shell = shell.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output).spawn();
        Ok(Self { shell: shell.context("cannot run sh")?, said: said.to_owned() })
    }

    /// Waits until what is tried at it succeeds.
    ///
    /// # Errors
    /// Where it does not in time, with what the server has said last.
    pub fn reach<T>(&self, patience: Duration, reach: impl Fn() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        loop {
            match reach() {
                Ok(reached) => return Ok(reached),
                Err(error) if begun.elapsed() > patience => {
                    let said = fs::read_to_string(&self.said).unwrap_or_default();
                    let lines: Vec<_> = said.lines().collect();
                    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
                    bail!("it does not serve: {error:#}\n{last}");
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
