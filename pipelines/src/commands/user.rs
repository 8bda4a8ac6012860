//! `ruam user`

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use ruam_event::Secret;
use ruam_identity::Users;

use crate::console::{self, say};
use crate::data_dir::DataDir;
use crate::deployment::Place;

/// The most bytes that are read for a password.
const MAX_PASSWORD: u64 = 4_096;

/// Say who may sign in with a name and a password.
///
/// The users of one machine are kept in its data directory: a name, roles, and what it takes to check
/// the password, from which nobody can sign in. Servers that are running see a change at once. Where
/// an agency has an OIDC issuer, name that in ruam.toml instead.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum User {
    /// Add a user; asks for the password
    Add(Add),
    /// List the users with their roles
    List,
    /// Remove a user, who cannot sign in from then on
    Remove {
        /// The user
        name: String,
    },
    /// Give a user another password
    Password(NewPassword),
}

/// Add a user.
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// A role, as policies name it; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    #[command(flatten)]
    password: NewPassword,
}

/// A user, and where the password comes from.
#[derive(Debug, clap::Args)]
pub(crate) struct NewPassword {
    /// The user
    name: String,
    /// Read the password from the standard input instead of asking for it
    #[arg(long)]
    password_stdin: bool,
}

impl User {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let settings = place.settings()?;
        let users = Users::open(&DataDir::open(&settings.data_dir)?.access())?;
        match self {
            Self::Add(add) => {
                let roles: BTreeSet<_> = add.roles.into_iter().collect();
                users.add(&add.password.name, roles, &add.password.read()?)?;
                say(format!("{} may sign in", add.password.name))?;
                if !settings.sign_on.is_some_and(|sign_on| sign_on.local_users) {
                    console::note("Local users count once ruam.toml says so: [sign_on] local_users = true");
                }
            }
            Self::List => {
                let rows = users.list()?.into_iter().map(|user| {
                    let roles: Vec<_> = user.roles.into_iter().collect();
                    vec![user.name, roles.join(", "), user.since.format("%Y-%m-%d %H:%M").to_string()]
                });
                say(console::table(&["user", "roles", "password since (UTC)"], rows.collect(), &[]))?;
            }
            Self::Remove { name } => {
                users.remove(&name)?;
                say(format!("{name} cannot sign in any more"))?;
            }
            Self::Password(password) => {
                users.set_password(&password.name, &password.read()?)?;
                say(format!("{} has another password", password.name))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl NewPassword {
    fn read(&self) -> Result<Secret> {
        if self.password_stdin {
            let mut text = String::new();
            io::stdin().take(MAX_PASSWORD).read_to_string(&mut text).context("cannot read the password")?;
            // As `echo` and editors end it.
            let text = text.strip_suffix('\n').unwrap_or(&text);
            return Ok(Secret::new(text.strip_suffix('\r').unwrap_or(text)));
        }
        let ask = |prompt: &str| {
            let answer = rpassword::prompt_password(prompt);
            answer.context("cannot ask for a password without a terminal; give it with --password-stdin")
        };
        let password = ask(&format!("Password for {}: ", self.name))?;
        if ask("The same again: ")? != password {
            bail!("the two passwords differ. Try again");
        }
        Ok(Secret::new(password))
    }
}
