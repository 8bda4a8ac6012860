//! Tables as they were: `from agency.dataset version as of 7`, and `timestamp as of <time>`.
//!
//! What passes through: a table in a statement with what it is wanted as of, into a scan of the table as it
//! was then, with the columns that are declared now; those that it did not have are null.
//!
//! Guaranteed: a version of a table never stands in for another: what cannot be told any more is an error.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown, TableType};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::ast::TableFactor;
use ruam_lake::{AsOf, TableName};

use crate::error::{QueryError, external};
use crate::scan::{LakeTable, nullable};
use crate::scope::{Scope, part_of};
use crate::tables::Tables;

const USAGE: &str = "`agency.dataset version as of 7`, with one of `select * from ruam.versions`, or `agency.dataset timestamp as of '2026-01-31 12:00:00Z'`";

/// Plans tables that are wanted as they were.
#[derive(Debug)]
pub(crate) struct TimeTravel(pub Scope);

impl RelationPlanner for TimeTravel {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { name, alias, version: Some(version), args: None, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let as_of = as_of(version, context)?;
        let reference = context.object_name_to_table_reference(name.clone())?;
        let is_meant = |table: &TableName| {
            Some(table.dataset.agency()) == reference.schema() && table.table() == reference.table()
        };
        let none = || wrong(format!("`{name}` is not a table that has versions"));
        let (dataset, table, schema) = self.0.tables().find(|(_, table, _)| is_meant(table)).ok_or_else(none)?;
        let (part, known_as) = (part_of(table.kind), table.to_string());
        let was = Arc::new(TableAsOf {
            tables: self.0.tables.clone(),
            name: table,
            schema: LakeTable::schema_of(&nullable(schema)),
            as_of,
        });
        let was = self.0.see(dataset, part, known_as, was)?.ok_or_else(none)?;
        let plan = LogicalPlanBuilder::scan(reference, provider_as_source(was), None)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

fn wrong(problem: String) -> datafusion::error::DataFusionError {
    external(QueryError::Call { function: "as of", problem, usage: USAGE })
}

/// What is wanted, which does not depend on any row.
fn as_of(version: &ast::TableVersion, context: &mut dyn RelationPlannerContext) -> Result<AsOf> {
    let mut constant = |expression: &ast::Expr| -> Result<ScalarValue> {
        let expression = context.sql_to_expr(expression.clone(), &DFSchema::empty())?;
        let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_current_time().build());
        let empty = DFSchema::empty();
        match simplifier.simplify(simplifier.coerce(expression, &empty)?)? {
            Expr::Literal(value, _) if !value.is_null() => Ok(value),
            other => Err(wrong(format!("{other} is not known before the question is answered"))),
        }
    };
    match version {
        ast::TableVersion::VersionAsOf(number) => match constant(number)?.cast_to(&DataType::UInt64)? {
            ScalarValue::UInt64(Some(version)) => Ok(AsOf::Version(version)),
            other => Err(wrong(format!("{other} is not a version"))),
        },
        ast::TableVersion::TimestampAsOf(time) | ast::TableVersion::ForSystemTimeAsOf(time) => {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")));
            match constant(time)?.cast_to(&micros)? {
                ScalarValue::TimestampMicrosecond(Some(micros), _) => Ok(AsOf::Time(micros)),
                other => Err(wrong(format!("{other} is not a time"))),
            }
        }
        other => Err(wrong(format!("`{other}` is not understood"))),
    }
}

/// A table as it was.
#[derive(Debug)]
struct TableAsOf {
    tables: Arc<Tables>,
    name: TableName,
    schema: SchemaRef,
    as_of: AsOf,
}

#[async_trait]
impl TableProvider for TableAsOf {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
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
        let (table, files) = self.tables.as_of(&self.name, self.as_of).await?;
        if !LakeTable::is_plain(&table) {
            return Err(wrong(format!("`{}` has columns that are not in its files as they are", self.name)));
        }
        LakeTable::with_schema(table, files, &self.schema).scan(state, projection, filters, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use arrow::util::display::array_value_to_string;
    use deltalake::DeltaTable;
    use deltalake::operations::write::SchemaMode;
    use deltalake::protocol::checkpoints;
    use futures::TryStreamExt;
    use ruam_lake::Lake;

    use crate::engine::{Engine, EngineSettings};
    use crate::fixture::dataset;
    use crate::policy::Policies;

    async fn table(dir: &Path) -> DeltaTable {
        let url = deltalake::ensure_table_uri(dir.join("a/b").to_string_lossy()).unwrap();
        DeltaTable::try_from_url(url).await.unwrap()
    }

    fn millisecond() -> u128 {
        std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()
    }

    /// Three versions: a row each, the last with another column.
    async fn engine(dir: &Path) -> Engine {
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        let note = |note: &str| Arc::new(StringArray::from(vec![note])) as ArrayRef;
        for number in 1..=3 {
            let mut columns = vec![("number", Arc::new(Int64Array::from(vec![number])) as ArrayRef)];
            columns.extend((number == 3).then(|| ("note", note("last"))));
            let rows = RecordBatch::try_from_iter(columns).unwrap();
            table(dir).await.write([rows]).with_schema_mode(SchemaMode::Merge).await.unwrap();
            // A log has times to the millisecond.
            let written = millisecond();
            while millisecond() == written {
                tokio::task::yield_now().await;
            }
        }
        let lake = Lake::open(&dir.to_string_lossy(), &BTreeMap::new()).unwrap();
        Engine::new(lake, vec![dataset("note")], Policies::default(), EngineSettings::default()).unwrap()
    }

    /// The first row of the answer, or what is wrong.
    async fn ask(engine: &Engine, sql: &str) -> std::result::Result<String, String> {
        let stream = engine.query(sql).await.map_err(|error| error.to_string())?;
        let batches: Vec<_> = stream.try_collect().await.map_err(|error| error.to_string())?;
        let batch = batches.iter().find(|batch| batch.num_rows() > 0).ok_or("no row")?;
        Ok(batch.columns().iter().map(|column| array_value_to_string(column, 0).unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[tokio::test]
    async fn tables_are_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path()).await;
        let mut times = Vec::new();
        for version in 0..3 {
            let sql = format!("select committed_at from ruam.versions where version = {version}");
            times.push(ask(&engine, &sql).await.unwrap());
        }
        let [_, second, third] = &times[..] else { panic!("three versions") };
        for (sql, expected) in [
            ("select count(*) from a.b", "3"),
            ("select count(*), max(note) from a.b version as of 2", "3 last"),
            ("select sum(number) from a.b version as of 1", "3"),
            ("select sum(number) from a.b Version As Of 1 where number > 1", "2"),
            ("select count(*), count(note) from a.b version as of 0", "1 0"),
            ("select count(*) from ruam.a.b version as of 0", "1"),
            ("select number from a.b version as of 0 as old", "1"),
            (
                "select min(new.number) from a.b new left join a.b version as of 0 as old on old.number = new.number where old.number is null",
                "2",
            ),
            ("with old as (select * from a.b version as of 1) select count(*) from old", "2"),
            ("select (select count(*) from a.b version as of 0)", "1"),
            ("select count(*) from a.b timestamp as of now()", "3"),
            ("select count(*) from a.b timestamp as of now() + interval '1 day'", "3"),
            (&format!("select count(*) from a.b timestamp as of '{second}'"), "2"),
            (
                &format!(
                    "select count(*) from a.b for system_time as of timestamp '{third}' - interval '1 millisecond'"
                ),
                "2",
            ),
            ("select version from (select 1 as version)", "1"),
        ] {
            assert_eq!(ask(&engine, sql).await.as_deref(), Ok(expected), "{sql}");
        }
        for (sql, expected) in [
            ("select * from a.b version as of 3", "there is no version 3 of table `a.b` yet: the newest is 2"),
            ("select * from a.b timestamp as of '2020-01-01'", "table `a.b` began after 2020-01-01 00:00:00 UTC"),
            ("select * from a.b version as off 1", "Expected: end of statement, found: as at Line: 1, Column: 27"),
            ("select * from a.b timestamp as of number", "No field named number"),
            ("select * from a.b timestamp as of random()", "as of: random() is not known before the question is"),
            ("select * from a.b timestamp as of null", "as of: "),
            ("select * from a.b timestamp as of 'yesterday'", "yesterday"),
            ("select * from a.c version as of 1", "as of: `a.c` is not a table that has versions. Write `agency"),
            ("select * from ruam.datasets version as of 1", "as of: `ruam.datasets` is not a table that has versions"),
            ("select * from a.b__rejects version as of 0", "there is no table `a.b__rejects` yet"),
            ("", "there is no statement"),
            ("select 1; select 2", "there are 2 statements"),
        ] {
            let error = ask(&engine, sql).await.unwrap_err();
            assert!(error.contains(expected), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn what_is_not_kept_is_not_made_up() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path()).await;
        let second = ask(&engine, "select committed_at from ruam.versions where version = 1").await.unwrap();
        // As a clean-up does: what comes before a checkpoint may go, but for what is kept.
        checkpoints::create_checkpoint(&table(dir.path()).await, None).await.unwrap();
        std::fs::remove_file(dir.path().join("a/b/_delta_log/00000000000000000001.json")).unwrap();
        for of in ["version as of 1".to_owned(), format!("timestamp as of '{second}'")] {
            let error = ask(&engine, &format!("select * from a.b {of}")).await.unwrap_err();
            assert!(error.starts_with("table `a.b` is not kept as of "), "{error}");
        }
        assert_eq!(ask(&engine, "select count(*) from a.b version as of 0").await.as_deref(), Ok("1"));
        assert_eq!(ask(&engine, "select count(*) from a.b version as of 2").await.as_deref(), Ok("3"));
    }
}
