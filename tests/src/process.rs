//! A program that runs, what it is told, and what it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(20);

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    said: String,
}

impl Process {
    /// Starts a program; what it writes to either stream is kept.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(command: Command) -> Result<Self> {
        Self::start_with(command, Stdio::null())
    }

    /// Starts a program that is to be told lines.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_to_tell(command: Command) -> Result<Self> {
        Self::start_with(command, Stdio::piped())
    }

    fn start_with(mut command: Command, stdin: Stdio) -> Result<Self> {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let (out, lines) = channel();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            read_lines(stdout, out.clone());
            read_lines(stderr, out);
        }
        Ok(Self { child, lines, said: String::new() })
    }

    /// The process' number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it a line.
    ///
    /// # Errors
    /// Where it does not listen, or not any more.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("it is told nothing")?;
        if let Err(error) = writeln!(stdin, "{line}") {
            self.run_for(Duration::from_secs(5));
            bail!("cannot be told `{line}`: {error}\n{}", self.said);
        }
        Ok(())
    }

    /// Waits for a line that holds a text.
    ///
    /// # Errors
    /// Where the program ends before, or does not say it in time; with what it said instead.
    pub fn wait_for(&mut self, text: &str, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.note(&line);
                    if line.contains(text) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("did not say `{text}` within {patience:?}:\n{}", self.said),
                Err(RecvTimeoutError::Disconnected) => bail!("ended without saying `{text}`:\n{}", self.said),
            }
        }
    }

    /// Lets the program run for a while; says whether it still runs then.
    pub fn run_for(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.note(&line),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Lets the program run until something is seen to have happened.
    ///
    /// # Errors
    /// Where the program ends before, or it does not happen in time; with what it said.
    pub fn run_until(&mut self, happened: impl Fn() -> Result<bool>, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !happened()? {
            if !self.run_for(LOOK) {
                bail!("ended before what was waited for:\n{}", self.said);
            }
            if Instant::now() > deadline {
                bail!("what was waited for did not happen within {patience:?}:\n{}", self.said);
            }
        }
        Ok(())
    }

    /// What it has said so far.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Waits until the program has ended by itself.
    ///
    /// # Errors
    /// Where it does not in time.
    pub fn wait(mut self, patience: Duration) -> Result<(ExitStatus, String)> {
        if self.run_for(patience) {
            bail!("still runs after {patience:?}:\n{}", self.said);
        }
        Ok((self.child.wait()?, std::mem::take(&mut self.said)))
    }

    /// Asks the program to stop, as Ctrl-C does, and waits until it has.
    ///
    /// # Errors
    /// Where it does not in time.
    pub fn interrupt(self, patience: Duration) -> Result<(ExitStatus, String)> {
        let killed = Command::new("kill").args(["-INT", &self.id().to_string()]).status()?;
        anyhow::ensure!(killed.success(), "cannot send a signal to process {}", self.id());
        self.wait(patience)
    }

    /// Ends the program at once, with no chance to tidy up (SIGKILL).
    ///
    /// # Errors
    /// Where it cannot be.
    pub fn kill(mut self) -> Result<String> {
        self.child.kill()?;
        self.child.wait()?;
        while let Ok(line) = self.lines.recv() {
            self.note(&line);
        }
        Ok(std::mem::take(&mut self.said))
    }

    fn note(&mut self, line: &str) {
        self.said.push_str(line);
        self.said.push('\n');
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stream: impl Read + Send + 'static, out: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if out.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
}
