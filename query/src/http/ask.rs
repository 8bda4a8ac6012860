//! What is asked: the body of a request.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode, header};
use datafusion::common::ScalarValue;
use ruam_door::Problem;
use serde::Deserialize;
use serde_json::Value;

use crate::session::Session;
use crate::statement::{Question, Statement};

/// The most bytes of a request's body.
const MAX_BODY: usize = 1 << 20;

/// A statement, and how it is to be answered.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    sql: String,
    /// What the question is for.
    pub purpose: Option<String>,
    /// The values of $1, $2 and so on.
    #[serde(default)]
    parameters: Vec<Value>,
    /// What the answer is written as.
    pub format: Option<String>,
}

impl Ask {
    /// Reads a request: a JSON object, or the statement as plain text.
    ///
    /// # Errors
    /// Where it is neither, or too large.
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or("").trim().to_ascii_lowercase();
        if !["application/json", "text/plain"].contains(&kind.as_str()) {
            let told = "send application/json, such as {\"sql\": \"select 1\"}, or the statement as text/plain";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, told));
        }
        let body = to_bytes(body, MAX_BODY).await.map_err(|_| {
            let told = format!("the body was cut off, or has more than {MAX_BODY} bytes. Send less");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, told)
        })?;
        let wrong = |told: String| Problem::new(StatusCode::BAD_REQUEST, told);
        if kind == "text/plain" {
            let sql = String::from_utf8(body.into()).map_err(|_| wrong("the statement is not UTF-8".to_owned()))?;
            return Ok(Self { sql, ..Self::default() });
        }
        serde_json::from_slice(&body)
            .map_err(|error| wrong(format!("the body is not as /openapi.json has it: {error}")))
    }

    /// Plans the answer.
    ///
    /// # Errors
    /// Where the statement does not work, or a value does not fit.
    pub(super) async fn question(&self, session: &Session) -> Result<Question, Problem> {
        let values = self.parameters.iter().map(scalar).collect::<Option<Vec<_>>>();
        let values = values.ok_or_else(|| {
            let told = "a parameter is a text, a number, true, false or null. Write others as text";
            Problem::new(StatusCode::BAD_REQUEST, told)
        })?;
        Ok(Statement::read(session, &self.sql).await?.with(values).await?)
    }
}

/// A value of JSON; none where it is no single one.
fn scalar(value: &Value) -> Option<ScalarValue> {
    Some(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(value) => ScalarValue::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => ScalarValue::from(whole),
            (None, fraction) => ScalarValue::from(fraction?),
        },
        Value::String(text) => ScalarValue::from(text.as_str()),
        Value::Array(_) | Value::Object(_) => return None,
    })
}
