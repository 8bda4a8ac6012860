//! `ruam.versions`: the versions of each table that its log still tells of.
//!
//! What passes through: the entries of the tables' logs, one row each. Tables that a filter on their
//! names rules out are not looked at. How many records came with each is not told of a table of which the
//! caller does not see all rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::Result;
use datafusion::common::cast::as_boolean_array;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use ruam_lake::{TableName, Version, versions};

use crate::error::external;
use crate::scan::predicate;
use crate::scope::{Scope, part_of};
use crate::tables::Tables;

/// The columns that name a table.
const NAMES: [&str; 2] = ["dataset", "table_name"];

/// The table of versions.
#[derive(Debug)]
pub(crate) struct Versions {
    tables: Arc<Tables>,
    names: Vec<TableName>,
    /// Those of which the caller sees all rows.
    counted: BTreeSet<TableName>,
    schema: SchemaRef,
}

impl Versions {
    pub(crate) fn new(scope: &Scope) -> Self {
        let names = scope.tables().map(|(_, name, _)| name).collect();
        let counted = scope.tables().filter(|(dataset, name, _)| scope.sees_all_rows(dataset, part_of(name.kind)));
        let counted = counted.map(|(_, name, _)| name).collect();
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")));
        let schema = Schema::new(vec![
            Field::new(NAMES[0], DataType::Utf8, false),
            Field::new(NAMES[1], DataType::Utf8, false),
            Field::new("version", DataType::Int64, false),
            Field::new("committed_at", time, true),
            Field::new("operation", DataType::Utf8, true),
            Field::new("records", DataType::Int64, true),
        ]);
        Self { tables: scope.tables.clone(), names, counted, schema: Arc::new(schema) }
    }

    /// The tables that may have a row for which the filters are true.
    fn kept(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<&TableName>> {
        let schema = Arc::new(self.schema.project(&[0, 1])?);
        let Some(predicate) = predicate(state, &schema, filters)? else { return Ok(self.names.iter().collect()) };
        let names = RecordBatch::try_new(schema, names(&self.names))?;
        let kept = predicate.evaluate(&names)?.into_array(names.num_rows())?;
        let kept: &BooleanArray = as_boolean_array(&kept)?;
        Ok(self.names.iter().zip(kept).filter(|(_, kept)| *kept == Some(true)).map(|(name, _)| name).collect())
    }

    fn batch(&self, name: &TableName, versions: &[Version]) -> Result<RecordBatch> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let is_counted = self.counted.contains(name);
        let records = |version: &Version| version.records.filter(|_| is_counted).map(number);
        let times: TimestampMicrosecondArray = versions.iter().map(|version| version.committed_at).collect();
        let mut columns = names(&vec![name.clone(); versions.len()]);
        columns.extend([
            Arc::new(Int64Array::from_iter_values(versions.iter().map(|version| number(version.version)))) as ArrayRef,
            Arc::new(times.with_timezone("UTC")),
            Arc::new(versions.iter().map(|version| version.operation.as_deref()).collect::<StringArray>()),
            Arc::new(versions.iter().map(records).collect::<Int64Array>()),
        ]);
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

fn names(names: &[TableName]) -> Vec<ArrayRef> {
    vec![
        Arc::new(StringArray::from_iter_values(names.iter().map(|name| name.dataset.to_string()))),
        Arc::new(StringArray::from_iter_values(names.iter().map(ToString::to_string))),
    ]
}

#[async_trait]
impl TableProvider for Versions {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let of_names = |filter: &&Expr| filter.column_refs().iter().all(|column| NAMES.contains(&column.name()));
        let push_down = |filter| match of_names(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(push_down).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut batches = Vec::new();
        for name in self.kept(state, filters)? {
            if let Some(table) = self.tables.table(name).await? {
                batches.push(self.batch(name, &versions(name, &table).await.map_err(external)?)?);
            }
        }
        MemTable::try_new(self.schema.clone(), vec![batches])?.scan(state, projection, &[], limit).await
    }
}
