//! A portal: a prepared statement with its values, which the extended protocol carries out in one go or by so
//! many rows at a time.
//!
//! What passes through: the rows of an answer, one after the other as they come, to the client.
//!
//! Guaranteed: the rows of an answer are never all in memory, however many they are and however many are asked
//! for. pgwire's own way gathers them before it sends the first.

use std::fmt::Debug;

use datafusion_postgres::pgwire::api::copy::send_copy_out_response;
use datafusion_postgres::pgwire::api::portal::{Portal, PortalExecutionState};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, send_execution_response};
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::extendedquery::PortalSuspended;
use datafusion_postgres::pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use futures::{Sink, SinkExt, StreamExt};

use super::refused;

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
    let is_new = matches!(*portal.state().lock().await, PortalExecutionState::Initial);
    if is_new {
        match queries.do_query(client, portal, max_rows).await? {
            Response::Query(rows) => {
                portal.start(rows).await;
                send_rows(client, portal, max_rows).await?;
            }
            other => status = send_other(client, other, status).await?,
        }
    } else {
        send_rows(client, portal, max_rows).await?;
    }
    client.set_state(PgWireConnectionState::ReadyForQuery);
    client.set_transaction_status(status);
    Ok(())
}

/// Sends the next rows of an answer.
async fn send_rows<S, C>(client: &mut C, portal: &Portal<S>, max_rows: usize) -> PgWireResult<()>
where
    S: Clone,
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let state = portal.state();
    let mut state = state.lock().await;
    let mut sent = 0;
    let mut tag = "SELECT".to_owned();
    if let PortalExecutionState::Suspended(answer) = &mut *state {
        answer.command_tag().clone_into(&mut tag);
        while max_rows == 0 || sent < max_rows {
            let Some(row) = answer.data_rows().next().await else { break };
            client.feed(PgWireBackendMessage::DataRow(row?)).await?;
            sent += 1;
        }
        if max_rows > 0 && sent == max_rows {
            return Ok(client.feed(PgWireBackendMessage::PortalSuspended(PortalSuspended::new())).await?);
        }
        *state = PortalExecutionState::Finished;
    }
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
        Response::CopyOut(rows) => send_copy_out_response(client, rows).await?,
        _ => return Err(refused("0A000", "rows come in as change events; nothing is copied in here")),
    }
    Ok(status)
}
