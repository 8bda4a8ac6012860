//! The engine: DataFusion over the lake's tables, read-only and with a bound on memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProviderList, MemoryCatalogProviderList};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use ruam_event::DatasetSpec;
use ruam_lake::{Lake, TableName};

use crate::answer::Turns;
use crate::audit::AuditLog;
use crate::caller::Caller;
use crate::catalog::{self, CATALOG};
use crate::describe_table::DescribeTable;
use crate::error::QueryError;
use crate::functions;
use crate::like_escape::LikeEscape;
use crate::memory;
use crate::planner::Planner;
use crate::policy::Policies;
use crate::result_cache::{CacheFigures, ResultCache};
use crate::scope::Scope;
use crate::session::{Asking, Session};
use crate::spill::{Spill, SpillSettings};
use crate::table_changes::TableChanges;
use crate::tables::Tables;
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
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// The most memory that all queries together may use, in bytes. What does not fit goes to disk,
    /// as far as the operation allows.
    pub memory: usize,
    /// Where on disk that lies, and how much of it; none: where the system keeps what is temporary.
    pub spill: Option<SpillSettings>,
    /// The most bytes of answers that are kept for whoever asks the same; 0 for none. They come to the memory.
    pub result_cache: usize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { memory: 1 << 30, spill: None, result_cache: 64 << 20 }
    }
}

/// Whether what a session asks is in the audit.
#[derive(Clone, Copy, PartialEq)]
enum Audited {
    Yes,
    No,
}

/// Answers SQL.
#[derive(Clone)]
pub struct Engine {
    /// What all sessions have in common: functions and rules, and the bounds of the engine.
    base: SessionState,
    lake: Lake,
    tables: Arc<Tables>,
    datasets: Arc<[Arc<QueryDataset>]>,
    policies: Arc<Policies>,
    audit: Option<Arc<AuditLog>>,
    turns: Arc<Turns>,
    kept: Option<Arc<ResultCache>>,
}

impl Engine {
    /// An engine over some datasets of a lake, which shows them to each caller as the policies have it.
    ///
    /// # Errors
    /// Where DataFusion cannot be set up, or there is no place on disk for what does not fit into memory.
    pub fn new(
        lake: Lake,
        datasets: Vec<Arc<QueryDataset>>,
        policies: Policies,
        settings: EngineSettings,
    ) -> Result<Self, QueryError> {
        let mut runtime = RuntimeEnvBuilder::new().with_memory_pool(memory::of_all(settings.memory));
        let mut config = config();
        if let Some(SpillSettings { folder, bytes }) = &settings.spill {
            let spill = Spill::begin(folder).map_err(|source| QueryError::Spill { folder: folder.clone(), source })?;
            let mode = DiskManagerMode::Directories(vec![spill.folder().to_owned()]);
            let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(*bytes);
            runtime = runtime.with_disk_manager_builder(disk);
            // It stays for as long as a session does.
            config = config.with_extension(Arc::new(spill));
        }
        let runtime = runtime.build_arc()?;
        let (url, store) = lake.object_store();
        runtime.register_object_store(&base_of(url), store);
        let base = SessionContext::new_with_config_rt(config, runtime);
        functions::register(&base);
        base.add_analyzer_rule(Arc::new(LikeEscape));
        let tables = Arc::new(Tables::new(lake.clone(), false));
        let (datasets, policies) = (datasets.into(), Arc::new(policies));
        let kept = ResultCache::of_bytes(settings.result_cache);
        Ok(Self { base: base.state(), lake, tables, datasets, policies, audit: None, turns: Arc::default(), kept })
    }

    /// What is told of the answers that are kept.
    pub fn cache_figures(&self) -> CacheFigures {
        self.kept.as_ref().map(|kept| kept.figures()).unwrap_or_default()
    }

    /// The same, with an account of what every session asks.
    #[must_use]
    pub fn with_audit(mut self, audit: Arc<AuditLog>) -> Self {
        self.audit = Some(audit);
        self
    }

    /// A session for somebody who asks.
    ///
    /// # Errors
    /// Where DataFusion cannot be set up.
    pub fn session(&self, caller: Caller) -> Result<Session, QueryError> {
        self.session_on(self.base.clone(), caller, self.tables.clone(), Audited::Yes)
    }

    /// A question of the system itself, which is no query of anybody's and not in the audit.
    ///
    /// # Errors
    /// Where the statement does not work, or would write.
    pub async fn query(&self, sql: &str) -> Result<SendableRecordBatchStream, QueryError> {
        let (base, caller) = (self.base.clone(), Caller::system("ruam"));
        self.session_on(base, caller, self.tables.clone(), Audited::No)?.query(sql).await
    }

    /// What all sessions have in common, for servers that add to it.
    pub(crate) fn base(&self) -> SessionState {
        self.base.clone()
    }

    /// The same, with texts in the answers as every program knows them: not all know the newer layout.
    pub(crate) fn base_without_views(&self) -> SessionState {
        let config = self.base.config().clone().set_bool("datafusion.optimizer.expand_views_at_output", true);
        SessionStateBuilder::new_from_existing(self.base.clone()).with_config(config).build()
    }

    /// A session with what a server has added to all sessions.
    pub(crate) fn session_with(&self, base: SessionState, caller: Caller) -> Result<Session, QueryError> {
        self.session_on(base, caller, self.tables.clone(), Audited::Yes)
    }

    fn session_on(
        &self,
        base: SessionState,
        caller: Caller,
        tables: Arc<Tables>,
        audited: Audited,
    ) -> Result<Session, QueryError> {
        let scope = Scope {
            tables,
            datasets: self.datasets.clone(),
            policies: self.policies.clone(),
            caller: Arc::new(caller),
            purpose: Arc::default(),
            audit: self.audit.clone(),
        };
        let asking = Arc::new(Asking::new(scope.caller.clone(), scope.purpose.clone()));
        let planner = Planner {
            asking: asking.clone(),
            limits: self.policies.limits(&scope.caller),
            audit: self.audit.clone().filter(|_| audited == Audited::Yes),
            turns: self.turns.clone(),
            kept: self.kept.clone().filter(|_| audited == Audited::Yes),
        };
        let catalogs = Arc::new(MemoryCatalogProviderList::new());
        catalogs.register_catalog(CATALOG.to_owned(), catalog::catalog(&scope)?);
        let state = SessionStateBuilder::new_from_existing(base)
            .with_catalog_list(catalogs)
            .with_query_planner(Arc::new(planner))
            .build();
        let context = SessionContext::new_with_state(state);
        context.register_udtf(TableChanges::NAME, Arc::new(TableChanges(scope.clone())));
        context.register_udtf(DescribeTable::NAME, Arc::new(DescribeTable(scope.clone())));
        context.register_relation_planner(Arc::new(TimeTravel(scope.clone())))?;
        Ok(Session { context: Arc::new(context), scope, asking })
    }

    /// An engine whose tables stay as they are when they are first looked at, for the system itself.
    ///
    /// # Errors
    /// Where DataFusion cannot be set up.
    pub fn pinned(&self) -> Result<Pinned, QueryError> {
        let tables = Arc::new(Tables::new(self.lake.clone(), true));
        let session = self.session_on(self.base.clone(), Caller::system("extract"), tables.clone(), Audited::No)?;
        Ok(Pinned { session, tables })
    }
}

/// An engine whose tables do not change while it is asked, so that answers fit together.
pub struct Pinned {
    session: Session,
    tables: Arc<Tables>,
}

impl Pinned {
    /// Plans a statement and begins to answer it.
    ///
    /// # Errors
    /// Where the statement does not work, or would write.
    pub async fn query(&self, sql: &str) -> Result<SendableRecordBatchStream, QueryError> {
        self.session.query(sql).await
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
