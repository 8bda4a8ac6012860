//! Tables as lines of text, to be held against each other whatever their types and order.

use anyhow::Result;
use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;

/// Where in the log a record lies, and when it got there: nothing that the input decides.
pub(crate) const OF_THE_LOG: [&str; 4] = ["_topic", "_partition", "_offset", "_arrived_at"];

/// Rows of values, none for NULL.
///
/// # Errors
/// Where a type has no text.
pub fn values(batches: &[RecordBatch]) -> Result<Vec<Vec<Option<String>>>> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let value =
                |column: &dyn Array| (!column.is_null(row)).then(|| array_value_to_string(column, row)).transpose();
            rows.push(batch.columns().iter().map(|column| value(column.as_ref())).collect::<Result<_, _>>()?);
        }
    }
    Ok(rows)
}

/// A line for each row, naming each column that the input decides and that is not NULL.
///
/// # Errors
/// Where a type has no text.
pub fn lines(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        for row in values(std::slice::from_ref(batch))? {
            let named =
                schema.fields().iter().zip(row).filter(|(field, _)| !OF_THE_LOG.contains(&field.name().as_str()));
            let parts: Vec<_> =
                named.filter_map(|(field, value)| Some(format!("{}={}", field.name(), value?))).collect();
            lines.push(parts.join(" | "));
        }
    }
    Ok(lines)
}

/// Checks that two tables hold the same lines, as often each.
///
/// # Errors
/// How many they have more or less, and the first of each.
pub fn check_same(what: &str, mut found: Vec<String>, mut expected: Vec<String>) -> Result<()> {
    found.sort_unstable();
    expected.sort_unstable();
    if found == expected {
        return Ok(());
    }
    let (mut missing, mut extra) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (found.iter().peekable(), expected.iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if a == b => {
                left.next();
                right.next();
            }
            (Some(a), b) if b.is_none_or(|b| a < b) => extra.extend(left.next()),
            (_, Some(_)) => missing.extend(right.next()),
            (_, None) => break,
        }
    }
    anyhow::bail!(
        "{what}: {} lines, expected {}\n{} missing, first:\n{}\n{} too many, first:\n{}",
        found.len(),
        expected.len(),
        missing.len(),
        first(&missing),
        extra.len(),
        first(&extra)
    )
}

fn first(lines: &[&String]) -> String {
    lines.iter().take(3).map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
