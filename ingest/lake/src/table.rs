//! One Delta table: created and grown as its dataset declares, and committed to strictly on the
//! version that was looked at.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use delta_kernel::table_properties::DataSkippingNumIndexedCols;
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, DataType as DeltaType, StructField, StructType, Transaction};
use deltalake::protocol::{DeltaOperation, MergePredicate, SaveMode};
use deltalake::{DeltaTable, DeltaTableError, TableProperty};
use object_store::ObjectStoreExt;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use ruam_event::{Mode, Partition, TopicId};

use crate::error::{LakeError, is_conflict};
use crate::location::{Lake, TableName};
use crate::log;
use crate::progress::{self, Progress};

/// The most rows of a Parquet row group: a writer holds one in memory until it is whole, and cores
/// share the reading of a file by them.
pub(crate) const ROW_GROUP_ROWS: usize = if cfg!(test) { 16 } else { 128 * 1024 };
/// Columns of which nearly every value is another, so that a dictionary of them costs and brings
/// nothing.
const NO_DICTIONARY: [&str; 5] = ["_event_id", "_offset", "_position", "_signature", "_source_time"];
/// A column whose order says nothing.
const UNORDERED: &str = "_signature";

/// How often a bloom filter may say that a row group has a key which it does not have.
const FALSE_POSITIVES: f64 = 0.01;

/// The property under which a table names its key.
const KEY_MARK: &str = "ruam.key";

/// What a table is to be.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub schema: SchemaRef,
    pub mode: Mode,
    pub key: Vec<String>,
    /// The columns by which a compaction sorts rows; none where their order stays.
    pub cluster_by: Vec<String>,
    pub description: String,
}

/// A table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub name: TableName,
    lake_url: String,
    delta: DeltaTable,
    definition: Definition,
    properties: WriterProperties,
}

/// What a commit does, for those who read the table's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Append,
    Upsert,
    /// The same rows in fewer files.
    Compact,
}

/// What became of an attempt to commit.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The version that was committed.
    Committed(u64),
    /// The table has moved on since it was looked at; nothing was committed.
    Conflict,
}

impl Table {
    /// Opens the table, creates it, or adds the columns that have come to its declaration.
    pub(crate) async fn open(lake: &Lake, name: TableName, definition: Definition) -> Result<Self, LakeError> {
        let delta = match load(lake, &name).await? {
            Some(delta) => delta,
            None => {
                let created = create(DeltaTable::new(lake.log_store(&name)?), &name, &definition).await;
                created.map_err(|error| LakeError::table("create", &name, error).or_full(lake.url()))?
            }
        };
        let properties = writer_properties(&definition);
        let mut table = Self { name, lake_url: lake.url().to_owned(), delta, definition, properties };
        table.check_definition()?;
        table.add_columns().await?;
        Ok(table)
    }

    fn failed(
        &self,
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> LakeError {
        LakeError::table(operation, &self.name, source).or_full(&self.lake_url)
    }

    fn state(&self) -> Result<&deltalake::table::state::DeltaTableState, LakeError> {
        self.delta.snapshot().map_err(|error| self.failed("look at", error))
    }

    fn incompatible(&self, problem: impl Into<String>, remedy: impl Into<String>) -> LakeError {
        LakeError::Incompatible { dataset: self.name.dataset.clone(), problem: problem.into(), remedy: remedy.into() }
    }

    /// Whether the table is what its dataset declares, as far as it cannot be changed.
    fn check_definition(&self) -> Result<(), LakeError> {
        let state = self.state()?;
        let properties = state.metadata().configuration();
        let remedy =
            || format!("Undo the change, or begin a new table: move {} out of the lake", self.delta.table_url());
        for (key, declared) in marks(&self.definition) {
            if let Some(found) = properties.get(key).filter(|found| **found != declared) {
                let what = key.trim_start_matches("ruam.");
                return Err(self.incompatible(format!("`{what}` is now `{declared}` and was `{found}`"), remedy()));
            }
        }
        if state.table_config().set_transaction_retention_duration.is_some() {
            return Err(self.incompatible(
                "its property delta.setTransactionRetentionDuration would let the record of progress expire",
                "Unset that property",
            ));
        }
        let found = state.snapshot().arrow_schema();
        for field in found.fields() {
            let name = field.name();
            match self.definition.schema.field_with_name(name) {
                Ok(declared) if same_type(declared.data_type(), field.data_type()) => {}
                Ok(declared) => {
                    let problem = format!(
                        "column `{name}` is now stored as {} and was stored as {}",
                        declared.data_type(),
                        field.data_type()
                    );
                    return Err(self.incompatible(problem, remedy()));
                }
                Err(_) => {
                    let problem = format!("column `{name}` is in the table and not declared any more");
                    return Err(
                        self.incompatible(problem, format!("Declare it again (it may stay empty). {}", remedy()))
                    );
                }
            }
        }
        Ok(())
    }

    /// Adds the columns that are declared and not there yet; older rows have null in them.
    async fn add_columns(&mut self) -> Result<(), LakeError> {
        let found = self.state()?.snapshot().arrow_schema();
        let declared = self.definition.schema.fields().iter();
        let new: Vec<_> = declared.filter(|field| found.field_with_name(field.name()).is_err()).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        let nullable: Vec<_> = new.iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let fields = delta_fields(&Schema::new(nullable)).map_err(|error| self.failed("add columns to", error))?;
        let adding = self.delta.clone().add_columns().with_fields(fields);
        self.delta = adding.await.map_err(|error| self.failed("add columns to", error))?;
        let names: Vec<_> = new.iter().map(|field| field.name().as_str()).collect();
        tracing::info!(table = %self.name, columns = names.join(", "), "added columns that are declared now");
        Ok(())
    }

    /// Looks at the table as it is now; returns whether it has moved on.
    pub(crate) async fn refresh(&mut self) -> Result<bool, LakeError> {
        let before = self.delta.version();
        let updated = self.delta.update_incremental(None).await;
        updated.map_err(|error| self.failed("look at", error))?;
        Ok(self.delta.version() != before)
    }

    /// The version that was last looked at.
    pub(crate) fn version(&self) -> u64 {
        self.delta.version().unwrap_or_default()
    }

    pub(crate) fn delta(&self) -> &DeltaTable {
        &self.delta
    }

    pub(crate) fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The columns as files of this table have them.
    pub(crate) fn schema(&self) -> Result<SchemaRef, LakeError> {
        let found = self.state()?.snapshot().arrow_schema();
        let fields: Vec<_> = found
            .fields()
            .iter()
            .filter_map(|field| self.definition.schema.field_with_name(field.name()).ok())
            .collect();
        Ok(Arc::new(Schema::new(fields.into_iter().map(|field| field.clone().with_nullable(true)).collect::<Vec<_>>())))
    }

    /// How far the table is with a partition; none where it has never been read.
    pub(crate) async fn progress(&self, partition: &Partition) -> Result<Option<Progress>, LakeError> {
        progress(&self.delta, &self.name, partition).await
    }

    /// A writer of data files, which belong to the table once they are committed.
    pub(crate) fn writer(&self) -> Result<DeltaWriter, LakeError> {
        let schema = self.schema()?;
        // Bytes have no order that a reader could skip files by, and signatures would fill the log with theirs.
        let is_ordered = |field: &Field| *field.data_type() != DataType::Binary && field.name() != UNORDERED;
        let ordered = schema.fields().iter().filter(|field| is_ordered(field));
        let ordered = ordered.map(|field| field.name().clone()).collect();
        let config = WriterConfig::new(
            schema,
            Vec::new(),
            Some(self.properties.clone()),
            None,
            Some(64 * 1024),
            DataSkippingNumIndexedCols::AllColumns,
            Some(ordered),
        );
        Ok(DeltaWriter::new(self.delta.log_store().object_store(None), config))
    }

    /// Adds rows to a data file.
    pub(crate) async fn append(&self, file: &mut DeltaWriter, rows: &RecordBatch) -> Result<(), LakeError> {
        let rows = self.arrange(rows)?;
        file.write(&rows).await.map_err(|error| self.failed("write a data file of", error))
    }

    /// Ends a data file.
    pub(crate) async fn close(&self, file: DeltaWriter) -> Result<Vec<Add>, LakeError> {
        file.close().await.map_err(|error| self.failed("write a data file of", error))
    }

    /// Writes batches of rows to a data file of their own.
    pub(crate) async fn write_file(&self, batches: &[RecordBatch]) -> Result<Vec<Action>, LakeError> {
        let mut file = self.writer()?;
        for rows in batches {
            self.append(&mut file, rows).await?;
        }
        Ok(self.close(file).await?.into_iter().map(Action::Add).collect())
    }

    /// The columns in the order of the table: one that was added later stands last there.
    fn arrange(&self, rows: &RecordBatch) -> Result<RecordBatch, LakeError> {
        let schema = self.schema()?;
        let column = |field: &Arc<Field>| {
            rows.column_by_name(field.name())
                .cloned()
                .ok_or_else(|| ArrowError::SchemaError(format!("no column `{}`", field.name())))
        };
        let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>();
        let arranged = columns.and_then(|columns| RecordBatch::try_new(schema.clone(), columns));
        arranged.map_err(|source| LakeError::Batch { dataset: self.name.dataset.clone(), source })
    }

    /// Commits on exactly the version that was last looked at.
    pub(crate) async fn commit(
        &mut self,
        actions: Vec<Action>,
        transactions: Vec<Transaction>,
        operation: Operation,
        note: HashMap<String, serde_json::Value>,
    ) -> Result<Attempt, LakeError> {
        let operation = operation.delta(&self.definition.key);
        commit(&mut self.delta, actions, transactions, operation, note)
            .await
            .map_err(|error| self.failed("commit to", error))
    }
}

/// Commits on exactly the version of a table that was last looked at.
pub(crate) async fn commit(
    table: &mut DeltaTable,
    actions: Vec<Action>,
    transactions: Vec<Transaction>,
    operation: DeltaOperation,
    note: HashMap<String, serde_json::Value>,
) -> Result<Attempt, DeltaTableError> {
    // Checkpoints and a short log are maintenance's: delta-rs would list the whole log in each commit.
    let properties = CommitProperties::default()
        .with_metadata(note)
        .with_application_transactions(transactions)
        .with_create_checkpoint(false)
        .with_cleanup_expired_logs(Some(false));
    let log_store = table.log_store();
    let commit = CommitBuilder::from(properties)
        .with_actions(actions)
        // Never rebase by itself: whether a batch still fits is for the offsets to say.
        .with_max_retries(0)
        .build(Some(table.snapshot()?), log_store, operation);
    match commit.await {
        Ok(committed) => {
            table.state = Some(committed.snapshot());
            Ok(Attempt::Committed(committed.version()))
        }
        Err(error) if is_conflict(&error) => Ok(Attempt::Conflict),
        Err(error) => Err(error),
    }
}

impl Operation {
    pub(crate) fn delta(self, key: &[String]) -> DeltaOperation {
        match self {
            Self::Append => DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None },
            Self::Compact => DeltaOperation::Optimize { predicate: None, target_size: 0 },
            // Of all kinds, delta-rs checks this one against removes of any other writer.
            Self::Upsert => {
                let action =
                    |action_type: &str| vec![MergePredicate { action_type: action_type.to_owned(), predicate: None }];
                DeltaOperation::Merge {
                    predicate: None,
                    merge_predicate: Some(format!("key: {}", key.join(", "))),
                    matched_predicates: action("update"),
                    not_matched_predicates: action("insert"),
                    not_matched_by_source_predicates: Vec::new(),
                }
            }
        }
    }
}

/// What a table says about itself, beyond its columns.
fn marks(definition: &Definition) -> [(&'static str, String); 2] {
    // What an append is keyed by changes nothing that is written.
    let key = if definition.mode == Mode::Upsert { definition.key.join(",") } else { String::new() };
    [("ruam.mode", definition.mode.to_string()), (KEY_MARK, key)]
}

/// The columns of which a table has one row for each of their values together; none where nothing says so.
pub fn key(table: &DeltaTable) -> Option<Vec<String>> {
    let state = table.snapshot().ok()?;
    let key = state.metadata().configuration().get(KEY_MARK)?;
    Some(key.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

async fn create(delta: DeltaTable, name: &TableName, definition: &Definition) -> Result<DeltaTable, DeltaTableError> {
    let nullable: Vec<_> =
        definition.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let mut create = delta
        .create()
        .with_table_name(name.to_string())
        .with_comment(&definition.description)
        .with_columns(delta_fields(&Schema::new(nullable))?)
        .with_save_mode(SaveMode::Ignore)
        .with_raise_if_key_not_exists(false)
        .with_configuration(marks(definition).map(|(key, value)| (key, Some(value))))
        // A checkpoint names removed files for so long, for the vacuum of others: ours has its own account.
        // In a week of one commit a second they would be a thousand times what the table itself is.
        .with_configuration_property(TableProperty::DeletedFileRetentionDuration, Some("interval 1 hours"));
    create = match definition.mode {
        // The property, not only the feature: readers decide by it whether filters may be pushed
        // down to rows that a vector may have deleted.
        Mode::Upsert => create.with_configuration_property(TableProperty::EnableDeletionVectors, Some("true")),
        Mode::Append => create,
    };
    create.await
}

fn delta_fields(schema: &Schema) -> Result<Vec<StructField>, DeltaTableError> {
    let converted: StructType = schema.try_into_kernel()?;
    Ok(converted.fields().cloned().collect())
}

/// Whether two types are stored in the same way.
fn same_type(a: &DataType, b: &DataType) -> bool {
    let stored = |data_type: &DataType| -> Option<DeltaType> { data_type.try_into_kernel().ok() };
    stored(a).is_some() && stored(a) == stored(b)
}

fn writer_properties(definition: &Definition) -> WriterProperties {
    let compression = ZstdLevel::try_new(1).map_or(Compression::UNCOMPRESSED, Compression::ZSTD);
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(format!("ruam {}", env!("CARGO_PKG_VERSION")));
    for name in NO_DICTIONARY {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), false);
    }
    if let [key] = definition.key.as_slice() {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(key.as_str()), false);
    }
    // Whoever asks for one key reads the row groups that may have it, and no others. Of a full row group the
    // filter takes 256 KiB, of a small one as much less.
    for name in &definition.key {
        let path = ColumnPath::from(name.as_str());
        properties = properties
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path, FALSE_POSITIVES);
    }
    properties.build()
}

/// A table as it is now; none where it does not exist.
pub(crate) async fn load(lake: &Lake, name: &TableName) -> Result<Option<DeltaTable>, LakeError> {
    let mut delta = DeltaTable::new(lake.log_store(name)?);
    let failed = |error: DeltaTableError| LakeError::table("open", name, error);
    let log_store = delta.log_store();
    // A log that has grown has this, and to ask for a listing of it would take as long as to open it.
    let hint = log_store.log_path().clone().join(log::LAST_CHECKPOINT);
    let is_there = log_store.object_store(None).head(&hint).await.is_ok()
        || delta.verify_deltatable_existence().await.map_err(failed)?;
    if !is_there {
        return Ok(None);
    }
    delta.load().await.map_err(failed)?;
    Ok(Some(delta))
}

/// How far a table is with a partition; none where it has never been read.
pub(crate) async fn progress(
    table: &DeltaTable,
    name: &TableName,
    partition: &Partition,
) -> Result<Option<Progress>, LakeError> {
    let failed = |error: DeltaTableError| LakeError::table("read the progress of", name, error);
    let state = table.snapshot().map_err(failed)?;
    let (dataset, log_store) = (&name.dataset, table.log_store());
    let transaction = async |id: String| state.transaction_version(log_store.as_ref(), id).await.map_err(failed);
    let known = topic_id(table, name, &partition.topic.name).await?;
    if known.is_some_and(|known| known != partition.topic.id) {
        return Err(LakeError::Recreated {
            dataset: dataset.clone(),
            topic: partition.topic.name.clone(),
            now: partition.topic.id,
        });
    }
    let Some(next) = transaction(progress::partition_id(dataset, partition)).await? else {
        if known.is_none() && state.log_data().num_files() > 0 {
            return Err(LakeError::NoProgress { dataset: dataset.clone(), table: name.clone() });
        }
        return Ok(None);
    };
    let mut counts = [None; _];
    for (count, id) in counts.iter_mut().zip(progress::count_ids(dataset, partition)) {
        *count = transaction(id).await?;
    }
    Ok(Some(progress::from_counts(next, counts)))
}

/// The identity of the topic that a table was last written from; none where it never was.
pub(crate) async fn topic_id(table: &DeltaTable, name: &TableName, topic: &str) -> Result<Option<TopicId>, LakeError> {
    let failed = |error: DeltaTableError| LakeError::table("read the progress of", name, error);
    let state = table.snapshot().map_err(failed)?;
    let log_store = table.log_store();
    let [high, low] = progress::topic_ids(&name.dataset, topic);
    let high = state.transaction_version(log_store.as_ref(), high).await.map_err(failed)?;
    let low = state.transaction_version(log_store.as_ref(), low).await.map_err(failed)?;
    Ok(high.zip(low).map(|(high, low)| progress::identity([high, low])))
}
