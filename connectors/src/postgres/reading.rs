//! The next part of the snapshot, read while the one before is told.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::chunk::{Chunk, Plan, ReadError};
use super::layout::Wanted;
use super::memory::Memory;
use super::session::Session;
use super::table::Table;
use crate::source::SourceError;

/// What is to be read.
pub(super) struct Reading {
    pub(super) session: Arc<Session>,
    pub(super) memory: Memory,
    pub(super) table: Table,
    pub(super) wanted: Wanted,
    pub(super) number: u64,
    /// How far the stream has been read, and the transactions that it has brought: the rows are not older.
    pub(super) opened_at: u64,
    pub(super) seen: Vec<u32>,
    pub(super) truncates: bool,
    /// The key that the rows follow, and how many there are to be.
    pub(super) after: Option<Vec<String>>,
    pub(super) limit: u64,
    /// What marks the place in the stream behind which they belong.
    pub(super) mark: String,
}

/// A part that is being read.
pub(super) type BeingRead = AbortOnDropHandle<Result<Chunk, SourceError>>;

impl Reading {
    /// Begins.
    pub(super) fn begin(self) -> BeingRead {
        AbortOnDropHandle::new(tokio::spawn(self.run()))
    }

    /// Reads the rows, and marks the place behind them in the stream.
    async fn run(self) -> Result<Chunk, SourceError> {
        self.session.begin(&self.seen).await?;
        let rows = self.session.copy(&self.table, self.after.as_deref(), self.limit).await?;
        let plan = Plan {
            number: self.number,
            opened_at: self.opened_at,
            truncates: self.truncates,
            columns: self.table.columns.iter().map(|column| (column.name.clone(), column.kind)).collect(),
            key: &self.table.key,
            wanted: &self.wanted,
            limit: self.limit,
        };
        let chunk = Chunk::read(&self.memory, plan, rows).await.map_err(|error| match error {
            ReadError::Server(error) => self.session.failed(&error),
            ReadError::Source(error) => error,
        })?;
        self.session.end().await?;
        self.session.mark(&self.mark).await?;
        Ok(chunk)
    }
}
