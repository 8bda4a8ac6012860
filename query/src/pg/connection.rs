//! One client's connection, from sign-in to its end.
//!
//! Guaranteed: nothing is answered before the client has signed in.

use std::sync::Arc;

use datafusion_postgres::pgwire::api::PgWireServerHandlers;
use datafusion_postgres::pgwire::api::auth::StartupHandler;
use datafusion_postgres::pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};

use super::Shared;
use super::queries::Queries;
use super::sign_in::SignIn;

/// A connection.
pub(super) struct Connection {
    sign_in: Arc<SignIn>,
    queries: Arc<Queries>,
    cancel: Arc<DefaultCancelHandler>,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let queries = Arc::new(Queries::new());
        let cancel = Arc::new(DefaultCancelHandler::new(shared.connections.clone()));
        Self { sign_in: Arc::new(SignIn::new(shared, queries.clone())), queries, cancel }
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
        self.sign_in.clone()
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        self.cancel.clone()
    }
}
