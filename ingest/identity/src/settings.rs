//! What `ruam.toml` says about signing in: `[sign_on]`.

use std::collections::BTreeMap;

use serde::Deserialize;
use url::{Host, Url};

use crate::error::SignOnError;
use crate::principal::check_role;

/// How one may sign in. All that is not switched on is off.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignOnSettings {
    /// By the password of a user of this installation, whom `ruam user` adds.
    pub local_users: bool,
    /// By API tokens, which `ruam token` makes.
    pub tokens: bool,
    /// By tokens of an OIDC issuer.
    pub oidc: Option<OidcSettings>,
}

/// An OIDC issuer, whose tokens count here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcSettings {
    /// The issuer, exactly as its tokens name it.
    pub issuer: String,
    /// Whom its tokens have to be for: the `aud` of this installation.
    pub audience: String,
    /// The claim that holds the roles: a name, or a path such as `realm_access.roles`.
    #[serde(default = "default_roles_claim")]
    pub roles_claim: String,
    /// The claim that holds what a client has been granted, as a text with spaces between or a list: `scope` (RFC 8693,
    /// section 4.2) with most issuers, `scp` with Okta, the application's `roles` with Entra ID.
    #[serde(default = "default_scopes_claim")]
    pub scopes_claim: String,
    /// The claim that names who it is; it has to be unique there.
    #[serde(default = "default_name_claim")]
    pub name_claim: String,
    /// What the issuer's roles are called here. Those that are not named count for nothing; without any, all
    /// roles are called what the issuer calls them.
    #[serde(default)]
    pub roles: BTreeMap<String, String>,
    /// How much the issuer's clock may differ from the one here, in seconds.
    #[serde(default = "default_leeway")]
    pub leeway_seconds: u16,
}

fn default_roles_claim() -> String {
    "roles".to_owned()
}

fn default_scopes_claim() -> String {
    "scope".to_owned()
}

fn default_name_claim() -> String {
    "preferred_username".to_owned()
}

fn default_leeway() -> u16 {
    60
}

impl SignOnSettings {
    /// Looks for what cannot be meant.
    ///
    /// # Errors
    /// Where nobody could sign in, or the issuer cannot be trusted.
    pub fn check(&self) -> Result<(), SignOnError> {
        if !self.local_users && !self.tokens && self.oidc.is_none() {
            return Err(SignOnError::Setting {
                setting: "sign_on",
                problem: "nobody could sign in".to_owned(),
                remedy: "Set local_users = true or tokens = true, or name an issuer in [sign_on.oidc]",
            });
        }
        self.oidc.as_ref().map_or(Ok(()), OidcSettings::check)
    }
}

impl OidcSettings {
    fn check(&self) -> Result<(), SignOnError> {
        trusted_url(&self.issuer).map_err(|problem| SignOnError::Setting {
            setting: "sign_on.oidc.issuer",
            problem,
            remedy: "Write the issuer's URL as its tokens have it in `iss`, with https",
        })?;
        let empty = |setting| SignOnError::Setting {
            setting,
            problem: "it is empty".to_owned(),
            remedy: "Write what the issuer calls it, or leave the line away for the default",
        };
        for (setting, value) in [
            ("sign_on.oidc.audience", &self.audience),
            ("sign_on.oidc.roles_claim", &self.roles_claim),
            ("sign_on.oidc.scopes_claim", &self.scopes_claim),
            ("sign_on.oidc.name_claim", &self.name_claim),
        ] {
            if value.trim().is_empty() {
                return Err(empty(setting));
            }
        }
        self.roles.values().try_for_each(|role| check_role(role))?;
        // ThaID's claim `pid` is the citizen's number; it would be in every log and audit row.
        let names_pid = |claim: &str| claim.split('.').any(|part| part.eq_ignore_ascii_case("pid"));
        for (setting, claim) in
            [("sign_on.oidc.name_claim", &self.name_claim), ("sign_on.oidc.roles_claim", &self.roles_claim)]
        {
            if names_pid(claim) {
                return Err(SignOnError::Setting {
                    setting,
                    problem: "`pid` is the number of a citizen, and is never kept".to_owned(),
                    remedy: "Name another claim, such as `sub`",
                });
            }
        }
        Ok(())
    }
}

/// A URL at which nobody in between can answer: over https, or on this machine.
pub(crate) fn trusted_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_here => Ok(url),
        "http" => Err("whoever is between here and there could answer in its place".to_owned()),
        scheme => Err(format!("`{scheme}:` cannot be asked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        toml::from_str::<SignOnSettings>(text)
            .unwrap()
            .check()
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let oidc = |issuer: &str, more: &str| format!("[oidc]\nissuer = \"{issuer}\"\naudience = \"ruam\"\n{more}\n");
        assert_eq!(check("local_users = true"), "");
        assert_eq!(check(&oidc("https://login.example.go.th/realms/state", "")), "");
        assert_eq!(check(&oidc("http://127.0.0.1:8080", "")), "");
        for (text, expected) in [
            (String::new(), "sign_on: nobody could sign in. Set local_users = true"),
            (
                oidc("http://login.example.go.th", ""),
                "sign_on.oidc.issuer: whoever is between here and there could answer",
            ),
            (oidc("login.example.go.th", ""), "sign_on.oidc.issuer: it is no URL"),
            (oidc("file:///etc/passwd", ""), "sign_on.oidc.issuer: `file:` cannot be asked"),
            (oidc("https://a.th", "name_claim = \"pid\""), "sign_on.oidc.name_claim: `pid` is the number of a citizen"),
            (oidc("https://a.th", "roles_claim = \"thaid.PID\""), "sign_on.oidc.roles_claim: `pid` is the number"),
            (oidc("https://a.th", "roles_claim = \" \""), "sign_on.oidc.roles_claim: it is empty"),
            (oidc("https://a.th", "roles = { a = \"b c\" }"), "`b c` cannot be a role. Use letters, digits"),
        ] {
            let error = check(&text);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
