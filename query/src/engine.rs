//! The engine: DataFusion over the lake's tables, read-only and with a bound on memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use ruam_event::DatasetSpec;
use ruam_lake::{Lake, TableName};

use crate::catalog::{self, CATALOG, Tables};
use crate::dialect;
use crate::error::QueryError;
use crate::functions;
use crate::like_escape::LikeEscape;
use crate::table_changes::TableChanges;
use crate::time_travel::TimeTravel;

/// A dataset as queries see it.
#[derive(Debug)]
pub struct QueryDataset {
    /// What it declares.
    pub spec: Arc<DatasetSpec>,
    /// The columns of its rows.
    pub rows: SchemaRef,
    /// The columns of its rejects.
    pub rejects: SchemaRef,
    /// The columns of its changes, where it keeps history.
    pub changes: Option<SchemaRef>,
}

/// Bounds of the engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineSettings {
    /// The most memory that all queries together may use, in bytes. What does not fit goes to disk,
    /// as far as the operation allows.
    pub memory: usize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { memory: 1 << 30 }
    }
}

/// Answers SQL.
#[derive(Clone)]
pub struct Engine {
    session: Arc<SessionContext>,
    lake: Lake,
    datasets: Vec<Arc<QueryDataset>>,
}

impl Engine {
    /// An engine over some datasets of a lake.
    ///
    /// # Errors
    /// Where DataFusion cannot be set up.
    pub fn new(lake: Lake, datasets: Vec<Arc<QueryDataset>>, settings: EngineSettings) -> Result<Self, QueryError> {
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(settings.memory, 1.0).build_arc()?;
        let (url, store) = lake.object_store();
        runtime.register_object_store(&base_of(url), store);
        let session = SessionContext::new_with_config_rt(config(), runtime);
        register(&session, &Arc::new(Tables::new(lake.clone(), false)), &datasets)?;
        Ok(Self { session: Arc::new(session), lake, datasets })
    }

    /// The session, for servers that plan by themselves.
    pub(crate) fn session(&self) -> Arc<SessionContext> {
        self.session.clone()
    }

    /// Plans a statement and begins to answer it.
    ///
    /// # Errors
    /// Where the statement does not work, or would write.
    pub async fn query(&self, sql: &str) -> Result<SendableRecordBatchStream, QueryError> {
        answer(&self.session, sql).await
    }

    /// An engine whose tables stay as they are when they are first looked at.
    ///
    /// # Errors
    /// Where DataFusion cannot be set up.
    pub fn pinned(&self) -> Result<Pinned, QueryError> {
        let tables = Arc::new(Tables::new(self.lake.clone(), true));
        let state = self.session.state();
        let session = SessionContext::new_with_config_rt(state.config().clone(), self.session.runtime_env());
        register(&session, &tables, &self.datasets)?;
        Ok(Pinned { session, tables })
    }
}

/// An engine whose tables do not change while it is asked, so that answers fit together.
pub struct Pinned {
    session: SessionContext,
    tables: Arc<Tables>,
}

impl Pinned {
    /// Plans a statement and begins to answer it.
    ///
    /// # Errors
    /// Where the statement does not work, or would write.
    pub async fn query(&self, sql: &str) -> Result<SendableRecordBatchStream, QueryError> {
        answer(&self.session, sql).await
    }

    /// The versions of the tables that were looked at.
    pub fn versions(&self) -> BTreeMap<TableName, u64> {
        self.tables.versions()
    }
}

/// What statements may do.
pub(crate) fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(true)
}

/// A join's smaller side of up to so many bytes, or where they are not known so many rows, is hashed once for all
/// cores: to share both sides out by key copies all of the larger one.
const JOINED_BYTES: usize = 64 << 20;
const JOINED_ROWS: usize = 1 << 20;

/// How statements are understood, and planned.
pub(crate) fn config() -> SessionConfig {
    SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, CATALOG)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .set_usize("datafusion.optimizer.hash_join_single_partition_threshold", JOINED_BYTES)
        .set_usize("datafusion.optimizer.hash_join_single_partition_threshold_rows", JOINED_ROWS)
        // A moment that is written with its zone is that moment; none would be the time as it stands there.
        .set_str("datafusion.execution.time_zone", "UTC")
}

/// Makes tables known to a session, and the functions.
fn register(session: &SessionContext, tables: &Arc<Tables>, datasets: &[Arc<QueryDataset>]) -> Result<(), QueryError> {
    session.register_catalog(CATALOG, catalog::catalog(tables, datasets)?);
    functions::register(session);
    session.add_analyzer_rule(Arc::new(LikeEscape));
    session.register_relation_planner(Arc::new(TimeTravel { tables: tables.clone(), datasets: datasets.to_vec() }))?;
    let changes = TableChanges { tables: tables.clone(), datasets: datasets.to_vec() };
    session.register_udtf(TableChanges::NAME, Arc::new(changes));
    Ok(())
}

async fn answer(session: &SessionContext, sql: &str) -> Result<SendableRecordBatchStream, QueryError> {
    let plan = async {
        let plan = session.state().statement_to_plan(dialect::parse(sql)?).await?;
        read_only().verify_plan(&plan)?;
        session.execute_logical_plan(plan).await
    };
    let frame = plan.await.map_err(|error| explain(session, error))?;
    Ok(frame.execute_stream().await?)
}

/// Names what a table that does not exist could have been meant to be.
fn explain(session: &SessionContext, error: DataFusionError) -> QueryError {
    let error = QueryError::from(error);
    let text = error.to_string();
    let own = format!("table '{CATALOG}.");
    let Some((asked, _)) = text.strip_prefix(&own).and_then(|rest| rest.split_once("' not found")) else {
        return error;
    };
    let Some(catalog) = session.catalog(CATALOG) else { return error };
    let mut known = Vec::new();
    for schema in catalog.schema_names() {
        let tables = catalog.schema(&schema).map(|tables| tables.table_names()).unwrap_or_default();
        known.extend(tables.iter().map(|table| format!("{schema}.{table}")));
    }
    QueryError::no_table(asked, &known)
}

/// Scheme and authority of a URL, by which stores are registered.
fn base_of(url: &url::Url) -> url::Url {
    let mut base = url.clone();
    base.set_path("/");
    base
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").field("versions", &self.versions()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("lake", &self.lake).finish_non_exhaustive()
    }
}
