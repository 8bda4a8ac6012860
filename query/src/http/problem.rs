//! What is told where something cannot be answered: problem details (RFC 9457).

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error::{Fault, QueryError};

/// Why something is not answered, and what to do.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    pub(super) fn server(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// As it is written.
    pub(super) fn told(&self) -> Value {
        let title = self.status.canonical_reason().unwrap_or_default();
        json!({ "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail })
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let status = match error.fault() {
            Fault::Statement => StatusCode::BAD_REQUEST,
            Fault::Missing => StatusCode::NOT_FOUND,
            Fault::Permission => StatusCode::FORBIDDEN,
            Fault::Resources => StatusCode::INSUFFICIENT_STORAGE,
            Fault::Server => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, json(&self.told())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            let ways = HeaderValue::from_static("Basic realm=\"ruam\", charset=\"UTF-8\", Bearer realm=\"ruam\"");
            headers.insert(header::WWW_AUTHENTICATE, ways);
        }
        response
    }
}

/// A value, as an answer.
pub(super) fn json(value: &Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], Body::from(value.to_string()))
}
