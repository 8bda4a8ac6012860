//! `SET`, `RESET` and `DISCARD` of what is the engine's and not a client's.
//!
//! All clients share one engine: what one of them sets there would hold for all. A client's zone is its own: it
//! is told back to the client, which shows moments in it, while they are sent with the zone that they are kept
//! in. How the engine works is for the server's settings to say.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use async_trait::async_trait;
use datafusion::common::{DFSchema, ParamValues};
use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Reset, Set, Statement};
use datafusion_postgres::hooks::{HookClient, QueryHook};
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::startup::ParameterStatus;

const INSUFFICIENT_PRIVILEGE: &str = "42501";
const INVALID_PARAMETER_VALUE: &str = "22023";
/// Where datafusion-postgres keeps a client's zone.
const ZONE: &str = "timezone";
/// What it is where a client has not said.
const DEFAULT_ZONE: &str = "UTC";

/// Answers such statements, before the hook that answers all others about settings.
#[derive(Debug)]
pub(super) struct Settings;

/// What such a statement asks for.
enum Asked {
    Zone(String),
    DefaultZone(&'static str),
    Nothing(&'static str),
    Engine(String),
}

impl Asked {
    /// None where the statement is of another kind.
    fn of(statement: &Statement) -> Option<Self> {
        match statement {
            Statement::Set(Set::SingleAssignment { variable, values, .. }) => match (name(variable), &values[..]) {
                (name, [value]) if is_zone(&name) => Some(Self::zone(value)),
                (name, _) => is_engine(&name).then_some(Self::Engine(name)),
            },
            Statement::Set(Set::SetTimeZone { value, .. }) => Some(Self::zone(value)),
            Statement::Set(Set::ParenthesizedAssignments { variables, .. }) => {
                variables.iter().map(name).find(|name| is_engine(name)).map(Self::Engine)
            }
            Statement::Set(Set::MultipleAssignments { assignments }) => {
                assignments.iter().map(|one| name(&one.name)).find(|name| is_engine(name)).map(Self::Engine)
            }
            Statement::Reset(reset) => Some(match &reset.reset {
                Reset::ALL => Self::DefaultZone("RESET"),
                Reset::ConfigurationParameter(variable) => match name(variable) {
                    name if is_zone(&name) => Self::DefaultZone("RESET"),
                    name if is_engine(&name) => Self::Engine(name),
                    _ => Self::Nothing("RESET"),
                },
            }),
            Statement::Discard { .. } => Some(Self::DefaultZone("DISCARD ALL")),
            _ => None,
        }
    }
}

impl Asked {
    fn zone(value: &Expr) -> Self {
        let text = match value {
            Expr::Value(value) => value.value.clone().into_string().unwrap_or_default(),
            other => other.to_string().trim_matches('"').to_owned(),
        };
        match text.to_lowercase().as_str() {
            "default" | "local" => Self::DefaultZone("SET"),
            _ => Self::Zone(text),
        }
    }
}

fn name(variable: &ObjectName) -> String {
    let parts = variable.0.iter().filter_map(|part| part.as_ident());
    parts.map(|part| part.value.to_lowercase()).collect::<Vec<_>>().join(".")
}

fn is_zone(name: &str) -> bool {
    ["timezone", "time.zone", "datafusion.execution.time_zone"].contains(&name)
}

fn is_engine(name: &str) -> bool {
    is_zone(name) || name.starts_with("datafusion.")
}

fn refused(code: &str, message: String) -> PgWireResult<Response> {
    Err(PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), code.to_owned(), message))))
}

async fn answer(statement: &Statement, client: &mut dyn HookClient) -> Option<PgWireResult<Response>> {
    let (zone, tag) = match Asked::of(statement)? {
        Asked::Zone(zone) => (zone, "SET"),
        Asked::DefaultZone(tag) => (DEFAULT_ZONE.to_owned(), tag),
        Asked::Nothing(tag) => return Some(Ok(Response::Execution(Tag::new(tag)))),
        Asked::Engine(name) => {
            let message = format!("{name} is a setting of the engine, which all clients share: it cannot be set here");
            return Some(refused(INSUFFICIENT_PRIVILEGE, message));
        }
    };
    if zone.parse::<Tz>().is_err() {
        let message = format!("`{zone}` is not a time zone. Write one such as Asia/Bangkok or +07:00");
        return Some(refused(INVALID_PARAMETER_VALUE, message));
    }
    client.metadata_mut().insert(ZONE.to_owned(), zone.clone());
    let told = PgWireBackendMessage::ParameterStatus(ParameterStatus::new("TimeZone".to_owned(), zone));
    Some(client.send_message(told).await.map(|()| Response::Execution(Tag::new(tag))))
}

#[async_trait]
impl QueryHook for Settings {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        answer(statement, client).await
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        let nothing = EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) };
        Asked::of(statement).map(|_| Ok(LogicalPlan::EmptyRelation(nothing)))
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        answer(statement, client).await
    }
}
