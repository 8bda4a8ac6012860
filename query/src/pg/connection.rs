//! One client's connection, from sign-in to its end.
//!
//! What passes through: messages, one by one, each to what it is for. Guaranteed: nothing is answered before the
//! client has signed in, which has to be soon. A message that is none, or an error before sign-in, is the end. What
//! a client gives up ends, whether it is read, worked out or sent, and so does what it asked before it left.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::api::cancel::DefaultCancelHandler;
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::{ClientInfo, ErrorHandler, NoopHandler, PgWireConnectionState};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use datafusion_postgres::pgwire::tokio::TlsAcceptor;
use datafusion_postgres::pgwire::tokio::server::{
    MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message,
};
use futures::future::{Fuse, FusedFuture};
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::{Framed, FramedParts};

use super::Shared;
use super::errors::Errors;
use super::messages::Messages;
use super::queries::{Queries, Statements};
use super::sign_in::SignIn;

/// How long a client may take to sign in.
const PATIENCE: Duration = Duration::from_secs(60);
/// The last word of a client.
const TERMINATE: [u8; 5] = *b"X\0\0\0\x04";
const PROTOCOL_VIOLATION: &str = "08P01";

type Socket = Framed<Messages<MaybeTls>, PgWireMessageServerCodec<<Statements as QueryParser>::Statement>>;

/// A connection.
pub(super) struct Connection {
    sign_in: Arc<SignIn>,
    queries: Arc<Queries>,
    cancel: Arc<DefaultCancelHandler>,
    errors: Errors,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let queries = Arc::new(Queries::new());
        let cancel = Arc::new(DefaultCancelHandler::new(shared.connections.clone()));
        let errors = Errors::new(queries.signed_in());
        Self { sign_in: Arc::new(SignIn::new(shared, queries.clone())), queries, cancel, errors }
    }

    /// Answers until the client leaves, or has to.
    ///
    /// # Errors
    /// Where the connection breaks, or the client does not sign in in time.
    pub(super) async fn serve(self, socket: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let socket = socket.into_std()?;
        let client = TcpStream::from_std(socket.try_clone()?)?;
        let socket = TcpStream::from_std(socket)?;
        let Some(socket) = timeout_at(deadline, negotiate_tls(socket, tls)).await?? else { return Ok(()) };
        let parts = socket.into_parts();
        if parts.codec.client_info.is_secure() && !parts.read_buf.is_empty() {
            // It came in clear, from whoever was between (CVE-2021-23214 of PostgreSQL).
            return Err(io::Error::new(io::ErrorKind::InvalidData, "something came before encryption began"));
        }
        let messages = Messages::new(parts.io, parts.read_buf);
        let mut socket: Socket = Framed::from_parts(FramedParts::new(messages, parts.codec));
        let mut cancelled = Fuse::terminated();
        loop {
            let is_in = !matches!(
                socket.state(),
                PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress
            );
            let message = if is_in {
                socket.get_mut().admit();
                socket.next().await
            } else {
                timeout_at(deadline, socket.next()).await?
            };
            let message = match message {
                None | Some(Ok(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
                Some(Ok(message)) => message,
                Some(Err(PgWireError::IoError(error))) if error.kind() != io::ErrorKind::InvalidData => {
                    return Err(error);
                }
                Some(Err(error)) => return end(socket, PROTOCOL_VIOLATION, error.to_string()).await,
            };
            // A question comes in several messages, up to a `Sync`; it is given up as one, in whichever it is heard of.
            if cancelled.is_terminated() {
                cancelled = self.queries.signed_in().cancelled().await;
            }
            let is_sync = matches!(message, PgWireFrontendMessage::Sync(_));
            let is_last = matches!(message, PgWireFrontendMessage::CancelRequest(_));
            let is_extended = match socket.state() {
                PgWireConnectionState::CopyInProgress(is_extended) => is_extended,
                _ => message.is_extended_query(),
            };
            let (sign_in, queries, cancel) = (self.sign_in.clone(), self.queries.clone(), self.cancel.clone());
            let done =
                process_message(message, &mut socket, sign_in, queries.clone(), queries, Arc::new(NoopHandler), cancel);
            let done = tokio::select! {
                biased;
                Ok(()) = &mut cancelled, if !is_sync => Err(PgWireError::QueryCanceled),
                done = done => done,
                () = left(&client), if !is_last => return Ok(()),
            };
            if is_sync || !is_extended {
                cancelled = Fuse::terminated();
            }
            match done {
                Ok(()) if is_last => return Ok(()),
                Ok(()) => {}
                Err(mut error) => {
                    self.errors.on_error(&socket, &mut error);
                    let error = ErrorInfo::from(error);
                    if !is_in || error.is_fatal() {
                        return end(socket, &error.code, error.message).await;
                    }
                    process_error(&mut socket, PgWireError::UserError(Box::new(error)), is_extended).await?;
                }
            }
        }
    }
}

/// Ends once a client has left. Where it has sent something more, that is known when this is read; so it is in what
/// TLS says at its end.
async fn left(client: &TcpStream) {
    let mut sent = [0; TERMINATE.len()];
    match client.peek(&mut sent).await {
        Ok(0) | Err(_) => {}
        Ok(_) if sent == TERMINATE => {}
        Ok(_) => std::future::pending().await,
    }
}

/// Tells the client why this is the end.
async fn end(mut socket: Socket, code: &str, message: String) -> io::Result<()> {
    let info = ErrorInfo::new("FATAL".to_owned(), code.to_owned(), message);
    socket.send(PgWireBackendMessage::ErrorResponse(info.into())).await?;
    socket.close().await
}
