//! PostgreSQL's wire protocol, so that psql and everything that speaks to PostgreSQL can ask.
//!
//! There is no sign-in yet: the server listens where it is told to, and that is loopback unless
//! somebody says otherwise.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;
use datafusion_postgres::hooks::cursor::CursorStatementHook;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::hooks::{HookClient, QueryHook};
use datafusion_postgres::pgwire::api::auth::StartupHandler;
use datafusion_postgres::pgwire::api::auth::noop::NoopStartupHandler;
use datafusion_postgres::pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::Response;
use datafusion_postgres::pgwire::api::{ClientInfo, ConnectionManager, PgWireServerHandlers};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::tokio::process_socket;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::catalog::CATALOG;
use crate::engine::Engine;
use crate::error::QueryError;

mod queries;
mod regtype;
mod savepoints;
mod settings;

use queries::Queries;
use savepoints::Savepoints;
use settings::Settings;

const MAX_CONNECTIONS: usize = 1000;

/// A server that has not begun yet.
pub struct PgServer {
    listener: TcpListener,
    handlers: Arc<Handlers>,
}

impl PgServer {
    /// Prepares to answer on a listener.
    ///
    /// # Errors
    /// Where the catalog that clients expect cannot be set up.
    pub fn new(engine: &Engine, listener: TcpListener) -> Result<Self, QueryError> {
        let session = engine.session();
        setup_pg_catalog(&session, CATALOG, EmptyContextProvider).map_err(QueryError::Statement)?;
        session.register_udf(regtype::function());
        let hooks: Vec<Arc<dyn QueryHook>> = vec![
            Arc::new(ReadOnly),
            Arc::new(Savepoints),
            Arc::new(Settings),
            Arc::new(CursorStatementHook),
            Arc::new(SetShowHook),
            Arc::new(TransactionStatementHook),
        ];
        let connections = Arc::new(ConnectionManager::new());
        let handlers = Handlers {
            queries: Arc::new(Queries::new(session, hooks)),
            cancel: Arc::new(DefaultCancelHandler::new(connections.clone())),
            startup: Arc::new(Startup { connections }),
        };
        Ok(Self { listener, handlers: Arc::new(handlers) })
    }

    /// Answers until it is stopped.
    pub async fn serve(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection of a SQL client could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::warn!(%peer, "there are {MAX_CONNECTIONS} SQL connections already; this one was closed");
                continue;
            };
            let (handlers, stop) = (self.handlers.clone(), stop.clone());
            tokio::spawn(async move {
                let _place = place;
                tokio::select! {
                    ended = process_socket(socket, None, handlers) => {
                        if let Err(error) = ended.or_else(closed) {
                            tracing::debug!(%peer, %error, "a SQL connection ended");
                        }
                    }
                    () = stop.cancelled() => {}
                }
            });
        }
    }
}

/// A client that hangs up is no error.
fn closed(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => Ok(()),
        _ => Err(error),
    }
}

struct Startup {
    connections: Arc<ConnectionManager>,
}

#[async_trait]
impl NoopStartupHandler for Startup {
    fn connection_manager(&self) -> Option<Arc<ConnectionManager>> {
        Some(self.connections.clone())
    }
}

struct Handlers {
    queries: Arc<Queries>,
    cancel: Arc<DefaultCancelHandler>,
    startup: Arc<Startup>,
}

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        self.queries.clone()
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        self.queries.clone()
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        self.startup.clone()
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        self.cancel.clone()
    }
}

/// Refuses whatever is not a question, a setting or a cursor.
#[derive(Debug)]
struct ReadOnly;

impl ReadOnly {
    fn check(statement: &Statement) -> Option<PgWireError> {
        // What is explained may be carried out as well.
        if let Statement::Explain { statement, .. } = statement {
            return Self::check(statement);
        }
        let allowed = matches!(
            statement,
            Statement::Query(_)
                | Statement::ExplainTable { .. }
                | Statement::Set(_)
                | Statement::ShowVariable { .. }
                | Statement::ShowVariables { .. }
                | Statement::ShowTables { .. }
                | Statement::ShowColumns { .. }
                | Statement::ShowSchemas { .. }
                | Statement::Reset(_)
                | Statement::Discard { .. }
                | Statement::StartTransaction { .. }
                | Statement::Commit { .. }
                | Statement::Rollback { .. }
                | Statement::Savepoint { .. }
                | Statement::ReleaseSavepoint { .. }
                | Statement::Declare { .. }
                | Statement::Fetch { .. }
                | Statement::Close { .. }
                | Statement::Deallocate { .. }
        );
        if allowed {
            return None;
        }
        let message = "the lake is read-only: rows come in as change events; only queries are answered here".to_owned();
        // read_only_sql_transaction
        Some(PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), "25006".to_owned(), message))))
    }
}

#[async_trait]
impl QueryHook for ReadOnly {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        Self::check(statement).map(Err)
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        Self::check(statement).map(Err)
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        Self::check(statement).map(Err)
    }
}
