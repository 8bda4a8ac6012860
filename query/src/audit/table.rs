//! `ruam.audit`: the account as a table.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, StringArray, TimestampMicrosecondArray, UInt64Array};
use chrono::DateTime;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;

use super::{AuditLog, Record};
use crate::catalog;
use crate::error::external;

/// The account as it is now, a row for each record.
///
/// # Errors
/// Where a record cannot be read.
pub(crate) fn table(log: Option<&AuditLog>) -> Result<Arc<dyn TableProvider>> {
    let mut records = Vec::new();
    if let Some(log) = log {
        for record in log.records().map_err(external)? {
            records.push(record.map_err(external)?);
        }
    }
    let text = |of: &dyn Fn(&Record) -> Option<String>| -> ArrayRef {
        Arc::new(records.iter().map(of).collect::<StringArray>())
    };
    let number =
        |of: &dyn Fn(&Record) -> Option<u64>| -> ArrayRef { Arc::new(records.iter().map(of).collect::<UInt64Array>()) };
    let at = |record: &Record| Some(DateTime::parse_from_rfc3339(&record.at).ok()?.timestamp_micros());
    let pairs = |pairs: &[(String, String)]| {
        pairs.iter().map(|(table, what)| format!("{table}: {what}")).collect::<Vec<_>>().join("; ")
    };
    let tables = |record: &Record| {
        let tables = record.tables.iter().map(|(table, columns)| (table.clone(), columns.join(", ")));
        pairs(&tables.collect::<Vec<_>>())
    };
    catalog::table(vec![
        ("at", Arc::new(records.iter().map(at).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
        ("event", text(&|record| Some(record.event.to_string()))),
        ("query", text(&|record| Some(record.query.clone()))),
        ("who", text(&|record| Some(record.who.clone()))),
        ("roles", text(&|record| Some(record.roles.join(", ")))),
        ("client", text(&|record| Some(record.client.clone()))),
        ("purpose", text(&|record| record.purpose.clone())),
        ("sql", text(&|record| Some(record.sql.clone()))),
        ("tables", text(&|record| Some(tables(record)))),
        ("policies", text(&|record| Some(pairs(&record.policies)))),
        ("subjects", text(&|record| Some(record.subjects.join(", ")))),
        ("shows_persons", Arc::new(records.iter().map(|record| Some(record.shows_persons)).collect::<BooleanArray>())),
        ("cached", Arc::new(records.iter().map(|record| Some(record.cached)).collect::<BooleanArray>())),
        ("rows", number(&|record| record.rows)),
        ("bytes", number(&|record| record.bytes)),
        ("milliseconds", number(&|record| record.milliseconds)),
    ])
}
