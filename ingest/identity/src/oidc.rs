//! Tokens of an OIDC issuer.
//!
//! What passes through: a JSON Web Token, whose key the issuer publishes and whose claims become a principal.
//! Guaranteed: it was signed by a key of the issuer with an algorithm of public keys, it is for this
//! installation, and now is within its time. Of its claims the name, the roles and the scopes are kept, and
//! nothing else: not `pid`, by which ThaID tells the number of a citizen.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use ruam_event::Secret;

use crate::clock::Clock;
use crate::error::SignOnError;
use crate::principal::{Method, Principal};
use crate::settings::OidcSettings;

mod claims;
mod fetch;
mod keys;
mod signature;

pub use fetch::Fetch;
pub(crate) use fetch::Http;

use claims::Claims;
use keys::Keys;

/// The signatures that count: those of public keys. With `none` anybody could sign, and with `HS256` anybody
/// who knows the public key.
const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

/// The most bytes of a token; what is larger is not looked at.
const MAX_TOKEN: usize = 16 << 10;

/// An issuer.
#[derive(Debug)]
pub(crate) struct Oidc {
    settings: OidcSettings,
    keys: Keys,
    clock: Arc<dyn Clock>,
}

/// Why a token is refused, for the log: nothing of the token is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("it is no JSON Web Token with an issuer, an audience and an expiry")]
    Form,
    #[error("it is signed by an algorithm that does not count here")]
    Algorithm,
    #[error("the issuer has no such key")]
    Key,
    #[error("its signature is not of that key")]
    Signature,
    #[error("it is of another issuer")]
    Issuer,
    #[error("it is not for this installation; see sign_on.oidc.audience")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("its time has not come yet; do the clocks differ?")]
    TooEarly,
    #[error("its name claim is missing, or cannot be a name; see sign_on.oidc.name_claim")]
    Name,
}

impl From<&ErrorKind> for Refusal {
    fn from(kind: &ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            _ => Self::Form,
        }
    }
}

impl Oidc {
    pub(crate) fn new(settings: OidcSettings, clock: Arc<dyn Clock>, fetch: Arc<dyn Fetch>) -> Self {
        signature::install();
        Self { keys: Keys::new(settings.issuer.clone(), clock.clone(), fetch), settings, clock }
    }

    /// Whether a text has the form of a JSON Web Token.
    pub(crate) fn has_form(text: &str) -> bool {
        text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// Who signs in with a token.
    ///
    /// # Errors
    /// Where the token is refused, or the issuer cannot be asked for its keys.
    pub(crate) async fn check(&self, token: &Secret) -> Result<Principal, SignOnError> {
        let refused = |refusal: Refusal| {
            tracing::info!(issuer = self.settings.issuer, "a token was refused: {refusal}");
            SignOnError::Refused
        };
        let token = token.reveal();
        let header = Some(token).filter(|token| token.len() <= MAX_TOKEN && Self::has_form(token));
        let header = header.and_then(|token| jsonwebtoken::decode_header(token).ok());
        // Whoever does not know a critical extension must refuse it (RFC 7515, section 4.1.11). None is known.
        let header = header.filter(|header| header.crit.is_none()).ok_or_else(|| refused(Refusal::Form))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(refused(Refusal::Algorithm));
        }
        let key = self.keys.find(header.kid.as_deref(), header.alg).await?.ok_or_else(|| refused(Refusal::Key))?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &self.validation(header.alg));
        let claims = claims.map_err(|error| refused(Refusal::from(error.kind())))?.claims;
        self.principal(&claims).map_err(refused)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // By the clock of this crate, below.
        validation.validate_exp = false;
        validation
    }

    fn principal(&self, claims: &Claims) -> Result<Principal, Refusal> {
        let (now, leeway) = (self.clock.now(), TimeDelta::seconds(self.settings.leeway_seconds.into()));
        let expires = time(claims.exp).and_then(|exp| exp.checked_add_signed(leeway)).ok_or(Refusal::Form)?;
        if now >= expires {
            return Err(Refusal::Expired);
        }
        let not_before = claims.nbf.map_or(Some(now), time).ok_or(Refusal::Form)?;
        if now + leeway < not_before {
            return Err(Refusal::TooEarly);
        }
        Ok(Principal {
            name: claims.name(&self.settings.name_claim).ok_or(Refusal::Name)?,
            roles: claims.roles(&self.settings.roles_claim, &self.settings.roles),
            method: Method::Oidc,
            expires: Some(expires),
            scopes: claims.scopes(&self.settings.scopes_claim),
        })
    }
}

/// A time of a token: seconds since 1970, perhaps with a fraction (RFC 7519, section 2).
fn time(seconds: f64) -> Option<DateTime<Utc>> {
    // A number that is out of range becomes the nearest that is not, for which there is no date.
    DateTime::from_timestamp(seconds as i64, 0)
}

#[cfg(test)]
pub(crate) mod tests;
