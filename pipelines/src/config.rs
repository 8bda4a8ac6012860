//! The settings of an installation: one file, `ruam.toml`, and what the command line says over it.
//!
//! `${NAME}` in the file stands for an environment variable. Unknown keys are errors. Passwords are
//! secrets from here on and do not print.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ruam_connectors::Connection;
use ruam_event::Secret;
use ruam_identity::{SignOnSettings, TlsSettings};
use ruam_log::RegistrySettings;
use serde::Deserialize;

use crate::gateway::GatewaySection;

/// The file that is read when none is named.
pub(crate) const DEFAULT_FILE: &str = "ruam.toml";

/// The settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Where this machine keeps what it needs: the embedded log, a lake of files, extracts.
    pub(crate) data_dir: PathBuf,
    /// The folder of dataset files; none takes `specs` or `pipelines/specs`, or the built-in ones.
    pub(crate) specs: Option<PathBuf>,
    /// The folder of policy files; none takes `policies` beside the dataset files, if it is there.
    pub(crate) policies: Option<PathBuf>,
    /// The log.
    pub(crate) log: LogSection,
    /// The lake.
    pub(crate) lake: LakeSection,
    /// The databases that datasets are read from, by the name that their `source.with.connection` has.
    pub(crate) connections: BTreeMap<String, Connection>,
    /// The registry that has the schemas of topics in Avro. None: there is no such topic.
    pub(crate) registry: Option<RegistrySettings>,
    /// Queries.
    pub(crate) query: QuerySection,
    /// Where agencies send their events. None: nowhere.
    pub(crate) gateway: Option<GatewaySection>,
    /// How one signs in. None: servers listen on loopback only, and whoever is there may ask.
    pub(crate) sign_on: Option<SignOnSettings>,
    /// The certificate that servers show. None: what they say to clients is sent in clear.
    pub(crate) tls: Option<TlsSettings>,
    /// Workers.
    pub(crate) worker: WorkerSection,
    /// Limits on what comes in.
    pub(crate) limits: LimitsSection,
}

/// The log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogSection {
    /// Addresses of Kafka brokers. None: the embedded broker, which runs in this process.
    pub(crate) bootstrap_servers: Option<String>,
    /// Settings of librdkafka, such as security.protocol and sasl.password.
    pub(crate) properties: BTreeMap<String, Secret>,
    /// How many copies a topic gets that is created; -1 is the broker's default.
    pub(crate) replication: i32,
    /// Where the embedded broker listens; port 0 is any free one.
    pub(crate) listen: SocketAddr,
    /// How long the embedded broker keeps records.
    pub(crate) retention_hours: u64,
}

/// The lake.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LakeSection {
    /// A path or a URL (s3://, gs://, az://). None: the folder `lake` in the data directory.
    pub(crate) url: Option<String>,
    /// Settings of the store, such as aws_region, aws_endpoint and aws_secret_access_key.
    pub(crate) options: BTreeMap<String, Secret>,
}

/// Queries.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QuerySection {
    /// Where PostgreSQL's protocol is served.
    pub(crate) listen: SocketAddr,
    /// Where Arrow Flight SQL is served; none: nowhere. Port 0 is any free one.
    pub(crate) flight: Option<SocketAddr>,
    /// Where HTTP is served; none: nowhere. Port 0 is any free one.
    pub(crate) http: Option<SocketAddr>,
    /// The most memory of all queries together, in MB.
    pub(crate) memory_mb: usize,
    /// The most memory of answers that are kept for whoever asks the same, in MB; 0 for none.
    pub(crate) result_cache_mb: usize,
    /// The most that queries put on disk for want of memory, in MB; it lies in the data directory.
    pub(crate) spill_mb: u64,
}

/// Workers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WorkerSection {
    /// How long records wait for others to be committed with, in milliseconds.
    pub(crate) commit_interval_ms: u64,
    /// The most records of one commit.
    pub(crate) commit_records: u64,
    /// The most memory that records waiting for a commit take, in MB, for each dataset.
    pub(crate) commit_mb: usize,
    /// How much is read ahead of each dataset's topic, in MB.
    pub(crate) prefetch_mb: usize,
    /// The most memory of the key index of each upsert dataset, in MB.
    pub(crate) index_mb: usize,
    /// How long older versions of a table are kept, in hours: each of the last hour, and one an hour before
    /// that. 0 leaves maintenance (merging files, checkpoints, deleting what nobody needs) to
    /// `ruam maintain`.
    pub(crate) retention_hours: u64,
}

impl WorkerSection {
    /// How long unneeded files are kept.
    pub(crate) fn retention(&self) -> Duration {
        Duration::from_secs(3600 * self.retention_hours)
    }
}

/// Limits on what comes in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsSection {
    /// The most bytes of a record; a larger one is rejected.
    pub(crate) max_record_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("ruam-data"),
            specs: None,
            policies: None,
            log: LogSection::default(),
            lake: LakeSection::default(),
            connections: BTreeMap::new(),
            registry: None,
            query: QuerySection::default(),
            gateway: None,
            sign_on: None,
            tls: None,
            worker: WorkerSection::default(),
            limits: LimitsSection::default(),
        }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            bootstrap_servers: None,
            properties: BTreeMap::new(),
            replication: -1,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            retention_hours: 7 * 24,
        }
    }
}

impl Default for QuerySection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5433)),
            flight: None,
            http: None,
            memory_mb: 1024,
            result_cache_mb: 64,
            spill_mb: 20 << 10,
        }
    }
}

impl Default for WorkerSection {
    fn default() -> Self {
        Self {
            commit_interval_ms: 500,
            commit_records: 500_000,
            commit_mb: 32,
            prefetch_mb: 16,
            index_mb: 8,
            retention_hours: 7 * 24,
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self { max_record_bytes: 1 << 20 }
    }
}

/// A mistake in the settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}. Correct --config, or leave it away for the defaults")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A place in the file is wrong.
    #[error("{path}:{line}: {problem}. {remedy}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read, or a key or value is not known.
    pub(crate) fn read(path: &Path, environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text, environment)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// Where a key or value is not known, or a variable is not set.
    pub(crate) fn parse(
        path: &Path,
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let (text, secrets) = substitute(path, text, environment)?;
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            let mut quoted = message.split('`').skip(1).step_by(2);
            let remedy = match quoted.next() {
                Some(unknown) if message.starts_with("unknown field") => {
                    ruam_event::spec_file::suggest(unknown, &quoted.collect::<Vec<_>>())
                }
                _ => "Correct the line".to_owned(),
            };
            let problem = match message.split_once(", expected one of") {
                Some((unknown, _)) => unknown.replace("unknown field", "unknown key"),
                None => message.clone(),
            };
            // A value that came from the environment may be a secret in the wrong place.
            // A message quotes it as it is or with its special characters escaped.
            let problem = secrets
                .iter()
                .fold(problem, |text, secret| text.replace(&format!("{secret:?}"), "\"***\"").replace(secret, "***"));
            ConfigError::Wrong { path: path.to_owned(), line, problem, remedy }
        })
    }
}

/// Puts environment variables in the place of `${NAME}`; returns their values as well.
fn substitute(
    path: &Path,
    text: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(String, Vec<String>), ConfigError> {
    let (mut out, mut rest, mut secrets) = (String::with_capacity(text.len()), text, Vec::new());
    while let Some(start) = rest.find("${") {
        let wrong = |problem: String, remedy: &str| {
            let at = text.len() - rest.len() + start;
            ConfigError::Wrong { path: path.to_owned(), line: line_of(text, at), problem, remedy: remedy.to_owned() }
        };
        let line_begin = rest[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let is_comment = rest[line_begin..start].trim_start().starts_with('#');
        let after = &rest[start + 2..];
        let Some(end) = after.find('}').filter(|_| !is_comment) else {
            if is_comment {
                out.push_str(&rest[..start + 2]);
                rest = after;
                continue;
            }
            return Err(wrong("`${` is not closed".to_owned(), "Write ${NAME}"));
        };
        let name = &after[..end];
        let value = environment(name).ok_or_else(|| {
            wrong(
                format!("the environment variable `{name}` is not set"),
                "Set it before starting ruam, or write the value",
            )
        })?;
        out.push_str(&rest[..start]);
        for c in value.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
                c => out.push(c),
            }
        }
        if !value.is_empty() {
            secrets.push(value);
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok((out, secrets))
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        let environment = |name: &str| (name == "PASSWORD").then(|| "s3cr\"e\\t".to_owned());
        Settings::parse(Path::new("ruam.toml"), text, environment).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_a_single_machine() {
        let settings = parse("").unwrap();
        assert!(settings.log.bootstrap_servers.is_none() && settings.lake.url.is_none());
        assert_eq!(settings.query.listen.to_string(), "127.0.0.1:5433");
    }

    #[test]
    fn the_environment_fills_in_secrets_that_do_not_print() {
        let settings = parse("# ${NOT_READ}\n[log]\nbootstrap_servers = \"k:9092\"\n[log.properties]\n\"sasl.password\" = \"${PASSWORD}\"\n").unwrap();
        assert_eq!(settings.log.properties["sasl.password"].reveal(), "s3cr\"e\\t");
        assert!(!format!("{settings:?}").contains("s3cr"));
    }

    #[test]
    fn each_mistake_has_its_line_and_remedy() {
        for (text, expected) in [
            (
                "\n[log]\nbootstrap_server = \"x\"\n",
                "ruam.toml:3: unknown key `bootstrap_server`. Did you mean `bootstrap_servers`?",
            ),
            ("[sign_on]\nlocal_user = true\n", "ruam.toml:2: unknown key `local_user`. Did you mean `local_users`?"),
            (
                "[sign_on.oidc]\nissuer = \"https://a.th\"\naudience = \"ruam\"\nrole_claim = \"x\"\n",
                "ruam.toml:4: unknown key `role_claim`. Did you mean `roles_claim`?",
            ),
            ("[sign_on.oidc]\nissuer = \"https://a.th\"\n", "ruam.toml:1: missing field `audience`"),
            ("[tls]\ncertificate = \"a.crt\"\n", "ruam.toml:1: missing field `key`"),
            ("[query]\nlisten = \"5433\"\n", "ruam.toml:2: invalid socket address syntax. Correct the line"),
            ("\nx = \"${MISSING}\"\n", "ruam.toml:2: the environment variable `MISSING` is not set. Set it"),
            ("x = \"${MISSING\"\n", "ruam.toml:1: `${` is not closed. Write ${NAME}"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = parse("[log]\nreplication = \"${PASSWORD}\"\n").unwrap_err();
        assert!(error.contains("***") && !error.contains("s3cr"), "{error}");
    }
}
