//! Who signs in, by whichever way.
//!
//! What passes through: credentials as a client sent them, and the address that they came from; a
//! [`Principal`]. Guaranteed: there is no principal without credentials that are right at this moment; who
//! guesses passwords waits; an unknown user costs as much time as a wrong password, and is told the same.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ruam_event::Secret;
use tokio::sync::Semaphore;

use crate::clock::{Clock, SystemClock};
use crate::error::SignOnError;
use crate::oidc::{Fetch, Http, Oidc};
use crate::principal::{Method, Principal};
use crate::scram::ScramExchange;
use crate::settings::SignOnSettings;
use crate::throttle::Throttle;
use crate::tokens::Tokens;
use crate::users::{TOKEN_USER, Users};

/// So many passwords are hashed at the same time: that is work for a processor, and questions need it, too.
const HASHING: usize = 2;

/// The ways to sign in, as people are told of them.
const PASSWORDS: &str = "name and password";
const TOKENS: &str = "API token";
const OIDC: &str = "OIDC";

/// What a client sends to sign in.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A name and a password. For the user [`TOKEN_USER`] the password is a token.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An API token, or a token of the issuer: they are told apart by their form.
    Token(Secret),
}

impl Credentials {
    /// Reads an `Authorization` header of HTTP: `Bearer <token>`, or `Basic` with a name and a password
    /// (RFC 6750, RFC 7617). None where it is neither.
    pub fn of_header(value: &[u8]) -> Option<Self> {
        let (scheme, rest) = std::str::from_utf8(value).ok()?.trim().split_once(' ')?;
        let rest = rest.trim_start();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Token(Secret::new(rest)));
        }
        let decoded = STANDARD.decode(rest).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some(Self::Password { user: user.to_owned(), password: Secret::new(password) })
    }
}

/// Knows who may sign in.
#[derive(Debug)]
pub struct Authenticator {
    users: Option<Users>,
    tokens: Option<Tokens>,
    oidc: Option<Oidc>,
    throttle: Arc<Throttle>,
    clock: Arc<dyn Clock>,
    hashing: Arc<Semaphore>,
}

impl Authenticator {
    /// Sets up what the settings switch on; `folder` holds the files of users and tokens. Nothing is asked of
    /// the issuer before the first token comes.
    ///
    /// # Errors
    /// Where a setting is wrong, or a file cannot be read or is wrong.
    pub fn open(settings: &SignOnSettings, folder: &Path) -> Result<Self, SignOnError> {
        Self::with(settings, folder, Arc::new(SystemClock), || {
            let http = Http::new().map_err(|error| SignOnError::Setting {
                setting: "sign_on.oidc",
                problem: format!("issuers cannot be asked over https from here: {error}"),
                remedy: "Install the system's root certificates (ca-certificates)",
            });
            Ok(Arc::new(http?))
        })
    }

    /// The same with another clock and another way to the issuer, which is made if there is one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with(
        settings: &SignOnSettings,
        folder: &Path,
        clock: Arc<dyn Clock>,
        fetch: impl FnOnce() -> Result<Arc<dyn Fetch>, SignOnError>,
    ) -> Result<Self, SignOnError> {
        settings.check()?;
        let users = settings.local_users.then(|| Users::with_clock(folder, clock.clone())).transpose()?;
        let tokens = settings.tokens.then(|| Tokens::with_clock(folder, clock.clone()));
        // What is wrong with the files is said now, and not to the first who signs in.
        users.as_ref().map(Users::list).transpose()?;
        tokens.as_ref().map(Tokens::list).transpose()?;
        let oidc = match &settings.oidc {
            Some(oidc) => Some(Oidc::new(oidc.clone(), clock.clone(), fetch()?)),
            None => None,
        };
        let throttle = Arc::new(Throttle::new(clock.clone()));
        Ok(Self { users, tokens, oidc, throttle, clock, hashing: Arc::new(Semaphore::new(HASHING)) })
    }

    /// The ways to sign in, for people.
    pub fn ways(&self) -> Vec<&'static str> {
        let ways = [
            self.users.as_ref().map(|_| PASSWORDS),
            self.tokens.as_ref().map(|_| TOKENS),
            self.oidc.as_ref().map(|_| OIDC),
        ];
        ways.into_iter().flatten().collect()
    }

    /// Signs somebody in.
    ///
    /// # Errors
    /// Where the credentials are not right, too many were not, or they cannot be checked at present.
    pub async fn authenticate(&self, credentials: &Credentials, from: IpAddr) -> Result<Principal, SignOnError> {
        match credentials {
            Credentials::Password { user, password } if user == TOKEN_USER => self.by_token(password).await,
            Credentials::Password { user, password } => self.by_password(user, password, from).await,
            Credentials::Token(token) => self.by_token(token).await,
        }
    }

    /// Begins a sign-in by SCRAM-SHA-256, where the client proves that it knows the password without sending
    /// it. Call this when the client's first message has come.
    ///
    /// # Errors
    /// Where there are no local users, too many attempts failed, or the file of users is wrong.
    pub fn scram(&self, user: &str, from: IpAddr) -> Result<ScramExchange, SignOnError> {
        let users = self.users.as_ref().ok_or(SignOnError::NotOffered { how: PASSWORDS })?;
        self.throttle.check(user, from)?;
        let (verifier, principal) = users.verifier(user)?;
        Ok(ScramExchange { verifier, principal, throttle: self.throttle.clone(), user: user.to_owned(), from })
    }

    /// The principal as it is now: roles may have changed, a user may have been removed, a token revoked or expired.
    ///
    /// # Errors
    /// Where the sign-in counts no longer.
    fn renew(&self, principal: &Principal) -> Result<Principal, SignOnError> {
        if principal.expires.is_some_and(|expires| self.clock.now() >= expires) {
            return Err(SignOnError::Refused);
        }
        match (&principal.method, &self.users, &self.tokens) {
            (Method::Password, Some(users), _) => users.find(&principal.name)?.ok_or(SignOnError::Refused),
            (Method::Token { id }, _, Some(tokens)) => tokens.find(id),
            (Method::Oidc, ..) if self.oidc.is_some() => Ok(principal.clone()),
            _ => Err(SignOnError::Refused),
        }
    }

    /// Whether a sign-in still counts as it did, for a connection that stays open: with other roles, other things
    /// are seen.
    pub fn still_counts(&self, principal: &Principal) -> bool {
        self.renew(principal).is_ok_and(|now| now.roles() == principal.roles())
    }

    async fn by_token(&self, token: &Secret) -> Result<Principal, SignOnError> {
        // Nobody can guess a token, so that failures need not be counted: a dashboard whose token has expired
        // locks out nobody.
        if Tokens::has_form(token.reveal()) {
            return self.tokens.as_ref().ok_or(SignOnError::NotOffered { how: TOKENS })?.check(token);
        }
        match &self.oidc {
            Some(oidc) => oidc.check(token).await,
            None if Oidc::has_form(token.reveal()) => Err(SignOnError::NotOffered { how: OIDC }),
            None => Err(SignOnError::Refused),
        }
    }

    async fn by_password(&self, user: &str, password: &Secret, from: IpAddr) -> Result<Principal, SignOnError> {
        let users = self.users.as_ref().ok_or(SignOnError::NotOffered { how: PASSWORDS })?;
        self.throttle.check(user, from)?;
        let place = self.hashing.clone().acquire_owned().await.map_err(|_| SignOnError::Refused)?;
        // Once more: others may have failed while this one waited.
        self.throttle.check(user, from)?;
        let (verifier, principal) = users.verifier(user)?;
        let password = password.clone();
        let is_right = tokio::task::spawn_blocking(move || {
            let _place = place;
            verifier.is_of(&password)
        });
        let is_right = is_right.await.unwrap_or(false);
        principal.filter(|_| is_right).ok_or_else(|| {
            self.throttle.failed(user, from);
            SignOnError::Refused
        })
    }
}

#[cfg(test)]
mod tests;
