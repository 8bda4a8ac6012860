//! A portal: a prepared statement with its values, which the extended protocol carries out in one go or by so
//! many rows at a time.
//!
//! What passes through: the rows of an answer, one after the other as they come, to the client.
//!
//! Guaranteed: the rows of an answer are never all in memory, however many they are and however many are asked
//! for. pgwire's own way gathers them before it sends the first.

use std::fmt::Debug;

use datafusion_postgres::pgwire::api::portal::{Portal, PortalExecutionState};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, send_execution_response};
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::data::DataRow;
use datafusion_postgres::pgwire::messages::extendedquery::PortalSuspended;
use datafusion_postgres::pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use futures::{Sink, SinkExt, StreamExt};
use tokio::sync::OwnedMutexGuard;

use super::refused;

const OBJECT_IN_USE: &str = "55006";

/// How far a portal has come.
pub(super) struct State(pub(super) OwnedMutexGuard<PortalExecutionState>);

impl State {
    /// That of a portal.
    ///
    /// # Errors
    /// Where a `FETCH` that has not given all its rows holds it: to wait for that would be for ever, since both are
    /// one client's.
    pub(super) fn of<S: Clone>(portal: &Portal<S>) -> PgWireResult<Self> {
        let in_use =
            |_| refused(OBJECT_IN_USE, "rows of this cursor are being fetched. Take them, or close the portal");
        portal.state().try_lock_owned().map(Self).map_err(in_use)
    }

    /// The next row of an answer that has begun.
    pub(super) async fn next_row(&mut self) -> Option<PgWireResult<DataRow>> {
        match &mut *self.0 {
            PortalExecutionState::Suspended(answer) => answer.data_rows().next().await,
            _ => None,
        }
    }
}

/// Begins a portal or carries it on, by so many rows; by all where that is 0.
///
/// # Errors
/// Where there is no answer, or it comes to a bad end.
pub(super) async fn execute<H, C>(
    queries: &H,
    client: &mut C,
    portal: &Portal<H::Statement>,
    max_rows: usize,
) -> PgWireResult<()>
where
    H: ExtendedQueryHandler,
    C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::PortalStore: PortalStore<Statement = H::Statement>,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
        return Err(PgWireError::NotReadyForQuery);
    }
    client.set_state(PgWireConnectionState::QueryInProgress);
    let mut status = client.transaction_status();
    let mut state = State::of(portal)?;
    let other = match &*state.0 {
        PortalExecutionState::Initial => match queries.do_query(client, portal, max_rows).await? {
            Response::Query(rows) => {
                *state.0 = PortalExecutionState::Suspended(rows);
                None
            }
            other => Some(other),
        },
        _ => None,
    };
    match other {
        Some(other) => status = send_other(client, other, status).await?,
        None => send_rows(client, state, max_rows).await?,
    }
    client.set_state(PgWireConnectionState::ReadyForQuery);
    client.set_transaction_status(status);
    Ok(())
}

/// Sends the next rows of an answer.
async fn send_rows<C>(client: &mut C, mut state: State, max_rows: usize) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let tag = match &*state.0 {
        PortalExecutionState::Suspended(answer) => answer.command_tag().to_owned(),
        _ => "SELECT".to_owned(),
    };
    // None is how the protocol says all.
    let most = if max_rows == 0 { usize::MAX } else { max_rows };
    let mut sent = 0;
    while sent < most {
        let Some(row) = state.next_row().await else { break };
        client.feed(PgWireBackendMessage::DataRow(row?)).await?;
        sent += 1;
    }
    if sent == most {
        return Ok(client.feed(PgWireBackendMessage::PortalSuspended(PortalSuspended::new())).await?);
    }
    *state.0 = PortalExecutionState::Finished;
    let complete = Tag::new(&tag).with_rows(sent);
    Ok(client.feed(PgWireBackendMessage::CommandComplete(complete.into())).await?)
}

/// Sends an answer without rows; gives what becomes of the transaction.
async fn send_other<C>(client: &mut C, answer: Response, status: TransactionStatus) -> PgWireResult<TransactionStatus>
where
    C: ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send,
    C::PortalStore: PortalStore,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    match answer {
        Response::EmptyQuery => {
            client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?
        }
        Response::Execution(tag) => send_execution_response(client, tag).await?,
        Response::TransactionStart(tag) => {
            send_execution_response(client, tag).await?;
            return Ok(status.to_in_transaction_state());
        }
        Response::TransactionEnd(tag) => {
            send_execution_response(client, tag).await?;
            client.portal_store().rm_portal(DEFAULT_NAME);
            return Ok(status.to_idle_state());
        }
        Response::Error(error) => {
            client.feed(PgWireBackendMessage::ErrorResponse((*error).into())).await?;
            return Ok(status.to_error_state());
        }
        _ => return Err(refused("0A000", "rows come in as change events; nothing is copied in here")),
    }
    Ok(status)
}
