//! What a token says of whoever holds it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::principal::{Scope, can_be_role, can_name};

/// The claims of a token, for as long as it is looked at. They do not print.
#[derive(Deserialize)]
pub(super) struct Claims {
    /// When it expires, in seconds since 1970.
    pub(super) exp: f64,
    /// From when on it counts, in seconds since 1970.
    pub(super) nbf: Option<f64>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Claims {
    /// Who it is.
    pub(super) fn name(&self, claim: &str) -> Option<String> {
        self.at(claim)?.as_str().filter(|name| can_name(name)).map(ToOwned::to_owned)
    }

    /// The roles, as they are called here. Where no name is given to any, they are called what the issuer
    /// calls them, as far as policies can name that.
    pub(super) fn roles(&self, claim: &str, names: &BTreeMap<String, String>) -> BTreeSet<String> {
        let here = |role: &str| if names.is_empty() { Some(role.to_owned()) } else { names.get(role).cloned() };
        self.texts(claim).into_iter().filter_map(here).filter(|role| can_be_role(role)).collect()
    }

    /// What they may use: SQL, since the token is for this installation, and whatever of `events:<agency>` the
    /// issuer has granted.
    pub(super) fn scopes(&self, claim: &str) -> BTreeSet<Scope> {
        let granted = self.texts(claim).into_iter().flat_map(|scopes| scopes.split(' '));
        granted.filter_map(|scope| scope.parse().ok()).chain([Scope::Sql]).collect()
    }

    /// The texts of a claim that is one or a list of them.
    fn texts(&self, claim: &str) -> Vec<&str> {
        match self.at(claim) {
            Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(text)) => vec![text],
            _ => Vec::new(),
        }
    }

    /// The value of a claim: of that name, which may have dots in it, or at that path.
    fn at(&self, claim: &str) -> Option<&Value> {
        let mut parts = claim.split('.');
        let at_path =
            || parts.by_ref().skip(1).try_fold(self.rest.get(claim.split('.').next()?)?, |at, part| at.get(part));
        self.rest.get(claim).or_else(at_path)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> Claims {
        let claims = json!({
            "exp": 1.5, "preferred_username": "somchai", "pid": "1101700230708", "empty": "",
            "realm_access": {"roles": ["analyst", 7, "/a b"]}, "https://ruam.example/roles": "officer",
            "scope": "openid events:bora events:Bora", "scp": ["openid", "events:cgd", 7]
        });
        serde_json::from_value(claims).unwrap()
    }

    #[test]
    fn names_are_texts_that_can_be_shown() {
        assert_eq!(claims().name("preferred_username").as_deref(), Some("somchai"));
        for claim in ["empty", "missing", "realm_access", "realm_access.roles.0", "exp"] {
            assert!(claims().name(claim).is_none(), "{claim}");
        }
    }

    #[test]
    fn roles_are_found_by_name_and_by_path() {
        let roles = |claim: &str, names: &[(&str, &str)]| {
            let names = names.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
            claims().roles(claim, &names).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(roles("realm_access.roles", &[]), ["analyst"]);
        assert_eq!(roles("https://ruam.example/roles", &[]), ["officer"]);
        assert_eq!(roles("realm_access.roles", &[("analyst", "reader")]), ["reader"]);
        assert_eq!(roles("realm_access.roles", &[("/a b", "writer")]), ["writer"]);
        assert!(roles("realm_access.roles", &[("officer", "reader")]).is_empty());
        assert!(roles("realm_access", &[]).is_empty() && roles("missing.roles", &[]).is_empty());
    }

    #[test]
    fn scopes_are_those_that_are_known() {
        let with = |agency: &str| BTreeSet::from([Scope::Sql, Scope::Events(agency.to_owned())]);
        assert_eq!(claims().scopes("scope"), with("bora"));
        assert_eq!(claims().scopes("scp"), with("cgd"));
        assert_eq!(claims().scopes("missing"), BTreeSet::from([Scope::Sql]));
    }
}
