//! A dataset's rows as JSON Schema, for whoever makes them.

use ruam_event::spec::UnknownColumns;
use ruam_event::{DatasetSpec, SpecError};
use serde_json::{Map, Value, json};

use crate::types;

/// JSON Schema (draft 2020-12) of a row as it is sent. What each column's semantic type accepts is told in words: most
/// accept texts as people write them (Thai digits, years of the Buddhist era), which a pattern would not say well.
///
/// # Errors
/// Where a column's type or its options are not known.
pub fn json_schema(spec: &DatasetSpec) -> Result<Value, SpecError> {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for column in &spec.columns {
        let is_needed = column.required || spec.is_key(column.name());
        let mut kinds = vec!["string", "number", "boolean"];
        if is_needed {
            required.push(column.name());
        } else {
            kinds.push("null");
        }
        let accepted = types::of_column(spec, column)?.describe();
        let more = column.description.as_ref().map(|more| format!(" {} / {}", more.th, more.en)).unwrap_or_default();
        let told = json!({
            "type": kinds,
            "title": format!("{} / {}", column.title.th, column.title.en),
            "description": format!("{accepted}.{more}"),
            "x-ruam-type": column.semantic_type.get_ref(),
        });
        properties.insert(column.name().to_owned(), told);
    }
    for (name, told) in [
        ("_id", "The event's id, which tells it from all others of the dataset."),
        (
            "_operation",
            "What happened to the row: insert, update, delete or snapshot. For a delete, the key is enough.",
        ),
        ("_time", "When it happened, as RFC 3339 has it."),
    ] {
        properties.insert(name.to_owned(), json!({ "type": ["string", "null"], "description": told }));
    }
    Ok(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("{} / {}", spec.title.th, spec.title.en),
        "description": format!("{} / {}", spec.description.th.trim(), spec.description.en.trim()),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": spec.unknown_columns == UnknownColumns::Ignore,
        "x-ruam-key": spec.key(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_told_with_their_types() {
        let text = include_str!("../../pipelines/specs/bora/person.toml");
        let schema = json_schema(&DatasetSpec::parse("bora/person.toml", text).unwrap()).unwrap();
        assert_eq!(schema["required"], json!(["citizen_id", "full_name", "sex", "birth_date", "area_code"]));
        assert_eq!(schema["properties"]["address"]["type"], json!(["string", "number", "boolean", "null"]));
        assert_eq!(schema["properties"]["citizen_id"]["x-ruam-type"], "thai_citizen_id");
        assert!(schema["properties"]["sex"]["description"].as_str().unwrap().starts_with("one of: ชาย, หญิง"));
        assert_eq!((&schema["additionalProperties"], &schema["x-ruam-key"]), (&json!(false), &json!(["citizen_id"])));
    }
}
