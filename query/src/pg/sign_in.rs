//! How a client signs in, by PostgreSQL's protocol.
//!
//! What passes through: the messages of a start, into a caller and their session. Without sign-on, whoever
//! connects is the system. With it, the user [`TOKEN_USER`] sends a token as password; everybody else proves
//! their password by SCRAM-SHA-256 (RFC 7677) and never sends it.
//!
//! Guaranteed: from beyond this machine nothing is asked of a client before the connection is encrypted.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::hooks::QueryHook;
use datafusion_postgres::hooks::cursor::CursorStatementHook;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use datafusion_postgres::pgwire::api::{
    ClientInfo, ConnectionHandle, METADATA_USER, PgWireConnectionState, PidSecretKeyGenerator,
};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::startup::{Authentication, PasswordMessageFamily};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::{Sink, SinkExt};
use ruam_event::Secret;
use ruam_identity::{Authenticator, Credentials, Principal, Scope, ScramProof, SignOnError, TOKEN_USER};
use tokio::sync::Mutex;

use super::Shared;
use super::fetch::Fetch;
use super::messages::is_first_of_sasl;
use super::queries::{Queries, StillIn};
use super::read_only::ReadOnly;
use super::savepoints::Savepoints;
use super::settings::Settings;
use crate::caller::Caller;

const SCRAM: &str = "SCRAM-SHA-256";
const INVALID_PASSWORD: &str = "28P01";

/// Signs one client in.
pub(super) struct SignIn {
    shared: Arc<Shared>,
    queries: Arc<Queries>,
    awaited: Mutex<Awaited>,
}

/// What the client is to send next.
enum Awaited {
    Start,
    Token,
    Scram,
    Proof(Box<ScramProof>),
}

/// Where a message has led.
enum Step {
    Ask(Authentication),
    In(Caller, Option<StillIn>),
}

impl SignIn {
    pub(super) fn new(shared: Arc<Shared>, queries: Arc<Queries>) -> Self {
        Self { shared, queries, awaited: Mutex::new(Awaited::Start) }
    }

    /// What comes after a client's password, or a part of what proves it.
    async fn answer(
        &self,
        who: &Arc<Authenticator>,
        user: &str,
        client: String,
        from: IpAddr,
        message: PasswordMessageFamily,
    ) -> PgWireResult<Step> {
        let mut awaited = self.awaited.lock().await;
        let principal = match std::mem::replace(&mut *awaited, Awaited::Start) {
            Awaited::Token => {
                let password = Secret::new(message.into_password()?.password);
                let credentials = Credentials::Password { user: user.to_owned(), password };
                who.authenticate(&credentials, from).await.map_err(|error| refused(&error))?
            }
            Awaited::Scram => {
                // What is not well-formed, pgwire does not read but panic at.
                if !matches!(&message, PasswordMessageFamily::Raw(body) if is_first_of_sasl(body)) {
                    return Err(refused(&SignOnError::Refused));
                }
                let first = message.into_sasl_initial_response()?;
                if first.auth_method != SCRAM {
                    return Err(PgWireError::UnsupportedSASLAuthMethod(first.auth_method));
                }
                let data = first.data.unwrap_or_default();
                let exchange = who.scram(user, from).map_err(|error| refused(&error))?;
                let (answer, proof) = exchange.first(&data).map_err(|error| refused(&error))?;
                *awaited = Awaited::Proof(Box::new(proof));
                return Ok(Step::Ask(Authentication::SASLContinue(answer.into())));
            }
            Awaited::Proof(proof) => {
                let last = message.into_sasl_response()?;
                let (answer, principal) = proof.finish(&last.data).map_err(|error| refused(&error))?;
                return self.admitted(who, principal, client).map(|step| match step {
                    // The client checks that the server knows the password, too.
                    Step::In(caller, still) => Step::In(caller, still.map(|still| still.told(answer))),
                    step => step,
                });
            }
            Awaited::Start => return Err(refused(&SignOnError::Refused)),
        };
        self.admitted(who, principal, client)
    }

    fn admitted(&self, who: &Arc<Authenticator>, principal: Principal, client: String) -> PgWireResult<Step> {
        if !principal.may(&Scope::Sql) {
            tracing::info!(user = principal.name(), "refused at sign-in: the token is not for SQL");
            return Err(refused(&SignOnError::Refused));
        }
        let caller = Caller::new(principal.name(), principal.roles().iter().cloned(), client);
        Ok(Step::In(caller, Some(StillIn::new(who.clone(), principal))))
    }

    /// Lets somebody ask from here on.
    fn admit(&self, caller: Caller, still_in: Option<StillIn>, cancels: Arc<ConnectionHandle>) -> PgWireResult<()> {
        let session = self.shared.session(caller).map_err(|error| PgWireError::ApiError(Box::new(error)))?;
        let hooks: Vec<Arc<dyn QueryHook>> = vec![
            Arc::new(ReadOnly),
            Arc::new(Savepoints),
            Arc::new(Settings::new(session.clone())),
            Arc::new(Fetch),
            Arc::new(CursorStatementHook),
            Arc::new(SetShowHook),
            Arc::new(TransactionStatementHook),
        ];
        self.queries.begin(session, hooks, still_in, cancels);
        Ok(())
    }
}

/// What a client is told that is not let in: not why, which the log has.
fn refused(error: &SignOnError) -> PgWireError {
    tracing::info!(%error, "a SQL client was refused at sign-in");
    let info = ErrorInfo::new("FATAL".to_owned(), INVALID_PASSWORD.to_owned(), error.for_strangers());
    PgWireError::UserError(Box::new(info))
}

#[async_trait]
impl StartupHandler for SignIn {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let address = client.socket_addr();
        let step = match (message, &self.shared.admission.sign_on) {
            (PgWireFrontendMessage::Startup(start), sign_on) => {
                protocol_negotiation(client, &start).await?;
                save_startup_parameters_to_metadata(client, &start);
                if !address.ip().is_loopback() && !client.is_secure() {
                    let message = "this server asks for TLS. Connect with sslmode=require or higher".to_owned();
                    let info = ErrorInfo::new("FATAL".to_owned(), "28000".to_owned(), message);
                    return Err(PgWireError::UserError(Box::new(info)));
                }
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                if sign_on.is_none() {
                    Step::In(Caller::system(format!("postgres {address}")), None)
                } else if user(client) == TOKEN_USER {
                    *self.awaited.lock().await = Awaited::Token;
                    Step::Ask(Authentication::CleartextPassword)
                } else {
                    *self.awaited.lock().await = Awaited::Scram;
                    Step::Ask(Authentication::SASL(vec![SCRAM.to_owned()]))
                }
            }
            (PgWireFrontendMessage::PasswordMessageFamily(message), Some(who)) => {
                let (user, name) = (user(client), format!("postgres {address}"));
                self.answer(who, &user, name, address.ip(), message).await?
            }
            _ => return Ok(()),
        };
        match step {
            Step::Ask(what) => client.send(PgWireBackendMessage::Authentication(what)).await?,
            Step::In(caller, mut still_in) => {
                if let Some(last) = still_in.as_mut().and_then(StillIn::last_word) {
                    let last = Authentication::SASLFinal(last.into());
                    client.send(PgWireBackendMessage::Authentication(last)).await?;
                }
                let (pid, secret) = self.shared.keys.generate(client);
                client.set_pid_and_secret_key(pid, secret.clone());
                let (cancels, guard) = self.shared.connections.register(pid, secret);
                client.session_extensions().insert(guard);
                self.admit(caller, still_in, cancels)?;
                finish_authentication(client, &DefaultServerParameterProvider::default()).await?;
            }
        }
        Ok(())
    }
}

fn user(client: &impl ClientInfo) -> String {
    client.metadata().get(METADATA_USER).cloned().unwrap_or_default()
}
