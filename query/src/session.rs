//! Somebody who asks, for as long as they do: what they see, and for which purpose.
//!
//! What passes through: a statement, into a plan over the tables as this caller sees them, and its answer as
//! a stream of Arrow batches. Every way in has one of these for each client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;

use crate::caller::Caller;
use crate::catalog::CATALOG;
use crate::error::QueryError;
use crate::scope::Scope;
use crate::statement::Statement;

/// The setting by which a purpose is stated.
pub(crate) const PURPOSE: &str = "ruam.purpose";

/// What a session's questions are for.
#[derive(Debug, Default)]
pub(crate) struct Purpose(RwLock<Option<String>>);

impl Purpose {
    pub(crate) fn stated(&self) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn state(&self, purpose: Option<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = purpose;
    }
}

/// Who asks, what, for how long and for which purpose.
#[derive(Debug)]
pub(crate) struct Asking {
    pub caller: Arc<Caller>,
    pub purpose: Arc<Purpose>,
    sql: RwLock<String>,
    /// The time that the client allows an answer, in milliseconds; 0 for any.
    timeout: AtomicU64,
    /// Held while a statement is planned, so that of several at a time each is accounted for with its own text.
    pub planning: tokio::sync::Mutex<()>,
}

impl Asking {
    pub(crate) fn new(caller: Arc<Caller>, purpose: Arc<Purpose>) -> Self {
        Self {
            caller,
            purpose,
            sql: RwLock::default(),
            timeout: AtomicU64::new(0),
            planning: tokio::sync::Mutex::default(),
        }
    }

    /// The statement that is being answered.
    pub(crate) fn sql(&self) -> String {
        self.sql.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes down the statement that is to be answered.
    pub(crate) fn ask(&self, sql: &str) {
        sql.clone_into(&mut self.sql.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        Some(self.timeout.load(Ordering::Relaxed)).filter(|timeout| *timeout > 0).map(Duration::from_millis)
    }

    /// Takes down the time that the client allows an answer; none for any.
    pub(crate) fn allow(&self, timeout: Option<Duration>) {
        let milliseconds = timeout.map_or(0, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1));
        self.timeout.store(milliseconds, Ordering::Relaxed);
    }
}

/// A client's session.
#[derive(Clone)]
pub struct Session {
    pub(crate) context: Arc<SessionContext>,
    pub(crate) scope: Scope,
    pub(crate) asking: Arc<Asking>,
}

impl Session {
    /// Who asks.
    pub fn caller(&self) -> &Caller {
        &self.scope.caller
    }

    /// States what the questions from here on are for; none takes that back.
    pub fn state_purpose(&self, purpose: Option<String>) {
        self.scope.purpose.state(purpose);
    }

    /// Plans a statement and begins to answer it.
    ///
    /// # Errors
    /// Where the statement does not work, or would write, or asks for what the caller may not see.
    pub async fn query(&self, sql: &str) -> Result<SendableRecordBatchStream, QueryError> {
        Statement::read(self, sql).await?.with(Vec::new()).await?.answer()
    }

    /// Names what a table that does not exist could have been meant to be.
    pub(crate) fn explain(&self, error: DataFusionError) -> QueryError {
        let error = QueryError::from(error);
        let text = error.to_string();
        let own = format!("table '{CATALOG}.");
        let Some((asked, _)) = text.strip_prefix(&own).and_then(|rest| rest.split_once("' not found")) else {
            return error;
        };
        let Some(catalog) = self.context.catalog(CATALOG) else { return error };
        let mut known = Vec::new();
        for schema in catalog.schema_names() {
            let tables = catalog.schema(&schema).map(|tables| tables.table_names()).unwrap_or_default();
            known.extend(tables.iter().map(|table| format!("{schema}.{table}")));
        }
        QueryError::no_table(asked, &known)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("caller", &self.scope.caller).finish_non_exhaustive()
    }
}
