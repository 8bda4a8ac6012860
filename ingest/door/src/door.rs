//! Connections of HTTP, be it of version 1 or 2: gRPC (Flight SQL) is carried by the latter.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use ruam_identity::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use uuid::Uuid;

const MAX_CONNECTIONS: usize = 1000;
/// The most bytes of the head of a request.
const MAX_HEAD: usize = 32 << 10;
/// How long a client may take to send the head of a request, and to answer when it is asked whether it is there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whose request it is.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// Names the connection; nobody else knows it.
    pub connection: Arc<str>,
}

/// What bytes of a client come from and go to.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// The certificate as a client of HTTP is shown it, with the versions that are spoken.
fn acceptor(tls: &ServerConfig) -> TlsAcceptor {
    let mut config = tls.clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn encrypted(socket: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<Box<dyn Socket>> {
    let Some(tls) = tls else { return Ok(Box::new(socket)) };
    Ok(Box::new(tokio::time::timeout(PATIENCE, tls.accept(socket)).await??))
}

/// Serves connections until it is stopped. `what` is how they are called, for the log.
pub async fn serve<S, B>(
    listener: TcpListener,
    what: &'static str,
    tls: Option<Arc<ServerConfig>>,
    service: S,
    stop: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let tls = tls.as_deref().map(acceptor);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection of {what} could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%address, "there are {MAX_CONNECTIONS} connections of {what} already; this one was closed");
            continue;
        };
        // Small answers do not wait for others; where that cannot be set they do.
        let _ = socket.set_nodelay(true);
        let (service, stop, tls) = (service.clone(), stop.clone(), tls.clone());
        let peer = Peer { address, connection: Uuid::new_v4().simple().to_string().into() };
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            service.clone().call(request)
        });
        tokio::spawn(async move {
            let _place = place;
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MAX_HEAD);
            builder.http2().timer(TokioTimer::new()).keep_alive_interval(PATIENCE).keep_alive_timeout(PATIENCE);
            builder.http2().max_header_list_size(MAX_HEAD as u32);
            let served = async {
                let socket = encrypted(socket, tls).await?;
                builder.serve_connection(TokioIo::new(socket), service).await
            };
            tokio::select! {
                ended = served => {
                    if let Err(error) = ended {
                        tracing::debug!(%address, %error, "a connection of {what} ended");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
    }
}
