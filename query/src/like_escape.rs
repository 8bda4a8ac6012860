//! `like pattern escape '/'`: patterns with an escape of their own.
//!
//! What passes through: a plan, into one whose patterns have the escape that DataFusion knows, the backslash.
//! SQLAlchemy lists schemas with another, for instance.

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::functions::string::expr_fn::replace;
use datafusion::logical_expr::expr::Like;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, cast, lit};
use datafusion::optimizer::AnalyzerRule;

const BACKSLASH: &str = "\\";
/// Stands for an escape that was escaped, while others are replaced; no text has it.
const ESCAPED: &str = "\u{1}";

/// The rule.
#[derive(Debug)]
pub(crate) struct LikeEscape;

impl AnalyzerRule for LikeEscape {
    fn name(&self) -> &'static str {
        "like_escape"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expression| {
                let name = names.save(&expression);
                Ok(expression.transform_up(|expression| Ok(rewrite(expression)))?.update_data(|new| name.restore(new)))
            })
        });
        Ok(rewritten?.data)
    }
}

fn rewrite(expression: Expr) -> Transformed<Expr> {
    match expression {
        Expr::Like(like) if like.escape_char.is_some_and(|escape| escape != '\\') => {
            let escape = like.escape_char.map(String::from).unwrap_or_default();
            let steps = [
                (BACKSLASH.to_owned(), BACKSLASH.repeat(2)),
                (escape.repeat(2), ESCAPED.to_owned()),
                (escape.clone(), BACKSLASH.to_owned()),
                (ESCAPED.to_owned(), escape),
            ];
            let pattern =
                steps.into_iter().fold(*like.pattern, |pattern, (from, to)| replace(pattern, lit(from), lit(to)));
            // Types have been made to fit before, and texts come in more than one.
            let text = |expression| Box::new(cast(expression, DataType::Utf8View));
            let (expr, pattern) = (text(*like.expr), text(pattern));
            Transformed::yes(Expr::Like(Like { expr, pattern, escape_char: None, ..like }))
        }
        other => Transformed::no(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::util::display::array_value_to_string;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn patterns_with_an_escape_of_their_own() {
        let session = SessionContext::new();
        session.add_analyzer_rule(Arc::new(LikeEscape));
        for (expression, expected) in [
            ("'pg_catalog' like 'pg/_' || '%' escape '/'", "true"),
            ("'pgxcatalog' like 'pg/_' || '%' escape '/'", "false"),
            ("'pgxcatalog' not like 'pg/_%' escape '/'", "true"),
            ("'PG_' ilike 'pg/_' escape '/'", "true"),
            ("'a/b' like 'a//b' escape '/'", "true"),
            ("'a\\b' like 'a\\b' escape '/'", "true"),
            ("'100%' like '100!%' escape '!'", "true"),
            ("'1000' like '100!%' escape '!'", "false"),
            ("arrow_cast('a_', 'Utf8View') like 'a/_' escape '/'", "true"),
        ] {
            let sql = format!("select {expression} as found where 'x_' like 'x/_' escape '/'");
            let answer = session.sql(&sql).await.unwrap().collect().await.unwrap();
            assert_eq!(array_value_to_string(answer[0].column(0), 0).unwrap(), expected, "{expression}");
        }
    }
}
