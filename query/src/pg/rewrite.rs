//! What PostgreSQL's clients ask of `pg_catalog` in words that DataFusion does not know.
//!
//! What passes through: a statement about `pg_catalog`, as datafusion-postgres has made it its own, into one
//! that says the same.
//!
//! | written | stands for |
//! |---|---|
//! | `array(select … from pg_…)` | null: nobody is a member of a role, and no table has options |
//! | `(select … from pg_attrdef)`, `pg_sequence`, `pg_collation` | null: no column has any of these |
//! | `information_schema._pg_expandarray(list)`, `generate_subscripts(list, 1)` | `unnest(…)` of them |
//! | `indkey[n]`, counted from 0 | `indkey[n + 1]` |
//! | `indisprimary = 't'` | `indisprimary = true` |
//! | `(select x from pg_range where …)`, `pg_type`, `pg_class` | `(select max(x) …)`, of which DataFusion sees that it is one value |
//! | `(x).n` | `get_field(x, 'n')` |
//! | `oid = typreceive` | `proname = typreceive`, since datafusion-postgres names functions there |
//! | `cast(f(…) as regclass)` | `to_regclass(f(…))` |
//! | `show server_encoding` and its kin | `select … as server_encoding` |
//! | `select f()` | `select f() as f` |
//!
//! Guaranteed: all else is left as it is.

use std::borrow::Cow;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, FunctionArguments, Ident, ObjectName,
    Query, SelectItem, SetExpr, Statement, Subscript, Value, VisitMut, VisitorMut, visit_expressions,
};
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;

use super::functions::setting;
use crate::dialect::{call, expression, parse};

/// Words without one of which nothing is asked of `pg_catalog`.
const WORDS: [&str; 5] = ["pg_", "information_schema", "current_s", "session_user", "show "];
/// Columns that say whether something is so begin with these.
const WHETHER: [&str; 3] = ["indis", "relhas", "att"];

/// Columns that name a function, where PostgreSQL has its number.
const PROCEDURES: [&str; 4] = ["typinput", "typoutput", "typreceive", "typsend"];
/// Settings that are shown as well.
const SHOWN: [&str; 4] =
    ["standard_conforming_strings", "server_encoding", "max_index_keys", "default_transaction_read_only"];
/// Of what is in these tables no column has any.
const NOTHING: [&str; 3] = ["pg_attrdef", "pg_sequence", "pg_collation"];
/// What is in these tables is found by its number.
const NUMBERED: [&str; 3] = ["pg_range", "pg_type", "pg_class"];

/// Statements with what they stand for; borrowed where they are that already.
pub(super) fn rewritten(sql: &str) -> Cow<'_, str> {
    let written = sql.to_ascii_lowercase();
    if !WORDS.iter().any(|word| written.contains(word)) {
        return Cow::Borrowed(sql);
    }
    let Ok(mut statements) = PostgresCompatibilityParser::new().parse(sql) else { return Cow::Borrowed(sql) };
    let mut rewriter = Rewriter::default();
    for statement in &mut statements {
        let _ = statement.visit(&mut rewriter);
        if let Some(shown) = shown(statement) {
            *statement = shown;
            rewriter.is_other = true;
        }
        if let Statement::Query(query) = statement {
            rewriter.name(query);
        }
    }
    if !rewriter.is_other {
        return Cow::Borrowed(sql);
    }
    Cow::Owned(statements.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// The question that shows a setting; none where another is shown.
fn shown(statement: &Statement) -> Option<Statement> {
    let Statement::ShowVariable { variable } = statement else { return None };
    let [variable] = &variable[..] else { return None };
    let name = SHOWN.into_iter().find(|name| variable.value.eq_ignore_ascii_case(name))?;
    match parse(&format!("select '{}' as {name}", setting(name)?)).ok()? {
        Parsed::Statement(shown) => Some(*shown),
        _ => None,
    }
}

#[derive(Default)]
struct Rewriter {
    is_other: bool,
}

impl Rewriter {
    /// Calls the columns of an answer as PostgreSQL does, where no two would be called the same.
    fn name(&mut self, query: &mut Query) {
        let SetExpr::Select(select) = query.body.as_mut() else { return };
        let name = |item: &SelectItem| match item {
            SelectItem::UnnamedExpr(Expr::Function(function)) => last(&function.name),
            _ => None,
        };
        let names: Vec<_> = select.projection.iter().map(name).collect();
        for (item, name) in select.projection.iter_mut().zip(&names) {
            if let (SelectItem::UnnamedExpr(expr), Some(name)) = (&*item, name)
                && names.iter().filter(|other| other.as_ref() == Some(name)).count() == 1
            {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(name) };
                self.is_other = true;
            }
        }
    }
}

fn last(name: &ObjectName) -> Option<String> {
    Some(name.0.last()?.as_ident()?.value.to_ascii_lowercase())
}

/// The last part of the name of a column.
fn column(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Identifier(name) => Some(&name.value),
        Expr::CompoundIdentifier(names) => names.last().map(|name| name.value.as_str()),
        _ => None,
    }
}

/// Another column of the same table.
fn renamed(expr: &Expr, column: &str) -> Option<Expr> {
    match expr {
        Expr::CompoundIdentifier(names) => {
            let (_, table) = names.split_last()?;
            Some(Expr::CompoundIdentifier(table.iter().cloned().chain([Ident::new(column)]).collect()))
        }
        _ => None,
    }
}

/// The one expression that a subquery selects.
fn selected(query: &mut Query) -> Option<&mut Expr> {
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    match &mut select.projection[..] {
        [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] => Some(expr),
        _ => None,
    }
}

fn is_from(query: &Query, table: &str) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    select.from.iter().any(|from| from.relation.to_string().contains(table))
}

/// Nothing, of a type.
fn null(data_type: DataType) -> Expr {
    let expr = Box::new(Expr::value(Value::Null));
    Expr::Cast { kind: CastKind::Cast, expr, data_type, array: false, format: None }
}

/// Nothing, in the place of a question; what it has parameters for is still to be sent.
fn nothing(query: &Query) -> Option<Expr> {
    let mut parameters = Vec::new();
    let _ = visit_expressions(query, |expr| {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &value.value
        {
            parameters.push(format!("WHEN false THEN CAST({name} AS TEXT)"));
        }
        ControlFlow::<()>::Continue(())
    });
    match &parameters[..] {
        [] => Some(null(DataType::Text)),
        parameters => expression(&format!("CASE {} END", parameters.join(" "))).ok(),
    }
}

fn is_regclass(data_type: &DataType) -> bool {
    match data_type {
        DataType::Regclass => true,
        DataType::Custom(name, _) => last(name).is_some_and(|name| name == "regclass"),
        _ => false,
    }
}

/// What an expression stands for; none where it is that already.
fn meant(expr: &mut Expr) -> Option<Expr> {
    match expr {
        Expr::Function(function) => match (last(&function.name)?.as_str(), &mut function.args) {
            ("array", FunctionArguments::Subquery(query)) if is_from(query, "pg_") || is_from(query, "unnest") => {
                Some(null(DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None))))
            }
            ("_pg_expandarray" | "generate_subscripts", _) => Some(call("unnest", vec![expr.clone()])),
            _ => None,
        },
        Expr::CompoundFieldAccess { root, access_chain } => {
            if let ([AccessExpr::Dot(field)], Expr::Nested(whole)) = (&access_chain[..], root.as_ref()) {
                let field = Expr::value(Value::SingleQuotedString(column(field)?.to_lowercase()));
                return Some(call("get_field", vec![whole.as_ref().clone(), field]));
            }
            let (AccessExpr::Subscript(Subscript::Index { index }), before) = access_chain.split_last_mut()? else {
                return None;
            };
            let list = match before {
                [] => column(root),
                [.., AccessExpr::Dot(last)] => column(last),
                _ => None,
            };
            if list != Some("indkey") {
                return None;
            }
            let one = Box::new(Expr::value(Value::Number("1".to_owned(), false)));
            *index = Expr::BinaryOp { left: Box::new(index.clone()), op: BinaryOperator::Plus, right: one };
            Some(expr.clone())
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            if let (Some("oid"), Some(name)) = (column(left), column(right))
                && PROCEDURES.contains(&name)
            {
                **left = renamed(left, "proname")?;
                return Some(expr.clone());
            }
            let name = column(left)?;
            let Expr::Value(value) = right.as_mut() else { return None };
            let is = match &value.value {
                Value::SingleQuotedString(text) if text == "t" => true,
                Value::SingleQuotedString(text) if text == "f" => false,
                _ => return None,
            };
            WHETHER.iter().find(|whether| name.starts_with(**whether))?;
            value.value = Value::Boolean(is);
            Some(expr.clone())
        }
        Expr::Subquery(query) if NOTHING.iter().any(|table| is_from(query, table)) => nothing(query),
        Expr::Subquery(query) if NUMBERED.iter().any(|table| is_from(query, table)) => {
            let item = selected(query)?;
            if !matches!(item, Expr::BinaryOp { op: BinaryOperator::Eq, .. }) {
                column(item)?;
            }
            *item = call("max", vec![item.clone()]);
            query.limit_clause = None;
            Some(expr.clone())
        }
        Expr::Cast { expr: inner, data_type, .. } if is_regclass(data_type) => {
            matches!(inner.as_ref(), Expr::Function(_)).then(|| call("to_regclass", vec![inner.as_ref().clone()]))
        }
        _ => None,
    }
}

impl VisitorMut for Rewriter {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(meant) = meant(expr) {
            *expr = meant;
            self.is_other = true;
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_datafusion_does_not_know_is_rewritten() {
        for (written, part) in [
            ("select array(select rolname from pg_roles) as r", "CAST(NULL AS TEXT[]) AS r"),
            ("select case when true then (select adbin from pg_attrdef) end as d", "THEN CAST(NULL AS TEXT) END"),
            (
                "select case when true then (select typcollation from pg_type where oid = 1) end as c",
                "(SELECT max(typcollation) FROM",
            ),
            (
                "select generate_subscripts(i.indkey, 1) as n from pg_index i",
                "unnest(generate_subscripts(i.indkey, 1))",
            ),
            (
                "select (information_schema._pg_expandarray(i.indkey)).n as n from pg_index i",
                "get_field(unnest(_pg_expandarray(i.indkey)), 'n')",
            ),
            ("select 1 as n from pg_type t, pg_proc p where p.oid = t.typreceive", "p.proname = t.typreceive"),
            (
                "select case when true then (select $1 from pg_attrdef) end as n from pg_class",
                "CASE WHEN false THEN CAST($1 AS TEXT) END",
            ),
            (
                "select (select c.relkind = 'c' from pg_class c where c.oid = 1) as c from pg_type",
                "max(c.relkind = 'c')",
            ),
            // datafusion-postgres has asked `pg_class` for the number already.
            ("select 'pg_class'::regclass as o", "max(c.oid)"),
            ("show standard_conforming_strings", "SELECT 'on' AS standard_conforming_strings"),
            ("select i.indkey[a.attnum - 1] as k from pg_index i, pg_attribute a", "i.indkey[a.attnum - 1 + 1]"),
            ("select 1 as n from pg_index i where i.indisprimary = 't'", "i.indisprimary = true"),
            (
                "select cast(cast(format('%I', a) as regclass) as oid) as o from pg_class",
                "to_regclass(format('%I', a))",
            ),
            ("select current_schema(), session_user", "current_schema() AS current_schema"),
        ] {
            let rewritten = rewritten(written);
            assert!(matches!(rewritten, Cow::Owned(_)) && rewritten.contains(part), "{written}: {rewritten}");
        }
    }

    #[test]
    fn all_else_is_left_as_it_is() {
        for sql in [
            "select array(select 1)",
            "select sum(n), sum(m) from t",
            "select pg_typeof(a), pg_typeof(b) from t",
            "select relname from pg_class where relkind = 't'",
            "select pg_",
        ] {
            assert!(matches!(rewritten(sql), Cow::Borrowed(_)), "{sql}");
        }
    }
}
