//! `table_changes('agency.dataset', from [, to])`: what changed between two versions of a table.
//!
//! What passes through: the rows that came and went with each version of the range, both ends included,
//! as the table's log has them; without `to`, up to the newest. Each with what became of it, with which
//! version and when, in the columns that Delta's change data feed has:
//!
//! | column | what it says |
//! |---|---|
//! | `_change_type` | `insert`, `delete`, or `update_preimage` and `update_postimage` of a row that was replaced |
//! | `_commit_version` | the version |
//! | `_commit_timestamp` | when it was committed |
//!
//! Guaranteed: rows that only moved to another file are no changes. What is read are the files and the
//! rows that changed, however large the table is.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, ident, lit, when,
};
use datafusion::physical_plan::ExecutionPlan;
use ruam_event::Mode;
use ruam_lake::{ChangedFile, LakeError, RowChange, TableKind, TableName, changed_files};

use crate::error::{QueryError, external};
use crate::scan::{FileScan, LakeTable, nullable, predicate, selected};
use crate::scope::{Scope, part_of};
use crate::tables::Tables;

const CHANGE_TYPE: &str = "_change_type";
const COMMIT_VERSION: &str = "_commit_version";
const COMMIT_TIMESTAMP: &str = "_commit_timestamp";
const INSERT: &str = "insert";
const DELETE: &str = "delete";

/// The function, over some tables.
#[derive(Debug)]
pub(crate) struct TableChanges(pub Scope);

impl TableChanges {
    pub(crate) const NAME: &str = "table_changes";
}

impl TableFunctionImpl for TableChanges {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let Call { table, from, to } = Call::of(args.exprs()).map_err(external)?;
        let Some((dataset, name, schema)) = self.0.table(&table) else {
            let known: Vec<_> = self.0.tables().map(|(_, name, _)| name.to_string()).collect();
            return Err(external(QueryError::no_table(&table, &known)));
        };
        let (part, replaces) = (part_of(name.kind), name.kind == TableKind::Rows && dataset.spec.mode == Mode::Upsert);
        let changed = Arc::new(Changed::new(&self.0.tables, name, schema, from, to));
        let changes: Arc<dyn TableProvider> = if replaces { updates(changed, &dataset.spec.key())? } else { changed };
        let seen = self.0.see(dataset, part, table.clone(), changes)?;
        seen.ok_or_else(|| external(QueryError::no_table(&table, &[])))
    }
}

/// What the function was called with.
struct Call {
    table: String,
    from: u64,
    to: Option<u64>,
}

impl Call {
    fn of(arguments: &[Expr]) -> std::result::Result<Self, QueryError> {
        let wrong = |problem: String| QueryError::Call {
            function: TableChanges::NAME,
            problem,
            usage: "table_changes('agency.dataset', from) or table_changes('agency.dataset', from, to), with the numbers of two versions",
        };
        let (table, versions) = match arguments {
            [Expr::Literal(ScalarValue::Utf8(Some(table)), _), versions @ ..] if matches!(versions.len(), 1 | 2) => {
                (table.clone(), versions)
            }
            _ => return Err(wrong("it takes the name of a table, and one or two versions of it".to_owned())),
        };
        let version = |argument: &Expr| match argument {
            Expr::Literal(ScalarValue::Int64(Some(version)), _) => {
                u64::try_from(*version).map_err(|_| wrong(format!("{version} is not a version")))
            }
            Expr::Literal(ScalarValue::UInt64(Some(version)), _) => Ok(*version),
            other => Err(wrong(format!("{other} is not a version"))),
        };
        let (from, to) = (version(&versions[0])?, versions.get(1).map(version).transpose()?);
        match to.filter(|to| *to < from) {
            Some(to) => Err(wrong(format!("version {to} is before version {from}"))),
            None => Ok(Self { table, from, to }),
        }
    }
}

/// Tells a row that was replaced from one that came or went.
fn updates(changed: Arc<Changed>, key: &[String]) -> Result<Arc<dyn TableProvider>> {
    let columns: Vec<_> = changed.schema.file_schema().fields().iter().map(|field| ident(field.name())).collect();
    let by_key = [COMMIT_VERSION].into_iter().chain(key.iter().map(String::as_str)).map(ident).collect();
    let of_key = Expr::from(WindowFunction::new(count_udaf(), vec![lit(1)])).partition_by(by_key).build()?;
    let image = when(ident(CHANGE_TYPE).eq(lit(INSERT)), lit("update_postimage")).otherwise(lit("update_preimage"))?;
    let change = when(ident("_of_key").gt(lit(1)), image).otherwise(ident(CHANGE_TYPE))?.alias(CHANGE_TYPE);
    let more = [change, ident(COMMIT_VERSION), ident(COMMIT_TIMESTAMP)];
    let plan = LogicalPlanBuilder::scan(changed.name.table(), provider_as_source(changed), None)?
        .window([of_key.alias("_of_key")])?
        .project(columns.into_iter().chain(more))?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// The rows that came and went.
#[derive(Debug)]
struct Changed {
    tables: Arc<Tables>,
    name: TableName,
    schema: TableSchema,
    from: u64,
    to: Option<u64>,
}

impl Changed {
    fn new(tables: &Arc<Tables>, name: TableName, schema: &Schema, from: u64, to: Option<u64>) -> Self {
        // Files that are older than a column have null in it.
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")));
        let of_commit: Vec<FieldRef> = vec![
            Arc::new(Field::new(CHANGE_TYPE, DataType::Utf8, false)),
            Arc::new(Field::new(COMMIT_VERSION, DataType::Int64, false)),
            Arc::new(Field::new(COMMIT_TIMESTAMP, time, true)),
        ];
        let schema = TableSchema::builder(nullable(schema)).with_table_partition_cols(of_commit).build();
        Self { tables: tables.clone(), name, schema, from, to }
    }
}

#[async_trait]
impl TableProvider for Changed {
    fn schema(&self) -> SchemaRef {
        self.schema.table_schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(table) = self.tables.table(&self.name).await? else {
            return Err(external(LakeError::Missing { table: self.name.clone() }));
        };
        if !LakeTable::is_plain(&table) {
            let problem = format!("`{}` has columns that are not in its files as they are", self.name);
            let usage = "a query of the table instead";
            return Err(external(QueryError::Call { function: TableChanges::NAME, problem, usage }));
        }
        let to = self.to.or(table.version()).unwrap_or_default().max(self.from);
        let changed = changed_files(&self.name, &table, self.from, to).await.map_err(external)?;
        let predicate = predicate(state, self.schema.table_schema(), filters)?;
        let statistics = Statistics::new_unknown(self.schema.table_schema());
        let files = changed.iter().map(of_commit).collect();
        FileScan { table: &table, schema: self.schema.clone(), files, statistics, predicate }
            .plan(state, projection, limit)
            .await
    }
}

/// A file with what its rows have in the columns of the commit.
fn of_commit(changed: &ChangedFile) -> PartitionedFile {
    let change = match changed.change {
        RowChange::Inserted => INSERT,
        RowChange::Deleted => DELETE,
    };
    selected(&changed.file).with_partition_values(vec![
        ScalarValue::from(change),
        ScalarValue::Int64(i64::try_from(changed.version).ok()),
        ScalarValue::TimestampMicrosecond(changed.committed_at, Some(Arc::from("UTC"))),
    ])
}
