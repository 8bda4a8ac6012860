//! API tokens: for programs and tools that sign in without a person.
//!
//! A token is `ruam_<id>_<secret>`: the prefix by which scanners find one that leaked, an id that may be shown,
//! and 256 random bits. Only the SHA-256 of the secret is kept. A slow hash with a salt protects passwords
//! because they can be guessed; nobody guesses 256 random bits, however fast the hash is, and so each request
//! may carry a token.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ring::digest;
use ruam_event::Secret;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::clock::{Clock, SystemClock};
use crate::error::SignOnError;
use crate::kept::Kept;
use crate::principal::{Method, Principal, Scope, check_name, check_role};
use crate::random;

/// How every API token begins.
const PREFIX: &str = "ruam_";
/// The length of an id, and of what is secret, in characters.
const ID: usize = 12;
const SECRET: usize = 64;

const HEADER: &str = "# The API tokens of ruam, as `ruam token` writes them: hashes, and no token.\n";

/// The API tokens, in `tokens.toml`.
#[derive(Debug)]
pub struct Tokens {
    kept: Kept<TokensFile>,
    clock: Arc<dyn Clock>,
}

/// What is known about an API token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiToken {
    /// Whose it is, or what for.
    pub name: String,
    /// The roles, as policies name them.
    pub roles: BTreeSet<String>,
    /// What it may be used for.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// From when on it counts no longer.
    pub expires: DateTime<Utc>,
    /// When it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<DateTime<Utc>>,
    hash: Hash,
}

/// The SHA-256 of a secret. It does not print.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Hash(String);

impl Hash {
    fn of(secret: &str) -> Self {
        Self(hex::encode(digest::digest(&digest::SHA256, secret.as_bytes())))
    }

    fn is_of(&self, secret: &str) -> bool {
        self.0.as_bytes().ct_eq(Self::of(secret).0.as_bytes()).into()
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    #[serde(default)]
    tokens: BTreeMap<String, ApiToken>,
}

impl Tokens {
    /// Those in a folder. Nothing is read or made yet.
    pub fn open(folder: &Path) -> Self {
        Self::with_clock(folder, Arc::new(SystemClock))
    }

    pub(crate) fn with_clock(folder: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { kept: Kept::new(folder.join("tokens.toml"), HEADER), clock }
    }

    /// All of them with their ids, those that count no longer included; the newest first.
    ///
    /// # Errors
    /// Where the file cannot be read or is wrong.
    pub fn list(&self) -> Result<Vec<(String, ApiToken)>, SignOnError> {
        let mut tokens: Vec<_> =
            self.kept.get()?.tokens.iter().map(|(id, token)| (id.clone(), token.clone())).collect();
        tokens.sort_by_key(|(_, token)| std::cmp::Reverse(token.created));
        Ok(tokens)
    }

    /// Makes a token that counts for so many days. It is returned this once, and cannot be had again.
    ///
    /// # Errors
    /// Where the name or a role will not do, or the file cannot be written.
    pub fn issue(
        &self,
        name: &str,
        roles: BTreeSet<String>,
        scopes: BTreeSet<Scope>,
        days: u16,
    ) -> Result<Secret, SignOnError> {
        check_name(name, "the name of a token")?;
        roles.iter().try_for_each(|role| check_role(role))?;
        let (id, secret) =
            (hex::encode(random::bytes::<{ ID / 2 }>()?), hex::encode(random::bytes::<{ SECRET / 2 }>()?));
        let created = self.clock.now();
        let expires = created + TimeDelta::days(days.into());
        let hash = Hash::of(&secret);
        let token = ApiToken { name: name.to_owned(), roles, scopes, created, expires, revoked: None, hash };
        // 48 random bits name no other of the few tokens that there are.
        self.kept.change(|file| Ok(file.tokens.insert(id.clone(), token)))?;
        Ok(Secret::new(format!("{PREFIX}{id}_{secret}")))
    }

    /// Makes a token count no longer, from the next request on.
    ///
    /// # Errors
    /// Where there is no such token, or the file cannot be written.
    pub fn revoke(&self, id: &str) -> Result<(), SignOnError> {
        let now = self.clock.now();
        self.kept.change(|file| {
            // Whoever gives the whole token by mistake must not find it in the message.
            let unknown = || SignOnError::Unknown { what: "token", name: id.chars().take(ID).collect() };
            file.tokens.get_mut(id).ok_or_else(unknown)?.revoked.get_or_insert(now);
            Ok(())
        })
    }

    /// Whether a text has the form of an API token.
    pub(crate) fn has_form(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Who signs in with a token.
    pub(crate) fn check(&self, token: &Secret) -> Result<Principal, SignOnError> {
        let (id, secret) = parts(token.reveal()).ok_or(SignOnError::Refused)?;
        let file = self.kept.get()?;
        let known = file.tokens.get(id).filter(|known| known.hash.is_of(secret)).ok_or(SignOnError::Refused)?;
        self.principal(id, known).inspect_err(|_| {
            tracing::info!(token = id, "a token that is revoked or expired was refused");
        })
    }

    /// A token's principal as it is now.
    pub(crate) fn find(&self, id: &str) -> Result<Principal, SignOnError> {
        let file = self.kept.get()?;
        self.principal(id, file.tokens.get(id).ok_or(SignOnError::Refused)?)
    }

    fn principal(&self, id: &str, token: &ApiToken) -> Result<Principal, SignOnError> {
        if token.revoked.is_some() || self.clock.now() >= token.expires {
            return Err(SignOnError::Refused);
        }
        Ok(Principal {
            name: token.name.clone(),
            roles: token.roles.clone(),
            method: Method::Token { id: id.to_owned() },
            expires: Some(token.expires),
            scopes: token.scopes.clone(),
        })
    }
}

/// The id and the secret of a token.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
    (id.len() == ID && secret.len() == SECRET).then_some((id, secret))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::tests::Hand;

    fn tokens(folder: &Path) -> (Arc<Hand>, Tokens) {
        let clock = Arc::new(Hand::default());
        (clock.clone(), Tokens::with_clock(folder, clock))
    }

    fn issue(tokens: &Tokens) -> Secret {
        tokens.issue("dashboard", BTreeSet::from(["analyst".to_owned()]), BTreeSet::from([Scope::Sql]), 90).unwrap()
    }

    #[test]
    fn a_token_counts_until_it_expires_or_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let (clock, tokens) = tokens(folder.path());
        let [one, two] = [(); 2].map(|()| issue(&tokens));
        let principal = tokens.check(&one).unwrap();
        let Method::Token { id } = principal.method().clone() else { panic!("by a token") };
        assert_eq!(principal.to_string(), format!("dashboard (token {id})"));
        assert_eq!(principal.expires().unwrap().to_rfc3339(), "2026-05-01T12:00:00+00:00");
        assert!(principal.may(&Scope::Sql) && !principal.may(&Scope::Events("bora".to_owned())));
        tokens.revoke(&id).unwrap();
        assert!(matches!(tokens.check(&one), Err(SignOnError::Refused)));
        assert!(matches!(tokens.find(&id), Err(SignOnError::Refused)));
        clock.forward(90 * 86_400 - 1);
        tokens.check(&two).unwrap();
        clock.forward(1);
        assert!(matches!(tokens.check(&two), Err(SignOnError::Refused)));
        assert_eq!(tokens.list().unwrap().iter().filter(|(_, token)| token.revoked.is_some()).count(), 1);
    }

    #[test]
    fn the_file_holds_no_token_and_no_message_does() {
        let folder = tempfile::tempdir().unwrap();
        let (_, tokens) = tokens(folder.path());
        let token = issue(&tokens);
        let (_, secret) = parts(token.reveal()).unwrap();
        assert!(!std::fs::read_to_string(folder.path().join("tokens.toml")).unwrap().contains(secret));
        assert!(!format!("{:?}", tokens.list().unwrap()).contains(&Hash::of(secret).0));
        let error = tokens.revoke(token.reveal()).unwrap_err().to_string();
        assert!(error.starts_with("there is no token `ruam_") && !error.contains(secret), "{error}");
    }

    #[test]
    fn a_secret_belongs_to_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let (_, tokens) = tokens(folder.path());
        let [one, two] = [(); 2].map(|()| issue(&tokens));
        let ((one, _), (_, two)) = (parts(one.reveal()).unwrap(), parts(two.reveal()).unwrap());
        assert!(matches!(tokens.check(&Secret::new(format!("ruam_{one}_{two}"))), Err(SignOnError::Refused)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_but_a_token_signs_in(text in "(ruam_)?([0-9a-f]{12}_[0-9a-f]{64}|.{0,90})", id in any::<bool>()) {
            let folder = tempfile::tempdir().unwrap();
            let (_, tokens) = tokens(folder.path());
            let token = issue(&tokens);
            let known = parts(token.reveal()).unwrap().0;
            let text = if id { format!("ruam_{known}_{text}") } else { text };
            prop_assert!(tokens.check(&Secret::new(text)).is_err());
        }
    }
}
