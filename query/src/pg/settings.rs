//! `SET`, `RESET` and `DISCARD` of what datafusion-postgres would leave to the engine, and a session's purpose.
//!
//! All clients share one engine's memory and threads. A client's zone is its own: it
//! is told back to the client, which shows moments in it, while they are sent with the zone that they are kept
//! in. How the engine works is for the server's settings to say.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::timezone::Tz;
use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{DiscardObject, Expr, ObjectName, Reset, Set, Statement};
use datafusion_postgres::hooks::{HookClient, QueryHook};
use datafusion_postgres::pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::{ClientInfo, Type};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::startup::ParameterStatus;

use super::{nothing, refused};
use crate::session::{PURPOSE, Session};

const INSUFFICIENT_PRIVILEGE: &str = "42501";
const INVALID_PARAMETER_VALUE: &str = "22023";
/// Where datafusion-postgres keeps a client's zone.
const ZONE: &str = "timezone";
/// What it is where a client has not said.
const DEFAULT_ZONE: &str = "UTC";

/// Answers such statements, before the hook that answers all others about settings.
pub(super) struct Settings {
    session: Session,
}

/// What such a statement asks for.
enum Asked {
    Zone(String),
    Purpose(Option<String>),
    ShowPurpose,
    /// Everything as it was at the beginning.
    Defaults(&'static str),
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
                (name, [value]) if name == PURPOSE => Some(Self::purpose(value)),
                (name, _) => is_engine(&name).then_some(Self::Engine(name)),
            },
            Statement::Set(Set::SetTimeZone { value, .. }) => Some(Self::zone(value)),
            Statement::Set(Set::ParenthesizedAssignments { variables, .. }) => {
                variables.iter().map(name).find(|name| is_engine(name)).map(Self::Engine)
            }
            Statement::Set(Set::MultipleAssignments { assignments }) => {
                assignments.iter().map(|one| name(&one.name)).find(|name| is_engine(name)).map(Self::Engine)
            }
            Statement::ShowVariable { variable } => {
                let parts: Vec<_> = variable.iter().map(|part| part.value.to_lowercase()).collect();
                (parts.join(".") == PURPOSE).then_some(Self::ShowPurpose)
            }
            Statement::Reset(reset) => Some(match &reset.reset {
                Reset::ALL => Self::Defaults("RESET"),
                Reset::ConfigurationParameter(variable) => match name(variable) {
                    name if is_zone(&name) => Self::DefaultZone("RESET"),
                    name if name == PURPOSE => Self::Purpose(None),
                    name if is_engine(&name) => Self::Engine(name),
                    _ => Self::Nothing("RESET"),
                },
            }),
            Statement::Discard { object_type } => Some(match object_type {
                DiscardObject::ALL => Self::Defaults("DISCARD ALL"),
                DiscardObject::PLANS => Self::Nothing("DISCARD PLANS"),
                DiscardObject::SEQUENCES => Self::Nothing("DISCARD SEQUENCES"),
                DiscardObject::TEMP => Self::Nothing("DISCARD TEMP"),
            }),
            _ => None,
        }
    }

    fn zone(value: &Expr) -> Self {
        let text = text(value);
        match text.to_lowercase().as_str() {
            "default" | "local" => Self::DefaultZone("SET"),
            _ => Self::Zone(text),
        }
    }

    fn purpose(value: &Expr) -> Self {
        let text = text(value);
        Self::Purpose(Some(text).filter(|text| !text.is_empty() && !text.eq_ignore_ascii_case("default")))
    }
}

/// The time that a statement allows those after it; none where it is another statement.
fn timeout(statement: &Statement) -> Option<Option<Duration>> {
    match statement {
        Statement::Set(Set::SingleAssignment { variable, values, .. }) if name(variable) == "statement_timeout" => {
            let text = text(values.first()?).to_lowercase();
            let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let number: u64 = text[..digits].parse().ok()?;
            let milliseconds = match text[digits..].trim() {
                "" | "ms" => number,
                "s" => number.saturating_mul(1000),
                "min" => number.saturating_mul(60_000),
                _ => return None,
            };
            Some((milliseconds > 0).then(|| Duration::from_millis(milliseconds)))
        }
        _ => None,
    }
}

fn text(value: &Expr) -> String {
    match value {
        Expr::Value(value) => value.value.clone().into_string().unwrap_or_default(),
        other => other.to_string().trim_matches('"').to_owned(),
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

impl Settings {
    pub(super) fn new(session: Session) -> Self {
        Self { session }
    }

    async fn answer(&self, statement: &Statement, client: &mut dyn HookClient) -> Option<PgWireResult<Response>> {
        if let Some(timeout) = timeout(statement) {
            self.session.asking.allow(timeout);
            // The hook that comes after takes it down as well, for planning.
            return None;
        }
        let done = |tag: &str| Some(Ok(Response::Execution(Tag::new(tag))));
        let (zone, tag) = match Asked::of(statement)? {
            Asked::Zone(zone) => (zone, "SET"),
            Asked::DefaultZone(tag) => (DEFAULT_ZONE.to_owned(), tag),
            Asked::Defaults(tag) => {
                self.session.state_purpose(None);
                (DEFAULT_ZONE.to_owned(), tag)
            }
            Asked::Purpose(purpose) => {
                self.session.state_purpose(purpose);
                return done("SET");
            }
            Asked::ShowPurpose => return Some(self.show_purpose()),
            Asked::Nothing(tag) => return done(tag),
            Asked::Engine(name) => {
                let message =
                    format!("{name} is a setting of the engine, which all clients share: it cannot be set here");
                return Some(Err(refused(INSUFFICIENT_PRIVILEGE, message)));
            }
        };
        if zone.parse::<Tz>().is_err() {
            let message = format!("`{zone}` is not a time zone. Write one such as Asia/Bangkok or +07:00");
            return Some(Err(refused(INVALID_PARAMETER_VALUE, message)));
        }
        client.metadata_mut().insert(ZONE.to_owned(), zone.clone());
        let told = PgWireBackendMessage::ParameterStatus(ParameterStatus::new("TimeZone".to_owned(), zone));
        Some(client.send_message(told).await.map(|()| Response::Execution(Tag::new(tag))))
    }

    fn show_purpose(&self) -> PgWireResult<Response> {
        let field = FieldInfo::new(PURPOSE.to_owned(), None, None, Type::VARCHAR, FieldFormat::Text);
        let fields = Arc::new(vec![field]);
        let mut row = DataRowEncoder::new(fields.clone());
        row.encode_field(&self.session.asking.purpose.stated().unwrap_or_default())?;
        let row = Ok(row.take_row());
        Ok(Response::Query(QueryResponse::new(fields, Box::pin(futures::stream::once(async { row })))))
    }
}

#[async_trait]
impl QueryHook for Settings {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.answer(statement, client).await
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        Some(Ok(match Asked::of(statement)? {
            Asked::ShowPurpose => {
                let shown = LogicalPlanBuilder::empty(true).project([lit("").alias(PURPOSE)]);
                return Some(
                    shown.and_then(LogicalPlanBuilder::build).map_err(|error| PgWireError::ApiError(error.into())),
                );
            }
            _ => nothing(),
        }))
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.answer(statement, client).await
    }
}
