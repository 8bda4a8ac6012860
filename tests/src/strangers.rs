//! What strangers send to servers with sign-on, and what they must never be told.
//!
//! What passes through: bytes to PostgreSQL's protocol and calls to Arrow Flight SQL, whatever they are; and what
//! comes back, held against the law: a stranger is asked to sign in, or told what is wrong, and nothing else. No
//! thread of the servers panics, and none hangs. The fuzz targets of `tests/fuzz` send what finds new ways through
//! the program, and the end-to-end tests what chance gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandPreparedStatementQuery,
    ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{Action, Criteria, FlightData, FlightDescriptor, HandshakeRequest, Ticket};
use bytes::Bytes;
use futures::stream;
use prost::Message;
use ruam_event::Secret;
use ruam_identity::{Authenticator, Scope, SignOnSettings, Tokens, Users};
use ruam_lake::Lake;
use ruam_query::flight::FlightServer;
use ruam_query::pg::{Admission, PgServer};
use ruam_query::sign_in::BySignOn;
use ruam_query::{Engine, EngineSettings, Policies};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

/// Somebody who may sign in with a password that strangers do not know.
pub const USER: &str = "somchai";
/// Who signs in with a token.
pub const TOKEN_USER: &str = "token";

/// Longer than this a server does not think about a few bytes.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the threads of the servers are called.
const THREADS: &str = "asked by strangers";

static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

/// Servers with sign-on, on this machine.
pub struct Servers {
    runtime: Runtime,
    postgres: SocketAddr,
    flight: FlightServiceClient<Channel>,
    token: String,
    /// A statement that somebody has prepared who has signed in.
    prepared: Bytes,
    _folder: TempDir,
}

/// Who calls Flight SQL.
#[derive(Clone, Copy, Debug)]
pub enum Asker<'a> {
    /// Somebody with a header that signs nobody in, or with none.
    Stranger(Option<&'a [u8]>),
    /// Somebody who has signed in.
    Known,
}

impl Servers {
    /// Starts them over an empty lake.
    ///
    /// # Errors
    /// Where they cannot be started.
    pub fn start() -> Result<Self> {
        notice_panics();
        let folder = tempfile::tempdir()?;
        let settings = SignOnSettings { local_users: true, tokens: true, oidc: None };
        Users::open(folder.path())?.add(USER, BTreeSet::new(), &Secret::new("correct horse battery"))?;
        let issued = Tokens::open(folder.path()).issue("known", BTreeSet::new(), BTreeSet::from([Scope::Sql]), 1)?;
        let who = Arc::new(Authenticator::open(&settings, folder.path())?);
        let lake = Lake::open(&folder.path().join("lake").to_string_lossy(), &BTreeMap::new())?;
        let engine = Engine::new(lake, Vec::new(), Policies::default(), EngineSettings::default())?;
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(THREADS).enable_all().build()?;
        let token = issued.reveal().to_owned();
        let (postgres, flight, prepared) = runtime.block_on(async {
            let (postgres, flight) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
            let addresses = (postgres.local_addr()?, flight.local_addr()?);
            let admission = Admission { sign_on: Some(who.clone()), tls: None };
            tokio::spawn(PgServer::new(&engine, postgres, admission)?.serve(CancellationToken::new()));
            let sign_in = Some(Arc::new(BySignOn(who)) as _);
            tokio::spawn(FlightServer::new(&engine, flight, sign_in, None).serve(CancellationToken::new()));
            let channel = Endpoint::from_shared(format!("http://{}", addresses.1))?.connect().await?;
            let mut client = FlightServiceClient::new(channel);
            let sql = "select $1 + 1, $2 || 'x'".to_owned();
            let prepare = ActionCreatePreparedStatementRequest { query: sql, transaction_id: None };
            let prepare = Action::new("CreatePreparedStatement", prepare.as_any().encode_to_vec());
            let prepared = client.do_action(with(prepare, Some(bearer(&token)?))).await?.into_inner().message().await?;
            let prepared = Any::decode(prepared.context("a statement")?.body)?;
            let prepared: ActionCreatePreparedStatementResult = prepared.unpack()?.context("a statement")?;
            anyhow::Ok((addresses.0, client, prepared.prepared_statement_handle))
        })?;
        Ok(Self { runtime, postgres, flight, token, prepared, _folder: folder })
    }

    /// Sends bytes by PostgreSQL's protocol and hangs up.
    ///
    /// # Errors
    /// Where the law is broken, by what was told.
    pub fn postgres(&self, bytes: &[u8]) -> Result<()> {
        check(&self.told(bytes)?, bytes.len())
    }

    /// Signs in and then sends bytes, which may be answered; what is told after sign-in.
    ///
    /// # Errors
    /// Where somebody who may sign in cannot, or a server does not stand what they send.
    pub fn postgres_known(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let password = message(b'p', &[self.token.as_bytes(), b"\0"].concat());
        let told = self.told(&[&start(TOKEN_USER)[..], &password, bytes].concat())?;
        let told = told.strip_prefix(b"R\0\0\0\x08\0\0\0\x03R\0\0\0\x08\0\0\0\0").context("not signed in")?;
        Ok(told.to_vec())
    }

    /// All that is told to somebody who sends some bytes.
    fn told(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let exchange = async {
            let mut told = Vec::new();
            let mut socket = TcpStream::connect(self.postgres).await?;
            // So that its port is free at once: there are more connections than ports.
            socket.set_zero_linger()?;
            let (mut from, mut to) = socket.split();
            let send = async {
                // Whoever is turned away before the end is not listened to any more.
                let _ = to.write_all(bytes).await;
                let _ = to.shutdown().await;
            };
            // That a connection is broken off is an answer, too.
            let (_, _) = tokio::join!(send, from.read_to_end(&mut told));
            anyhow::Ok(told)
        };
        let told = self.runtime.block_on(async { timeout(PATIENCE, exchange).await });
        let told = told.context("the server hangs")??;
        no_panic()?;
        Ok(told)
    }

    /// Makes a call of Flight, the `method`th of them, with a body; an action has a name as well. Says whether it
    /// was answered.
    ///
    /// # Errors
    /// Where the law is broken, by what was told.
    pub fn flight(&self, asker: Asker<'_>, method: u8, name: &str, body: &[u8]) -> Result<bool> {
        let authorization = match asker {
            Asker::Stranger(header) => header.and_then(|header| AsciiMetadataValue::try_from(header).ok()),
            Asker::Known => Some(bearer(&self.token)?),
        };
        let answered = self
            .runtime
            .block_on(async { timeout(PATIENCE, call(self.flight.clone(), authorization, method, name, body)).await });
        let answered = answered.context("the server hangs")?;
        no_panic()?;
        let is_answered = matches!(answered, Ok(true));
        match asker {
            Asker::Stranger(_) if is_answered => bail!("a stranger was answered"),
            // Nobody was given a ticket, so nobody has one.
            Asker::Known if is_answered && method % METHODS == DO_GET && is_handle(body) => {
                bail!("a ticket was answered that nobody was given")
            }
            _ => Ok(is_answered),
        }
    }

    /// Sends messages of Arrow, each a head and a body, as the values of a prepared statement; says whether they
    /// were taken.
    ///
    /// # Errors
    /// Where a server does not stand them.
    pub fn flight_values(&self, messages: Vec<(Vec<u8>, Vec<u8>)>) -> Result<bool> {
        let prepared = CommandPreparedStatementQuery { prepared_statement_handle: self.prepared.clone() };
        let descriptor = FlightDescriptor::new_cmd(prepared.as_any().encode_to_vec());
        let messages = messages.into_iter().map(move |(head, body)| {
            FlightData::new().with_descriptor(descriptor.clone()).with_data_header(head).with_data_body(body)
        });
        let (mut client, bearer) = (self.flight.clone(), bearer(&self.token)?);
        let taken = self.runtime.block_on(async {
            let put = async { any(client.do_put(with(stream::iter(messages), Some(bearer))).await).await };
            timeout(PATIENCE, put).await
        });
        let taken = taken.context("the server hangs")?;
        no_panic()?;
        Ok(matches!(taken, Ok(true)))
    }
}

/// Values as a client sends them, for [`Servers::flight_values`].
///
/// # Errors
/// None that could be met.
pub fn sound_values() -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let number: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["seven"]));
    let batch = RecordBatch::try_from_iter([("$1", number), ("$2", text)])?;
    let messages = batches_to_flight_data(&batch.schema(), vec![batch])?.into_iter();
    Ok(messages.map(|message| (message.data_header.to_vec(), message.data_body.to_vec())).collect())
}

/// A message of PostgreSQL's protocol.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &length(body), body].concat()
}

/// The first message of somebody.
pub fn start(user: &str) -> Vec<u8> {
    let body = [b"\0\x03\0\0user\0", user.as_bytes(), b"\0database\0ruam\0\0"].concat();
    [&length(&body)[..], &body].concat()
}

/// The first word of somebody who proves a password.
pub fn first_of_sasl(data: &[u8]) -> Vec<u8> {
    message(b'p', &[b"SCRAM-SHA-256\0", &u32::to_be_bytes(data.len() as u32)[..], data].concat())
}

fn length(body: &[u8]) -> [u8; 4] {
    u32::to_be_bytes(body.len() as u32 + 4)
}

/// Holds what a stranger was told, who has sent so many bytes, against the law.
fn check(told: &[u8], sent: usize) -> Result<()> {
    let mut rest = told;
    // Encryption is refused by one byte, be it TLS or that of GSSAPI, as often as eight ask for it.
    for _ in 0..sent / 8 {
        rest = rest.strip_prefix(b"N").unwrap_or(rest);
    }
    while let Some((kind, after)) = rest.split_first() {
        let length = after.first_chunk::<4>().context("half a message")?;
        let body = after.get(4..u32::from_be_bytes(*length) as usize).context("half a message")?;
        match kind {
            b'E' | b'v' => {}
            // Asked for a password, for SASL, and for more of that.
            b'R' if matches!(body, [0, 0, 0, 3 | 10 | 11, ..]) => {}
            _ => bail!("a stranger was told {:?} {body:?}", char::from(*kind)),
        }
        rest = &after[4 + body.len()..];
    }
    Ok(())
}

const METHODS: u8 = 9;
const DO_GET: u8 = 1;

fn bearer(token: &str) -> Result<AsciiMetadataValue> {
    Ok(AsciiMetadataValue::try_from(format!("Bearer {token}"))?)
}

/// A call with a header to sign in with, where there is one.
fn with<T>(message: T, authorization: Option<AsciiMetadataValue>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(header) = authorization {
        request.metadata_mut().insert("authorization", header);
    }
    request
}

/// Whether an answer has anything in it.
async fn any<T>(answer: Result<Response<Streaming<T>>, Status>) -> Result<bool, Status> {
    Ok(answer?.into_inner().message().await?.is_some())
}

/// Makes a call; says whether it was answered.
async fn call(
    mut client: FlightServiceClient<Channel>,
    authorization: Option<AsciiMetadataValue>,
    method: u8,
    name: &str,
    body: &[u8],
) -> Result<bool, Status> {
    let descriptor = || FlightDescriptor::new_cmd(body.to_vec());
    let data = || stream::iter([FlightData::new().with_descriptor(descriptor()).with_data_body(body.to_vec())]);
    match method % METHODS {
        0 => client.get_flight_info(with(descriptor(), authorization)).await.map(|_| true),
        DO_GET => any(client.do_get(with(Ticket::new(body.to_vec()), authorization)).await).await,
        2 => {
            let action = Action::new(name, body.to_vec());
            any(client.do_action(with(action, authorization)).await).await
        }
        3 => any(client.do_put(with(data(), authorization)).await).await,
        4 => client.get_schema(with(descriptor(), authorization)).await.map(|_| true),
        5 => client.poll_flight_info(with(descriptor(), authorization)).await.map(|_| true),
        6 => any(client.list_flights(with(Criteria { expression: body.to_vec().into() }, authorization)).await).await,
        7 => any(client.do_exchange(with(data(), authorization)).await).await,
        _ => {
            let hand = HandshakeRequest { protocol_version: 0, payload: body.to_vec().into() };
            any(client.handshake(with(stream::iter([hand]), authorization)).await).await
        }
    }
}

/// Whether bytes name what only a server can have given.
fn is_handle(bytes: &[u8]) -> bool {
    let Ok(any) = Any::decode(bytes) else { return false };
    let is_ticket = any.unpack::<TicketStatementQuery>().is_ok_and(|ticket| ticket.is_some());
    is_ticket || any.unpack::<CommandPreparedStatementQuery>().is_ok_and(|prepared| prepared.is_some())
}

/// Whether a thread of the servers has panicked is known from then on.
fn notice_panics() {
    static NOTICE: Once = Once::new();
    NOTICE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some(THREADS) {
                HAS_PANICKED.store(true, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

fn no_panic() -> Result<()> {
    ensure!(!HAS_PANICKED.load(Ordering::SeqCst), "the server panicked");
    Ok(())
}
