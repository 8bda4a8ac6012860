//! `COPY … TO STDOUT`: an answer as text, as CSV or in PostgreSQL's binary form, for `\copy` of psql and for
//! whatever takes much at once.
//!
//! What passes through: the statement, into the question whose answer is copied, which is planned like any
//! other; and the batches of that answer, a message for each row, as fast as the client takes them.
//!
//! Guaranteed: an answer that is broken off ends in an error, and never in a count of rows. pgwire's own way to
//! send one would end it in a message that no client expects, and would count the header.

use std::sync::Arc;

use datafusion::prelude::DataFrame;
use datafusion::sql::sqlparser::ast::{CopySource, CopyTarget, Statement};
use datafusion_postgres::arrow_pg::datatypes::arrow_schema_to_pg_fields;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::portal::Format as Fields;
use datafusion_postgres::pgwire::api::results::{FieldFormat, Response, Tag};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::copy::{CopyData, CopyDone, CopyOutResponse};
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::{Sink, SinkExt, StreamExt};

use super::read_only::READ_ONLY_SQL_TRANSACTION;
use super::refused;
use crate::dialect;

mod format;
mod rows;

use format::Format;
use rows::Rows;

const FEATURE_NOT_SUPPORTED: &str = "0A000";
const SYNTAX_ERROR: &str = "42601";

/// What is copied, and how.
#[derive(Debug)]
pub(super) struct Copy {
    query: String,
    format: Format,
}

impl Copy {
    /// The copy that a text asks for; none where it is another statement.
    ///
    /// # Errors
    /// Where it asks for what there is not: a copy that comes in, or goes to a file of the server.
    pub(super) fn of(sql: &str) -> PgWireResult<Option<Self>> {
        let parsed = dialect::copy(sql).map_err(|error| refused(SYNTAX_ERROR, error.strip_backtrace()))?;
        let Some(Statement::Copy { source, to, target, options, legacy_options, .. }) = parsed else {
            return Ok(None);
        };
        if !to {
            let message = "the lake is read-only: rows come in as change events, and not by COPY … FROM";
            return Err(refused(READ_ONLY_SQL_TRANSACTION, message));
        }
        if target != CopyTarget::Stdout {
            let message = "a copy goes to the client, and never to a file or program of the server. Write COPY … TO \
                           STDOUT; \\copy of psql writes a file of yours";
            return Err(refused(FEATURE_NOT_SUPPORTED, message));
        }
        let query = match source {
            CopySource::Query(query) => query.to_string(),
            CopySource::Table { table_name, columns } if columns.is_empty() => format!("SELECT * FROM {table_name}"),
            CopySource::Table { table_name, columns } => {
                let columns: Vec<_> = columns.iter().map(ToString::to_string).collect();
                format!("SELECT {} FROM {table_name}", columns.join(", "))
            }
        };
        let format = Format::of(options, legacy_options).map_err(|problem| refused(SYNTAX_ERROR, problem))?;
        Ok(Some(Self { query, format }))
    }

    /// What is refused among other statements of one message: their answers would come out of their order.
    pub(super) fn among_others() -> PgWireError {
        refused(FEATURE_NOT_SUPPORTED, "COPY is answered as a statement of its own. Send it alone")
    }

    /// The question whose answer is copied.
    pub(super) fn query(&self) -> &str {
        &self.query
    }

    /// Sends the answer to a client, and returns what is to be said at its end.
    ///
    /// # Errors
    /// Where the answer breaks off, or the client takes it no longer.
    pub(super) async fn send<C>(self, client: &mut C, answer: DataFrame) -> PgWireResult<Response>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let failed = |error| PgWireError::ApiError(Box::new(error));
        let options = Arc::new(FormatOptions::from_client_metadata(client.metadata()));
        let shape = if self.format.is_binary() { FieldFormat::Binary } else { FieldFormat::Text };
        let fields = match shape {
            FieldFormat::Binary => Fields::UnifiedBinary,
            FieldFormat::Text => Fields::UnifiedText,
        };
        let fields = arrow_schema_to_pg_fields(answer.schema().as_arrow(), &fields, Some(options))?;
        let columns = i16::try_from(fields.len()).map_err(|error| PgWireError::ApiError(Box::new(error)))?;
        let mut rows = Rows::new(self.format, fields).map_err(|problem| refused(SYNTAX_ERROR, problem))?;
        let mut batches = answer.execute_stream().await.map_err(failed)?;
        let (code, codes) = (shape.value(), vec![shape.value(); columns.unsigned_abs().into()]);
        let begun = CopyOutResponse::new(i8::from(code != 0), columns, codes);
        client.send(PgWireBackendMessage::CopyOutResponse(begun)).await?;
        let data = |bytes| PgWireBackendMessage::CopyData(CopyData::new(bytes));
        if let Some(beginning) = rows.beginning() {
            client.feed(data(beginning)).await?;
        }
        let mut count = 0;
        while let Some(batch) = batches.next().await {
            for part in rows.parts(&batch.map_err(failed)?) {
                for row in rows.of(&part)? {
                    client.feed(data(row)).await?;
                    count += 1;
                }
            }
        }
        if let Some(end) = rows.end() {
            client.feed(data(end)).await?;
        }
        client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
        Ok(Response::Execution(Tag::new("COPY").with_rows(count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied() {
        for (sql, query) in [
            ("copy a.b to stdout", "SELECT * FROM a.b"),
            ("COPY a.\"B\" (x, \"Y\") TO STDOUT WITH (FORMAT binary);", "SELECT x, \"Y\" FROM a.\"B\""),
            (
                "/* now */ copy (select 1 from t version as of 3) to stdout csv header",
                "SELECT 1 FROM t VERSION AS OF 3",
            ),
        ] {
            assert_eq!(Copy::of(sql).unwrap().unwrap().query(), query, "{sql}");
        }
        for sql in ["select 'copy a.b to stdout'", "", "select copy from t", "copy"] {
            assert!(matches!(Copy::of(sql), Ok(None)) || sql == "copy", "{sql}");
        }
    }

    #[test]
    fn what_is_refused_says_what_to_do() {
        for (sql, expected) in [
            ("copy a.b from stdin", "rows come in as change events"),
            ("copy a.b from '/etc/passwd'", "rows come in as change events"),
            ("copy a.b to '/tmp/b'", "Write COPY … TO STDOUT"),
            ("copy a.b to program 'cat'", "Write COPY … TO STDOUT"),
            ("copy a.b to stdout (format parquet)", "text, csv or binary"),
            ("copy a.b to stdout (delimiter 'ab')", "Expect a char"),
            ("copy a.b to stdout; select 1", "Send it alone"),
        ] {
            let error = Copy::of(sql).unwrap_err().to_string();
            assert!(error.contains(expected), "{sql}: {error}");
        }
    }
}
