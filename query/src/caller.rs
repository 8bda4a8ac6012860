//! Who asks.

use std::collections::BTreeSet;
use std::fmt;

/// Somebody who asks, as they are known after sign-on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    name: String,
    /// None for the system itself, which nothing is hidden from.
    roles: Option<BTreeSet<String>>,
    client: String,
}

impl Caller {
    /// Somebody with the roles that policies speak of. `client` is what they ask with, and from where.
    pub fn new(name: impl Into<String>, roles: impl IntoIterator<Item = String>, client: impl Into<String>) -> Self {
        Self { name: name.into(), roles: Some(roles.into_iter().collect()), client: client.into() }
    }

    /// The system itself: whoever runs its commands has its files as well. Nothing is hidden from it.
    pub fn system(client: impl Into<String>) -> Self {
        Self { name: "system".to_owned(), roles: None, client: client.into() }
    }

    /// What they are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Their roles; none for the system itself.
    pub fn roles(&self) -> Option<&BTreeSet<String>> {
        self.roles.as_ref()
    }

    /// What they ask with, and from where.
    pub fn client(&self) -> &str {
        &self.client
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
