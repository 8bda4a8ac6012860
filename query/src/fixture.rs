//! What tests are told of: one dataset, with a number and a text.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use ruam_event::DatasetSpec;

use crate::engine::QueryDataset;

/// `a.b`, with `number` and a text of a name, for training and planning.
pub(crate) fn dataset(text: &str) -> Arc<QueryDataset> {
    let words = "{ th = \"ก\", en = \"A\" }";
    let spec = format!(
        r#"
        dataset = "a.b"
        title = {words}
        description = {words}
        owner = {words}
        contact = {{ name = "A", email = "a@example.org" }}
        classification = "internal"
        purposes = ["training", "planning"]
        mode = "append"

        [[columns]]
        name = "number"
        type = "integer"
        title = {words}

        [[columns]]
        name = "{text}"
        type = "text"
        title = {words}
        "#
    );
    let columns = [("number", DataType::Int64), (text, DataType::Utf8)];
    let columns = columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec();
    let columns = Arc::new(Schema::new(columns));
    let spec = Arc::new(DatasetSpec::parse("a/b.toml", &spec).unwrap());
    Arc::new(QueryDataset { spec, rows: columns.clone(), rejects: columns, changes: None })
}
