//! What there is to ask about: catalogs, schemas and tables, as the caller of a session sees them.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTables};

use super::as_answered;
use crate::catalog::{CATALOG, HISTORY};
use crate::session::Session;

/// Kinds of tables. What is worked out from others is a view.
pub(super) const TABLE: &str = "TABLE";
pub(super) const VIEW: &str = "VIEW";

/// The one catalog.
pub(super) fn catalogs(asked: CommandGetCatalogs) -> Result<RecordBatch, FlightError> {
    let mut catalogs = asked.into_builder();
    catalogs.append(CATALOG);
    catalogs.build()
}

/// The agencies.
pub(super) fn schemas(session: &Session, asked: CommandGetDbSchemas) -> Result<RecordBatch, FlightError> {
    let mut schemas = asked.into_builder();
    for schema in session.context.catalog(CATALOG).map(|catalog| catalog.schema_names()).unwrap_or_default() {
        schemas.append(CATALOG, schema);
    }
    schemas.build()
}

/// The tables, with their columns where these are asked for.
pub(super) async fn tables(session: &Session, asked: CommandGetTables) -> Result<RecordBatch, FlightError> {
    let with_columns = asked.include_schema;
    let mut tables = asked.into_builder();
    let Some(catalog) = session.context.catalog(CATALOG) else { return tables.build() };
    for schema in catalog.schema_names() {
        let Some(provider) = catalog.schema(&schema) else { continue };
        for table in provider.table_names() {
            let kind = if schema == CATALOG || table.ends_with(HISTORY) { VIEW } else { TABLE };
            let columns = if with_columns { columns(session, &*provider, &schema, &table).await } else { None };
            tables.append(
                CATALOG,
                &schema,
                &table,
                kind,
                &columns.map_or_else(Schema::empty, |columns| as_answered(&columns)),
            )?;
        }
    }
    tables.build()
}

/// The columns of a table: those that are seen, or where that needs a purpose, those that are declared.
async fn columns(
    session: &Session,
    tables: &dyn datafusion::catalog::SchemaProvider,
    schema: &str,
    table: &str,
) -> Option<Schema> {
    match tables.table(table).await {
        Ok(seen) => seen.map(|seen| seen.schema().as_ref().clone()),
        Err(_) => {
            let declared = session.scope.table(&format!("{schema}.{table}"));
            declared.map(|(_, _, columns)| columns.as_ref().clone())
        }
    }
}
