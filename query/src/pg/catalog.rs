//! `pg_catalog` of a session: what clients of PostgreSQL look up before they ask.
//!
//! What passes through: the tables that the caller of a session sees, as they are declared, into PostgreSQL's
//! tables about tables. datafusion-pg-catalog makes most of them; here come the keys, what describes tables
//! and columns, and how precise numbers are.
//!
//! Guaranteed: what the caller may not see is in none of them. No table is opened for them, so that they are
//! answered where a purpose is still to be stated.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemTable, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::TableType;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::catalog_info::CatalogInfo;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::{
    PgCatalogSchemaProvider, PgCatalogStaticTables, PgCatalogTable,
};
use futures::TryStreamExt;
use tokio::sync::Mutex;

use super::functions::SETTINGS;
use super::information_schema;
use super::roles::Roles;
use crate::catalog::{CATALOG, HISTORY};
use crate::describe_table::Described;
use crate::scope::Scope;

mod descriptions;
mod keys;
mod relations;

pub(super) use relations::{Relation, Relations};

/// PostgreSQL's name for the schema.
pub(super) const PG_CATALOG: &str = "pg_catalog";

/// What clients look up.
pub(super) struct PgCatalog {
    rest: PgCatalogSchemaProvider<Listing, Roles>,
    listing: Listing,
    fixed: Arc<PgCatalogStaticTables>,
    relations: Arc<OnceLock<Relations>>,
    /// Held while they are being numbered, so that it is done once.
    numbering: Mutex<()>,
}

impl PgCatalog {
    /// What there is for the caller of a session; `system` has the tables of PostgreSQL itself.
    ///
    /// # Errors
    /// None that could be met.
    pub(super) fn new(
        scope: &Scope,
        catalog: &dyn CatalogProvider,
        system: Arc<dyn SchemaProvider>,
        fixed: Arc<PgCatalogStaticTables>,
    ) -> Result<Self> {
        let listing = Listing::new(scope.clone(), catalog, system);
        let rest = PgCatalogSchemaProvider::try_new(listing.clone(), fixed.clone(), Roles(scope.caller.clone()))?;
        Ok(Self { rest, listing, fixed, relations: Arc::default(), numbering: Mutex::default() })
    }

    /// The tables that there are, as soon as somebody has looked them up.
    pub(super) fn relations(&self) -> Arc<OnceLock<Relations>> {
        self.relations.clone()
    }

    async fn numbered(&self) -> Result<&Relations> {
        let _numbering = self.numbering.lock().await;
        if let Some(relations) = self.relations.get() {
            return Ok(relations);
        }
        let (schemas, tables) = (self.rows("pg_namespace").await?, self.rows("pg_class").await?);
        let relations = Relations::new(&self.listing, &schemas, &tables, &self.rows("pg_attribute").await?)?;
        Ok(self.relations.get_or_init(|| relations))
    }

    /// What datafusion-pg-catalog says.
    async fn rows(&self, name: &str) -> Result<RecordBatch> {
        let Some(PgCatalogTable::Dynamic(table)) = self.rest.build_table_by_name(name)? else {
            return Err(internal_datafusion_err!("{name} is not made of what there is"));
        };
        let batches: Vec<_> = table.execute(Arc::new(TaskContext::default())).try_collect().await?;
        Ok(concat_batches(table.schema(), &batches)?)
    }
}

#[async_trait]
impl SchemaProvider for PgCatalog {
    fn table_names(&self) -> Vec<String> {
        self.rest.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let batch = match name {
            "pg_class" => self.numbered().await?.tables.clone(),
            "pg_attribute" => self.numbered().await?.columns.clone(),
            "pg_constraint" => keys::constraints(self.numbered().await?, &self.fixed.pg_constraint.schema())?,
            "pg_index" => keys::indexes(self.numbered().await?, &self.fixed.pg_index.schema())?,
            "pg_description" => descriptions::rows(self.numbered().await?, &self.fixed.pg_description.schema())?,
            "pg_settings" => {
                let (names, settings): (Vec<_>, Vec<_>) = SETTINGS.into_iter().unzip();
                let columns: Vec<(_, ArrayRef)> = vec![
                    ("name", Arc::new(StringArray::from(names))),
                    ("setting", Arc::new(StringArray::from(settings))),
                ];
                filled(self.rows(name).await?.schema_ref(), columns)?
            }
            "pg_database" => relations::only(&self.rows(name).await?, "datname", CATALOG)?,
            other => return self.rest.table(other).await,
        };
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.rest.table_exist(name)
    }
}

impl fmt::Debug for PgCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgCatalog").finish_non_exhaustive()
    }
}

/// What there is for the caller of a session.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    scope: Scope,
    /// By their names, without what is registered beside them for PostgreSQL.
    schemas: Arc<BTreeMap<String, Arc<dyn SchemaProvider>>>,
}

impl Listing {
    fn new(scope: Scope, catalog: &dyn CatalogProvider, system: Arc<dyn SchemaProvider>) -> Self {
        let own = catalog.schema_names().into_iter().filter_map(|name| Some((name.clone(), catalog.schema(&name)?)));
        let mut schemas: BTreeMap<_, _> = own.collect();
        schemas.insert(PG_CATALOG.to_owned(), system);
        Self { scope, schemas: Arc::new(schemas) }
    }

    /// The tables of agencies, as they are declared.
    pub(super) fn described(&self) -> impl Iterator<Item = Described<'_>> {
        let all = self.scope.datasets().flat_map(|dataset| Described::all(dataset));
        all.filter(|described| self.scope.has(described.dataset, described.part))
    }
}

#[async_trait]
impl CatalogInfo for Listing {
    async fn catalog_names(&self) -> Result<Vec<String>, DataFusionError> {
        Ok(vec![CATALOG.to_owned()])
    }

    async fn schema_names(&self, _: &str) -> Result<Option<Vec<String>>, DataFusionError> {
        let others = [information_schema::NAME.to_owned()];
        Ok(Some(self.schemas.keys().cloned().chain(others).collect()))
    }

    async fn table_names(&self, _: &str, schema: &str) -> Result<Option<Vec<String>>, DataFusionError> {
        if schema == information_schema::NAME {
            return Ok(Some(information_schema::names().map(str::to_owned).collect()));
        }
        Ok(self.schemas.get(schema).map(|schema| schema.table_names()))
    }

    async fn table_schema(&self, _: &str, schema: &str, table: &str) -> Result<Option<SchemaRef>, DataFusionError> {
        let name = format!("{schema}.{table}");
        if let Some(described) = self.described().find(|described| described.name == name) {
            return Ok(Some(Arc::new(described.schema)));
        }
        // What Ruam and PostgreSQL tell of themselves is made when it is asked for, and may need a purpose.
        let table = match self.schemas.get(schema) {
            Some(tables) => tables.table(table).await.ok().flatten(),
            None => None,
        };
        Ok(Some(table.map_or_else(|| Arc::new(Schema::empty()), |table| table.schema())))
    }

    async fn table_type(&self, _: &str, schema: &str, table: &str) -> Result<Option<TableType>, DataFusionError> {
        let is_made = [CATALOG, information_schema::NAME].contains(&schema) || table.ends_with(HISTORY);
        Ok(Some(if is_made { TableType::View } else { TableType::Base }))
    }
}

/// Rows of one of PostgreSQL's tables: the columns that are given, and nothing in the others that it has.
fn filled(schema: &Schema, columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let rows = columns.first().map_or(0, |(_, column)| column.len());
    let mut given: BTreeMap<_, _> = columns.into_iter().collect();
    let filled = schema.fields().iter().map(|field| match given.remove(field.name().as_str()) {
        Some(column) => (field.as_ref().clone().with_data_type(column.data_type().clone()), column),
        None => (field.as_ref().clone(), arrow::array::new_null_array(field.data_type(), rows)),
    });
    let (fields, arrays): (Vec<_>, Vec<_>) = filled.map(|(field, array)| (field.with_nullable(true), array)).unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}
