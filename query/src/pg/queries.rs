//! What a client asks, by PostgreSQL's simple and extended protocol.
//!
//! What passes through: statements as text, into plans and answers. datafusion-postgres reads and answers
//! them. Tables as they were (`version as of`) its parser does not know; those are read by the [`dialect`],
//! and answered in the same way. What can be written shorter ([`shorthand`](crate::shorthand)) is spelled out
//! before.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::arrow_pg::datatypes::df::encode_dataframe;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::{FieldInfo, Response};
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::store::{Entry, PortalStore};
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, ConnectionHandle, DEFAULT_NAME, Type};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::extendedquery::Execute;
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use datafusion_postgres::pgwire::messages::simplequery::Query;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use datafusion_postgres::{DfSessionService, Parser, QueryHook};
use futures::channel::oneshot;
use futures::future::Fuse;
use futures::{FutureExt, Sink};
use ruam_identity::{Authenticator, Principal};

use super::copy::Copy;
use super::rewrite::rewritten;
use super::savepoints::is_way_back;
use super::{portal, refused};
use crate::dialect;
use crate::engine::read_only;
use crate::session::Session;
use crate::shorthand::spelled_out;
use crate::statement::with_limits;

const INVALID_AUTHORIZATION: &str = "28000";
const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
const UNDEFINED_PARAMETER: &str = "42P02";

/// A statement that datafusion-postgres has read: as text, and with its plan where it is not empty.
type DfStatement = <Parser as QueryParser>::Statement;

/// Answers what a client asks.
pub(super) struct Queries {
    signed_in: Arc<SignedIn>,
    statements: Arc<Statements>,
}

/// What a client asks with; nothing before it has signed in.
#[derive(Default)]
pub(super) struct SignedIn(OnceLock<Answering>);

struct Answering {
    session: Session,
    service: DfSessionService,
    still_in: Option<StillIn>,
    /// Told where the client wants no answer any longer. pgwire itself would heed that only while it plans.
    cancels: Arc<ConnectionHandle>,
}

impl SignedIn {
    /// What answers, as long as the sign-in counts.
    fn answering(&self) -> PgWireResult<&Answering> {
        let before = || refused(INVALID_AUTHORIZATION, "nothing is answered before you have signed in");
        let answering = self.0.get().ok_or_else(before)?;
        match &answering.still_in {
            Some(still_in) if !still_in.counts() => {
                Err(refused(INVALID_AUTHORIZATION, "your sign-in does not count any longer. Connect again"))
            }
            _ => Ok(answering),
        }
    }

    /// The session of whoever has signed in.
    pub(super) fn session(&self) -> Option<&Session> {
        self.0.get().map(|answering| &answering.session)
    }

    /// What tells that the client gives up what it asks from now on; never, before it has signed in.
    pub(super) async fn cancelled(&self) -> Fuse<oneshot::Receiver<()>> {
        match self.0.get() {
            Some(answering) => answering.cancels.start_query().await.fuse(),
            None => Fuse::terminated(),
        }
    }
}

/// A sign-in, which may be taken back while the connection is open.
pub(super) struct StillIn {
    who: Arc<Authenticator>,
    principal: Principal,
    last_word: Option<String>,
}

impl StillIn {
    pub(super) fn new(who: Arc<Authenticator>, principal: Principal) -> Self {
        Self { who, principal, last_word: None }
    }

    /// What the client is still to be told of how it signed in.
    pub(super) fn told(self, last_word: String) -> Self {
        Self { last_word: Some(last_word), ..self }
    }

    pub(super) fn last_word(&mut self) -> Option<String> {
        self.last_word.take()
    }

    /// Whether it is as it was.
    fn counts(&self) -> bool {
        self.who.still_counts(&self.principal)
    }
}

impl Queries {
    pub(super) fn new() -> Self {
        let signed_in = Arc::new(SignedIn::default());
        Self { statements: Arc::new(Statements { signed_in: signed_in.clone() }), signed_in }
    }

    /// Lets the client ask from here on. Who has signed in stays who they are.
    pub(super) fn begin(
        &self,
        session: Session,
        hooks: Vec<Arc<dyn QueryHook>>,
        still_in: Option<StillIn>,
        cancels: Arc<ConnectionHandle>,
    ) {
        let service = DfSessionService::new_with_hooks(session.context.clone(), hooks);
        let _ = self.signed_in.0.set(Answering { session, service, still_in, cancels });
    }

    /// Who asks here.
    pub(super) fn signed_in(&self) -> Arc<SignedIn> {
        self.signed_in.clone()
    }
}

/// Reads statements.
pub(super) struct Statements {
    signed_in: Arc<SignedIn>,
}

impl Statements {
    fn parser(&self) -> PgWireResult<Arc<Parser>> {
        Ok(self.signed_in.answering()?.service.query_parser())
    }

    /// Reads a copy, whose plan is that of the question whose answer is copied.
    async fn parse_copy<C>(&self, client: &C, sql: &str, copy: &Copy) -> PgWireResult<Option<DfStatement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let Some((_, Some((_, plan)))) = self.parse_sql(client, copy.query(), &[]).await? else { return Ok(None) };
        if !plan.get_parameter_types().map_err(failed)?.is_empty() {
            return Err(refused(UNDEFINED_PARAMETER, "COPY takes no parameters. Write the values into the question"));
        }
        Ok(dialect::copy(sql).map_err(failed)?.map(|statement| (sql.to_owned(), Some((statement, plan)))))
    }
}

/// A statement that only the [`dialect`] knows; none where datafusion-postgres knows it as well, or where it
/// is no question, so that it is for datafusion-postgres to say what is wrong.
fn own(sql: &str) -> Option<Statement> {
    if PostgresCompatibilityParser::new().parse(sql).is_ok() {
        return None;
    }
    match dialect::parse(sql) {
        Ok(Parsed::Statement(statement)) if matches!(*statement, Statement::Query(_)) => Some(*statement),
        _ => None,
    }
}

async fn plan(session: &SessionContext, statement: Statement) -> PgWireResult<LogicalPlan> {
    let planned = session.state().statement_to_plan(Parsed::Statement(Box::new(statement))).await.map_err(failed)?;
    read_only().verify_plan(&planned).map_err(failed)?;
    Ok(planned)
}

fn failed(error: DataFusionError) -> PgWireError {
    PgWireError::ApiError(Box::new(error))
}

#[async_trait]
impl QueryParser for Statements {
    type Statement = DfStatement;

    async fn parse_sql<C>(&self, client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Option<Self::Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        if let Some(copy) = Copy::of(sql)? {
            return self.parse_copy(client, sql, &copy).await;
        }
        let sql = spelled_out(sql).map_err(failed)?;
        let sql = &*rewritten(&sql);
        let parsed = match own(sql) {
            None => self.parser()?.parse_sql(client, sql, types).await?,
            Some(statement) => {
                let plan = plan(&self.signed_in.answering()?.session.context, statement.clone()).await?;
                Some((sql.to_owned(), Some((statement, plan))))
            }
        };
        let Some((sql, Some((statement, plan)))) = parsed else { return Ok(parsed) };
        Ok(Some((sql, Some((statement, with_limits(plan).map_err(failed)?)))))
    }

    fn get_parameter_types(&self, statement: &Self::Statement) -> PgWireResult<Vec<Type>> {
        self.parser()?.get_parameter_types(statement)
    }

    fn get_result_schema(&self, statement: &Self::Statement, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        // The rows of a copy are no rows of an answer.
        if let (_, Some((Statement::Copy { .. }, _))) = statement {
            return Ok(Vec::new());
        }
        self.parser()?.get_result_schema(statement, format)
    }
}

/// # Errors
/// In a transaction that has failed.
fn still_good(client: &impl ClientInfo) -> PgWireResult<()> {
    if client.transaction_status() == TransactionStatus::Error {
        let message = "the transaction has failed: nothing is answered until it ends. Write ROLLBACK";
        return Err(refused(IN_FAILED_SQL_TRANSACTION, message));
    }
    Ok(())
}

/// A transaction that has failed is one again after `ROLLBACK TO`.
fn mend(client: &mut impl ClientInfo, is_way_back: impl FnOnce() -> bool) {
    if client.transaction_status() == TransactionStatus::Error && is_way_back() {
        client.set_transaction_status(TransactionStatus::Transaction);
    }
}

#[async_trait]
impl SimpleQueryHandler for Queries {
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        mend(client, || match dialect::parse(&query.query) {
            Ok(Parsed::Statement(statement)) => is_way_back(&statement),
            _ => false,
        });
        self._on_query(client, query).await
    }

    async fn do_query<C>(&self, client: &mut C, sql: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Answering { session, service, .. } = self.signed_in.answering()?;
        session.asking.ask(sql);
        if let Some(copy) = Copy::of(sql)? {
            still_good(client)?;
            let Some((_, Some((_, plan)))) = self.statements.parse_copy(client, sql, &copy).await? else {
                return Ok(vec![Response::EmptyQuery]);
            };
            let frame = session.context.execute_logical_plan(plan).await.map_err(failed)?;
            return Ok(vec![copy.send(client, frame).await?]);
        }
        let sql = spelled_out(sql).map_err(failed)?;
        let sql = &*rewritten(&sql);
        let Some(statement) = own(sql) else { return SimpleQueryHandler::do_query(service, client, sql).await };
        still_good(client)?;
        let plan = plan(&session.context, statement).await?;
        let frame = session.context.execute_logical_plan(plan).await.map_err(failed)?;
        let options = FormatOptions::from_client_metadata(client.metadata());
        let answer = encode_dataframe(frame, &Format::UnifiedText, Some(Arc::new(options))).await?;
        Ok(vec![Response::Query(answer)])
    }
}

#[async_trait]
impl ExtendedQueryHandler for Queries {
    type Statement = DfStatement;
    type QueryParser = Statements;

    fn query_parser(&self) -> Arc<Self::QueryParser> {
        self.statements.clone()
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let Some(Entry::Value(portal)) = client.portal_store().get_portal(name) else {
            return self._on_execute(client, message).await;
        };
        mend(client, || matches!(&portal.statement.statement, (_, Some((statement, _))) if is_way_back(statement)));
        // None is how the protocol says all.
        let max_rows = usize::try_from(message.max_rows).unwrap_or(0);
        portal::execute(self, client, &portal, max_rows).await
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Self::Statement>,
        max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Answering { session, service, .. } = self.signed_in.answering()?;
        let (sql, statement) = &portal.statement.statement;
        session.asking.ask(sql);
        if let Some((Statement::Copy { .. }, plan)) = statement
            && let Some(copy) = Copy::of(sql)?
        {
            still_good(client)?;
            let frame = session.context.execute_logical_plan(plan.clone()).await.map_err(failed)?;
            return copy.send(client, frame).await;
        }
        ExtendedQueryHandler::do_query(service, client, portal, max_rows).await
    }
}
