//! HTTP, so that whatever can send a request can ask.
//!
//! What passes through: a request, with the header `authorization` where there is sign-on, into a session of its
//! own and an answer: JSON, lines of JSON, CSV, an Arrow stream or Parquet, as it is asked for. Answers are
//! streamed as fast as they are taken. Long questions are asked as [`jobs`]. Errors are problems of RFC 9457.
//!
//! Guaranteed: nothing is answered before sign-in where there is sign-on. Without, nothing is answered to a web
//! page: whoever is on this machine may ask, and not the pages that they look at.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use datafusion::execution::session_state::SessionState;
use ruam_door::{Peer, Problem, is_of_a_page, json};
use ruam_identity::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::caller::Caller;
use crate::engine::Engine;
use crate::session::Session;
use crate::sign_in::{Doorkeeper, SignIn};

mod answer;
mod ask;
mod jobs;

use answer::{answer, wanted};
use ask::Ask;
use jobs::Jobs;

/// What can be asked for, for programs.
const OPENAPI: &str = include_str!("http/openapi.json");

/// A server that has not begun yet.
pub struct HttpServer {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    shared: Arc<Shared>,
}

/// What all requests have in common.
struct Shared {
    engine: Engine,
    /// What sessions of this protocol have.
    base: SessionState,
    doorkeeper: Doorkeeper,
    jobs: Jobs,
}

impl HttpServer {
    /// Prepares to answer on a listener. Without `sign_in`, whoever connects is the system; without `tls`,
    /// connections are not encrypted.
    pub fn new(
        engine: &Engine,
        listener: TcpListener,
        sign_in: Option<Arc<dyn SignIn>>,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let base = engine.base_without_views();
        let shared = Shared { engine: engine.clone(), base, doorkeeper: Doorkeeper(sign_in), jobs: Jobs::new() };
        Self { listener, tls, shared: Arc::new(shared) }
    }

    /// Answers until it is stopped.
    pub async fn serve(self, stop: CancellationToken) {
        let mut router = Router::new();
        for (path, methods) in routes() {
            router = router.route(path, methods);
        }
        let router = router.fallback(nothing_here).method_not_allowed_fallback(no_such_method);
        ruam_door::serve(self.listener, "HTTP", self.tls, router.with_state(self.shared), stop).await;
    }
}

/// Everything that can be asked for; the OpenAPI document describes it.
fn routes() -> [(&'static str, MethodRouter<Arc<Shared>>); 5] {
    [
        ("/v1/sql", post(sql)),
        ("/v1/jobs", post(begin)),
        ("/v1/jobs/{id}", get(look).delete(end)),
        ("/v1/jobs/{id}/result", get(result)),
        ("/openapi.json", get(openapi)),
    ]
}

impl Shared {
    /// Who asks.
    async fn caller(&self, request: &Parts) -> Result<Caller, Problem> {
        let peer = request.extensions.get::<Peer>().ok_or_else(|| Problem::server("the connection is not known"))?;
        if !self.doorkeeper.asks() && is_of_a_page(&request.headers, &request.uri) {
            let told = "without sign-on, web pages are not answered. Ask from a program, or switch on [sign_on]";
            return Err(Problem::new(StatusCode::FORBIDDEN, told));
        }
        let authorization = request.headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let signed_in = self.doorkeeper.admit(authorization, peer.address, "http").await;
        Ok(signed_in.map_err(|refused| Problem::new(StatusCode::UNAUTHORIZED, refused.to_string()))?.caller)
    }

    fn session(&self, caller: Caller, purpose: Option<String>) -> Result<Session, Problem> {
        let session = self.engine.session_with(self.base.clone(), caller)?;
        session.state_purpose(purpose);
        Ok(session)
    }
}

async fn sql(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let caller = shared.caller(&head).await?;
    let ask = Ask::read(&head.headers, body).await?;
    let format = wanted(ask.format.as_deref(), &head.headers, &head.uri)?;
    let question = ask.question(&shared.session(caller, ask.purpose.clone())?).await?;
    answer(question.answer()?, format).await
}

async fn begin(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let caller = shared.caller(&head).await?;
    let ask = Ask::read(&head.headers, body).await?;
    if ask.format.is_some() {
        let told = "a job has no format: its result comes in the one that it is fetched in. Leave `format` out";
        return Err(Problem::new(StatusCode::BAD_REQUEST, told));
    }
    let session = shared.session(caller.clone(), ask.purpose.clone())?;
    shared.jobs.may_begin(&caller)?;
    let question = ask.question(&session).await?;
    let (id, job) = shared.jobs.begin(caller, question, &session)?;
    let location = [(header::LOCATION, format!("/v1/jobs/{id}"))];
    Ok((StatusCode::ACCEPTED, location, json(&job.told(&id))).into_response())
}

async fn look(State(shared): State<Arc<Shared>>, Path(id): Path<String>, head: Parts) -> Result<Response, Problem> {
    let caller = shared.caller(&head).await?;
    Ok(json(&shared.jobs.get(&id, &caller)?.told(&id)).into_response())
}

async fn end(State(shared): State<Arc<Shared>>, Path(id): Path<String>, head: Parts) -> Result<Response, Problem> {
    let caller = shared.caller(&head).await?;
    shared.jobs.end(&id, &caller)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn result(State(shared): State<Arc<Shared>>, Path(id): Path<String>, head: Parts) -> Result<Response, Problem> {
    let caller = shared.caller(&head).await?;
    let format = wanted(None, &head.headers, &head.uri)?;
    answer(shared.jobs.get(&id, &caller)?.result()?, format).await
}

async fn openapi(State(shared): State<Arc<Shared>>, head: Parts) -> Result<Response, Problem> {
    shared.caller(&head).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(OPENAPI)).into_response())
}

async fn nothing_here(State(shared): State<Arc<Shared>>, head: Parts) -> Problem {
    match shared.caller(&head).await {
        Ok(_) => Problem::new(StatusCode::NOT_FOUND, "there is nothing here. /openapi.json says what there is"),
        Err(refused) => refused,
    }
}

async fn no_such_method(State(shared): State<Arc<Shared>>, head: Parts) -> Problem {
    match shared.caller(&head).await {
        Ok(_) => {
            let told = "this cannot be done here. /openapi.json says what can";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, told)
        }
        Err(refused) => refused,
    }
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpServer").field("listener", &self.listener).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_describes_every_route() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let described: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(described, routes().into_iter().map(|(path, _)| path).collect());
    }
}
