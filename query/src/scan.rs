//! The rows of a table of the lake, read by as many cores as there are.
//!
//! What passes through: the live files of a table as it was looked at, and what of them is wanted, into
//! a scan of Parquet files. Files whose statistics rule them out are not opened, row groups and pages that
//! filters rule out are not read, and rows that were deleted are left out of the batches (see
//! [`live_rows`](crate::live_rows)).
//!
//! delta-rs has a scan of its own, which reads tables with deletion vectors in one stream and rules out
//! nothing within a file.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DFSchema, DataFusionError, Result, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::file_format::parquet::transform_schema_to_view;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use deltalake::DeltaTable;
use parquet::arrow::arrow_reader::RowSelection;
use ruam_lake::{LiveFile, key};

use crate::bloom_filters::{Files, Lookup};
use crate::error::external;
use crate::file_statistics::FileStatistics;
use crate::live_rows::{self, LiveRowsExec};
use crate::reading::{CountedFiles, Reading};

/// About the bytes of a text: a view, and as much again for those that do not lie in it.
const TEXT_BYTES: usize = 32;

/// Which table, and as of when: what is read of it is the same for as long as this is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    /// Names the table; one that is made anew in its place has another.
    table: String,
    number: u64,
}

/// A table of the lake at one version.
#[derive(Debug)]
pub(crate) struct LakeTable {
    table: DeltaTable,
    files: Arc<[LiveFile]>,
    schema: SchemaRef,
}

impl LakeTable {
    /// The table with its live files, which are in the order of its log's data.
    ///
    /// # Errors
    /// Where the table was not loaded.
    pub(crate) fn new(table: DeltaTable, files: Arc<[LiveFile]>) -> Result<Self> {
        let schema = table.snapshot().map_err(external)?.snapshot().arrow_schema();
        Ok(Self::with_schema(table, files, &schema))
    }

    /// The table as if it had some columns; those that its files do not have are null.
    pub(crate) fn with_schema(table: DeltaTable, files: Arc<[LiveFile]>, schema: &Schema) -> Self {
        Self { table, files, schema: Self::schema_of(schema) }
    }

    /// Columns as they are scanned: texts are views of the pages that they are read from, so that what filters
    /// and joins pass on is not copied.
    pub(crate) fn schema_of(columns: &Schema) -> SchemaRef {
        Arc::new(transform_schema_to_view(columns))
    }

    /// Whether all that a table's log says of its columns is understood here: columns that are not in
    /// the files, or are there under other names, are not.
    pub(crate) fn is_plain(table: &DeltaTable) -> bool {
        table.snapshot().is_ok_and(|state| {
            let metadata = state.metadata();
            metadata.partition_columns().is_empty()
                && !metadata.configuration().contains_key("delta.columnMapping.mode")
        })
    }

    /// Its version; none where its log does not tell.
    pub(crate) fn version(&self) -> Option<Version> {
        let table = self.table.snapshot().ok()?.metadata().id().to_owned();
        Some(Version { table, number: self.table.version()? })
    }

    /// For each file whether it may have a row for which a predicate is true.
    fn kept(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Result<Vec<bool>> {
        let all = vec![true; self.files.len()];
        let Some(predicate) = predicate else { return Ok(all) };
        let builder = PruningPredicateBuilder::new().with_file_schema(self.schema.clone());
        // What says nothing of statistics rules no file out.
        let Ok(pruning) = builder.try_build(predicate.clone()) else { return Ok(all) };
        let kept = pruning.prune(&self.logged()?)?;
        if kept.len() != self.files.len() {
            return Err(DataFusionError::Internal("a table has other files than its log's statistics".to_owned()));
        }
        Ok(kept)
    }

    /// Whether a condition, which only compares, is true of all rows, as the log's statistics of each file show.
    /// Of columns with nulls they show nothing, nor of floats: what is not a number lies outside their bounds.
    pub(crate) fn is_true_of_all(&self, state: &dyn Session, condition: &Expr) -> Result<bool> {
        let logged = self.logged()?;
        let is_whole = |column: &&Column| {
            let is_float =
                self.schema.field_with_name(column.name()).is_ok_and(|field| field.data_type().is_floating());
            !is_float && logged.is_without_nulls(column)
        };
        if !condition.column_refs().iter().all(is_whole) {
            return Ok(false);
        }
        let schema = Arc::new(DFSchema::try_from(self.schema.as_ref().clone())?);
        let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(schema.clone()).build());
        let otherwise = simplifier.simplify(Expr::Not(Box::new(simplifier.coerce(condition.clone(), &schema)?)))?;
        // A value that does not become another is null.
        let may_be_null = |part: &Expr| match part {
            Expr::Cast(_) | Expr::TryCast(_) => true,
            Expr::Literal(value, _) => value.is_null(),
            _ => false,
        };
        for expression in [condition, &otherwise] {
            if expression.exists(|part| Ok(may_be_null(part)))? {
                return Ok(false);
            }
        }
        let otherwise = state.create_physical_expr(otherwise, &schema)?;
        Ok(!self.kept(Some(&otherwise))?.contains(&true))
    }

    fn logged(&self) -> Result<FileStatistics<'_>> {
        Ok(FileStatistics(self.table.snapshot().map_err(external)?.log_data()))
    }

    /// What is known of the rows of some files, by which joins are planned.
    fn statistics(&self, kept: &[bool], projection: Option<&Vec<usize>>, is_filtered: bool) -> Result<Statistics> {
        let logged = self.logged()?;
        let files = || self.files.iter().zip(kept).filter(|(_, kept)| **kept).map(|(file, _)| file);
        let rows = files().map(|file| file.rows).sum::<Option<u64>>().map(|rows| rows as usize);
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = match rows {
            Some(rows) if is_filtered => Precision::Inexact(rows),
            Some(rows) => Precision::Exact(rows),
            None => Precision::Absent,
        };
        statistics.total_byte_size = Precision::Inexact(files().map(|file| file.meta.size).sum::<u64>() as usize);
        let key = key(&self.table);
        for (index, (field, of_column)) in
            self.schema.fields().iter().zip(&mut statistics.column_statistics).enumerate()
        {
            if projection.is_some_and(|projection| !projection.contains(&index)) {
                continue;
            }
            *of_column = logged.of_column(field, kept);
            if let Some(rows) = rows {
                of_column.byte_size =
                    Precision::Inexact(rows * field.data_type().primitive_width().unwrap_or(TEXT_BYTES));
                if key.as_deref() == Some(std::slice::from_ref(field.name())) {
                    of_column.distinct_count = Precision::Inexact(rows);
                }
            }
        }
        Ok(statistics)
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // They leave out what cannot match; what is left is filtered.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let predicate = predicate(state, &self.schema, filters)?;
        let kept = self.kept(predicate.as_ref())?;
        let statistics = self.statistics(&kept, projection, predicate.is_some())?;
        let files: Vec<_> = self.files.iter().zip(kept).filter(|(_, kept)| *kept).map(|(file, _)| file).collect();
        if files.iter().all(|file| file.live.is_none()) {
            let files = files.into_iter().map(|file| PartitionedFile::new_from_meta(file.meta.clone())).collect();
            let schema = TableSchema::from(self.schema.clone());
            let scan = FileScan { table: &self.table, schema, files, statistics, predicate };
            return scan.plan(state, projection, limit).await;
        }
        self.plan_live(state, projection, &files, statistics, predicate).await
    }
}

impl LakeTable {
    /// A scan of files of which some have deleted rows.
    async fn plan_live(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        files: &[&LiveFile],
        statistics: Statistics,
        predicate: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = self.schema.fields().len();
        let statistics = statistics.project(projection);
        let mut projection = projection.cloned().unwrap_or_else(|| (0..columns).collect());
        projection.extend([columns, columns + 1]);
        let schema = TableSchema::builder(self.schema.clone())
            .with_table_partition_cols(vec![live_rows::file_column()])
            .with_virtual_columns(vec![live_rows::number_column()])
            .build();
        let masks = files.iter().map(|file| file.live.clone()).collect();
        let in_place = |(place, file): (usize, &&LiveFile)| {
            let file = PartitionedFile::new_from_meta(file.meta.clone());
            Ok(file.with_partition_values(vec![live_rows::file_value(place)?]))
        };
        let files = files.iter().enumerate().map(in_place).collect::<Result<_>>()?;
        let all = Statistics::new_unknown(schema.table_schema());
        let scan = FileScan { table: &self.table, schema, files, statistics: all, predicate };
        let scan = scan.plan(state, Some(&projection), None).await?;
        // Where something lies above them, the planner does not share files out.
        let shared = scan.repartitioned(state.config().target_partitions(), state.config_options())?;
        Ok(Arc::new(LiveRowsExec::new(shared.unwrap_or(scan), masks, Arc::new(statistics))))
    }
}

/// What is to be read of some files of a table.
pub(crate) struct FileScan<'a> {
    pub table: &'a DeltaTable,
    pub schema: TableSchema,
    pub files: Vec<PartitionedFile>,
    pub statistics: Statistics,
    /// What rules out row groups and pages.
    pub predicate: Option<Arc<dyn PhysicalExpr>>,
}

impl FileScan<'_> {
    pub(crate) async fn plan(
        self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let log_store = self.table.log_store();
        let (url, store) = (log_store.object_store_url(), log_store.object_store(None));
        state.runtime_env().register_object_store(url.as_ref(), store.clone());
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let mut options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let mut files = self.files;
        let key = key(self.table).unwrap_or_default();
        if let Some(lookup) = self.predicate.as_ref().and_then(|predicate| Lookup::of(predicate, &key)) {
            // Of the few rows of a key, the other columns are read alone. For as much as most filters leave that
            // takes longer than to read all.
            options.global.pushdown_filters = true;
            options.global.bloom_filter_on_read = false;
            let of_table = Files { store: &store, url: url.as_str(), footers: &cache, key: &key };
            files = lookup.among(files, &of_table).await?;
        }
        let read = CachedParquetFileReaderFactory::new(store, cache);
        let read: Arc<dyn ParquetFileReaderFactory> = match state.config().get_extension::<Reading>() {
            Some(reading) => {
                reading.plan(files.iter().map(|file| file.object_meta.size).sum());
                Arc::new(CountedFiles::new(read, reading))
            }
            None => Arc::new(read),
        };
        let mut source =
            ParquetSource::new(self.schema).with_table_parquet_options(options).with_parquet_file_reader_factory(read);
        if let Some(predicate) = self.predicate {
            source = source.with_predicate(predicate);
        }
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_group(FileGroup::new(files))
            .with_statistics(self.statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// The columns of a table that may be older than some of them, which then are null.
pub(crate) fn nullable(schema: &Schema) -> SchemaRef {
    let columns = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(columns.collect::<Vec<_>>()))
}

/// All filters as one expression over a table's columns.
pub(crate) fn predicate(
    state: &dyn Session,
    schema: &SchemaRef,
    filters: &[Expr],
) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(None) };
    state.create_physical_expr(filter, &DFSchema::try_from(schema.as_ref().clone())?).map(Some)
}

/// A few rows of a file: what lies between them is skipped.
pub(crate) fn selected(file: &LiveFile) -> PartitionedFile {
    let partitioned = PartitionedFile::new_from_meta(file.meta.clone());
    match &file.live {
        Some(live) => {
            partitioned.with_extension(ParquetRowSelection::new(RowSelection::from_boolean_buffer(live.clone())))
        }
        None => partitioned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
    use arrow::buffer::BooleanBuffer;
    use arrow::datatypes::Int64Type;
    use datafusion::common::{ColumnStatistics, ScalarValue};
    use datafusion::prelude::SessionContext;
    use parquet::file::properties::WriterProperties;
    use proptest::prelude::*;
    use ruam_lake::{LiveFiles, TableKind, TableName};

    /// A table of a file for each of some times, in microseconds.
    async fn table(dir: &tempfile::TempDir, times: &[i64]) -> LakeTable {
        let url = deltalake::ensure_table_uri(dir.path().to_string_lossy()).unwrap();
        let mut table = DeltaTable::try_from_url(url).await.unwrap();
        for time in times {
            let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![*time]).with_timezone("UTC"));
            let number: ArrayRef = Arc::new(Int64Array::from(vec![*time]));
            let rows = RecordBatch::try_from_iter([("at", at), ("number", number)]).unwrap();
            table = table.write([rows]).await.unwrap();
        }
        let name = TableName::new(&"a.b".parse().unwrap(), TableKind::Rows);
        let files = LiveFiles::default().of(&name, &table).await.unwrap();
        LakeTable::new(table, files).unwrap()
    }

    async fn count(table: LakeTable, condition: &str) -> (i64, usize) {
        let context = SessionContext::new();
        let filter = context.parse_sql_expr(condition, &DFSchema::try_from(table.schema()).unwrap()).unwrap();
        let predicate = context.state().create_physical_expr(filter, &DFSchema::try_from(table.schema()).unwrap());
        let kept = table.kept(Some(&predicate.unwrap())).unwrap().into_iter().filter(|kept| *kept).count();
        context.register_table("rows", Arc::new(table)).unwrap();
        let counted = context.sql(&format!("select count(*) from rows where {condition}")).await.unwrap();
        let counted = counted.collect().await.unwrap();
        let counts: &Int64Array = counted[0].column(0).as_any().downcast_ref().unwrap();
        (counts.value(0), kept)
    }

    #[tokio::test]
    async fn files_that_cannot_match_are_left_out_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let times = [1_700_000_000_000_700, 1_700_000_000_500_000, 1_700_000_001_000_000];
        let of = async |condition: &str| {
            count(table(&tempfile::tempdir_in(dir.path()).unwrap(), &times).await, condition).await
        };
        assert_eq!(of("number = 1700000000500000").await, (1, 1));
        assert_eq!(of("number < 0").await, (0, 0));
        // The log has the first time without its 700 microseconds.
        let first = "at >= timestamp '2023-11-14 22:13:20.000600Z' and at < timestamp '2023-11-14 22:13:20.1Z'";
        assert_eq!(of(first).await, (1, 1));
        assert_eq!(of("at > timestamp '2023-11-14 22:13:20.6Z'").await, (1, 1));
    }

    #[tokio::test]
    async fn what_the_log_shows_of_all_rows_is_true_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(&dir, &[7, 1_000_000, 30]).await;
        let context = SessionContext::new();
        for (condition, expected) in [
            ("number >= 7", true),
            ("number > 7", false),
            ("number between 0 and 1000000", true),
            ("number <> 8 or number < 0", true),
            ("number <> 30", false),
            ("number in (7, 30)", false),
            ("not (number < 7 or number > 2000000)", true),
            ("cast(number as varchar) >= ''", false),
            ("number % 2 >= 0", false),
        ] {
            let parsed = context.parse_sql_expr(condition, &DFSchema::try_from(table.schema()).unwrap()).unwrap();
            assert_eq!(table.is_true_of_all(&context.state(), &parsed).unwrap(), expected, "{condition}");
        }
    }

    #[tokio::test]
    async fn joins_are_planned_by_what_the_kept_files_have() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(&dir, &[7, 1_000_000, 30]).await;
        let all = table.statistics(&[true; 3], None, false).unwrap();
        assert_eq!(all.num_rows, Precision::Exact(3));
        let number = &all.column_statistics[1];
        let bounds = |column: &ColumnStatistics| (column.min_value.clone(), column.max_value.clone());
        let value = |number: i64| Precision::Inexact(ScalarValue::from(number));
        assert_eq!(bounds(number), (value(7), value(1_000_000)));
        assert_eq!((&number.null_count, &number.byte_size), (&Precision::Inexact(0), &Precision::Inexact(24)));
        let some = table.statistics(&[true, true, false], Some(&vec![1]), true).unwrap();
        assert_eq!(some.num_rows, Precision::Inexact(2));
        assert_ne!(bounds(&some.column_statistics[1]), (Precision::Absent, Precision::Absent));
        assert_eq!(some.column_statistics[0], ColumnStatistics::new_unknown());
    }

    const ROWS: i64 = 700;

    /// A table of one file with small row groups and pages, of which some rows have been deleted.
    async fn with_deleted(dir: &tempfile::TempDir, live: &[bool]) -> LakeTable {
        let url = deltalake::ensure_table_uri(dir.path().to_string_lossy()).unwrap();
        let number: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
        let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| format!("row {row}"))));
        let rows = RecordBatch::try_from_iter([("number", number), ("text", text)]).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(100))
            .set_data_page_row_count_limit(16)
            .set_write_batch_size(16)
            .build();
        let table = DeltaTable::try_from_url(url).await.unwrap();
        let table = table.write([rows]).with_writer_properties(properties).await.unwrap();
        let name = TableName::new(&"a.b".parse().unwrap(), TableKind::Rows);
        let files = LiveFiles::default().of(&name, &table).await.unwrap();
        let [file] = &files[..] else { panic!("{} files", files.len()) };
        let rows = live.iter().filter(|live| **live).count() as u64;
        let file = LiveFile { rows: Some(rows), live: Some(BooleanBuffer::from(live)), ..file.clone() };
        LakeTable::new(table, Arc::from([file])).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn deleted_rows_are_never_seen_whatever_is_ruled_out(
            live in prop_oneof![
                prop::collection::vec(prop::bool::weighted(0.8), ROWS as usize),
                // Whole row groups and pages of them, too.
                prop::collection::vec(any::<bool>(), 14).prop_map(|runs| {
                    runs.iter().flat_map(|live| [*live; 50]).collect()
                }),
            ],
            from in 0..ROWS,
            span in 0..300_i64,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let dir = tempfile::tempdir().unwrap();
                let context = SessionContext::new();
                context.register_table("t", Arc::new(with_deleted(&dir, &live).await)).unwrap();
                let is_live = |row: &i64| live[*row as usize];
                let answer = async |sql: String| {
                    let batches = context.sql(&sql).await.unwrap().collect().await.unwrap();
                    let numbers = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values());
                    numbers.copied().collect::<Vec<_>>()
                };
                let all: Vec<_> = (0..ROWS).filter(is_live).collect();
                let within: Vec<_> = (from..(from + span).min(ROWS)).filter(is_live).collect();
                let condition = format!("number >= {from} and number < {}", from + span);
                assert_eq!(answer("select count(*) from t".to_owned()).await, [all.len() as i64]);
                assert_eq!(answer("select number from t order by number".to_owned()).await, all);
                assert_eq!(answer(format!("select number from t where {condition} order by number")).await, within);
                assert_eq!(answer(format!("select count(text) from t where {condition}")).await, [within.len() as i64]);
                let first: Vec<_> = within.iter().rev().take(3).copied().collect();
                assert_eq!(answer(format!("select number from t where {condition} order by number desc limit 3")).await, first);
                assert_eq!(answer("select count(*) from (select text from t limit 5)".to_owned()).await, [all.len().min(5) as i64]);
            });
        }
    }
}
