//! PostgreSQL's wire protocol, so that psql and everything that speaks to PostgreSQL can ask.
//!
//! What passes through: connections, each with a [`Session`](crate::Session) of its own from when its client
//! has signed in; without sign-on, whoever gets in is the system, and the server listens on loopback only.

use std::io;
use std::sync::Arc;

use datafusion::catalog::{CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider};
use datafusion::common::{DFSchema, internal_datafusion_err};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::PgCatalogStaticTables;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;
use datafusion_postgres::pgwire::api::{ConnectionManager, RandomPidSecretKeyGenerator};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};
use datafusion_postgres::pgwire::tokio::TlsAcceptor;
use ruam_identity::{Authenticator, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::caller::Caller;
use crate::catalog::CATALOG;
use crate::engine::Engine;
use crate::error::QueryError;
use crate::session::Session;

mod catalog;
mod connection;
mod copy;
mod errors;
mod fetch;
mod functions;
mod information_schema;
mod messages;
mod portal;
mod queries;
mod read_only;
mod regtype;
mod rewrite;
mod roles;
mod savepoints;
mod settings;
mod sign_in;

use catalog::{PG_CATALOG, PgCatalog};
use connection::Connection;
use information_schema::InformationSchema;

const MAX_CONNECTIONS: usize = 1000;

/// A server that has not begun yet.
pub struct PgServer {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// How clients are let in.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Knows who may sign in; without it, whoever connects is the system.
    pub sign_on: Option<Arc<Authenticator>>,
    /// The certificate that is shown; without it, connections are not encrypted.
    pub tls: Option<Arc<ServerConfig>>,
}

/// What all connections have in common.
struct Shared {
    admission: Admission,
    engine: Engine,
    /// What sessions have that clients of PostgreSQL expect.
    base: SessionState,
    /// What PostgreSQL says of its own tables.
    system: Arc<dyn SchemaProvider>,
    pg_catalog: Arc<PgCatalogStaticTables>,
    connections: Arc<ConnectionManager>,
    /// Gives each connection what a client cancels with.
    keys: RandomPidSecretKeyGenerator,
}

impl Shared {
    fn new(engine: Engine, admission: Admission) -> Result<Self, QueryError> {
        let catalogs = Arc::new(MemoryCatalogProviderList::new());
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(MemoryCatalogProvider::new()));
        let base = SessionStateBuilder::new_from_existing(engine.base()).with_catalog_list(catalogs);
        // Instead of DataFusion's own, each session has one.
        let config = engine.base().config().clone().with_information_schema(false);
        let base = SessionContext::new_with_state(base.with_config(config).build());
        setup_pg_catalog(&base, CATALOG, EmptyContextProvider).map_err(QueryError::Statement)?;
        let system = base.catalog(CATALOG).and_then(|catalog| catalog.schema(PG_CATALOG));
        let system = system.ok_or_else(|| internal_datafusion_err!("pg_catalog is not there"))?;
        base.register_udf(regtype::function());
        functions::register(&base);
        let pg_catalog = Arc::new(PgCatalogStaticTables::try_new()?);
        Ok(Self {
            admission,
            engine,
            base: base.state(),
            system,
            pg_catalog,
            connections: Arc::default(),
            keys: RandomPidSecretKeyGenerator::default(),
        })
    }

    /// A session for somebody who has signed in.
    fn session(&self, caller: Caller) -> Result<Session, QueryError> {
        let session = self.engine.session_with(self.base.clone(), caller)?;
        if let Some(catalog) = session.context.catalog(CATALOG) {
            let pg_catalog = PgCatalog::new(&session.scope, &*catalog, self.system.clone(), self.pg_catalog.clone())?;
            functions::register_for(&session.context, session.caller(), &pg_catalog.relations());
            catalog.register_schema(PG_CATALOG, Arc::new(pg_catalog))?;
            catalog.register_schema(information_schema::NAME, Arc::new(InformationSchema::new(&session.context)))?;
        }
        Ok(session)
    }
}

impl PgServer {
    /// Prepares to answer on a listener.
    ///
    /// # Errors
    /// Where the catalog that clients expect cannot be set up.
    pub fn new(engine: &Engine, listener: TcpListener, admission: Admission) -> Result<Self, QueryError> {
        Ok(Self { listener, shared: Arc::new(Shared::new(engine.clone(), admission)?) })
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
            let (connection, stop) = (Connection::new(self.shared.clone()), stop.clone());
            let tls = self.shared.admission.tls.clone().map(TlsAcceptor::from);
            tokio::spawn(async move {
                let _place = place;
                tokio::select! {
                    ended = connection.serve(socket, tls) => {
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

/// An answer that tells a client what is wrong, with PostgreSQL's code for it.
fn refused(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), code.to_owned(), message.into())))
}

/// The plan of what is answered without one.
fn nothing() -> LogicalPlan {
    LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) })
}

#[cfg(test)]
mod tests;
