//! Rows that a client fetches from a cursor.
//!
//! What passes through: `FETCH`, into the next rows of a cursor. Guaranteed: they are taken from it as they are sent.
//! The hook of datafusion-postgres, which declares and closes cursors, gathers them first, and makes room for as
//! many as a client names, even if that is more than any machine has.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{FetchDirection, Statement, Value};
use datafusion_postgres::Parser;
use datafusion_postgres::hooks::{HookClient, QueryHook};
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::portal::{Portal, PortalExecutionState};
use datafusion_postgres::pgwire::api::results::{QueryResponse, Response};
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::store::{Entry, PortalStore};
use datafusion_postgres::pgwire::error::PgWireResult;
use futures::stream;

use super::portal::State;

/// Answers `FETCH`. Where it cannot be answered, the hook after it says why.
#[derive(Debug)]
pub(super) struct Fetch;

impl Fetch {
    fn answer(statement: &Statement, client: &mut dyn HookClient) -> Option<PgWireResult<Response>> {
        let Statement::Fetch { name, direction, .. } = statement else { return None };
        let most = match direction {
            FetchDirection::Next | FetchDirection::Forward { limit: None } => 1,
            FetchDirection::Forward { limit: Some(limit) } | FetchDirection::Count { limit } => match &limit.value {
                Value::Number(number, _) => number.parse().ok()?,
                _ => return None,
            },
            FetchDirection::ForwardAll | FetchDirection::All => usize::MAX,
            _ => return None,
        };
        let Some(Entry::Value(cursor)) = client.portal_store().get_portal(&name.value) else { return None };
        taken(&cursor, most).transpose().map(|rows| rows.map(Response::Query))
    }
}

/// The next rows of a cursor, which stays where the last of them was that was taken. None where it has not begun.
///
/// # Errors
/// Where rows of it are being fetched already.
fn taken(cursor: &Portal<<Parser as QueryParser>::Statement>, most: usize) -> PgWireResult<Option<QueryResponse>> {
    let state = State::of(cursor)?;
    let columns = match &*state.0 {
        PortalExecutionState::Initial => return Ok(None),
        PortalExecutionState::Suspended(rows) => rows.row_schema(),
        PortalExecutionState::Finished => Arc::default(),
    };
    let rows = stream::unfold((state, most), async |(mut state, left)| {
        let left = left.checked_sub(1)?;
        let row = state.next_row().await?;
        Some((row, (state, left)))
    });
    Ok(Some(QueryResponse::new(columns, rows)))
}

#[async_trait]
impl QueryHook for Fetch {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        Self::answer(statement, client)
    }

    async fn handle_extended_parse_query(
        &self,
        _: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        None
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        Self::answer(statement, client)
    }
}
