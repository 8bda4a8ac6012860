//! `ruam agency`

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Result, bail};
use ruam_identity::{ApiToken, Clock, Scope, SystemClock, Tokens};

use crate::console::{self, say};
use crate::data_dir::DataDir;
use crate::deployment::Place;
use crate::gateway;
use crate::specs::Datasets;

mod signer;

use signer::Signer;

/// Say which agencies may send their events to the gateway.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Agency {
    /// The keys by which an agency's systems sign in
    #[command(subcommand)]
    Key(Key),
    /// The keys that an agency signs its events with
    #[command(subcommand)]
    Signer(Signer),
}

/// The keys by which an agency's systems sign in at the gateway.
///
/// A key sends events of its agency's datasets, and does nothing else. Only a hash of it is kept.
/// An agency may have several, so that one can be replaced while the other still counts.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Key {
    /// Make a key, and show it this once
    New(New),
    /// List the keys: whose each is, and until when it counts
    List {
        /// Of this agency only
        agency: Option<String>,
    },
    /// Make a key count no longer, from its next use on
    Revoke {
        /// The id of the key, as the list has it
        id: String,
    },
}

/// Make a key.
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// The agency's short name, as its datasets begin
    agency: String,
    /// What for: the system that has it
    #[arg(long, default_value = "gateway")]
    name: String,
    /// For how many days it counts
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=366))]
    days: u16,
}

impl Agency {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        match self {
            Self::Key(key) => key.run(place),
            Self::Signer(signer) => signer.run(place),
        }
    }
}

impl Key {
    fn run(self, place: &Place) -> Result<ExitCode> {
        let settings = place.settings()?;
        let tokens = Tokens::open(&DataDir::open(&settings.data_dir)?.access());
        match self {
            Self::New(new) => {
                let datasets = Datasets::load(settings.specs.as_deref(), settings.limits.max_record_bytes)?;
                let scope: Scope = format!("events:{}", new.agency).parse()?;
                // Alone on the output, so that it can be handed on without being seen.
                say(tokens.issue(&new.name, BTreeSet::new(), BTreeSet::from([scope]), new.days)?.reveal())?;
                console::note(&format!("Keep it now: it cannot be shown again. It counts for {} days", new.days));
                if !gateway::sent(&datasets).any(|dataset| dataset.spec.id().agency() == new.agency) {
                    let agency = &new.agency;
                    console::note(&format!(
                        "No dataset of `{agency}` takes events: its file has to say [source] kind = \"gateway\""
                    ));
                }
                if !settings.sign_on.is_some_and(|sign_on| sign_on.tokens) {
                    console::note("Keys count once ruam.toml says so: [sign_on] tokens = true");
                }
            }
            Self::List { agency } => {
                let keys = tokens.list()?.into_iter().filter_map(|(id, token)| {
                    let agencies: Vec<_> = agencies(&token).map(ToOwned::to_owned).collect();
                    let is_meant =
                        !agencies.is_empty() && agency.as_ref().is_none_or(|agency| agencies.contains(agency));
                    is_meant.then(|| row(id, token, &agencies))
                });
                say(console::table(&["key", "agency", "name", "until (UTC)", "state"], keys.collect(), &[]))?;
            }
            Self::Revoke { id } => {
                let is_key =
                    tokens.list()?.iter().any(|(known, token)| *known == id && agencies(token).next().is_some());
                if !is_key {
                    // Whoever gives the whole key by mistake must not find it in the message.
                    bail!("there is no such key. `ruam agency key list` shows those that there are, each with its id");
                }
                tokens.revoke(&id)?;
                say(format!("{id} counts no longer"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The agencies whose events a token may send.
fn agencies(token: &ApiToken) -> impl Iterator<Item = &str> {
    token.scopes.iter().filter_map(|scope| match scope {
        Scope::Events(agency) => Some(agency.as_str()),
        _ => None,
    })
}

fn row(id: String, token: ApiToken, agencies: &[String]) -> Vec<String> {
    let state = match token.revoked {
        Some(_) => "revoked",
        None if SystemClock.now() >= token.expires => "expired",
        None => "counts",
    };
    vec![id, agencies.join(", "), token.name, token.expires.format("%Y-%m-%d %H:%M").to_string(), state.to_owned()]
}
