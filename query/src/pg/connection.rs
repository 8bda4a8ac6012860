//! One client's connection, from sign-in to its end.
//!
//! Guaranteed: nothing is answered before the client has signed in.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::hooks::QueryHook;
use datafusion_postgres::hooks::cursor::CursorStatementHook;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::pgwire::api::auth::StartupHandler;
use datafusion_postgres::pgwire::api::auth::noop::NoopStartupHandler;
use datafusion_postgres::pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::{ClientInfo, ConnectionManager, PgWireServerHandlers};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::Sink;

use super::Shared;
use super::queries::Queries;
use super::read_only::ReadOnly;
use super::savepoints::Savepoints;
use super::settings::Settings;
use crate::caller::Caller;

/// A connection.
pub(super) struct Connection {
    startup: Arc<Startup>,
    queries: Arc<Queries>,
    cancel: Arc<DefaultCancelHandler>,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let queries = Arc::new(Queries::new());
        let cancel = Arc::new(DefaultCancelHandler::new(shared.connections.clone()));
        Self { startup: Arc::new(Startup { shared, queries: queries.clone() }), queries, cancel }
    }
}

impl PgWireServerHandlers for Connection {
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

/// Signs a client in.
struct Startup {
    shared: Arc<Shared>,
    queries: Arc<Queries>,
}

impl Startup {
    /// Lets somebody ask from here on.
    fn admit(&self, caller: Caller) -> PgWireResult<()> {
        let session = self.shared.session(caller).map_err(|error| PgWireError::ApiError(Box::new(error)))?;
        let hooks: Vec<Arc<dyn QueryHook>> = vec![
            Arc::new(ReadOnly),
            Arc::new(Savepoints),
            Arc::new(Settings::new(session.clone())),
            Arc::new(CursorStatementHook),
            Arc::new(SetShowHook),
            Arc::new(TransactionStatementHook),
        ];
        self.queries.begin(session.context.clone(), hooks);
        Ok(())
    }
}

#[async_trait]
impl NoopStartupHandler for Startup {
    fn connection_manager(&self) -> Option<Arc<ConnectionManager>> {
        Some(self.shared.connections.clone())
    }

    async fn post_startup<C>(&self, client: &mut C, _: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.admit(Caller::system(format!("postgres {}", client.socket_addr())))
    }
}
