//! `describe agency.dataset`.

use datafusion::error::Result;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{ObjectName, Statement};

use crate::catalog::CATALOG;
use crate::describe_table::DescribeTable;
use crate::dialect;

/// Schemas whose tables are no dataset's: DataFusion says what columns they have.
const OTHERS: [&str; 3] = [CATALOG, "information_schema", "pg_catalog"];

/// The query that describes a table, if it is one of an agency.
pub(super) fn query(table: &ObjectName) -> Result<Option<Statement>> {
    let parts: Option<Vec<_>> = table.0.iter().map(|part| Some(part.as_ident()?.value.as_str())).collect();
    let (agency, table) = match parts.as_deref() {
        Some([agency, table] | [CATALOG, agency, table]) if !OTHERS.contains(agency) => (*agency, *table),
        _ => return Ok(None),
    };
    let text = |text: &str| text.replace('\'', "''");
    let dataset = table.split_once("__").map_or(table, |(dataset, _)| dataset);
    let sql = format!(
        "select c.*, r.rejects from {}('{}') c left join (select column_name, count(*) as rejects from {CATALOG}.rejects \
         where dataset = '{}' group by column_name) r on r.column_name = c.column_name order by c.position",
        DescribeTable::NAME,
        text(&format!("{agency}.{table}")),
        text(&format!("{agency}.{dataset}")),
    );
    match dialect::parse_all(&sql)?.pop_front() {
        Some(Parsed::Statement(query)) => Ok(Some(*query)),
        _ => Ok(None),
    }
}
