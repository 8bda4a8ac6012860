//! The keys of an issuer: found by its discovery document, kept for a while, and fetched anew when a token names
//! one that is not known.

use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::fetch::Fetch;
use crate::clock::Clock;
use crate::error::SignOnError;
use crate::settings::trusted_url;

/// How long keys are used before they are asked for again: so long may one that was withdrawn still count.
const FRESH: TimeDelta = TimeDelta::hours(1);
/// How long keys are used while the issuer does not answer.
const USABLE: TimeDelta = TimeDelta::hours(24);
/// How often the issuer is asked at most, whatever the keys are that tokens name.
const PAUSE: TimeDelta = TimeDelta::seconds(10);
/// The most keys that are kept.
const MAX_KEYS: usize = 100;

/// The keys of an issuer.
#[derive(Debug)]
pub(super) struct Keys {
    issuer: String,
    clock: Arc<dyn Clock>,
    fetch: Arc<dyn Fetch>,
    known: RwLock<Option<Known>>,
    /// The last time that the issuer was asked, and what went wrong. One asks at a time.
    asked: Mutex<Option<(DateTime<Utc>, Option<String>)>>,
}

#[derive(Clone, Debug)]
struct Known {
    since: DateTime<Utc>,
    keys: Arc<[Key]>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The one algorithm that the issuer uses it with, if it says so.
    algorithm: Option<String>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Keys {
    pub(super) fn new(issuer: String, clock: Arc<dyn Clock>, fetch: Arc<dyn Fetch>) -> Self {
        Self { issuer, clock, fetch, known: RwLock::new(None), asked: Mutex::new(None) }
    }

    /// The key that a token names, if the issuer has it. A token that names none means the only one that there
    /// is for its algorithm.
    ///
    /// # Errors
    /// Where the issuer cannot be asked, and what it said last is too old.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<DecodingKey>, SignOnError> {
        if let Some(key) = self.known(FRESH).and_then(|known| known.find(id, algorithm)) {
            return Ok(Some(key));
        }
        // While somebody waits for the issuer, others go on with what is known.
        let older = self.known(USABLE).and_then(|known| known.find(id, algorithm));
        if older.is_some() && self.asked.try_lock().is_err() {
            return Ok(older);
        }
        let problem = self.ask(id, algorithm).await;
        match (self.known(USABLE), problem) {
            (Some(known), _) => Ok(known.find(id, algorithm)),
            (None, problem) => {
                let problem = problem.unwrap_or_else(|| "it has not answered for a day".to_owned());
                Err(SignOnError::Issuer { issuer: self.issuer.clone(), problem })
            }
        }
    }

    /// What is known, and not older than an age.
    fn known(&self, age: TimeDelta) -> Option<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        (self.clock.now() - known.since < age).then_some(known)
    }

    /// Asks the issuer, unless somebody did a moment ago; says what went wrong when it was asked last.
    async fn ask(&self, id: Option<&str>, algorithm: Algorithm) -> Option<String> {
        let mut asked = self.asked.lock().await;
        let now = self.clock.now();
        if self.known(FRESH).is_some_and(|known| known.find(id, algorithm).is_some()) {
            return None;
        }
        // A clock that was set back does not count as a moment ago.
        if let Some((at, problem)) = asked.as_ref().filter(|(at, _)| (now - *at).abs() < PAUSE) {
            tracing::debug!(%at, "the issuer was asked for its keys a moment ago");
            return problem.clone();
        }
        let problem = match self.fetched().await {
            Ok(keys) => {
                tracing::info!(issuer = self.issuer, keys = keys.len(), "the issuer's keys were fetched");
                let known = Some(Known { since: now, keys });
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
                None
            }
            Err(problem) => {
                tracing::warn!(issuer = self.issuer, problem, "the issuer's keys cannot be fetched");
                Some(problem)
            }
        };
        // The time now, and not before: it may have taken long to get no answer.
        *asked = Some((self.clock.now(), problem.clone()));
        problem
    }

    async fn fetched(&self) -> Result<Arc<[Key]>, String> {
        let place = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let document = self.fetch.get(&trusted_url(&place)?).await?;
        let discovery: Discovery =
            serde_json::from_slice(&document).map_err(|_| format!("{place} is no discovery document of OpenID"))?;
        // OpenID Connect Discovery 1.0, section 4.3.
        if discovery.issuer != self.issuer {
            return Err(format!("{place} is of the issuer {}", discovery.issuer.escape_debug()));
        }
        let place =
            trusted_url(&discovery.jwks_uri).map_err(|problem| format!("its jwks_uri cannot be used: {problem}"))?;
        let document = self.fetch.get(&place).await?;
        let set: KeySet = serde_json::from_slice(&document).map_err(|_| format!("{place} is no set of keys"))?;
        let keys: Arc<[Key]> = set.keys.into_iter().filter_map(Key::of).take(MAX_KEYS).collect();
        if keys.is_empty() { Err(format!("{place} has no key that counts here")) } else { Ok(keys) }
    }
}

impl Known {
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut fitting =
            self.keys.iter().filter(|key| key.fits(algorithm) && (id.is_none() || key.id.as_deref() == id));
        let key = fitting.next()?;
        (id.is_some() || fitting.next().is_none()).then(|| key.key.clone())
    }
}

impl Key {
    /// A key of a set, if it is one to check signatures with. A set may hold keys of kinds that are not known.
    fn of(key: Value) -> Option<Self> {
        let algorithm = key.get("alg").and_then(Value::as_str).map(ToOwned::to_owned);
        let jwk: Jwk = serde_json::from_value(key).ok()?;
        let is_for_signatures =
            jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| is_for_signatures)?;
        Some(Self { id: jwk.common.key_id, algorithm, key })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.key.family() == algorithm.family()
            && self.algorithm.as_ref().is_none_or(|name| *name == format!("{algorithm:?}"))
    }
}
