//! The policies of an installation: a folder of files, one for each role.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use ruam_event::SpecError;
use ruam_query::{Policies, PseudonymKey, QueryDataset};

use crate::made_once;
use crate::specs::read_files;

/// How many bytes the secret of pseudonyms has.
const KEY_BYTES: usize = 32;

/// What is wrong with the policy files: everything, not only the first.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct PoliciesError(pub Vec<SpecError>);

/// Where the policies lie: the folder that the settings name, or `policies` beside the dataset files.
pub(crate) fn folder(named: Option<&Path>, specs: &str) -> Option<PathBuf> {
    match named {
        Some(folder) => Some(folder.to_owned()),
        None => Some(Path::new(specs).parent()?.join("policies")).filter(|folder| folder.is_dir()),
    }
}

/// Reads the policies of a folder; without one there are none, and whoever gets in sees everything.
///
/// # Errors
/// Where a file cannot be read, or something in them is wrong.
pub(crate) fn load(folder: Option<&Path>, datasets: &[Arc<QueryDataset>], key: &PseudonymKey) -> Result<Policies> {
    let Some(folder) = folder else { return Ok(Policies::default()) };
    let files = read_files(folder).with_context(|| format!("cannot read the policies in {}", folder.display()))?;
    Ok(Policies::read(&files, datasets, key).map_err(PoliciesError)?)
}

/// The secret that pseudonyms are made with, which the installation keeps; made where there is none yet.
///
/// # Errors
/// Where its file can be neither read nor made.
pub(crate) fn key(path: &Path) -> Result<PseudonymKey> {
    let told = || format!("cannot keep the secret of pseudonyms in {}", path.display());
    let bytes = match made_once::read(path).with_context(told)? {
        Some(bytes) => bytes,
        None => made_once::make(path, 0o600, &rand::random::<[u8; KEY_BYTES]>()).with_context(told)?,
    };
    anyhow::ensure!(
        bytes.len() == KEY_BYTES,
        "{} is not the secret that pseudonyms are made with. Put back the file of {KEY_BYTES} bytes that was \
         there, or remove it: pseudonyms are others then",
        path.display()
    );
    Ok(PseudonymKey::new(bytes))
}
