//! The tables of a session with the numbers that PostgreSQL's clients know them by.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int16Array, Int32Array, RecordBatch, StringArray, UInt32Array, new_null_array,
};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type, Schema};
use datafusion::common::{Result, internal_datafusion_err};
use ruam_event::Mode;

use super::{Listing, PG_CATALOG};
use crate::describe_table::Described;
use crate::policy::Part;

/// What is added to the number of a table for that of the index of its key, and of the key itself.
const INDEX: i32 = 1 << 30;
const KEY: i32 = 1 << 29;
/// The number of the B-tree, as which a key is told.
const BTREE: i32 = 403;
/// How PostgreSQL writes how precise a number is.
const PRECISION_OFFSET: i32 = 4;

/// A table.
#[derive(Debug)]
pub(in crate::pg) struct Relation {
    pub oid: i32,
    pub schema_oid: i32,
    pub schema: String,
    pub name: String,
    /// The columns of its key, by their numbers from 1 and their names; none where rows have no key.
    pub key: Vec<(i16, String)>,
    /// What people call it.
    pub title: Option<String>,
    /// What people call its columns, by their numbers from 1.
    pub comments: Vec<(i32, String)>,
}

impl Relation {
    pub(in crate::pg) fn index_oid(&self) -> i32 {
        self.oid | INDEX
    }

    pub(in crate::pg) fn key_oid(&self) -> i32 {
        self.oid | KEY
    }

    pub(in crate::pg) fn key_name(&self) -> String {
        format!("{}_pkey", self.name)
    }
}

/// All tables, and what PostgreSQL says of them.
#[derive(Debug)]
pub(in crate::pg) struct Relations {
    all: Vec<Relation>,
    /// The rows of `pg_class`, with the indexes of keys.
    pub tables: RecordBatch,
    /// The rows of `pg_attribute`, with the columns of these.
    pub columns: RecordBatch,
}

impl Relations {
    pub(super) fn new(
        listing: &Listing,
        schemas: &RecordBatch,
        tables: &RecordBatch,
        columns: &RecordBatch,
    ) -> Result<Self> {
        let schema_names = text(schemas, "nspname")?;
        let schemas: BTreeMap<_, _> =
            number(schemas, "oid")?.values().iter().copied().zip(schema_names.iter().flatten()).collect();
        let described: BTreeMap<_, _> =
            listing.described().map(|described| (described.name.clone(), described)).collect();
        let (oids, names, in_schemas) =
            (number(tables, "oid")?, text(tables, "relname")?, number(tables, "relnamespace")?);
        let all = (0..tables.num_rows()).map(|row| {
            let (schema_oid, name) = (in_schemas.value(row), names.value(row));
            let schema = schemas.get(&schema_oid).copied().unwrap_or_default();
            let described = described.get(&format!("{schema}.{name}"));
            Relation {
                oid: oids.value(row),
                schema_oid,
                schema: schema.to_owned(),
                name: name.to_owned(),
                key: described.map(key).unwrap_or_default(),
                title: described.and_then(title),
                comments: described.map(comments).unwrap_or_default(),
            }
        });
        let all: Vec<_> = all.collect();
        let required = |relation: &Relation, column: &str| {
            let described = described.get(&format!("{}.{}", relation.schema, relation.name));
            described.is_some_and(|described| described.part == Part::Rows && described.requires(column))
        };
        let precision = |relation: &Relation, column: &str| {
            let described = described.get(&format!("{}.{}", relation.schema, relation.name));
            let field = described.and_then(|described| described.schema.field_with_name(column).ok());
            match field.map(|field| field.data_type()) {
                Some(DataType::Decimal128(precision, scale)) => {
                    (i32::from(*precision) << 16 | i32::from(*scale)) + PRECISION_OFFSET
                }
                _ => -1,
            }
        };
        let columns = typed(&all, columns, required, precision)?;
        Ok(Self { tables: with_indexes(&all, tables)?, columns: with_index_columns(&all, &columns)?, all })
    }

    /// All tables.
    pub(in crate::pg) fn all(&self) -> &[Relation] {
        &self.all
    }

    /// Those whose rows have a key.
    pub(in crate::pg) fn keyed(&self) -> impl Iterator<Item = &Relation> + Clone {
        self.all.iter().filter(|relation| !relation.key.is_empty())
    }

    /// The number of one of PostgreSQL's own tables, by which a number says what it is of.
    pub(in crate::pg) fn own(&self, name: &str) -> i32 {
        let own = self.all.iter().find(|relation| relation.schema == PG_CATALOG && relation.name == name);
        own.map_or(0, |relation| relation.oid)
    }

    /// The table that a name stands for, with its schema or without.
    pub(in crate::pg) fn named(&self, name: &str) -> Option<&Relation> {
        let name = name.replace('"', "");
        let (schema, table) =
            name.rsplit_once('.').map_or((None, name.as_str()), |(schema, table)| (Some(schema), table));
        self.all.iter().find(|relation| relation.name == table && schema.is_none_or(|schema| relation.schema == schema))
    }
}

/// The key of a table: where rows are replaced, each has one.
fn key(described: &Described<'_>) -> Vec<(i16, String)> {
    let spec = &described.dataset.spec;
    if described.part != Part::Rows || spec.mode != Mode::Upsert {
        return Vec::new();
    }
    let place = |name: String| Some((i16::try_from(described.schema.index_of(&name).ok()? + 1).ok()?, name));
    spec.key().into_iter().filter_map(place).collect()
}

fn title(described: &Described<'_>) -> Option<String> {
    let spec = &described.dataset.spec;
    (described.part == Part::Rows).then(|| format!("{} ({}). {}", spec.title.th, spec.title.en, spec.description.th))
}

fn comments(described: &Described<'_>) -> Vec<(i32, String)> {
    let fields = (1..).zip(described.schema.fields());
    fields.filter_map(|(place, field)| Some((place, described.comment(field.name())?))).collect()
}

/// The rows in which a column has a text.
pub(super) fn only(batch: &RecordBatch, column: &str, wanted: &str) -> Result<RecordBatch> {
    let is_wanted: BooleanArray = text(batch, column)?.iter().map(|text| Some(text == Some(wanted))).collect();
    Ok(filter_record_batch(batch, &is_wanted)?)
}

/// Columns with how precise they are, and whether they are in each row.
fn typed(
    all: &[Relation],
    columns: &RecordBatch,
    required: impl Fn(&Relation, &str) -> bool,
    precision: impl Fn(&Relation, &str) -> i32,
) -> Result<RecordBatch> {
    let by_oid: BTreeMap<_, _> = all.iter().map(|relation| (relation.oid, relation)).collect();
    let (of, names) = (number(columns, "attrelid")?, text(columns, "attname")?);
    let each = || of.values().iter().zip(names.iter()).map(|(oid, name)| (by_oid.get(oid), name.unwrap_or_default()));
    let precisions: Int32Array =
        each().map(|(relation, name)| relation.map_or(-1, |relation| precision(relation, name))).map(Some).collect();
    let required: BooleanArray =
        each().map(|(relation, name)| Some(relation.is_some_and(|relation| required(relation, name)))).collect();
    with(columns, vec![("atttypmod", Arc::new(precisions)), ("attnotnull", Arc::new(required))])
}

/// Tables with the indexes of their keys.
fn with_indexes(all: &[Relation], tables: &RecordBatch) -> Result<RecordBatch> {
    let has_key: BooleanArray = all.iter().map(|relation| Some(!relation.key.is_empty())).collect();
    let tables = with(tables, vec![("relhasindex", Arc::new(has_key.clone()))])?;
    let keyed: Vec<_> = all.iter().filter(|relation| !relation.key.is_empty()).collect();
    let same = |value| -> ArrayRef { Arc::new(Int32Array::from(vec![value; keyed.len()])) };
    let names: StringArray = keyed.iter().map(|relation| Some(relation.key_name())).collect();
    let widths: Int16Array = keyed.iter().map(|relation| i16::try_from(relation.key.len()).ok()).collect();
    let indexes = with(
        &filter_record_batch(&tables, &has_key)?,
        vec![
            ("oid", Arc::new(keyed.iter().map(|relation| Some(relation.index_oid())).collect::<Int32Array>())),
            ("relname", Arc::new(names)),
            ("relkind", Arc::new(StringArray::from(vec!["i"; keyed.len()]))),
            ("relam", same(BTREE)),
            ("relnatts", Arc::new(widths)),
            ("relhasindex", Arc::new(BooleanArray::from(vec![false; keyed.len()]))),
        ],
    )?;
    without_options(&concat_batches(&tables.schema(), [&tables, &indexes])?)
}

/// Tables with two columns that datafusion-pg-catalog leaves out: no table has options, or is granted as in PostgreSQL.
fn without_options(tables: &RecordBatch) -> Result<RecordBatch> {
    let texts = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let more = ["relacl", "reloptions"].map(|name| Arc::new(Field::new(name, texts.clone(), true)));
    let fields: Vec<_> = tables.schema_ref().fields().iter().cloned().chain(more).collect();
    let mut arrays = tables.columns().to_vec();
    arrays.extend([new_null_array(&texts, tables.num_rows()), new_null_array(&texts, tables.num_rows())]);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// Columns with those of the indexes of keys.
fn with_index_columns(all: &[Relation], columns: &RecordBatch) -> Result<RecordBatch> {
    let numbers = columns.column_by_name("attnum").and_then(|numbers| numbers.as_primitive_opt::<Int16Type>());
    let numbers = numbers.ok_or_else(|| internal_datafusion_err!("columns have numbers"))?;
    let of = number(columns, "attrelid")?;
    let places: BTreeMap<_, _> = (0u32..)
        .zip(of.values().iter().copied().zip(numbers.values().iter().copied()))
        .map(|(row, at)| (at, row))
        .collect();
    let keyed = all
        .iter()
        .flat_map(|relation| (1i16..).zip(&relation.key).map(move |(at, (column, _))| (relation, at, *column)));
    let found: Vec<_> = keyed
        .filter_map(|(relation, at, column)| Some((relation.index_oid(), at, *places.get(&(relation.oid, column))?)))
        .collect();
    let rows: UInt32Array = found.iter().map(|(.., row)| Some(*row)).collect();
    let keys = with(
        &take_record_batch(columns, &rows)?,
        vec![
            ("attrelid", Arc::new(found.iter().map(|(oid, ..)| Some(*oid)).collect::<Int32Array>())),
            ("attnum", Arc::new(found.iter().map(|(_, at, _)| Some(*at)).collect::<Int16Array>())),
        ],
    )?;
    Ok(concat_batches(&columns.schema(), [columns, &keys])?)
}

/// Rows with other values in some columns.
fn with(batch: &RecordBatch, columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let mut arrays = batch.columns().to_vec();
    for (name, column) in columns {
        arrays[batch.schema_ref().index_of(name)?] = column;
    }
    Ok(RecordBatch::try_new(batch.schema(), arrays)?)
}

fn number<'a>(batch: &'a RecordBatch, column: &str) -> Result<&'a Int32Array> {
    let numbers = batch.column_by_name(column).and_then(|numbers| numbers.as_primitive_opt::<Int32Type>());
    numbers.ok_or_else(|| internal_datafusion_err!("{column} is a number"))
}

fn text<'a>(batch: &'a RecordBatch, column: &str) -> Result<&'a StringArray> {
    let texts = batch.column_by_name(column).and_then(|texts| texts.as_string_opt::<i32>());
    texts.ok_or_else(|| internal_datafusion_err!("{column} is a text"))
}
