//! Functions of PostgreSQL that its clients call while they look around.
//!
//! | functions | what they give |
//! |---|---|
//! | `current_schema`, `current_schemas`, `session_user`, `current_setting` | what holds in the session |
//! | `to_regclass`, `obj_description`, `col_description`, `pg_get_constraintdef`, `pg_get_indexdef` | what is known of a table by its name or number |
//! | `has_table_privilege` and its kin | that what is seen may be read, and nothing written |
//! | `format`, `quote_literal`, `pg_size_pretty`, `_pg_expandarray`, `generate_subscripts` | texts and lists |
//! | the others | that there is nothing of the kind |
//!
//! What is known by name or number is known as soon as the session has looked into `pg_catalog`.

use std::sync::{Arc, OnceLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int32Builder, ListBuilder, StringArray, StructBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{ScalarUDF, Signature, SimpleScalarUDF, Volatility, create_udf};
use datafusion::prelude::SessionContext;

use super::catalog::{Relation, Relations};
use crate::caller::Caller;
use crate::catalog::CATALOG;
use crate::functions::POSTGRES;

/// What may be done with what is seen.
const GRANTED: [&str; 4] = ["select", "usage", "connect", "execute"];
/// What holds in each session, beside the version.
pub(super) const SETTINGS: [(&str, &str); 8] = [
    ("search_path", CATALOG),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "off"),
    ("max_index_keys", "32"),
    ("timezone", "UTC"),
    ("default_transaction_read_only", "on"),
];
/// Of what there is nothing, so that it has no text.
const WITHOUT_TEXT: [&str; 11] = [
    "pg_get_viewdef",
    "pg_get_functiondef",
    "pg_get_function_result",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_arg_default",
    "pg_get_triggerdef",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_tablespace_location",
    "shobj_description",
];
/// What is not hidden by another of its name.
const VISIBLE: [&str; 4] =
    ["pg_function_is_visible", "pg_type_is_visible", "pg_collation_is_visible", "pg_operator_is_visible"];

/// What a session knows of its tables, once it has looked.
type Known = Arc<OnceLock<Relations>>;

/// Makes the functions known that are the same for everybody.
pub(super) fn register(session: &SessionContext) {
    for name in WITHOUT_TEXT {
        session.register_udf(constant(name, ScalarValue::Utf8(None)));
    }
    for name in VISIBLE {
        session.register_udf(constant(name, ScalarValue::Boolean(Some(true))));
    }
    for name in ["pg_table_size", "pg_indexes_size", "pg_database_size"] {
        session.register_udf(constant(name, ScalarValue::Int64(None)));
    }
    session.register_udf(constant("pg_get_userbyid", ScalarValue::from(CATALOG)));
    session.register_udf(nullary("current_schema", ScalarValue::from(CATALOG)));
    session.register_udf(nullary("pg_is_in_recovery", ScalarValue::from(false)));
    session.register_udf(nullary("pg_client_encoding", ScalarValue::from("UTF8")));
    session.register_udf(of_text("current_setting", setting));
    session.register_udf(of_text("quote_literal", |text| Some(format!("'{}'", text.replace('\'', "''")))));
    session.register_udf(current_schemas());
    session.register_udf(size());
    session.register_udf(format());
    session.register_udf(expanded());
    session.register_udf(subscripts());
}

/// Makes the functions known that depend on who asks.
pub(super) fn register_for(session: &SessionContext, caller: &Caller, known: &Known) {
    session.register_udf(nullary("session_user", ScalarValue::from(caller.name())));
    for name in ["has_table_privilege", "has_any_column_privilege", "has_column_privilege"] {
        session.register_udf(privilege(name, Some(known.clone())));
    }
    for name in ["has_schema_privilege", "has_database_privilege", "has_function_privilege"] {
        session.register_udf(privilege(name, None));
    }
    session.register_udf(regclass(known.clone()));
    session.register_udf(by_number("obj_description", known.clone(), |relations, oid, _| {
        relations.all().iter().find(|relation| relation.oid == oid)?.title.clone()
    }));
    session.register_udf(by_number("col_description", known.clone(), |relations, oid, place| {
        let relation = relations.all().iter().find(|relation| relation.oid == oid)?;
        relation.comments.iter().find(|(at, _)| *at == place).map(|(_, comment)| comment.clone())
    }));
    session.register_udf(by_number("pg_get_constraintdef", known.clone(), |relations, oid, _| {
        let relation = relations.keyed().find(|relation| relation.key_oid() == oid)?;
        Some(format!("PRIMARY KEY ({})", key_columns(relation)))
    }));
    session.register_udf(by_number("pg_get_indexdef", known.clone(), |relations, oid, place| {
        let relation = relations.keyed().find(|relation| relation.index_oid() == oid)?;
        if let Some(column) = usize::try_from(place).ok().and_then(|place| place.checked_sub(1)) {
            return relation.key.get(column).map(|(_, name)| name.clone());
        }
        let (name, schema, table, columns) =
            (relation.key_name(), &relation.schema, &relation.name, key_columns(relation));
        Some(format!("CREATE UNIQUE INDEX {name} ON {schema}.{table} USING btree ({columns})"))
    }));
}

fn key_columns(relation: &Relation) -> String {
    relation.key.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// What holds in a session; none where there is no such setting.
pub(super) fn setting(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "server_version" => Some(POSTGRES.to_owned()),
        "server_version_num" => {
            let (major, minor) = POSTGRES.split_once('.')?;
            Some(format!("{major}{:0>4}", minor))
        }
        _ => SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
    }
}

/// A function of any arguments.
fn any(
    name: &str,
    returns: DataType,
    of: impl Fn(&[ArrayRef]) -> Result<ArrayRef> + Send + Sync + 'static,
) -> ScalarUDF {
    let signature = Signature::variadic_any(Volatility::Stable);
    let of = make_scalar_function(of, Vec::new());
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, returns, Arc::new(of)))
}

/// A function that says the same of everything.
fn constant(name: &str, value: ScalarValue) -> ScalarUDF {
    any(name, value.data_type(), move |columns| value.to_array_of_size(columns[0].len()))
}

fn nullary(name: &str, value: ScalarValue) -> ScalarUDF {
    let returns = value.data_type();
    let of = move |_: &[datafusion::logical_expr::ColumnarValue]| {
        Ok(datafusion::logical_expr::ColumnarValue::Scalar(value.clone()))
    };
    create_udf(name, Vec::new(), returns, Volatility::Stable, Arc::new(of))
}

fn of_text(name: &str, of: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> ScalarUDF {
    any(name, DataType::Utf8, move |columns| {
        let texts = cast(&columns[0], &DataType::Utf8)?;
        Ok(Arc::new(texts.as_string::<i32>().iter().map(|text| of(text?)).collect::<StringArray>()))
    })
}

/// A function of the number of something, and of the place of a column in it.
fn by_number(
    name: &str,
    known: Known,
    of: impl Fn(&Relations, i32, i32) -> Option<String> + Send + Sync + 'static,
) -> ScalarUDF {
    any(name, DataType::Utf8, move |columns| {
        let oids = cast(&columns[0], &DataType::Int32)?;
        // What comes after the number may as well be the name of a kind.
        let places = columns.get(1).filter(|column| column.data_type().is_integer());
        let places = places.map(|places| cast(places, &DataType::Int32)).transpose()?;
        let found = (0..oids.len()).map(|row| {
            let place = places.as_ref().map_or(0, |places| places.as_primitive::<Int32Type>().value(row));
            let oids = oids.as_primitive::<Int32Type>();
            if oids.is_null(row) { None } else { of(known.get()?, oids.value(row), place) }
        });
        Ok(Arc::new(found.collect::<StringArray>()))
    })
}

/// The number of a table by its name; a number is one already.
fn regclass(known: Known) -> ScalarUDF {
    any("to_regclass", DataType::Int32, move |columns| {
        if columns[0].data_type().is_integer() {
            return Ok(cast(&columns[0], &DataType::Int32)?);
        }
        let names = cast(&columns[0], &DataType::Utf8)?;
        let number = |name: &str| Some(known.get()?.named(name)?.oid);
        Ok(Arc::new(names.as_string::<i32>().iter().map(|name| number(name?)).collect::<Int32Array>()))
    })
}

/// Whether something may be done: with what is seen, what reads.
fn privilege(name: &str, known: Option<Known>) -> ScalarUDF {
    any(name, DataType::Boolean, move |columns| {
        let Some((asked, of)) = columns.split_last() else { return Ok(Arc::new(BooleanArray::new_null(0))) };
        let asked = cast(asked, &DataType::Utf8)?;
        let names = of.last().filter(|names| !names.data_type().is_integer());
        let names = names.map(|names| cast(names, &DataType::Utf8)).transpose()?;
        let is_granted = |row: usize| {
            let asked = asked.as_string::<i32>();
            let is_read = asked.is_valid(row)
                && asked.value(row).to_ascii_lowercase().split(',').any(|asked| GRANTED.contains(&asked.trim()));
            let is_seen = match (known.as_ref().and_then(|known| known.get()), &names) {
                (Some(known), Some(names)) => known.named(names.as_string::<i32>().value(row)).is_some(),
                _ => true,
            };
            is_read && is_seen
        };
        Ok(Arc::new((0..asked.len()).map(|row| Some(is_granted(row))).collect::<BooleanArray>()))
    })
}

fn current_schemas() -> ScalarUDF {
    let texts = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    any("current_schemas", texts, |columns| {
        let mut lists = ListBuilder::new(arrow::array::StringBuilder::new());
        for with_implicit in columns[0].as_boolean().iter() {
            if with_implicit == Some(true) {
                lists.values().append_value(super::catalog::PG_CATALOG);
            }
            lists.values().append_value(CATALOG);
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    })
}

/// `pg_size_pretty(bytes)`.
fn size() -> ScalarUDF {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    any("pg_size_pretty", DataType::Utf8, |columns| {
        let sizes = cast(&columns[0], &DataType::Int64)?;
        let pretty = |mut size: i64| {
            let mut unit = 0;
            while size.abs() >= 10 * 1024 && unit + 1 < UNITS.len() {
                (size, unit) = (size / 1024, unit + 1);
            }
            format!("{size} {}", UNITS[unit])
        };
        Ok(Arc::new(sizes.as_primitive::<Int64Type>().iter().map(|size| size.map(pretty)).collect::<StringArray>()))
    })
}

/// `format(text, …)`, with `%s`, `%I` for a name and `%L` for a literal.
fn format() -> ScalarUDF {
    any("format", DataType::Utf8, |columns| {
        let columns = columns.iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<Vec<_>, _>>()?;
        let value = |column: usize, row: usize| {
            let texts = columns.get(column)?.as_string::<i32>();
            texts.is_valid(row).then(|| texts.value(row))
        };
        let formatted = |row: usize| {
            let (mut said, mut given) = (String::new(), 1);
            let mut parts = value(0, row)?.chars();
            while let Some(c) = parts.next() {
                if c != '%' {
                    said.push(c);
                    continue;
                }
                let (kind, text) = (parts.next(), value(given, row));
                given += usize::from(kind != Some('%'));
                match kind {
                    Some('I') => said.push_str(&name(text.unwrap_or_default())),
                    Some('L') => match text {
                        Some(text) => said.push_str(&format!("'{}'", text.replace('\'', "''"))),
                        None => said.push_str("NULL"),
                    },
                    Some('s') => said.push_str(text.unwrap_or_default()),
                    _ => said.push('%'),
                }
            }
            Some(said)
        };
        Ok(Arc::new((0..columns[0].len()).map(formatted).collect::<StringArray>()))
    })
}

/// A name as SQL has it: quoted where it would be another without.
fn name(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// `generate_subscripts(list, 1)`: the places of its elements.
fn subscripts() -> ScalarUDF {
    let returns = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
    any("generate_subscripts", returns, |columns| {
        let mut lists = ListBuilder::new(Int32Builder::new());
        for list in columns[0].as_list::<i32>().iter() {
            let length = list.map_or(0, |list| list.len());
            (1..).take(length).for_each(|place| lists.values().append_value(place));
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    })
}

/// `_pg_expandarray(list)`: each element `x` with its place `n`.
fn expanded() -> ScalarUDF {
    let fields: Fields = ["x", "n"].map(|name| Field::new(name, DataType::Int32, true)).to_vec().into();
    let returns = DataType::List(Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), true)));
    any("_pg_expandarray", returns, move |columns| {
        let mut lists = ListBuilder::new(StructBuilder::from_fields(fields.clone(), 0));
        for list in columns[0].as_list::<i32>().iter() {
            let elements = list.map(|list| cast(&list, &DataType::Int32)).transpose()?;
            let elements = elements.iter().flat_map(|list| list.as_primitive::<Int32Type>().iter());
            for (place, element) in (1..).zip(elements) {
                for (field, value) in [(0, element), (1, Some(place))] {
                    if let Some(values) = lists.values().field_builder::<Int32Builder>(field) {
                        values.append_option(value);
                    }
                }
                lists.values().append(true);
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    })
}
