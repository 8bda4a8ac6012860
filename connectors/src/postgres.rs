//! A table of PostgreSQL, followed by logical replication.
//!
//! What passes through: the rows of a table as they stand, in parts by key (the snapshot), and every change of
//! it (`pgoutput`), as one sequence of events; what is safe in the log is confirmed to the slot, so that the server
//! need not keep it.
//!
//! ```text
//! COPY … ORDER BY key LIMIT n --> file --.  mark: pg_logical_emit_message
//!                                         v
//! slot --> transactions as they commit --> at the mark, the part's rows --> events
//! ```
//!
//! An event's position is where its transaction's commit stands in the server's log (LSN), and its place within
//! that. The rows of a part have the position of the mark that was written behind the moment that they are of. What the
//! stream tells until the mark may be newer than the part, whose row is left out; so both fit together
//! without a lock and without one long transaction, the stream flows all the while, and the server can let go
//! of its log. (The method is that of Andreakis and Papapanagiotou, DBLog, 2019, with the moment's own
//! `pg_current_snapshot` in the place of the first mark.) An update that leaves a large value unchanged needs the
//! row it leaves it in: there, the part's row goes before it; and where it gives the row another key, or the row
//! has not been read yet, the value is asked for.
//!
//! Guaranteed: the same events come again from any position that has not been released, those of the snapshot
//! from the files that [`memory`] keeps. A slot that is gone, that somebody else has moved, or that belongs to
//! another server ends in advice, never in a gap.
//!
//! Assumed: a transaction is visible to new snapshots a moment after the stream has brought it. Between the two
//! may lie the wait for a synchronous standby; a part is not read as long as that goes on for a transaction that
//! this run has seen.

use std::path::PathBuf;

use ruam_event::{DatasetSpec, Position};
use tokio::runtime::Runtime;

use crate::source::{Feed, Source, SourceError};
use crate::{Surroundings, options};

mod chunk;
mod connection;
mod copied;
mod following;
mod layout;
mod memory;
mod pgoutput;
mod reading;
mod session;
mod snapshot;
mod start;
mod table;
mod values;
mod visibility;

pub use connection::Connection;
pub(crate) use connection::missing;

use following::Following;
use session::Session;
use table::Target;

/// The options of the source, in a dataset's file.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The name of the database in `[connections]` of `ruam.toml`.
    connection: String,
    /// The table, with its schema: `public.person`.
    table: String,
    /// The name of the slot and the publication there.
    slot: Option<String>,
    /// Whether the rows that stand there already are read.
    #[serde(default = "yes")]
    snapshot: bool,
}

fn yes() -> bool {
    true
}

/// A table that is followed.
struct Postgres {
    // Ends before the runtime that it lives on.
    following: Option<Following>,
    runtime: Option<Runtime>,
    setup: Setup,
}

/// What a dataset says of its source.
#[derive(Clone, Debug)]
struct Setup {
    spec: DatasetSpec,
    connection: String,
    settings: Option<Connection>,
    target: Target,
    reads_snapshot: bool,
    folder: PathBuf,
}

impl Setup {
    async fn session(&self) -> Result<Session, SourceError> {
        let settings = self.settings.as_ref().ok_or_else(|| missing(&self.connection))?;
        Session::open(settings.server(&self.connection)?, self.target.clone()).await
    }
}

pub(crate) fn open(
    spec: &DatasetSpec,
    with: &toml::Table,
    surroundings: &Surroundings,
) -> Result<Box<dyn Source>, String> {
    let options: Options = options(with)?;
    let (schema, name) = options.table.split_once('.').unwrap_or(("public", &options.table));
    let slot = options.slot.unwrap_or_else(|| format!("ruam_{}_{}", spec.id().agency(), spec.id().name()));
    let is_slot = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    if slot.is_empty() || slot.len() > 63 || !slot.chars().all(is_slot) {
        return Err(format!("`{slot}` cannot name a slot: use up to 63 lower-case letters, digits and underscores"));
    }
    if schema.is_empty() || name.is_empty() {
        return Err(format!("`{}` does not name a table: write schema.table", options.table));
    }
    let setup = Setup {
        spec: spec.clone(),
        settings: surroundings.connections.get(&options.connection).cloned(),
        connection: options.connection,
        target: Target { schema: schema.to_owned(), name: name.to_owned(), slot },
        reads_snapshot: options.snapshot,
        folder: surroundings.state.join(spec.id().to_string()),
    };
    Ok(Box::new(Postgres { following: None, runtime: None, setup }))
}

impl Source for Postgres {
    fn open(&mut self, after: Option<Position>) -> Result<(), SourceError> {
        // Two cannot read one slot, nor write one folder: what was at work has ended when its threads have.
        (self.following, self.runtime) = (None, None);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("ruam-postgres")
            .enable_all()
            .build()
            .map_err(|error| memory::failed(&self.setup.folder, error))?;
        let runtime = self.runtime.insert(runtime);
        self.following = Some(runtime.block_on(Following::begin(&self.setup, after))?);
        Ok(())
    }

    fn next(&mut self, limit: usize) -> Result<Feed, SourceError> {
        match (&mut self.following, &self.runtime) {
            (Some(following), Some(runtime)) => runtime.block_on(following.next(limit)),
            _ => Ok(Feed::Ended),
        }
    }

    fn release(&mut self, through: Position) -> Result<(), SourceError> {
        match &mut self.following {
            Some(following) => following.release(Some(through)),
            None => Ok(()),
        }
    }

    fn retained(&self) -> Result<Option<String>, SourceError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| memory::failed(&self.setup.folder, error))?;
        let kept = runtime.block_on(async { self.setup.session().await?.kept().await })?;
        Ok(kept.map(|kept| kept.to_string()))
    }
}
