//! `describe_table('agency.dataset')`: what there is to know of each column of a table.
//!
//! What passes through: the declaration of a dataset, into a row for each column of one of its tables: the
//! dataset's own, its rejects (`__rejects`), its changes (`__changes`) or its history (`__history`).
//!
//! | column | what it says |
//! |---|---|
//! | `position` | its place in the table |
//! | `column_name`, `data_type` | its name and its type in SQL |
//! | `semantic_type` | what it means, where the dataset declares it |
//! | `meaning` | what that type accepts, or what a column says that no dataset declares |
//! | `required`, `is_key` | whether a record without it is refused, and whether it tells one row from another |
//! | `classification` | who may see it |
//! | `title_th`, `title_en` | what people call it |
//! | `source` | what brings its values: a connector, or a topic that somebody else fills |

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Expr;
use ruam_event::ColumnSpec;
use ruam_lake::TableKind;
use ruam_transform::types;

use crate::catalog::{HISTORY, table};
use crate::engine::QueryDataset;
use crate::error::{QueryError, external};
use crate::history;
use crate::policy::Part;
use crate::scope::{Scope, part_of};

/// What the columns say that no dataset declares.
const OWN: [(&str, &str); 20] = [
    ("_event_id", "The id of the event; topic/partition/offset where it has none"),
    ("_topic", "The topic of the record in the log"),
    ("_partition", "The partition of the record in the log"),
    ("_offset", "The offset of the record in the log"),
    ("_position", "The place in the order of the source; the offset where the source gives none"),
    ("_source_time", "When it happened at the source, as far as it says"),
    ("_arrived_at", "When it reached the log"),
    ("_signature", "The agency's signature of the event, with what it has signed: a compact JWS"),
    ("_op", "What was done: snapshot, insert, update, delete or truncate"),
    ("_unchanged", "The columns that the change left as they were"),
    ("valid_from", "Since when it holds, by the source's clock; null is since ever"),
    ("valid_to", "Until when it holds, by the source's clock; null is for ever"),
    ("known_from", "Since when that is known, by the clock of arrival"),
    ("known_to", "Until when that was known, by the clock of arrival; null is until now"),
    ("is_current", "Whether it holds now, as far as is known now"),
    ("reason", "Why the record could not become a row"),
    ("column_name", "The column at fault"),
    ("detail", "What is wrong, in words"),
    ("raw_key", "The record's key, as it came"),
    ("raw_value", "The record's value, as it came"),
];
/// What a column says that a semantic type keeps beside one that is declared.
const BESIDE: (&str, &str) = ("_raw", "The text as it came, where it was repaired");

/// The function, over what a session can ask about.
#[derive(Debug)]
pub(crate) struct DescribeTable(pub Scope);

impl DescribeTable {
    pub(crate) const NAME: &str = "describe_table";
}

impl TableFunctionImpl for DescribeTable {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let [Expr::Literal(ScalarValue::Utf8(Some(name)), _)] = args.exprs() else {
            let problem = "it takes the name of a table".to_owned();
            let (function, usage) = (Self::NAME, "describe_table('agency.dataset')");
            return Err(external(QueryError::Call { function, problem, usage }));
        };
        let all = || self.0.datasets().flat_map(|dataset| Described::all(dataset));
        let mut there = all().filter(|described| self.0.has(described.dataset, described.part));
        let Some(described) = there.find(|described| described.name == *name) else {
            let there = all().filter(|described| self.0.has(described.dataset, described.part));
            let known: Vec<_> = there.map(|described| described.name).collect();
            return Err(external(QueryError::no_table(name, &known)));
        };
        described.columns()
    }
}

/// A table that is described.
pub(crate) struct Described<'a> {
    pub name: String,
    pub dataset: &'a QueryDataset,
    pub part: Part,
    pub schema: Schema,
}

impl<'a> Described<'a> {
    /// The tables of a dataset.
    pub(crate) fn all(dataset: &'a QueryDataset) -> impl Iterator<Item = Self> {
        let tables = dataset.tables().map(move |(name, schema)| Self {
            name: name.to_string(),
            dataset,
            part: part_of(name.kind),
            schema: schema.as_ref().clone(),
        });
        let history = dataset.has_history().then(|| {
            let schema = history::schema(&dataset.rows, dataset.spec.effective()).ok()?;
            Some(Self { name: format!("{}{HISTORY}", dataset.spec.id()), dataset, part: Part::History, schema })
        });
        tables.chain(history.flatten())
    }

    /// What is declared of a column.
    fn declared(&self, name: &str) -> Option<&'a ColumnSpec> {
        // Columns of rejects are Ruam's own, whatever they are called.
        let is_reject = self.name.ends_with(TableKind::Rejects.suffix());
        self.dataset.spec.columns.iter().find(|column| !is_reject && column.name() == name)
    }

    fn meaning(&self, name: &str) -> Option<String> {
        if let Some(column) = self.declared(name) {
            return types::of_column(&self.dataset.spec, column).ok().map(|semantic| semantic.describe());
        }
        let (_, own) = OWN.into_iter().find(|(own, _)| *own == name).or_else(|| {
            let is_beside = name.strip_suffix("_raw").is_some_and(|of| self.declared(of).is_some());
            is_beside.then_some(BESIDE)
        })?;
        Some(own.to_owned())
    }

    /// Whether a record without a value for a column is refused.
    pub(crate) fn requires(&self, name: &str) -> bool {
        let declared = self.declared(name);
        declared.is_some_and(|column| column.required || self.dataset.spec.is_key(column.name()))
    }

    /// What people call a column, or else what it says.
    pub(crate) fn comment(&self, name: &str) -> Option<String> {
        match self.declared(name) {
            Some(column) => Some(format!("{} ({})", column.title.th, column.title.en)),
            None => self.meaning(name),
        }
    }

    fn columns(&self) -> Result<Arc<dyn TableProvider>> {
        let spec = &self.dataset.spec;
        let fields = || self.schema.fields().iter();
        let text = |of: &dyn Fn(&Field) -> Option<String>| -> ArrayRef {
            Arc::new(fields().map(|field| of(field)).collect::<StringArray>())
        };
        let declared = |of: &dyn Fn(&ColumnSpec) -> String| text(&|field| self.declared(field.name()).map(of));
        let is = |of: &dyn Fn(&Field) -> bool| -> ArrayRef {
            Arc::new(fields().map(|field| Some(of(field))).collect::<BooleanArray>())
        };
        let source = match &spec.source {
            Some(source) => source.kind.get_ref().clone(),
            None => format!("topic {}", spec.topic()),
        };
        table(vec![
            ("position", Arc::new((1..=self.schema.fields().len() as i32).collect::<Int32Array>())),
            ("column_name", text(&|field| Some(field.name().clone()))),
            ("data_type", text(&|field| Some(sql_type(field.data_type())))),
            ("semantic_type", declared(&|column| column.semantic_type.get_ref().clone())),
            ("meaning", text(&|field| self.meaning(field.name()))),
            ("required", is(&|field| self.requires(field.name()))),
            ("is_key", is(&|field| self.declared(field.name()).is_some_and(|column| spec.is_key(column.name())))),
            (
                "classification",
                text(&|field| {
                    let own = self.declared(field.name()).and_then(|column| column.classification);
                    Some(own.unwrap_or(spec.classification).to_string())
                }),
            ),
            ("title_th", declared(&|column| column.title.th.clone())),
            ("title_en", declared(&|column| column.title.en.clone())),
            ("source", text(&|field| self.declared(field.name()).map(|_| source.clone()))),
        ])
    }
}

/// A type as SQL has it.
fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "text".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => "bytea".to_owned(),
        other => other.to_string(),
    }
}
