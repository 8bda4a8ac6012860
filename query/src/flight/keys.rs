//! The keys of tables, as clients ask for them. No table refers to another by a declared key.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::sql::CommandGetPrimaryKeys;
use ruam_event::Mode;
use ruam_lake::TableKind;

use crate::catalog::CATALOG;
use crate::session::Session;

/// The columns of an answer about primary keys, as Flight SQL has them.
pub(super) fn primary_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// The key of a table, where each of its rows has one and the caller sees it.
///
/// # Errors
/// None that could be met.
pub(super) fn primary(session: &Session, asked: &CommandGetPrimaryKeys) -> Result<RecordBatch, ArrowError> {
    let is_asked = |name: &str, asked: &Option<String>| asked.as_ref().is_none_or(|asked| asked == name);
    let datasets = session.scope.tables().filter(|(dataset, table, _)| {
        table.kind == TableKind::Rows
            && dataset.spec.mode == Mode::Upsert
            && is_asked(CATALOG, &asked.catalog)
            && is_asked(dataset.spec.id().agency(), &asked.db_schema)
            && dataset.spec.id().name() == asked.table
    });
    let columns: Vec<_> = datasets
        .flat_map(|(dataset, ..)| {
            let key = dataset.spec.key();
            let columns = (1..).zip(key.iter().map(|column| (*column).to_owned())).collect::<Vec<_>>();
            columns.into_iter().map(move |(number, column)| (dataset.spec.id().agency(), column, number))
        })
        .collect();
    let agencies: StringArray = columns.iter().map(|(agency, ..)| Some(*agency)).collect();
    let names: StringArray = columns.iter().map(|(_, column, _)| Some(column)).collect();
    let numbers: Int32Array = columns.iter().map(|(.., number)| Some(*number)).collect();
    let same = |text: &str| Arc::new(StringArray::from(vec![text; columns.len()])) as ArrayRef;
    let arrays = vec![
        same(CATALOG),
        Arc::new(agencies),
        same(&asked.table),
        Arc::new(names),
        Arc::new(StringArray::new_null(columns.len())),
        Arc::new(numbers),
    ];
    RecordBatch::try_new(primary_schema(), arrays)
}

/// The columns of an answer about keys that refer to others, as Flight SQL has them.
pub(super) fn foreign_schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let of = |side: &str| {
        [("catalog_name", true), ("db_schema_name", true), ("table_name", false), ("column_name", false)]
            .map(|(name, nullable)| text(&format!("{side}_{name}"), nullable))
    };
    let mut fields = [of("pk"), of("fk")].concat();
    fields.push(Field::new("key_sequence", DataType::Int32, false));
    fields.extend([text("fk_key_name", true), text("pk_key_name", true)]);
    fields.extend(["update_rule", "delete_rule"].map(|name| Field::new(name, DataType::UInt8, false)));
    Arc::new(Schema::new(fields))
}
