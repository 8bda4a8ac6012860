//! What is told where something cannot be answered: problem details (RFC 9457).

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// Why something is not answered, and what to do.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// When it may be tried again, in seconds.
    retry_after: Option<u64>,
}

impl Problem {
    /// A problem with the status that it is answered with.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after: None }
    }

    /// One that is this program's own.
    pub fn server(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// The same, to be tried again after a time.
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait.as_secs_f64().ceil().max(1.0) as u64), ..self }
    }

    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers that go with it.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.status == StatusCode::UNAUTHORIZED {
            let ways = HeaderValue::from_static("Basic realm=\"ruam\", charset=\"UTF-8\", Bearer realm=\"ruam\"");
            headers.insert(header::WWW_AUTHENTICATE, ways);
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, wait.into());
        }
        headers
    }

    /// As it is written.
    pub fn told(&self) -> Value {
        let title = self.status.canonical_reason().unwrap_or_default();
        json!({ "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, json(&self.told())).into_response();
        let headers = response.headers_mut();
        headers.extend(self.headers());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

/// A value, as an answer.
pub fn json<T: Serialize>(value: &T) -> impl IntoResponse + use<T> {
    // Writing to memory fails for maps without texts as keys only.
    ([(header::CONTENT_TYPE, "application/json")], Body::from(serde_json::to_vec(value).unwrap_or_default()))
}
