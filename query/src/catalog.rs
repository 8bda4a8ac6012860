//! The lake as SQL sees it: a schema per agency, and `ruam` with what there is to know of all.
//!
//! | table | what it holds |
//! |---|---|
//! | `<agency>.<dataset>` | the rows |
//! | `<agency>.<dataset>__rejects` | what could not become a row, and why |
//! | `<agency>.<dataset>__changes` | every accepted change, where history is kept |
//! | `<agency>.<dataset>__history` | what each row was, by the source's clock and by that of arrival |
//! | `ruam.datasets`, `ruam.columns` | what is declared |
//! | `ruam.rejects` | the rejects of all datasets |
//! | `ruam.versions` | the versions of all tables |
//! | `ruam.audit` | who asked what, for those who may see it |
//!
//! A table is looked at afresh by each statement. One that nothing has been written to yet is empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemTable};
use datafusion::catalog::{MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, ident, lit};
use ruam_lake::{TableKind, TableName};

use crate::audit;
use crate::engine::QueryDataset;
use crate::history::History;
use crate::policy::Part;
use crate::scope::{Scope, part_of};
use crate::tables::Tables;
use crate::versions::Versions;

/// The catalog's name, which is also the name of the database that PostgreSQL's clients connect to.
pub(crate) const CATALOG: &str = "ruam";

const AUDIT: &str = "audit";

/// The catalog of a session.
pub(crate) fn catalog(scope: &Scope) -> Result<Arc<dyn CatalogProvider>> {
    let catalog = MemoryCatalogProvider::new();
    let mut agencies: BTreeMap<&str, BTreeMap<String, Arc<QueryDataset>>> = BTreeMap::new();
    for dataset in scope.datasets() {
        let id = dataset.spec.id();
        agencies.entry(id.agency()).or_default().insert(id.name().to_owned(), dataset.clone());
    }
    for (agency, datasets) in agencies {
        catalog.register_schema(agency, Arc::new(Agency { scope: scope.clone(), datasets }))?;
    }
    catalog.register_schema(CATALOG, Arc::new(About { scope: scope.clone() }))?;
    Ok(Arc::new(catalog))
}

/// The datasets of one agency.
#[derive(Debug)]
struct Agency {
    scope: Scope,
    datasets: BTreeMap<String, Arc<QueryDataset>>,
}

/// What a name in an agency's schema stands for.
enum Named<'a> {
    Table(&'a QueryDataset, TableKind),
    History(&'a QueryDataset),
}

/// What the name of a dataset's history ends with.
pub(crate) const HISTORY: &str = "__history";

impl Agency {
    /// What a name stands for, where it is there for the caller.
    fn named(&self, name: &str) -> Option<Named<'_>> {
        self.declared(name).filter(|named| match named {
            Named::Table(dataset, kind) => self.scope.has(dataset, part_of(*kind)),
            Named::History(dataset) => self.scope.has(dataset, Part::History),
        })
    }

    fn declared(&self, name: &str) -> Option<Named<'_>> {
        if let Some(dataset) = self.datasets.get(name) {
            return Some(Named::Table(dataset, TableKind::Rows));
        }
        let (base, suffix) = name.split_at(name.find("__")?);
        let dataset = self.datasets.get(base)?;
        match suffix {
            HISTORY if dataset.has_history() => Some(Named::History(dataset)),
            suffix if suffix == TableKind::Changes.suffix() && dataset.changes.is_some() => {
                Some(Named::Table(dataset, TableKind::Changes))
            }
            suffix if suffix == TableKind::Rejects.suffix() => Some(Named::Table(dataset, TableKind::Rejects)),
            _ => None,
        }
    }
}

#[async_trait]
impl SchemaProvider for Agency {
    fn table_names(&self) -> Vec<String> {
        let names = self.datasets.iter().flat_map(|(name, dataset)| {
            let changes = dataset.changes.is_some().then_some(TableKind::Changes.suffix());
            let history = dataset.has_history().then_some(HISTORY);
            let suffixes = ["", TableKind::Rejects.suffix()].into_iter().chain(changes).chain(history);
            suffixes.map(move |suffix| format!("{name}{suffix}"))
        });
        names.filter(|name| self.named(name).is_some()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.named(name) {
            None => Ok(None),
            Some(Named::Table(dataset, kind)) => {
                let table = dataset.provider(&self.scope.tables, kind).await?;
                self.scope.see(dataset, part_of(kind), full_name(dataset, name), table)
            }
            Some(Named::History(dataset)) => {
                let name = full_name(dataset, name);
                let history = history(dataset, &self.scope, &name).await?;
                self.scope.see(dataset, Part::History, name, history)
            }
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.named(name).is_some()
    }
}

impl QueryDataset {
    /// Whether there is a history of each of its keys.
    pub(crate) fn has_history(&self) -> bool {
        self.changes.is_some() && !self.spec.key().is_empty()
    }

    /// The tables that it has, each with its columns.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (TableName, &SchemaRef)> {
        let name = |kind| TableName::new(self.spec.id(), kind);
        let changes = self.changes.as_ref().map(|changes| (name(TableKind::Changes), changes));
        [(name(TableKind::Rows), &self.rows), (name(TableKind::Rejects), &self.rejects)].into_iter().chain(changes)
    }

    async fn provider(&self, tables: &Tables, kind: TableKind) -> Result<Arc<dyn TableProvider>> {
        let schema = match kind {
            TableKind::Rows => &self.rows,
            TableKind::Rejects => &self.rejects,
            TableKind::Changes => self.changes.as_ref().unwrap_or(&self.rows),
        };
        tables.provider(&TableName::new(self.spec.id(), kind), schema).await
    }
}

fn view(plan: LogicalPlan) -> Arc<dyn TableProvider> {
    Arc::new(ViewTable::new(plan, None))
}

/// A dataset's history. Where nothing of it is hidden it becomes a part of the question, and what that reads is
/// known by the name of the history.
async fn history(dataset: &QueryDataset, scope: &Scope, name: &str) -> Result<Arc<dyn TableProvider>> {
    let changes = dataset.provider(&scope.tables, TableKind::Changes).await?;
    let changes = provider_as_source(scope.whole(dataset, name.to_owned(), changes)?);
    let table = TableName::new(dataset.spec.id(), TableKind::Changes).table();
    let changes = LogicalPlanBuilder::scan(table, changes, None)?.build()?;
    let (key, effective) = (dataset.spec.key(), dataset.spec.effective());
    Ok(view(History { rows: &dataset.rows, key: &key, effective }.plan(&changes)?))
}

/// A table's name with its agency's, for people.
fn full_name(dataset: &QueryDataset, table: &str) -> String {
    format!("{}.{table}", dataset.spec.id().agency())
}

/// What there is to know of all datasets.
#[derive(Debug)]
struct About {
    scope: Scope,
}

#[async_trait]
impl SchemaProvider for About {
    fn table_names(&self) -> Vec<String> {
        let audit = self.scope.may_audit().then_some(AUDIT);
        ["columns", "datasets", "rejects", "versions"].into_iter().chain(audit).map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(match name {
            "datasets" => Some(self.datasets()?),
            "columns" => Some(self.columns()?),
            "rejects" => Some(self.rejects().await?),
            "versions" => Some(Arc::new(Versions::new(&self.scope))),
            AUDIT if self.scope.may_audit() => Some(Arc::new(audit::Account::new(self.scope.audit.clone())?)),
            _ => None,
        })
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|known| known == name)
    }
}

impl About {
    fn datasets(&self) -> Result<Arc<dyn TableProvider>> {
        let text = |of: &dyn Fn(&QueryDataset) -> String| -> ArrayRef {
            Arc::new(self.scope.datasets().map(|dataset| Some(of(dataset))).collect::<StringArray>())
        };
        let generated: BooleanArray = self.scope.datasets().map(|dataset| Some(dataset.spec.generated)).collect();
        table(vec![
            ("dataset", text(&|dataset| dataset.spec.id().to_string())),
            ("title_th", text(&|dataset| dataset.spec.title.th.clone())),
            ("title_en", text(&|dataset| dataset.spec.title.en.clone())),
            ("owner_th", text(&|dataset| dataset.spec.owner.th.clone())),
            ("owner_en", text(&|dataset| dataset.spec.owner.en.clone())),
            ("classification", text(&|dataset| dataset.spec.classification.to_string())),
            ("mode", text(&|dataset| dataset.spec.mode.to_string())),
            ("key", text(&|dataset| dataset.spec.key().join(", "))),
            ("generated", Arc::new(generated)),
            ("description_th", text(&|dataset| dataset.spec.description.th.clone())),
            ("description_en", text(&|dataset| dataset.spec.description.en.clone())),
        ])
    }

    fn columns(&self) -> Result<Arc<dyn TableProvider>> {
        let columns = || {
            self.scope.datasets().flat_map(|dataset| dataset.spec.columns.iter().map(move |column| (dataset, column)))
        };
        let text = |of: &dyn Fn(&QueryDataset, &ruam_event::ColumnSpec) -> String| -> ArrayRef {
            Arc::new(columns().map(|(dataset, column)| Some(of(dataset, column))).collect::<StringArray>())
        };
        let required: BooleanArray =
            columns().map(|(dataset, column)| Some(column.required || dataset.spec.is_key(column.name()))).collect();
        table(vec![
            ("dataset", text(&|dataset, _| dataset.spec.id().to_string())),
            ("column_name", text(&|_, column| column.name().to_owned())),
            ("type", text(&|_, column| column.semantic_type.get_ref().clone())),
            ("required", Arc::new(required)),
            ("title_th", text(&|_, column| column.title.th.clone())),
            ("title_en", text(&|_, column| column.title.en.clone())),
        ])
    }

    async fn rejects(&self) -> Result<Arc<dyn TableProvider>> {
        let mut all: Option<LogicalPlanBuilder> = None;
        for dataset in self.scope.datasets().filter(|dataset| self.scope.has(dataset, Part::Rejects)) {
            let mut columns = vec![lit(dataset.spec.id().to_string()).alias("dataset")];
            columns.extend(dataset.rejects.fields().iter().map(|field| ident(field.name())));
            let (table, name) = (dataset.provider(&self.scope.tables, TableKind::Rejects).await?, "ruam.rejects");
            let Some(table) = self.scope.see(dataset, Part::Rejects, name.to_owned(), table)? else { continue };
            let rejects = LogicalPlanBuilder::scan(dataset.spec.id().name(), provider_as_source(table), None)?;
            let rejects = rejects.project(columns)?;
            all = Some(match all {
                Some(before) => before.union(rejects.build()?)?,
                None => rejects,
            });
        }
        match all {
            Some(plan) => Ok(view(plan.build()?)),
            None => table(vec![("dataset", Arc::new(StringArray::new_null(0)))]),
        }
    }
}

/// A table of what is known already.
pub(crate) fn table(columns: Vec<(&str, ArrayRef)>) -> Result<Arc<dyn TableProvider>> {
    let batch = batch(columns)?;
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
}

/// Columns side by side, any of which may have nulls.
pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let fields: Vec<_> = columns.iter().map(|(name, array)| Field::new(*name, data_type(array), true)).collect();
    let columns = columns.into_iter().map(|(_, array)| array).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn data_type(array: &ArrayRef) -> DataType {
    array.data_type().clone()
}
