//! `ruam agency signer`

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use ruam_identity::{PublicKey, Signer as Registered, Signers};

use crate::console::{self, say};
use crate::data_dir::DataDir;
use crate::deployment::Place;
use crate::gateway;
use crate::specs::Datasets;

/// A public key has some hundred bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The keys that an agency signs its events with.
///
/// Only the public half of each is registered here; the private half stays with the agency. An agency may have
/// several, so that one can be replaced while the other still counts. A key is called by its thumbprint (RFC 7638),
/// which a signature names in `kid`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Signer {
    /// Register a public key
    Add(Add),
    /// List the keys: whose each is, and whether it counts
    List(List),
    /// Make a key count no longer, from the next request on. It cannot be registered again
    Revoke {
        /// The thumbprint of the key, as the list has it
        #[arg(allow_hyphen_values = true)]
        key: String,
    },
}

/// Register a public key.
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// The agency's short name, as its datasets begin
    agency: String,
    /// The file with the public key: a JWK, or PEM as `openssl pkey -pubout` writes it
    file: PathBuf,
    /// What for: the system that signs with it
    #[arg(long, default_value = "gateway")]
    name: String,
}

/// List the keys.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Of this agency only
    agency: Option<String>,
    /// As a set of keys (RFC 7517), to check signatures with elsewhere; those that are revoked are among them
    #[arg(long)]
    jwks: bool,
}

impl Signer {
    pub(super) fn run(self, place: &Place) -> Result<ExitCode> {
        let settings = place.settings()?;
        let signers = Signers::open(&DataDir::open(&settings.data_dir)?.access());
        match self {
            Self::Add(add) => {
                let datasets = Datasets::load(settings.specs.as_deref(), settings.limits.max_record_bytes)?;
                let key = signers.add(&add.agency, &add.name, add.key()?)?;
                say(&key)?;
                let agency = &add.agency;
                console::note(&format!("This is its thumbprint. Signatures of `{agency}` name it in `kid`"));
                let mut sent = gateway::sent(&datasets).filter(|dataset| dataset.spec.id().agency() == agency);
                if !sent.any(|dataset| dataset.spec.signatures().is_some()) {
                    console::note(&format!(
                        "No dataset of `{agency}` takes signatures: its file has to say signatures = \"required\" or \"optional\""
                    ));
                }
            }
            Self::List(list) => {
                let is_meant = |signer: &Registered| list.agency.as_ref().is_none_or(|agency| signer.agency == *agency);
                let known = signers.list()?.into_iter().filter(|(_, signer)| is_meant(signer));
                if list.jwks {
                    let keys: Vec<_> = known.map(|(id, signer)| jwk(&id, &signer)).collect::<Result<_>>()?;
                    say(serde_json::to_string_pretty(&serde_json::json!({ "keys": keys }))?)?;
                } else {
                    let columns = ["key", "agency", "name", "alg", "since (UTC)", "state"];
                    say(console::table(&columns, known.map(row).collect(), &[]))?;
                }
            }
            Self::Revoke { key } => {
                signers.revoke(&key)?;
                say(format!("{key} counts no longer"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Add {
    fn key(&self) -> Result<PublicKey> {
        let file = self.file.display();
        let read = || format!("cannot read {file}. Check the path, and what this user may read");
        let size = fs::metadata(&self.file).with_context(read)?.len();
        ensure!(size <= MAX_BYTES, "{file}: a public key has fewer than {size} bytes. Name its file");
        let text = fs::read_to_string(&self.file).with_context(read)?;
        PublicKey::parse(&text).with_context(|| file.to_string())
    }
}

/// A key as others read it.
fn jwk(id: &str, signer: &Registered) -> Result<serde_json::Value> {
    let mut jwk: serde_json::Value = serde_json::from_str(&signer.key.to_string())?;
    jwk["kid"] = id.into();
    jwk["use"] = "sig".into();
    jwk["alg"] = signer.key.algorithm().name().into();
    Ok(jwk)
}

fn row((id, signer): (String, Registered)) -> Vec<String> {
    let state = match signer.revoked {
        Some(revoked) => format!("revoked {}", revoked.format("%Y-%m-%d %H:%M")),
        None => "counts".to_owned(),
    };
    let since = signer.created.format("%Y-%m-%d %H:%M").to_string();
    vec![id, signer.agency, signer.name, signer.key.algorithm().name().to_owned(), since, state]
}
