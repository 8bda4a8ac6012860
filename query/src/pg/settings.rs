//! `SET`, `RESET` and `DISCARD` of what datafusion-postgres would leave to the engine, and a session's purpose.
//!
//! All clients share one engine's memory and threads. A client's zone is its own: it
//! is told back to the client, which shows moments in it, while they are sent with the zone that they are kept
//! in. How the engine works is for the server's settings to say.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::hooks::{HookClient, QueryHook};
use datafusion_postgres::pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::{ClientInfo, Type};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::startup::ParameterStatus;

use super::{nothing, refused};
use crate::session::{PURPOSE, Session};
use crate::settings::Asked;

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

impl Settings {
    pub(super) fn new(session: Session) -> Self {
        Self { session }
    }

    async fn answer(&self, statement: &Statement, client: &mut dyn HookClient) -> Option<PgWireResult<Response>> {
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
            Asked::Timeout(timeout) => {
                self.session.asking.allow(timeout);
                // The hook that comes after takes it down as well, for planning.
                return None;
            }
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
        row.encode_field(&self.session.scope.purpose.stated().unwrap_or_default())?;
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
            // The hook that comes after reads it as well.
            Asked::Timeout(_) => return None,
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
