//! Savepoints, which drivers set where nobody asked for one.
//!
//! Nothing is written here, so that there is nothing to go back to; what counts is that a transaction in which
//! something failed goes on after `ROLLBACK TO`.

use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::hooks::{HookClient, QueryHook};
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::error::PgWireResult;
use datafusion_postgres::pgwire::messages::response::TransactionStatus;

use super::{nothing, refused};

const NO_ACTIVE_SQL_TRANSACTION: &str = "25P01";

/// Answers statements about savepoints, before the hook that answers those about transactions.
#[derive(Debug)]
pub(super) struct Savepoints;

fn tag(statement: &Statement) -> Option<&'static str> {
    match statement {
        Statement::Savepoint { .. } => Some("SAVEPOINT"),
        Statement::ReleaseSavepoint { .. } => Some("RELEASE"),
        Statement::Rollback { savepoint: Some(_), .. } => Some("ROLLBACK"),
        _ => None,
    }
}

/// Whether a statement goes back to where nothing had failed yet. pgwire takes down how a transaction stands
/// before it hands a statement over, so that this is to be seen to before.
pub(super) fn is_way_back(statement: &Statement) -> bool {
    matches!(statement, Statement::Rollback { savepoint: Some(_), .. })
}

fn answer(statement: &Statement, status: TransactionStatus) -> Option<PgWireResult<Response>> {
    let tag = tag(statement)?;
    match status {
        TransactionStatus::Idle => {
            let message = format!("{tag} can only be used in a transaction block. Write BEGIN first");
            Some(Err(refused(NO_ACTIVE_SQL_TRANSACTION, message)))
        }
        TransactionStatus::Transaction => Some(Ok(Response::Execution(Tag::new(tag)))),
        // As all else in a transaction that has failed.
        TransactionStatus::Error => None,
    }
}

#[async_trait]
impl QueryHook for Savepoints {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        answer(statement, client.transaction_status())
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        tag(statement).map(|_| Ok(nothing()))
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        answer(statement, client.transaction_status())
    }
}
