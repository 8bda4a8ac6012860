//! What a client is told where a question is not answered.
//!
//! What passes through: errors on their way to a client, into words for people and PostgreSQL's code of what
//! is wrong ("PostgreSQL Error Codes", appendix A of its documentation), by which programs tell a mistake
//! in a statement from a server in trouble, and what is worth another attempt.

use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion_postgres::pgwire::api::{ClientInfo, ErrorHandler};
use datafusion_postgres::pgwire::error::PgWireError;

use super::queries::SignedIn;
use super::refused;
use crate::error::QueryError;

const INTERNAL_ERROR: &str = "XX000";
const SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION: &str = "42000";

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// Words what goes wrong on a connection.
pub(super) struct Errors {
    signed_in: Arc<SignedIn>,
}

impl Errors {
    pub(super) fn new(signed_in: Arc<SignedIn>) -> Self {
        Self { signed_in }
    }
}

impl ErrorHandler for Errors {
    fn on_error<C>(&self, _: &C, error: &mut PgWireError)
    where
        C: ClientInfo,
    {
        let PgWireError::ApiError(boxed) = error else { return };
        let told = match own(std::mem::replace(boxed, Box::from(""))) {
            Ok(QueryError::Statement(failed)) => match self.signed_in.session() {
                Some(session) => session.explain(*failed),
                None => QueryError::Statement(failed),
            },
            Ok(other) => other,
            Err(foreign) => {
                *error = PgWireError::ApiError(foreign);
                return;
            }
        };
        *error = refused(code(&told), told.to_string());
    }
}

/// An error as one of this crate; as it came where it is from elsewhere.
fn own(error: Boxed) -> Result<QueryError, Boxed> {
    let error = match error.downcast::<DataFusionError>() {
        Ok(failed) => return Ok(QueryError::from(*failed)),
        Err(error) => error,
    };
    match error.downcast::<ParserError>() {
        Ok(unread) => Ok(QueryError::from(DataFusionError::SQL(unread, None))),
        Err(error) => error.downcast::<QueryError>().map(|own| *own),
    }
}

/// PostgreSQL's code for an error.
fn code(error: &QueryError) -> &'static str {
    match error {
        QueryError::Statement(error) => code_of_statement(error),
        QueryError::NoTable { .. } => "42P01",
        QueryError::Purpose { .. } | QueryError::Hidden(_) | QueryError::Setting(_) => "42501",
        QueryError::Late(_) => "57014",
        QueryError::Limit(_) => "53400",
        QueryError::Call { .. } | QueryError::Zone => "22023",
        QueryError::Parameters { .. } => "08P01",
        QueryError::Parameter { .. } => "22P02",
        QueryError::Lake(_) | QueryError::Spill { .. } | QueryError::Output { .. } | QueryError::Format { .. } => {
            "58030"
        }
    }
}

fn code_of_statement(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::External(own) => own.downcast_ref::<QueryError>().map_or(INTERNAL_ERROR, code),
        DataFusionError::SQL(..) => "42601",
        DataFusionError::SchemaError(error, _) => match **error {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            _ => SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
        },
        DataFusionError::Plan(text) if text.starts_with("Invalid function") => "42883",
        DataFusionError::Plan(_) => SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::ArrowError(error, _) => match **error {
            ArrowError::DivideByZero => "22012",
            ArrowError::ArithmeticOverflow(_) => "22003",
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
            _ => "22000",
        },
        DataFusionError::Execution(_) => "22000",
        DataFusionError::ResourcesExhausted(_) => "53200",
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) => "58030",
        _ => INTERNAL_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::external;

    #[test]
    fn programs_tell_what_is_wrong_by_its_code() {
        let late = || external(QueryError::Late(Duration::from_secs(1)));
        let cases = [
            (late(), "57014"),
            (DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None), "22012"),
            (DataFusionError::Context("in a plan".to_owned(), Box::new(late())), "57014"),
            (DataFusionError::ResourcesExhausted("no memory".to_owned()), "53200"),
            (DataFusionError::Internal("a bug".to_owned()), INTERNAL_ERROR),
        ];
        for (error, expected) in cases {
            let text = error.to_string();
            assert_eq!(code(&QueryError::from(error)), expected, "{text}");
        }
    }
}
