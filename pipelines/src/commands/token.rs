//! `ruam token`

use std::process::ExitCode;

use anyhow::Result;
use ruam_identity::{ApiToken, Clock, Scope, SystemClock, Tokens};

use crate::console::{self, say};
use crate::data_dir::DataDir;
use crate::deployment::Place;

/// Say which programs may sign in with a token.
///
/// A token stands for a name and a password where a program asks: a dashboard, a notebook, an
/// agency's system that sends events. Only a hash of it is kept. A client that has to give a name
/// gives `token`, and the token as the password.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Token {
    /// Make a token, and show it this once
    New(New),
    /// List the tokens: what each is for, and until when it counts
    List,
    /// Make a token count no longer, from its next use on
    Revoke {
        /// The id of the token, as the list has it
        id: String,
    },
}

/// Make a token.
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// Whose it is, or what for
    name: String,
    /// A role, as policies name it; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// What it may be used for: sql, or events:<agency>; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", default_value = "sql")]
    scopes: Vec<Scope>,
    /// For how many days it counts
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=366))]
    days: u16,
}

impl Token {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let settings = place.settings()?;
        let tokens = Tokens::open(&DataDir::open(&settings.data_dir)?.access());
        match self {
            Self::New(new) => {
                let (roles, scopes) = (new.roles.into_iter().collect(), new.scopes.into_iter().collect());
                // Alone on the output, so that it can be handed on without being seen.
                say(tokens.issue(&new.name, roles, scopes, new.days)?.reveal())?;
                console::note(&format!("Keep it now: it cannot be shown again. It counts for {} days", new.days));
                if !settings.sign_on.is_some_and(|sign_on| sign_on.tokens) {
                    console::note("Tokens count once ruam.toml says so: [sign_on] tokens = true");
                }
            }
            Self::List => {
                let rows = tokens.list()?.into_iter().map(|(id, token)| row(id, token)).collect();
                say(console::table(&["token", "name", "roles", "scopes", "until (UTC)", "state"], rows, &[]))?;
            }
            Self::Revoke { id } => {
                tokens.revoke(&id)?;
                say(format!("{id} counts no longer"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(id: String, token: ApiToken) -> Vec<String> {
    let roles: Vec<_> = token.roles.into_iter().collect();
    let scopes: Vec<_> = token.scopes.iter().map(ToString::to_string).collect();
    let state = match token.revoked {
        Some(_) => "revoked",
        None if SystemClock.now() >= token.expires => "expired",
        None => "counts",
    };
    let until = token.expires.format("%Y-%m-%d %H:%M").to_string();
    vec![id, token.name, roles.join(", "), scopes.join(", "), until, state.to_owned()]
}
