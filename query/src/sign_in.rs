//! Who is let in by the servers that are told so in a header: Flight SQL and HTTP.
//!
//! What passes through: the header `authorization` as it came, into a [`Caller`]. Without sign-on, whoever
//! connects is the system, and servers listen on loopback only.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use ruam_identity::{Authenticator, Credentials, Scope, SignOnError};

use crate::caller::Caller;

/// Knows who may sign in.
#[async_trait]
pub trait SignIn: fmt::Debug + Send + Sync {
    /// Signs somebody in. `authorization` is the header of that name (`Basic`, RFC 7617, or `Bearer`, RFC 6750),
    /// `client` what they ask with, and from where.
    ///
    /// # Errors
    /// Where they are not let in.
    async fn sign_in(&self, authorization: &[u8], from: SocketAddr, client: String) -> Result<SignedIn, Refused>;
}

/// Lets in whoever can sign in here, and may ask in SQL.
#[derive(Debug)]
pub struct BySignOn(pub Arc<Authenticator>);

#[async_trait]
impl SignIn for BySignOn {
    async fn sign_in(&self, authorization: &[u8], from: SocketAddr, client: String) -> Result<SignedIn, Refused> {
        let refused = |error: SignOnError| {
            tracing::info!(%error, client, "refused at sign-in");
            Refused(error.for_strangers())
        };
        let credentials = Credentials::of_header(authorization).ok_or_else(|| refused(SignOnError::Refused))?;
        let principal = self.0.authenticate(&credentials, from.ip()).await.map_err(refused)?;
        if !principal.may(&Scope::Sql) {
            return Err(refused(SignOnError::Refused));
        }
        let caller = Caller::new(principal.name(), principal.roles().iter().cloned(), client.clone());
        let who = self.0.clone();
        let counts = move || who.still_counts(&principal);
        Ok(SignedIn { caller, counts: Arc::new(counts) })
    }
}

/// Somebody who has signed in.
#[derive(Clone)]
pub struct SignedIn {
    /// Who they are.
    pub caller: Caller,
    /// Whether the sign-in still counts: it may be taken back while the client goes on asking.
    pub counts: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Why somebody is not let in, as strangers may be told.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Lets clients in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doorkeeper(pub Option<Arc<dyn SignIn>>);

impl Doorkeeper {
    /// Whether one has to sign in.
    pub(crate) fn asks(&self) -> bool {
        self.0.is_some()
    }

    /// Lets somebody in, with what they have sent to sign in. `way` is how they have come.
    pub(crate) async fn admit(
        &self,
        authorization: Option<&[u8]>,
        from: SocketAddr,
        way: &str,
    ) -> Result<SignedIn, Refused> {
        let client = format!("{way} {from}");
        match (&self.0, authorization) {
            (None, _) => Ok(SignedIn { caller: Caller::system(client), counts: Arc::new(|| true) }),
            (Some(who), Some(authorization)) => who.sign_in(authorization, from, client).await,
            (Some(_), None) => {
                let told = "sign in first: send a name and password, or a token, in the header authorization";
                Err(Refused(told.to_owned()))
            }
        }
    }
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn").field("caller", &self.caller).finish_non_exhaustive()
    }
}
