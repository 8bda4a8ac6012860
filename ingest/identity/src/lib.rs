//! Who asks, and how that is known.
//!
//! What passes through: credentials that a client sent (a password, a proof of one, an API token, a token of an
//! OIDC issuer), and out comes a [`Principal`]: a name, roles, scopes. What the roles may see is decided
//! elsewhere, at the scan of a table.
//!
//! Guaranteed: without credentials that are right now there is no principal. No password and no token is kept,
//! printed or logged. An unknown user cannot be told from a wrong password. What is revoked stops working at
//! the next sign-in, and with [`Authenticator::renew`] at the next statement of an open connection.
//!
//! # How a server uses it
//!
//! A server that others reach needs both sign-on and TLS; one without listens on loopback only. For a protocol
//! that carries a password or a token (HTTP, Flight SQL):
//!
//! ```no_run
//! # use ruam_identity::{Authenticator, Credentials, Scope, SignOnError};
//! # use std::net::IpAddr;
//! async fn asker(who: &Authenticator, header: &[u8], from: IpAddr) -> Result<String, SignOnError> {
//!     let credentials = Credentials::of_header(header).ok_or(SignOnError::Refused)?;
//!     let principal = who.authenticate(&credentials, from).await?;
//!     if !principal.may(&Scope::Sql) {
//!         return Err(SignOnError::Refused);
//!     }
//!     Ok(principal.to_string())
//! }
//! ```
//!
//! For PostgreSQL's protocol: the start of the connection names the user. [`TOKEN_USER`] is asked for its
//! password in clear (`AuthenticationCleartextPassword`, over TLS or on loopback), which is a token; everybody
//! else is offered `SCRAM-SHA-256`, and each message of the client is handed over as it came:
//!
//! ```no_run
//! # use ruam_identity::{Authenticator, Principal, ScramProof, SignOnError};
//! # use std::net::IpAddr;
//! // On `SASLInitialResponse`; the answer goes into `AuthenticationSASLContinue`.
//! fn first(who: &Authenticator, user: &str, from: IpAddr, data: &[u8]) -> Result<(String, ScramProof), SignOnError> {
//!     who.scram(user, from)?.first(data)
//! }
//! // On `SASLResponse`; the answer goes into `AuthenticationSASLFinal`.
//! fn last(proof: ScramProof, data: &[u8]) -> Result<(String, Principal), SignOnError> {
//!     proof.finish(data)
//! }
//! ```
//!
//! Where there is TLS, a client that comes from elsewhere without it is turned away before it sends anything: a
//! password must not be read on its way.
//!
//! A client is told [`SignOnError::for_strangers`]; the log has the error itself.
//!
//! Who has signed something is known as well: [`Signers`] has the public keys of agencies, and checks a detached JWS
//! by one of them.

mod authenticator;
mod clock;
mod error;
mod jws;
mod kept;
mod oidc;
mod principal;
mod public_key;
mod random;
mod scram;
mod settings;
mod signers;
mod throttle;
mod tls;
mod tokens;
mod users;
mod verifier;

pub use authenticator::{Authenticator, Credentials};
pub use clock::{Clock, SystemClock};
pub use error::SignOnError;
pub use oidc::Fetch;
pub use principal::{Method, Principal, Scope};
pub use public_key::{PublicKey, SigningAlgorithm};
pub use rustls::ServerConfig;
pub use scram::{ScramExchange, ScramProof};
pub use settings::{OidcSettings, SignOnSettings};
pub use signers::{KnownSigners, Signer, Signers};
pub use tls::TlsSettings;
pub use tokens::{ApiToken, Tokens};
pub use users::{TOKEN_USER, User, Users};
