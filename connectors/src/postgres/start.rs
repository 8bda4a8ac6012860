//! How following a table begins: what is remembered, what the log has, and what the server has must belong together.

use pgwire_replication::{Lsn, ReplicationClient};
use ruam_event::{Mode, Position};

use super::Setup;
use super::connection::Server;
use super::memory::{Memory, Progress, SnapshotProgress};
use super::session::Session;
use super::table::{Slot, Table};
use crate::source::SourceError;

/// What a table is followed with.
pub(super) struct Start {
    pub(super) session: Session,
    pub(super) stream: ReplicationClient,
    /// From where on the stream comes.
    pub(super) confirmed: u64,
    pub(super) table: Table,
    pub(super) memory: Memory,
    pub(super) progress: Progress,
}

impl Start {
    /// Connects, and begins to receive what follows a position.
    ///
    /// # Errors
    /// Where the server cannot be reached, is not in order, or is not the one that was read before.
    pub(super) async fn after(setup: &Setup, after: Option<Position>) -> Result<Self, SourceError> {
        let session = setup.session().await?;
        let (server, table) = (&session.server, session.examine(&setup.spec).await?);
        let memory = Memory::open(setup.folder.clone())?;
        let mut remembered = memory.progress()?;
        if after.is_none() && remembered.as_ref().is_some_and(|progress| progress.released > 0) {
            // The log has lost what it held: the table is read again.
            tracing::warn!(dataset = %setup.spec.id(), "the log holds nothing of the table that was read before; reading it again");
            memory.clear()?;
            remembered = None;
        }
        let slot = session.slot(remembered.is_none(), &memory.start_over()).await?;
        let (stream, system) = server.stream(&setup.target.slot).await?;
        let progress = match remembered {
            Some(progress) => check(server, setup, progress, &system, &table, &slot, &memory)?,
            None => {
                if after.is_some_and(|after| slot.is_new && after.major > slot.confirmed) {
                    return Err(server.refused(
                        "what is in the log has come from another server, whose log was further",
                        format!(
                            "Name that server in its connection, or give the dataset another topic in {}",
                            setup.spec.path()
                        ),
                    ));
                }
                memory.clear()?;
                let snapshot =
                    SnapshotProgress::new(after.is_some() && setup.spec.mode == Mode::Upsert, !setup.reads_snapshot);
                let progress = Progress { system, table: table.oid, released: 0, snapshot };
                memory.keep(&progress)?;
                progress
            }
        };
        Ok(Self { session, stream, confirmed: slot.confirmed, table, memory, progress })
    }
}

/// Whether what is remembered is of this server, this table and this slot.
fn check(
    server: &Server,
    setup: &Setup,
    progress: Progress,
    system: &str,
    table: &Table,
    slot: &Slot,
    memory: &Memory,
) -> Result<Progress, SourceError> {
    if progress.system != system {
        return Err(server.refused(
            format!(
                "it is another server (its identifier is {system}) than the one that was read ({})",
                progress.system
            ),
            format!("Name the right one in its connection; or, to read this one, {}", memory.start_over()),
        ));
    }
    is_same(server, setup, table, &progress, memory)?;
    if progress.released > 0 && slot.confirmed > progress.released {
        return Err(server.refused(
            format!(
                "somebody else has read the slot {}: it stands at {}, and ruam has read it up to {}; the changes between are missing",
                setup.target.slot,
                Lsn::from_u64(slot.confirmed),
                Lsn::from_u64(progress.released)
            ),
            format!("Have nobody else use it; to read the whole table again, {}", memory.start_over()),
        ));
    }
    Ok(progress)
}

/// Whether a table is the one that was read.
///
/// # Errors
/// Where it is another, with what to do.
pub(super) fn is_same(
    server: &Server,
    setup: &Setup,
    table: &Table,
    progress: &Progress,
    memory: &Memory,
) -> Result<(), SourceError> {
    if progress.table == table.oid {
        return Ok(());
    }
    Err(server.refused(
        format!("{} is not the table that was read, but another of its name", setup.target.quoted()),
        format!("To read the new one, {}", memory.start_over()),
    ))
}
