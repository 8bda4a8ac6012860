//! The next part of the snapshot, read while the one before is told.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::chunk::Chunk;
use super::layout::Wanted;
use super::memory::{Memory, SnapshotProgress};
use super::session::Session;
use super::table::Table;
use crate::source::SourceError;

/// What is to be read.
pub(super) struct Reading {
    pub(super) session: Arc<Session>,
    pub(super) memory: Memory,
    pub(super) table: Table,
    pub(super) wanted: Wanted,
    /// What it goes on from, and how many rows there are to be.
    pub(super) from: SnapshotProgress,
    pub(super) limit: u64,
    /// How far the stream has been read, and the transactions that it has brought: the rows are not older.
    pub(super) opened_at: u64,
    pub(super) seen: Vec<u32>,
    /// What marks the place in the stream behind which they belong: never the mark of another reading.
    pub(super) mark: String,
}

/// A part that is being read.
pub(super) type BeingRead = AbortOnDropHandle<Result<Chunk, SourceError>>;

impl Reading {
    /// Begins.
    pub(super) fn begin(self) -> BeingRead {
        AbortOnDropHandle::new(tokio::spawn(self.run()))
    }

    /// Reads the rows as they stand at a moment, and marks the place behind that in the stream.
    async fn run(self) -> Result<Chunk, SourceError> {
        self.session.begin(&self.seen).await?;
        let ((), chunk) = tokio::try_join!(self.session.mark(&self.mark), self.read())?;
        Ok(chunk)
    }

    async fn read(&self) -> Result<Chunk, SourceError> {
        let rows = self.session.copy(&self.table, self.from.after.as_deref(), self.limit).await?;
        let chunk = Chunk::read(self, rows).await?;
        self.session.end().await?;
        Ok(chunk)
    }
}
