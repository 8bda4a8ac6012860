//! A registry of schemas that is out of order as a test wants it: what Confluent's says of an id, or does not. For what
//! is in order, there is [a real one](crate::apicurio).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

/// A registry that runs for as long as this is kept.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// What is answered, by path.
    answers: BTreeMap<String, String>,
    /// What has to stand in a request.
    needed: Option<String>,
    is_silent: bool,
    has_ended: bool,
}

impl Registry {
    /// Starts one without any schema.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, kept) = (listener.local_addr()?, Arc::new(Mutex::new(Kept::default())));
        let all = Arc::clone(&kept);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let mut kept = all.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.has_ended {
                    return;
                }
                // Whoever asks nothing is answered nothing.
                let _ = answer(socket, &mut kept);
            }
        });
        Ok(Self { address, kept })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Keeps a schema; says its id.
    pub fn add(&self, schema: &str) -> u32 {
        self.kept().add(schema)
    }

    /// Has it answer a path otherwise.
    pub fn set(&self, path: &str, answer: &Json) {
        self.kept().answers.insert(path.to_owned(), answer.to_string());
    }

    /// Whether it is to say that something is wrong with itself, whatever it is asked.
    pub fn be_silent(&self, is_silent: bool) {
        self.kept().is_silent = is_silent;
    }

    /// Has it refuse whoever does not send a header.
    pub fn need(&self, header: &str) {
        self.kept().needed = Some(header.to_owned());
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kept().has_ended = true;
        // It looks whether it has ended when somebody comes.
        let _ = TcpStream::connect(self.address);
    }
}

impl Kept {
    fn add(&mut self, schema: &str) -> u32 {
        let answer = json!({ "schema": schema }).to_string();
        let known = self.answers.iter().find(|(_, known)| **known == answer);
        if let Some(id) = known.and_then(|(path, _)| path.rsplit('/').next()?.parse().ok()) {
            return id;
        }
        let id = self.answers.len() as u32 + 1;
        self.answers.insert(format!("/schemas/ids/{id}"), answer);
        id
    }
}

fn answer(socket: TcpStream, kept: &mut Kept) -> Result<()> {
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    loop {
        let start = head.len();
        reader.read_line(&mut head)?;
        if head[start..].trim_end().is_empty() {
            break;
        }
    }
    let path = head.split_whitespace().nth(1).context("a path")?;
    let is_let_in = kept.needed.as_ref().is_none_or(|header| head.lines().any(|line| line == header));
    let (status, text) = if kept.is_silent {
        (503, String::new())
    } else if !is_let_in {
        (401, json!({ "error_code": 40101, "message": "Unauthorized" }).to_string())
    } else if let Some(text) = kept.answers.get(path) {
        (200, text.clone())
    } else {
        (404, json!({ "error_code": 40403, "message": "Schema not found" }).to_string())
    };
    let length = text.len();
    write!(
        reader.get_mut(),
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
    )?;
    Ok(())
}
