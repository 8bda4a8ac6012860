//! The registry that has the schemas of records in Avro: anything that speaks Confluent's protocol.
//!
//! What passes through: the id of a schema, into the schema. Guaranteed: an id is only called unknown where a
//! registry says so itself; whatever else is wrong is wrong with the registry or its settings, and never with a
//! record. Names, passwords and tokens do not print, and go to other machines by TLS only.
//!
//! <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, RequestBuilder, StatusCode};
use ruam_event::Secret;
use ruam_event::envelope::avro::{AvroSchema, Registered};
use serde::Deserialize;
use url::{Host, Url};

use crate::error::LogError;

/// How long a registry may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of an answer.
const MAX_BYTES: usize = 4 << 20;
/// The most schemas that one may refer to.
const MOST_REFERENCES: usize = 64;
/// What a registry says where it has no schema of an id.
const SCHEMA_NOT_FOUND: u32 = 40403;

/// Where schemas are kept: `[registry]` of `ruam.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    /// Its address: https://registry.example.go.th, or one with a path.
    pub url: String,
    /// Who asks, where that is known by name and password.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// What a registry knows us by that takes bearer tokens.
    pub token: Option<Secret>,
    /// Certificates, in PEM, that the registry's has to lead to. None: those that the system knows.
    pub ca: Option<PathBuf>,
}

/// A registry of schemas.
#[derive(Debug)]
pub struct SchemaRegistry {
    client: Client,
    url: Url,
    settings: RegistrySettings,
}

/// What a registry says of a schema.
#[derive(Deserialize)]
struct Answer {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

/// A schema that another refers to.
#[derive(Clone, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Reference {
    subject: String,
    version: u32,
}

/// What a registry says that is wrong.
#[derive(Deserialize)]
struct Refusal {
    error_code: u32,
}

impl SchemaRegistry {
    /// A registry. It is not asked anything yet.
    ///
    /// # Errors
    /// Where a setting is wrong.
    pub fn open(settings: &RegistrySettings) -> Result<Self, LogError> {
        let wrong = |problem: String, remedy: &str| LogError::Registry {
            url: String::new(),
            problem,
            remedy: format!("{remedy} in [registry] of ruam.toml"),
        };
        let address = "Write url = \"https://host\", the password apart as password = \"${NAME}\",";
        let mut url = Url::parse(&settings.url).map_err(|_| wrong("its address is not one".to_owned(), address))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("its address is not one of HTTP without a name in it".to_owned(), address));
        }
        if settings.username.is_some() != settings.password.is_some()
            || settings.username.is_some() && settings.token.is_some()
        {
            return Err(wrong(
                "how it is signed in to is not said as a whole".to_owned(),
                "Write `username` and `password`, or `token` alone,",
            ));
        }
        let is_here = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() == "http" && !is_here && (settings.password.is_some() || settings.token.is_some()) {
            return Err(wrong(
                "a password or token would go to another machine in clear".to_owned(),
                "Write the address with https, or leave them out,",
            ));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        // A registry that moves is named anew in the settings: a redirection could lead anywhere.
        let mut client = Client::builder().timeout(PATIENCE).redirect(Policy::none());
        if let Some(path) = &settings.ca {
            let certificates = std::fs::read(path).map_err(|error| error.to_string());
            let certificates =
                certificates.and_then(|pem| Certificate::from_pem_bundle(&pem).map_err(|error| innermost(&error)));
            let problem = |problem: String| wrong(format!("{}: {problem}", path.display()), "Correct `ca`");
            let certificates = certificates.map_err(problem)?;
            if certificates.is_empty() {
                return Err(problem("there is no certificate in it".to_owned()));
            }
            client = client.tls_certs_only(certificates);
        }
        let client = client.user_agent(concat!("ruam/", env!("CARGO_PKG_VERSION"))).build();
        let client = client.map_err(|error| wrong(innermost(&error), "Correct it"))?;
        Ok(Self { client, url, settings: settings.clone() })
    }

    /// What the registry says of the id of a schema.
    ///
    /// # Errors
    /// Where it does not answer, or not as a registry does.
    pub async fn schema(&self, id: u32) -> Result<Registered, LogError> {
        let Some(answer) = self.get(&format!("schemas/ids/{id}")).await? else { return Ok(Registered::Unknown) };
        if answer.kind.as_deref().is_some_and(|kind| kind != "AVRO") {
            tracing::warn!(id, "the registry has a schema of another kind than Avro");
            return Ok(Registered::Unreadable);
        }
        let declared = self.declared(answer.references).await?;
        let schema = declared
            .and_then(|declared| AvroSchema::parse_with(&declared, &answer.schema).map_err(|error| error.to_string()));
        Ok(match schema {
            Ok(schema) => Registered::Schema(Arc::new(schema)),
            Err(problem) => {
                tracing::warn!(id, "a schema of the registry cannot be read: {problem}");
                Registered::Unreadable
            }
        })
    }

    /// The schemas that one refers to, each after those that it refers to itself.
    async fn declared(&self, references: Vec<Reference>) -> Result<Result<Vec<String>, String>, LogError> {
        // Each is met twice: before what it refers to, and after.
        let mut open: Vec<_> = references.into_iter().rev().map(|reference| (reference, None)).collect();
        let (mut met, mut declared) = (BTreeSet::new(), Vec::new());
        while let Some((reference, text)) = open.pop() {
            if let Some(text) = text {
                declared.push(text);
                continue;
            }
            if !met.insert(reference.clone()) {
                continue;
            }
            if met.len() > MOST_REFERENCES {
                return Ok(Err(format!("it refers to more than {MOST_REFERENCES} others")));
            }
            let subject: String = url::form_urlencoded::byte_serialize(reference.subject.as_bytes()).collect();
            let subject = subject.replace('+', "%20");
            let path = format!("subjects/{subject}/versions/{}", reference.version);
            let Some(answer) = self.get(&path).await? else {
                return Ok(Err("it refers to a schema that is not there".to_owned()));
            };
            open.push((reference, Some(answer.schema)));
            open.extend(answer.references.into_iter().rev().map(|reference| (reference, None)));
        }
        Ok(Ok(declared))
    }

    /// What is at a path; nothing where the registry says so.
    async fn get(&self, path: &str) -> Result<Option<Answer>, LogError> {
        let url = self.url.join(path).map_err(|error| self.wrong(error.to_string(), "Correct registry.url"))?;
        let (status, body) = self.ask(self.client.get(url)).await?;
        if status == StatusCode::OK {
            return match serde_json::from_slice(&body) {
                Ok(answer) => Ok(Some(answer)),
                Err(_) => Err(self.wrong("it does not answer as one".to_owned(), "Correct registry.url in ruam.toml")),
            };
        }
        if status == StatusCode::NOT_FOUND {
            let code = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.error_code);
            // A subject or version that is not there is of somebody who refers to it.
            return match code {
                Ok(code) if code / 100 == SCHEMA_NOT_FOUND / 100 => Ok(None),
                _ => Err(self.wrong(
                    "there is no registry at this path".to_owned(),
                    "Correct registry.url in ruam.toml; with Apicurio it ends with /apis/ccompat/v7",
                )),
            };
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.wrong(
                format!("it answers with {status}"),
                "Correct `username` and `password`, or `token`, in [registry] of ruam.toml, or let them read schemas",
            ));
        }
        Err(self.silent(format!("{status} is what it says")))
    }

    async fn ask(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), LogError> {
        let RegistrySettings { username, password, token, .. } = &self.settings;
        let request = match (username, token) {
            (Some(name), _) => request.basic_auth(name, password.as_ref().map(Secret::reveal)),
            (None, Some(token)) => request.bearer_auth(token.reveal()),
            (None, None) => request,
        };
        let request = request.header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        let failed = |error: reqwest::Error| self.silent(plain(&error));
        let mut response = request.send().await.map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_BYTES {
                let problem = format!("it answers with more than {MAX_BYTES} bytes");
                return Err(self.wrong(problem, "Correct registry.url in ruam.toml"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), body))
    }

    fn wrong(&self, problem: String, remedy: &str) -> LogError {
        LogError::Registry { url: self.url.to_string(), problem, remedy: remedy.to_owned() }
    }

    fn silent(&self, problem: String) -> LogError {
        LogError::RegistryUnreachable { url: self.url.to_string(), problem }
    }
}

fn plain(error: &reqwest::Error) -> String {
    if error.is_timeout() { format!("nothing within {} s", PATIENCE.as_secs()) } else { innermost(error) }
}

/// The innermost message, which says why: the outer ones say that something went wrong.
fn innermost(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(settings: &str) -> Result<String, String> {
        let settings = toml::from_str(settings).unwrap();
        SchemaRegistry::open(&settings).map(|registry| registry.url.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_right_or_have_a_remedy() {
        let path = "url = \"https://registry.example.go.th/apis/ccompat/v7\"\nusername = \"ruam\"\npassword = \"x\"";
        assert_eq!(open(path).unwrap(), "https://registry.example.go.th/apis/ccompat/v7/");
        assert!(open("url = \"http://registry:8081\"").is_ok());
        assert!(open("url = \"http://127.0.0.1:8081\"\ntoken = \"x\"").is_ok());
        for (settings, expected) in [
            ("url = \"registry\"", "the schema registry: its address is not one. Write url = "),
            ("url = \"ftp://registry\"", "the schema registry: its address is not one of HTTP"),
            ("url = \"https://ruam:s3cret@registry\"", "the schema registry: its address is not one of HTTP"),
            ("url = \"https://registry\"\nusername = \"x\"", "the schema registry: how it is signed in to"),
            (
                "url = \"https://registry\"\nusername = \"x\"\npassword = \"s3cret\"\ntoken = \"s3cret\"",
                "the schema registry: how it is signed in to",
            ),
            ("url = \"http://registry\"\ntoken = \"s3cret\"", "the schema registry: a password or token would go"),
            ("url = \"https://registry\"\nca = \"/nowhere.pem\"", "the schema registry: /nowhere.pem: No such file"),
        ] {
            let error = open(settings).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains("s3cret"), "{error}");
        }
    }
}
