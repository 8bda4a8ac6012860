//! Who calls: a client for each sign-in, with a session and what it was given.
//!
//! What passes through: a call, into its [`Client`]. A client is known by the header `authorization`, which each
//! call has, or without sign-on by its connection. Guaranteed: no header is kept, only what a secret of this
//! process makes of it; and a sign-in that counts no longer is no client.

use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::session_state::SessionState;
use ruam_door::Peer;
use sha2::{Digest, Sha256};
use tonic::{Request, Status};

use super::tickets::{Prepared, Running};
use crate::engine::Engine;
use crate::kept::{Kept, handle};
use crate::session::Session;
use crate::sign_in::{Doorkeeper, SignedIn};

const MAX_CLIENTS: usize = 2000;
/// So many tickets, and so many prepared statements, of one client.
const MAX_HELD: usize = 256;
/// How long a client may be silent before it has to sign in anew, and a ticket lie before it is void.
const UNUSED: Duration = Duration::from_secs(3600);

/// All clients.
pub(super) struct Clients {
    engine: Engine,
    /// What sessions of this protocol have.
    base: SessionState,
    doorkeeper: Doorkeeper,
    /// Begins with a secret of this process.
    hash: Sha256,
    known: Kept<Arc<Client>>,
}

/// A client that has signed in.
pub(super) struct Client {
    pub session: Session,
    pub tickets: Kept<Arc<Running>>,
    pub prepared: Kept<Arc<Prepared>>,
    signed_in: SignedIn,
}

impl Clients {
    pub(super) fn new(engine: Engine, base: SessionState, doorkeeper: Doorkeeper) -> Self {
        let hash = Sha256::new_with_prefix(format!("{}{}", handle(), handle()));
        Self { engine, base, doorkeeper, hash, known: Kept::new(MAX_CLIENTS, UNUSED) }
    }

    /// Whose call it is.
    ///
    /// # Errors
    /// Where nobody has signed in.
    pub(super) async fn of<T>(&self, request: &Request<T>) -> Result<Arc<Client>, Status> {
        let authorization = authorization(request);
        let peer = peer(request)?;
        let key = match authorization {
            Some(authorization) => self.key(authorization),
            None => peer.connection.to_string(),
        };
        match self.known.get(&key) {
            Some(client) if (client.signed_in.counts)() => return Ok(client),
            Some(_) => drop(self.known.remove(&key)),
            None => {}
        }
        Ok(self.known.keep(key, self.let_in(authorization, peer).await?))
    }

    /// Lets somebody in, who is known from then on by the token that is returned.
    ///
    /// # Errors
    /// Where they are not let in.
    pub(super) async fn shake_hands<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let client = self.let_in(authorization(request), peer(request)?).await?;
        // Nobody guesses two of them.
        let token = format!("{}{}", handle(), handle());
        self.known.keep(self.key(bearer(&token).as_bytes()), client);
        Ok(token)
    }

    async fn let_in(&self, authorization: Option<&[u8]>, peer: &Peer) -> Result<Arc<Client>, Status> {
        let signed_in = self.doorkeeper.admit(authorization, peer.address, "flight").await;
        let signed_in = signed_in.map_err(|refused| Status::unauthenticated(refused.to_string()))?;
        let session = self.engine.session_with(self.base.clone(), signed_in.caller.clone());
        let session = session.map_err(|error| super::tickets::status(&error))?;
        let (tickets, prepared) = (Kept::new(MAX_HELD, UNUSED), Kept::new(MAX_HELD, UNUSED));
        Ok(Arc::new(Client { session, tickets, prepared, signed_in }))
    }

    fn key(&self, authorization: &[u8]) -> String {
        hex::encode(self.hash.clone().chain_update(authorization).finalize())
    }
}

/// The header of a client that has a token.
pub(super) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn authorization<T>(request: &Request<T>) -> Option<&[u8]> {
    request.metadata().get("authorization").map(tonic::metadata::MetadataValue::as_bytes)
}

fn peer<T>(request: &Request<T>) -> Result<&Peer, Status> {
    request.extensions().get::<Peer>().ok_or_else(|| Status::internal("the connection is not known"))
}
