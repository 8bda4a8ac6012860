//! The SQL that is understood: PostgreSQL's, with tables as they were (`VERSION AS OF`, `TIMESTAMP AS OF`), what
//! can be written [shorter](crate::shorthand), and a few conveniences of other engines.

use std::any::TypeId;
use std::borrow::Cow;
use std::collections::VecDeque;

use datafusion::error::{DataFusionError, Result};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
};
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::shorthand;

/// Reads one statement, and makes it what it stands for.
///
/// # Errors
/// Where it is none, or more than one.
pub(crate) fn parse(sql: &str) -> Result<Statement> {
    let mut statements = parse_all(&numbered(sql))?;
    match (statements.pop_front(), statements.len()) {
        (Some(mut statement), 0) => {
            shorthand::spell_out(&mut statement)?;
            Ok(statement)
        }
        (None, _) => Err(DataFusionError::Plan("there is no statement. Write one, such as select 1".to_owned())),
        (Some(_), more) => Err(DataFusionError::Plan(format!("there are {} statements. Ask one at a time", more + 1))),
    }
}

/// A statement in which `?`, as JDBC writes a parameter, is `$1` and so on.
fn numbered(sql: &str) -> Cow<'_, str> {
    if !sql.contains('?') {
        return Cow::Borrowed(sql);
    }
    // A text that is no SQL is for the parser to complain of.
    let Ok(tokens) = Tokenizer::new(&RuamDialect, sql).tokenize_with_location() else { return Cow::Borrowed(sql) };
    let lines: Vec<_> = sql.split_inclusive('\n').collect();
    let mut marks = tokens.iter().filter(|token| match &token.token {
        Token::Question => true,
        Token::Placeholder(written) => written == "?",
        _ => false,
    });
    let (mut said, mut number, mut mark) = (String::with_capacity(sql.len()), 0, marks.next());
    for (line, text) in (1..).zip(lines) {
        for (column, c) in (1..).zip(text.chars()) {
            if mark.is_some_and(|mark| (mark.span.start.line, mark.span.start.column) == (line, column)) {
                (number, mark) = (number + 1, marks.next());
                said.push_str(&format!("${number}"));
            } else {
                said.push(c);
            }
        }
    }
    Cow::Owned(said)
}

/// Reads statements as they are written.
///
/// # Errors
/// Where they are none.
pub(crate) fn parse_all(sql: &str) -> Result<VecDeque<Statement>> {
    DFParserBuilder::new(sql).with_dialect(&RuamDialect).build()?.parse_statements()
}

/// Reads an expression.
///
/// # Errors
/// Where it is none.
pub(crate) fn expression(sql: &str) -> Result<Expr> {
    let parse = || Parser::new(&RuamDialect).try_with_sql(sql)?.parse_expr();
    parse().map_err(DataFusionError::from)
}

/// Reads a `COPY` as PostgreSQL has it; none where the text is another statement.
///
/// # Errors
/// Where it is not written so, or something comes after it.
pub(crate) fn copy(sql: &str) -> Result<Option<sqlparser::ast::Statement>> {
    if !sql.to_ascii_lowercase().contains("copy") {
        return Ok(None);
    }
    // A text that is no SQL is for others to complain of.
    let Ok(mut parser) = Parser::new(&RuamDialect).try_with_sql(sql) else { return Ok(None) };
    if !parser.parse_keyword(Keyword::COPY) {
        return Ok(None);
    }
    let statement = parser.parse_copy()?;
    while parser.consume_token(&Token::SemiColon) {}
    match parser.peek_token().token {
        Token::EOF => Ok(Some(statement)),
        other => {
            let problem =
                format!("COPY ends before `{other}`. Send it alone, with options such as (FORMAT csv, HEADER)");
            Err(DataFusionError::Plan(problem))
        }
    }
}

/// The call of a function.
pub(crate) fn call(function: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[derive(Debug)]
struct RuamDialect;

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

/// What is as PostgreSQL has it, and what else is understood.
macro_rules! dialect {
    (postgres { $($postgres:ident,)* } also { $($also:ident,)* }) => {
        impl Dialect for RuamDialect {
            fn dialect(&self) -> TypeId {
                POSTGRES.dialect()
            }

            fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
                POSTGRES.identifier_quote_style(identifier)
            }

            fn is_delimited_identifier_start(&self, ch: char) -> bool {
                POSTGRES.is_delimited_identifier_start(ch)
            }

            fn is_identifier_start(&self, ch: char) -> bool {
                POSTGRES.is_identifier_start(ch)
            }

            fn is_identifier_part(&self, ch: char) -> bool {
                POSTGRES.is_identifier_part(ch)
            }

            fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
                POSTGRES.is_reserved_for_identifier(keyword)
            }

            fn is_custom_operator_part(&self, ch: char) -> bool {
                POSTGRES.is_custom_operator_part(ch)
            }

            fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
                POSTGRES.get_next_precedence(parser)
            }

            fn prec_value(&self, precedence: Precedence) -> u8 {
                POSTGRES.prec_value(precedence)
            }

            $(fn $postgres(&self) -> bool {
                POSTGRES.$postgres()
            })*

            $(fn $also(&self) -> bool {
                true
            })*
        }
    };
}

dialect! {
    postgres {
        supports_unicode_string_literal,
        supports_filter_during_aggregation,
        supports_group_by_expr,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_explain_with_utility_options,
        supports_factorial_operator,
        supports_bitwise_shift_operators,
        supports_named_fn_args_with_colon_operator,
        supports_named_fn_args_with_expr_name,
        supports_empty_projections,
        supports_nested_comments,
        supports_string_escape_constant,
        supports_numeric_literal_underscores,
        supports_array_typedef_with_brackets,
        supports_geometric_types,
        supports_set_names,
        supports_notnull_operator,
        supports_interval_options,
        supports_select_wildcard_with_alias,
        supports_comma_separated_trim,
    }
    also {
        supports_table_versioning,
        describe_requires_table_keyword,
        supports_select_wildcard_except,
        supports_select_wildcard_exclude,
        supports_select_wildcard_replace,
        supports_group_by_with_modifier,
        supports_parens_around_table_factor,
        supports_values_as_table_factor,
        supports_window_function_null_treatment_arg,
        supports_window_clause_named_window_reference,
        support_map_literal_syntax,
        supports_dictionary_syntax,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_may_be_marked_as_jdbc_does() {
        for (written, numbered_so) in [
            ("select a from t where b = ? and c > ?", "select a from t where b = $1 and c > $2"),
            ("select 'กี่?',\n\"?\", ? -- ?", "select 'กี่?',\n\"?\", $1 -- ?"),
            ("select $1", "select $1"),
        ] {
            assert_eq!(numbered(written), numbered_so);
        }
    }
}
