//! Keys, as PostgreSQL tells them: a constraint, and the index that upholds it.
//!
//! A table whose rows are replaced has one row for each key. No table refers to another by a declared key.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int16Array, Int16Builder, Int32Array, ListBuilder, RecordBatch, StringArray,
};
use arrow::datatypes::Schema;
use datafusion::common::Result;

use super::{Relation, Relations, filled};

/// The rows of `pg_constraint`.
pub(super) fn constraints(relations: &Relations, schema: &Schema) -> Result<RecordBatch> {
    let of = Columns(relations);
    filled(
        schema,
        vec![
            ("oid", of.numbers(Relation::key_oid)),
            ("conname", Arc::new(relations.keyed().map(|relation| Some(relation.key_name())).collect::<StringArray>())),
            ("connamespace", of.numbers(|relation| relation.schema_oid)),
            ("contype", of.text("p")),
            ("condeferrable", of.is(false)),
            ("condeferred", of.is(false)),
            ("convalidated", of.is(true)),
            ("conrelid", of.numbers(|relation| relation.oid)),
            ("contypid", of.numbers(|_| 0)),
            ("conindid", of.numbers(Relation::index_oid)),
            ("conparentid", of.numbers(|_| 0)),
            ("confrelid", of.numbers(|_| 0)),
            ("confupdtype", of.text(" ")),
            ("confdeltype", of.text(" ")),
            ("confmatchtype", of.text(" ")),
            ("conislocal", of.is(true)),
            ("connoinherit", of.is(true)),
            ("conkey", of.columns(|(number, _)| Some(*number))),
            // No key of another table.
            ("confkey", of.columns(|_| None)),
        ],
    )
}

/// The rows of `pg_index`.
pub(super) fn indexes(relations: &Relations, schema: &Schema) -> Result<RecordBatch> {
    let of = Columns(relations);
    let widths: ArrayRef =
        Arc::new(relations.keyed().map(|relation| i16::try_from(relation.key.len()).ok()).collect::<Int16Array>());
    filled(
        schema,
        vec![
            ("indexrelid", of.numbers(Relation::index_oid)),
            ("indrelid", of.numbers(|relation| relation.oid)),
            ("indnatts", widths.clone()),
            ("indnkeyatts", widths),
            ("indisunique", of.is(true)),
            ("indnullsnotdistinct", of.is(false)),
            ("indisprimary", of.is(true)),
            ("indisexclusion", of.is(false)),
            ("indimmediate", of.is(true)),
            ("indisclustered", of.is(false)),
            ("indisvalid", of.is(true)),
            ("indcheckxmin", of.is(false)),
            ("indisready", of.is(true)),
            ("indislive", of.is(true)),
            ("indisreplident", of.is(false)),
            ("indkey", of.columns(|(number, _)| Some(*number))),
            ("indcollation", of.columns(|_| Some(0))),
            ("indclass", of.columns(|_| Some(0))),
            ("indoption", of.columns(|_| Some(0))),
        ],
    )
}

/// Columns with a value for each table that has a key.
struct Columns<'a>(&'a Relations);

impl Columns<'_> {
    fn numbers(&self, number: impl Fn(&Relation) -> i32) -> ArrayRef {
        Arc::new(self.0.keyed().map(|relation| Some(number(relation))).collect::<Int32Array>())
    }

    fn text(&self, text: &str) -> ArrayRef {
        Arc::new(self.0.keyed().map(|_| Some(text)).collect::<StringArray>())
    }

    fn is(&self, is: bool) -> ArrayRef {
        Arc::new(self.0.keyed().map(|_| Some(is)).collect::<BooleanArray>())
    }

    fn columns(&self, number: impl Fn(&(i16, String)) -> Option<i16>) -> ArrayRef {
        let mut lists = ListBuilder::new(Int16Builder::new());
        for relation in self.0.keyed() {
            let numbers: Vec<_> = relation.key.iter().filter_map(&number).collect();
            let is_there = !numbers.is_empty();
            numbers.into_iter().for_each(|number| lists.values().append_value(number));
            lists.append(is_there);
        }
        Arc::new(lists.finish())
    }
}
