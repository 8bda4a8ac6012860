//! `to_regtype(name)`: the number by which PostgreSQL's protocol names a type; null where there is none, which
//! is how drivers find out whether an extension is there.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{ScalarUDF, Volatility, create_udf};
use datafusion_postgres::pgwire::api::Type;

/// Types by the names that SQL has for them beside PostgreSQL's own.
const STANDARD: [(&str, Type); 9] = [
    ("bigint", Type::INT8),
    ("boolean", Type::BOOL),
    ("character varying", Type::VARCHAR),
    ("decimal", Type::NUMERIC),
    ("double precision", Type::FLOAT8),
    ("integer", Type::INT4),
    ("real", Type::FLOAT4),
    ("smallint", Type::INT2),
    ("timestamp with time zone", Type::TIMESTAMPTZ),
];
const POSTGRES: [Type; 16] = [
    Type::BOOL,
    Type::BYTEA,
    Type::DATE,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::INTERVAL,
    Type::JSON,
    Type::NUMERIC,
    Type::TEXT,
    Type::TIME,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
    Type::VARCHAR,
];

pub(super) fn function() -> ScalarUDF {
    let numbers = |columns: &[ArrayRef]| -> Result<ArrayRef> {
        let names = columns[0].as_string::<i32>().iter();
        Ok(Arc::new(names.map(|name| number(name?)).collect::<Int32Array>()))
    };
    let numbers = make_scalar_function(numbers, Vec::new());
    create_udf("to_regtype", vec![DataType::Utf8], DataType::Int32, Volatility::Stable, Arc::new(numbers))
}

fn number(name: &str) -> Option<i32> {
    let name = name.trim().to_ascii_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    let standard = STANDARD.iter().find(|(known, _)| *known == name).map(|(_, found)| found);
    let found = standard.or_else(|| POSTGRES.iter().find(|known| known.name() == name))?;
    i32::try_from(found.oid()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types_that_there_are() {
        assert_eq!(number("int8"), Some(20));
        assert_eq!(number("BIGINT"), Some(20));
        assert_eq!(number("pg_catalog.timestamptz"), Some(1184));
        assert_eq!(number("hstore"), None);
    }
}
