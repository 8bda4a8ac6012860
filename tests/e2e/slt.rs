//! All of the language, by the sqllogictest files in `tests/slt`, in each way in which it can be asked.
//!
//! A way in is a function that opens a connection, and a connection one that answers a statement with rows of
//! text: what is here for two of them is there for a third by one more line in [`WAYS`]. All have to give the
//! answers that the files have, and so the same.

mod lake;
mod ways;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ruam_tests::installation::files_in;
use sqllogictest::{DB, DBOutput, DefaultColumnType, Runner};

use lake::Asked;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/slt");

/// Rows of values, none for NULL; or what is wrong.
type Answer = Result<Vec<Vec<Option<String>>>, Wrong>;
/// A connection.
type Ask = Box<dyn FnMut(&str) -> Answer + Send>;
/// Opens a connection to what is asked.
type Way = fn(&Asked) -> Result<Ask>;

/// The ways in.
const WAYS: [(&str, Way); 4] = [
    ("in process", ways::in_process),
    ("by PostgreSQL's simple protocol", ways::simple),
    ("by PostgreSQL's extended protocol", ways::extended),
    ("by Arrow Flight SQL", ways::flight),
];

/// What is wrong with a statement, as whoever asked is told.
#[derive(Debug)]
struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

struct Connection(Ask);

impl DB for Connection {
    type Error = Wrong;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Wrong> {
        let text = |value: Option<String>| match value {
            None => "NULL".to_owned(),
            Some(text) if text.is_empty() => "(empty)".to_owned(),
            Some(text) => text,
        };
        let answer = (self.0)(sql)?;
        let rows: Vec<Vec<_>> = answer.into_iter().map(|row| row.into_iter().map(text).collect()).collect();
        let types = vec![DefaultColumnType::Any; rows.first().map_or(0, Vec::len)];
        Ok(DBOutput::Rows { types, rows })
    }
}

pub fn each_way_in_gives_the_answers_of_the_files() -> Result<()> {
    let asked = lake::build()?;
    let files = files_in(Path::new(FILES))?;
    ensure!(!files.is_empty(), "there are no files in {FILES}");
    let mut wrong = Vec::new();
    for (way, open) in WAYS {
        for file in &files {
            let connect =
                || std::future::ready(open(&asked).map(Connection).map_err(|error| Wrong(format!("{error:#}"))));
            if let Err(error) = Runner::new(connect).run_file(file) {
                wrong.push(format!("{way}, {}: {}", name(file)?, error.display(false)));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    asked.stop()
}

fn name(file: &Path) -> Result<String> {
    Ok(file.file_name().context("a file")?.to_string_lossy().into_owned())
}
