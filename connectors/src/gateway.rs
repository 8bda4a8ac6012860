//! The digital service gateway: agencies send their events by HTTP.
//!
//! What passes through: a request, with the header `authorization` where there is sign-on, and its body, of any
//! size, in pieces: CloudEvents ([`cloud_event`]), or rows of one dataset as JSON, lines of JSON or CSV. Out come
//! [`SentEvent`]s in batches into an [`Intake`], and an answer that says of each event what became of it.
//!
//! Guaranteed: what is answered as accepted or duplicate is stored for good, once, however often it was sent with
//! its id. An agency's events come only from whoever may send them. Memory is bounded whatever is sent: an upload
//! is read as fast as it is stored, and there are only so many at a time. Web pages are not answered where nobody
//! signs in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use ruam_door::{Peer, Problem, is_of_a_page};
use ruam_event::change::Op;
use ruam_event::{DatasetId, DatasetSpec};
use ruam_identity::{Authenticator, Credentials, Principal, Scope, ServerConfig, SignOnError, Signers};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod body;
mod canonical;
mod cloud_event;
mod csv;
mod form;
mod frames;
mod intake;
mod operation;
mod quota;
mod report;
mod row;
mod signed;
mod upload;

pub use intake::{Intake, Outcome, SentEvent, Unavailable};
pub use quota::Quota;

use body::Body;
use cloud_event::CloudEvent;
use form::{EventReader, Events, Rows, content_type};
use frames::{Objects, Shape};
use operation::{WORDS, check_name};
use quota::Quotas;
use signed::Signed;
use upload::Upload;

/// What can be asked for, for programs.
const OPENAPI: &str = include_str!("gateway/openapi.json");
/// How to send a first event, for people.
const PAGE: &str = include_str!("gateway/page.html");
/// What the page calls this server where it cannot say.
const SOMEWHERE: &str = "https://gateway.example.go.th";

/// So many uploads at a time: each keeps two batches and some pieces.
const UPLOADS: usize = 48;
/// How long who finds no place should wait.
const NO_PLACE: Duration = Duration::from_secs(2);

/// How much may be sent.
#[derive(Clone, Debug)]
pub struct GatewayLimits {
    /// The most bytes of a body, unpacked.
    pub body_bytes: u64,
    /// The most bytes of an event.
    pub event_bytes: usize,
    /// What an agency may send.
    pub quota: Quota,
    /// What an agency may send that has a quota of its own.
    pub quotas: HashMap<String, Quota>,
}

/// A dataset whose events the gateway takes.
#[derive(Clone, Debug)]
pub struct Offered {
    /// What it declares.
    pub spec: Arc<DatasetSpec>,
    /// Its rows as JSON Schema.
    pub schema: Value,
}

type Offers = BTreeMap<DatasetId, Arc<Offered>>;

/// A server that has not begun yet.
#[derive(Debug)]
pub struct GatewayServer {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    shared: Arc<Shared>,
}

/// What all requests have in common.
#[derive(Debug)]
struct Shared {
    offers: Offers,
    intake: Arc<dyn Intake>,
    sign_on: Option<Arc<Authenticator>>,
    /// The keys that agencies sign with; none where no dataset takes signatures.
    signers: Option<Signers>,
    limits: GatewayLimits,
    quotas: Quotas,
    uploads: Semaphore,
    scheme: &'static str,
}

/// Whoever sends; none where nobody signs in.
struct Sender(Option<Principal>);

impl Sender {
    fn may(&self, agency: &str) -> bool {
        self.0.as_ref().is_none_or(|principal| principal.may(&Scope::Events(agency.to_owned())))
    }
}

impl GatewayServer {
    /// Prepares to answer on a listener. Without `sign_on`, whoever connects may send everything; without `tls`,
    /// connections are not encrypted. `signers` are the keys that agencies sign with.
    pub fn new(
        listener: TcpListener,
        offered: Vec<Offered>,
        intake: Arc<dyn Intake>,
        limits: GatewayLimits,
        sign_on: Option<Arc<Authenticator>>,
        signers: Signers,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let signers = Some(signers).filter(|_| offered.iter().any(|offered| offered.spec.signatures().is_some()));
        let offers = offered.into_iter().map(|offered| (offered.spec.id().clone(), Arc::new(offered))).collect();
        let quotas = Quotas::new(limits.quota, limits.quotas.clone());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let uploads = Semaphore::new(UPLOADS);
        let shared = Shared { offers, intake, sign_on, signers, limits, quotas, uploads, scheme };
        Self { listener, tls, shared: Arc::new(shared) }
    }

    /// Answers until it is stopped.
    pub async fn serve(self, stop: CancellationToken) {
        let mut router = Router::new();
        for (path, methods) in routes() {
            router = router.route(path, methods);
        }
        let router = router.fallback(nothing_here).method_not_allowed_fallback(no_such_method);
        ruam_door::serve(self.listener, "the gateway", self.tls, router.with_state(self.shared), stop).await;
    }
}

/// Everything that can be asked for; the OpenAPI document describes it.
fn routes() -> [(&'static str, MethodRouter<Arc<Shared>>); 5] {
    [
        ("/", get(page)),
        ("/openapi.json", get(openapi)),
        ("/v1/events", post(events)),
        ("/v1/datasets/{agency}/{dataset}", post(rows)),
        ("/v1/datasets/{agency}/{dataset}/schema", get(schema)),
    ]
}

impl Shared {
    /// Who sends.
    async fn sender(&self, request: &Parts) -> Result<Sender, Problem> {
        let peer = request.extensions.get::<Peer>().ok_or_else(|| Problem::server("the connection is not known"))?;
        let Some(sign_on) = &self.sign_on else {
            if is_of_a_page(&request.headers, &request.uri) {
                let told = "without sign-on, web pages are not answered. Send from a program, or switch on [sign_on]";
                return Err(Problem::new(StatusCode::FORBIDDEN, told));
            }
            return Ok(Sender(None));
        };
        let unknown = |told: String| Problem::new(StatusCode::UNAUTHORIZED, told);
        let authorization = request.headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let told = "sign in first: send the agency's key in the header authorization, as `Bearer <key>`";
        let authorization = authorization.ok_or_else(|| unknown(told.to_owned()))?;
        let refused = |error: SignOnError| {
            tracing::info!(%error, from = %peer.address, "refused at the gateway");
            match error {
                SignOnError::TooMany { wait } => {
                    Problem::new(StatusCode::TOO_MANY_REQUESTS, error.for_strangers()).retry_after(wait)
                }
                error => unknown(error.for_strangers()),
            }
        };
        let credentials = Credentials::of_header(authorization).ok_or_else(|| refused(SignOnError::Refused))?;
        let principal = sign_on.authenticate(&credentials, peer.address.ip()).await.map_err(refused)?;
        Ok(Sender(Some(principal)))
    }

    /// A dataset, for whoever may send its events.
    fn offered(&self, agency: &str, name: &str, sender: &Sender) -> Result<Arc<Offered>, Problem> {
        if !sender.may(agency) {
            let told = "you may not send events of this agency. Use its own key: `ruam agency key new` makes one";
            return Err(Problem::new(StatusCode::FORBIDDEN, told));
        }
        let id: Option<DatasetId> = format!("{agency}.{name}").parse().ok();
        id.and_then(|id| self.offers.get(&id).cloned()).ok_or_else(|| {
            let told =
                "there is no such dataset that takes events here. Its file has to say [source] kind = \"gateway\"";
            Problem::new(StatusCode::NOT_FOUND, told)
        })
    }

    /// What checks the signatures of a request: by the keys as they are when it comes.
    fn signed(&self) -> Result<Signed, Problem> {
        let known = self.signers.as_ref().map(Signers::known).transpose().map_err(|error| {
            tracing::error!(%error, "no signature can be checked");
            Problem::server("signatures cannot be checked at present. Ask whoever runs this server; its log says why")
        })?;
        Ok(Signed::by(known))
    }

    /// Does what may take long. Checking signatures does, and others are not to wait for it.
    fn with_room<T>(&self, work: impl FnOnce() -> T) -> T {
        match (&self.signers, Handle::current().runtime_flavor()) {
            (Some(_), RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
            _ => work(),
        }
    }

    /// A place for an upload.
    fn place(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.uploads.try_acquire().map_err(|_| {
            let told = format!("{UPLOADS} uploads are under way already. Send it again a little later");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, told).retry_after(NO_PLACE)
        })
    }
}

async fn events(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let sender = shared.sender(&head).await?;
    let _place = shared.place()?;
    let most = shared.limits.event_bytes;
    let body = Body::new(&head.headers, body, shared.limits.body_bytes)?;
    let may = |agency: &str| sender.may(agency);
    let mut reader = EventReader::new(&shared.offers, &may, shared.signed()?);
    let (media, _) = content_type(&head.headers);
    let shape = match media.as_str() {
        "application/cloudevents+json" => Shape::One,
        "application/cloudevents-batch+json" => Shape::Many,
        _ if head.headers.contains_key("ce-specversion") => {
            let data = body.whole(most).await?;
            let size = data.len();
            let header = |name: &str| head.headers.get(name).map(|value| value.as_bytes());
            let item = reader.read(CloudEvent::binary(header, &data), size);
            return Ok(Upload::new(&shared).run_one(item).await);
        }
        _ => {
            let told = "send an event as application/cloudevents+json, several as application/cloudevents-batch+json, or one in binary mode, with the headers ce-specversion, ce-id, ce-source and ce-type";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, told));
        }
    };
    let mut form = Events { objects: Objects::new(shape, most), reader };
    Ok(Upload::new(&shared).run(body, &mut form).await)
}

async fn rows(
    State(shared): State<Arc<Shared>>,
    Path((agency, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let sender = shared.sender(&head).await?;
    let offered = shared.offered(&agency, &name, &sender)?;
    let _place = shared.place()?;
    let wrong = |told: String| Problem::new(StatusCode::BAD_REQUEST, told);
    let operation = match operation_of(head.uri.query()) {
        Ok(word) => Op::from_word(word.unwrap_or("insert")),
        Err(unknown) => {
            return Err(wrong(format!("the query has `operation` only, and not `{}`", unknown.escape_debug())));
        }
    };
    let operation = operation.ok_or_else(|| wrong(format!("`operation` has to be {WORDS}")))?;
    let request = request_id(&head.headers).map_err(wrong)?;
    let (signed, most) = (shared.signed()?, shared.limits.event_bytes);
    let mut form = Rows::new(offered, signed, &head.headers, operation, request, most)?;
    let body = Body::new(&head.headers, body, shared.limits.body_bytes)?;
    Ok(Upload::new(&shared).run(body, &mut form).await)
}

/// The operation that a query names; an error is a name that is not known.
fn operation_of(query: Option<&str>) -> Result<Option<&str>, &str> {
    let mut operation = None;
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("operation", word)) => operation = Some(word),
            _ => return Err(part.split('=').next().unwrap_or_default()),
        }
    }
    Ok(operation)
}

/// What ids of rows begin with that have none: what the client calls the request, so that the same request sent
/// again has the same ids, or else something that nothing else has.
fn request_id(headers: &HeaderMap) -> Result<String, String> {
    match headers.get("idempotency-key").map(|value| value.to_str()) {
        None => Ok(Uuid::new_v4().to_string()),
        Some(Ok(key)) if key.len() <= 200 && check_name(key, "header idempotency-key").is_ok() => {
            Ok(key.trim_matches('"').to_owned())
        }
        Some(_) => Err("the header idempotency-key has to have 1 to 200 characters of ASCII".to_owned()),
    }
}

async fn schema(
    State(shared): State<Arc<Shared>>,
    Path((agency, name)): Path<(String, String)>,
    head: Parts,
) -> Result<Response, Problem> {
    let sender = shared.sender(&head).await?;
    let offered = shared.offered(&agency, &name, &sender)?;
    Ok(([(header::CONTENT_TYPE, "application/schema+json")], offered.schema.to_string()).into_response())
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn page(State(shared): State<Arc<Shared>>, head: Parts) -> Response {
    let here = address_of(&head).map_or_else(|| SOMEWHERE.to_owned(), |host| format!("{}://{host}", shared.scheme));
    let sign_in = if shared.sign_on.is_some() { " \\\n  -H \"authorization: Bearer $KEY\"" } else { "" };
    let page = PAGE.replace("{{here}}", &here).replace("{{sign_in}}", sign_in);
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ];
    (headers, page).into_response()
}

/// What the client calls this server, where that can stand in a page.
fn address_of(head: &Parts) -> Option<Authority> {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]".contains(c));
    host.or_else(|| head.uri.authority().cloned()).filter(|host: &Authority| is_plain(host.as_str()))
}

async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing here. /openapi.json says what there is")
}

async fn no_such_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here. /openapi.json says what can")
}

#[cfg(test)]
mod tests;
