//! What can go wrong with a sign-in, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An error of a sign-in, or of the files that it reads. None quotes a password, a token or a claim.
#[derive(Debug, thiserror::Error)]
pub enum SignOnError {
    /// The credentials are not right. An unknown user and a wrong password are told the same.
    #[error(
        "sign-in failed: the name, password or token is wrong, expired or revoked. Correct it, or ask whoever runs this server"
    )]
    Refused,
    /// Too many of the last attempts failed.
    #[error("too many sign-ins failed. Wait {} s, then try again", .wait.as_secs().max(1))]
    TooMany {
        /// How long until the next attempt is looked at.
        wait: Duration,
    },
    /// This way to sign in is switched off.
    #[error("nobody signs in by {how} here. Use another way, or switch it on in [sign_on] of ruam.toml")]
    NotOffered {
        /// The way.
        how: &'static str,
    },
    /// A client does not speak SCRAM-SHA-256 as RFC 5802 has it.
    #[error("the client's sign-in message is not of SCRAM-SHA-256: {problem}. Use a current driver")]
    Exchange {
        /// What is wrong.
        problem: &'static str,
    },
    /// The issuer of tokens cannot be asked for its keys.
    #[error(
        "cannot fetch the keys of the issuer {issuer}: {problem}. Check that it can be reached from here, and sign_on.oidc.issuer"
    )]
    Issuer {
        /// The issuer.
        issuer: String,
        /// What happened.
        problem: String,
    },
    /// A setting is wrong.
    #[error("{setting}: {problem}. {remedy}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file cannot be read or written.
    #[error("cannot use {path}: {source}. Check the path, and what this user may do there")]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A file says something wrong.
    #[error("{path}: {problem}. {remedy}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A text cannot be the name of a user, a role or a token, or a scope.
    #[error("`{text}` cannot be {what}. {remedy}")]
    Name {
        /// The text.
        text: String,
        /// What it should have been.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A password is too weak, or cannot be typed again.
    #[error("the password {problem}. Choose another")]
    Password {
        /// What is wrong with it.
        problem: String,
    },
    /// There is such a user already.
    #[error(
        "there is a user `{name}` already. `ruam user password` gives it another password; to change its roles, remove it first"
    )]
    Exists {
        /// The user.
        name: String,
    },
    /// There is no such user, token or key.
    #[error("there is no {what} `{name}`. `ruam {what} list` shows those that there are")]
    Unknown {
        /// `user`, `token` or `agency signer`.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A text is no public key that signatures could be checked with.
    #[error(
        "this cannot be the key of an agency: {problem}. Give the public half of a key of Ed25519 or P-256, as JWK or PEM: `openssl pkey -in private.pem -pubout`"
    )]
    PublicKey {
        /// What is wrong.
        problem: &'static str,
    },
    /// A key is known already.
    #[error(
        "the key is {state} already, for `{agency}`. Make another: nobody shares one, and what is revoked stays so"
    )]
    KnownKey {
        /// Whose it is.
        agency: String,
        /// `registered` or `revoked`.
        state: &'static str,
    },
    /// A signature does not count.
    #[error("the signature does not count: {problem}. /openapi.json says what is signed, and how")]
    Signature {
        /// What is wrong.
        problem: &'static str,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes, and nothing is secret without them. Start ruam elsewhere")]
    NoRandomness,
}

impl SignOnError {
    /// What somebody who has not signed in may read: nothing about files, hosts and settings.
    pub fn for_strangers(&self) -> String {
        match self {
            Self::Refused | Self::TooMany { .. } | Self::Exchange { .. } | Self::Signature { .. } => self.to_string(),
            Self::NotOffered { how } => format!("nobody signs in by {how} here. Use another way"),
            _ => "sign-in does not work at present. Ask whoever runs this server; its log says why".to_owned(),
        }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}
