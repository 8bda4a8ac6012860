//! What can be written shorter than SQL has it.
//!
//! What passes through: a statement as it was written, into the statement that it stands for. That one is
//! planned like any other, so that whoever may not see a table does not see it by a shorter way either.
//!
//! | written | stands for |
//! |---|---|
//! | `describe agency.dataset` | a query of [`describe_table`](crate::describe_table), with the rejects of each column |
//! | `read_rejects('agency.dataset')` | the table `agency.dataset__rejects` |
//! | `area_name(code, date)`, `area_successor(code)`, `area_successor(code, date)` | the function of these and of all [`areas`] there are |
//! | `order by name collate "th-TH"` | `order by thai_sort_key(name)` |
//!
//! Guaranteed: all else is left as it is, and a column of the answer is called by what was written.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::str::FromStr;

use datafusion::error::{DataFusionError, Result};
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    DescribeAlias, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, OrderByKind, Query, Select, SelectItem, Statement, TableFactor, Value, VisitMut, VisitorMut,
    visit_expressions,
};
use ruam_event::DatasetId;
use ruam_lake::{TableKind, TableName};

use crate::dialect;
use crate::error::{QueryError, external};
use crate::functions::{AREA_FUNCTIONS, AREA_USAGE, THAI_SORT_KEY};

mod areas;
mod describe;

const REJECTS: &str = "read_rejects";

/// Words without one of which nothing is shorter than SQL has it.
const WORDS: [&str; 4] = ["desc", REJECTS, "area_", "collate"];

/// Statements with what they stand for; borrowed where they are that already, or are none.
///
/// # Errors
/// Where what is short is not understood.
pub(crate) fn spelled_out(sql: &str) -> Result<Cow<'_, str>> {
    let written = sql.to_ascii_lowercase();
    if !WORDS.iter().any(|word| written.contains(word)) {
        return Ok(Cow::Borrowed(sql));
    }
    let Ok(mut statements) = dialect::parse_all(sql) else { return Ok(Cow::Borrowed(sql)) };
    let mut is_other = false;
    for statement in &mut statements {
        is_other |= spell_out(statement)?;
    }
    let spelled_out = || statements.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Ok(if is_other { Cow::Owned(spelled_out()) } else { Cow::Borrowed(sql) })
}

/// Makes a statement what it stands for; says whether it was another.
///
/// # Errors
/// Where what is short is not understood.
pub(crate) fn spell_out(statement: &mut Parsed) -> Result<bool> {
    let statement = match statement {
        Parsed::Statement(statement) => statement.as_mut(),
        Parsed::Explain(explained) => return spell_out(&mut explained.statement),
        _ => return Ok(false),
    };
    if let Some(query) = described(statement)? {
        *statement = query;
        return Ok(true);
    }
    let mut short = Short::default();
    match statement.visit(&mut short) {
        ControlFlow::Continue(()) => Ok(short.is_other),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// The query that describes a table of an agency; none where something else is asked for.
fn described(statement: &Statement) -> Result<Option<Statement>> {
    match statement {
        Statement::ExplainTable {
            describe_alias: DescribeAlias::Describe | DescribeAlias::Desc, table_name, ..
        } => describe::query(table_name),
        _ => Ok(None),
    }
}

/// Replaces what is short.
#[derive(Default)]
struct Short {
    is_other: bool,
    /// The calls of functions of areas, as they were written.
    of_areas: Vec<String>,
}

impl Short {
    /// Gives a function of areas what it knows of them, before what it was called with.
    fn with_areas(&mut self, function: &mut Function, (name, usage): (&'static str, &'static str)) -> Result<()> {
        let wrong = |problem: &str| external(QueryError::Call { function: name, problem: problem.to_owned(), usage });
        let written = function.to_string();
        let FunctionArguments::List(FunctionArgumentList { args, .. }) = &mut function.args else {
            return Err(wrong("it takes the code of an area"));
        };
        match (name, args.len()) {
            ("area_name", 2) | ("area_successor", 1 | 2) => {}
            ("area_name", _) => {
                return Err(wrong("it takes the code of an area, and the day as of which its name is asked"));
            }
            _ => {
                return Err(wrong("it takes the code of an area, and perhaps the day as of which they are asked"));
            }
        }
        let call = self.of_areas.iter().position(|call| *call == written).unwrap_or(self.of_areas.len());
        if call == self.of_areas.len() {
            self.of_areas.push(written);
        }
        args.insert(0, FunctionArg::Unnamed(FunctionArgExpr::Expr(areas::all(call)?)));
        Ok(())
    }
}

type Step = ControlFlow<Box<DataFusionError>>;

/// What goes on, or does not.
fn step(result: Result<()>) -> Step {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

impl VisitorMut for Short {
    type Break = Box<DataFusionError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> Step {
        if let Some(OrderByKind::Expressions(by)) = query.order_by.as_mut().map(|order_by| &mut order_by.kind) {
            for by in by {
                self.is_other |= by_thai(&mut by.expr);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Step {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && mentions_areas(expr)
            {
                let alias = Ident::with_quote('"', expr.to_string());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> Step {
        let TableFactor::Table { name, args, .. } = table else { return ControlFlow::Continue(()) };
        let Some(arguments) = args.take_if(|_| is_called(name, REJECTS)) else { return ControlFlow::Continue(()) };
        self.is_other = true;
        step(rejects_of(&arguments.args).map(|rejects| *name = rejects))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Step {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let Some(usage) = usage_of(function) else { return ControlFlow::Continue(()) };
        self.is_other = true;
        step(self.with_areas(function, usage))
    }
}

fn is_called(name: &ObjectName, function: &str) -> bool {
    matches!(&name.0[..], [part] if part.as_ident().is_some_and(|name| name.value.eq_ignore_ascii_case(function)))
}

/// How a function of areas is to be called; none where it is another.
fn usage_of(function: &Function) -> Option<(&'static str, &'static str)> {
    AREA_FUNCTIONS.into_iter().zip(AREA_USAGE).find(|(name, _)| is_called(&function.name, name))
}

fn mentions_areas(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |expr| match expr {
        Expr::Function(function) if usage_of(function).is_some() => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// The table of rejects that a call of the function stands for.
fn rejects_of(arguments: &[FunctionArg]) -> Result<ObjectName> {
    let wrong = |problem: String| {
        let (function, usage) = (REJECTS, "read_rejects('agency.dataset')");
        external(QueryError::Call { function, problem, usage })
    };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))] = arguments else {
        return Err(wrong("it takes the name of a dataset".to_owned()));
    };
    let Value::SingleQuotedString(name) = &value.value else {
        return Err(wrong(format!("{value} is not the name of a dataset in quotation marks")));
    };
    let dataset = DatasetId::from_str(name).map_err(|error| wrong(error.to_string()))?;
    let rejects = TableName::new(&dataset, TableKind::Rejects);
    Ok(ObjectName::from(vec![Ident::new(dataset.agency()), Ident::new(rejects.table())]))
}

/// Orders by the key of a text where its order is to be that of Thai; says whether it did.
fn by_thai(expr: &mut Expr) -> bool {
    match expr {
        Expr::Nested(inner) => by_thai(inner),
        Expr::Collate { expr: text, collation } if is_thai(collation) => {
            *expr = dialect::call(THAI_SORT_KEY, vec![text.as_ref().clone()]);
            true
        }
        _ => false,
    }
}

/// Whether a collation is that of Thai: `th`, `th-TH`, `th_TH.utf8`, or as PostgreSQL calls it, `th-x-icu`.
fn is_thai(collation: &ObjectName) -> bool {
    let name = collation.0.last().and_then(|part| part.as_ident()).map(|name| name.value.to_ascii_lowercase());
    name.is_some_and(|name| name.split(['-', '_', '.']).next() == Some("th"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use ruam_lake::Lake;

    use crate::engine::{Engine, EngineSettings};
    use crate::policy::Policies;

    #[test]
    fn what_is_short_is_spelled_out() {
        for (short, long) in [
            ("select * from read_rejects('a.b') r limit 1", "SELECT * FROM a.b__rejects r LIMIT 1"),
            ("select n from t order by n collate \"th-TH\" desc", "SELECT n FROM t ORDER BY thai_sort_key(n) DESC"),
            ("select n from t order by (n collate th_TH)", "SELECT n FROM t ORDER BY (thai_sort_key(n))"),
        ] {
            assert_eq!(spelled_out(short).unwrap(), long);
        }
        for (short, part) in [
            ("describe a.b", "describe_table('a.b')"),
            ("desc table ruam.a.b__history; select 1", "describe_table('a.b__history')"),
            ("explain select area_name(c, d) from t", "area_name((SELECT array_agg("),
            ("select Area_Name(c, d) from t", "AS \"Area_Name(c, d)\" FROM t"),
            ("select 1 from t where 'x' = any(area_successor(c))", "area_successor((SELECT array_agg("),
        ] {
            let long = spelled_out(short).unwrap();
            assert!(matches!(long, Cow::Owned(_)) && long.contains(part), "{short}: {long}");
            assert_eq!(spelled_out("select 1").unwrap(), "select 1");
        }
    }

    #[test]
    fn all_else_is_left_as_it_is() {
        for sql in [
            "select description from t",
            "select n from t order by n desc",
            "select n from t order by n collate \"C\"",
            "describe ruam.versions",
            "describe select 1",
            "explain a.b",
            "select n from pg_catalog.pg_class where c = 'x' collate pg_catalog.default",
            "select area_name from t",
            "describe",
        ] {
            assert!(matches!(spelled_out(sql), Ok(Cow::Borrowed(_))), "{sql}");
        }
    }

    #[test]
    fn what_is_not_understood_is_explained() {
        for (sql, expected) in [
            (
                "select * from read_rejects()",
                "read_rejects: it takes the name of a dataset. Write read_rejects('agency.dataset')",
            ),
            ("select * from read_rejects(1)", "read_rejects: 1 is not the name of a dataset"),
            ("select * from read_rejects('a')", "read_rejects: `a` does not name a dataset"),
            ("select area_name('10')", "area_name: it takes the code of an area, and the day"),
            (
                "select area_successor()",
                "area_successor: it takes the code of an area, and perhaps the day as of which they are asked",
            ),
        ] {
            let error = spelled_out(sql).unwrap_err().to_string();
            assert!(error.contains(expected), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn areas_are_those_of_a_dataset() {
        let dir = tempfile::tempdir().unwrap();
        let lake = Lake::open(&dir.path().to_string_lossy(), &BTreeMap::new()).unwrap();
        let engine = Engine::new(lake, Vec::new(), Policies::default(), EngineSettings::default()).unwrap();
        let error = engine.query("select area_name('10', now())").await.err().unwrap().to_string();
        assert!(error.contains("there is no table `dopa.administrative_area__history`"), "{error}");
    }
}
