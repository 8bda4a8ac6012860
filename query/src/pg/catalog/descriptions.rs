//! What tables and columns are called by people, as PostgreSQL's comments.

use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use datafusion::common::Result;

use super::{Relations, filled};

/// The rows of `pg_description`.
pub(super) fn rows(relations: &Relations, schema: &Schema) -> Result<RecordBatch> {
    let all = relations.all().iter().flat_map(|relation| {
        let title = relation.title.iter().map(|title| (0, title));
        let comments = relation.comments.iter().map(|(place, comment)| (*place, comment));
        title.chain(comments).map(move |(place, text)| (relation.oid, place, text))
    });
    let (mut of, mut places, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for (oid, place, text) in all {
        of.push(oid);
        places.push(place);
        texts.push(text.as_str());
    }
    let class = vec![relations.own("pg_class"); of.len()];
    filled(
        schema,
        vec![
            ("objoid", Arc::new(Int32Array::from(of))),
            ("classoid", Arc::new(Int32Array::from(class))),
            ("objsubid", Arc::new(Int32Array::from(places))),
            ("description", Arc::new(StringArray::from(texts))),
        ],
    )
}
