//! Who has signed in, and what they may ask for.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use ruam_event::dataset::is_name;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::SignOnError;

/// The most characters of a name.
const NAME_LENGTH: usize = 128;

/// Somebody who has signed in: nothing but a sign-in makes one. It holds no secret, so that it may be printed and
/// logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub(crate) name: String,
    pub(crate) roles: BTreeSet<String>,
    pub(crate) method: Method,
    pub(crate) expires: Option<DateTime<Utc>>,
    pub(crate) scopes: BTreeSet<Scope>,
}

/// How somebody signed in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Method {
    /// By the password of a local user.
    Password,
    /// By an API token.
    Token {
        /// The token's id, which is no secret.
        id: String,
    },
    /// By a token of the OIDC issuer.
    Oidc,
}

/// What a principal may use. What it sees there, its roles decide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Ask in SQL: `sql`.
    Sql,
    /// Send an agency's events: `events:<agency>`.
    Events(String),
}

impl Principal {
    /// The name. Those of two [`Method`]s may be the same, and so may those of two tokens, which have ids.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The roles, as policies name them.
    pub fn roles(&self) -> &BTreeSet<String> {
        &self.roles
    }

    /// How they signed in.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// From when on the sign-in counts no longer, in UTC; none for a local user.
    pub fn expires(&self) -> Option<DateTime<Utc>> {
        self.expires
    }

    /// What they may use.
    pub fn scopes(&self) -> &BTreeSet<Scope> {
        &self.scopes
    }

    /// Whether they may use something.
    pub fn may(&self, scope: &Scope) -> bool {
        self.scopes.contains(scope)
    }
}

/// `somchai (password)`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.method)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password => f.write_str("password"),
            Self::Token { id } => write!(f, "token {id}"),
            Self::Oidc => f.write_str("OIDC"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql => f.write_str("sql"),
            Self::Events(agency) => write!(f, "events:{agency}"),
        }
    }
}

impl FromStr for Scope {
    type Err = SignOnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "sql" => Ok(Self::Sql),
            Some(("events", agency)) if is_name(agency) => Ok(Self::Events(agency.to_owned())),
            _ => Err(SignOnError::Name {
                text: text.escape_debug().to_string(),
                what: "a scope",
                remedy: "Scopes are `sql`, and `events:` with the short name of an agency, such as events:bora",
            }),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether a text can name a user or a token: it can be shown on one line, and be told from another.
pub(crate) fn can_name(text: &str) -> bool {
    !text.is_empty()
        && text.trim() == text
        && text.chars().count() <= NAME_LENGTH
        && !text.chars().any(|c| c.is_control() || c == ',')
}

/// Checks what is to name something.
pub(crate) fn check_name(text: &str, what: &'static str) -> Result<(), SignOnError> {
    if can_name(text) {
        return Ok(());
    }
    let remedy = "Write 1 to 128 characters on one line, without commas and without spaces at the ends";
    Err(SignOnError::Name { text: text.escape_debug().to_string(), what, remedy })
}

/// Whether a text can name a role: policy files can name it as well.
pub(crate) fn can_be_role(text: &str) -> bool {
    can_name(text) && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c))
}

/// Checks what is to be a role.
pub(crate) fn check_role(text: &str) -> Result<(), SignOnError> {
    if can_be_role(text) {
        return Ok(());
    }
    let remedy = "Use letters, digits and _ - . :";
    Err(SignOnError::Name { text: text.escape_debug().to_string(), what: "a role", remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for text in ["sql", "events:bora"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for text in ["", "SQL", "events", "events:", "events:B", "events:a.b", "sql:x"] {
            let error = text.parse::<Scope>().unwrap_err().to_string();
            assert!(error.contains("cannot be a scope. Scopes are `sql`"), "{error}");
        }
    }

    #[test]
    fn names_can_be_shown() {
        for name in ["somchai", "สมชาย", "somchai@bora.go.th", "/data/analysts"] {
            assert!(can_name(name), "{name}");
        }
        for name in ["", " a", "a\n", "a,b", "\u{1b}[2J", &"a".repeat(129)] {
            assert!(!can_name(name), "{name:?}");
        }
    }

    #[test]
    fn roles_are_what_policies_can_name() {
        assert!(["analyst", "bora:officer", "a-b_c.d"].into_iter().all(can_be_role));
        assert!(!["", "a b", "/data/analysts", "นักวิเคราะห์"].into_iter().any(can_be_role));
    }
}
