//! One client's connection, from sign-in to its end.
//!
//! Guaranteed: nothing is answered before the client has signed in.

use std::sync::Arc;

use datafusion_postgres::pgwire::api::auth::StartupHandler;
use datafusion_postgres::pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::{ErrorHandler, PgWireServerHandlers};

use super::Shared;
use super::errors::Errors;
use super::queries::Queries;
use super::sign_in::SignIn;

/// A connection.
pub(super) struct Connection {
    sign_in: Arc<SignIn>,
    queries: Arc<Queries>,
    cancel: Arc<DefaultCancelHandler>,
    errors: Arc<Errors>,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let queries = Arc::new(Queries::new());
        let cancel = Arc::new(DefaultCancelHandler::new(shared.connections.clone()));
        let errors = Arc::new(Errors::new(queries.signed_in()));
        Self { sign_in: Arc::new(SignIn::new(shared, queries.clone())), queries, cancel, errors }
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

    fn error_handler(&self) -> Arc<impl ErrorHandler> {
        self.errors.clone()
    }
}
