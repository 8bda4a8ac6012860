//! The releases of PostgreSQL that tests run against.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::fetched::{artifact, first_in, has_program, unpack, unpack_tar};

/// A release of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The newest of Debian's packages.
    Installed,
    /// The server's programs alone, of this version, as Maven Central has them.
    Fetched(&'static str),
}

impl Release {
    /// The newest that is maintained.
    pub const NEWEST: Self = Self::Fetched("18.6.0");

    /// That which is installed, and all others that are maintained (November 2026), from the oldest on.
    pub const ALL: [Self; 5] =
        [Self::Installed, Self::Fetched("14.24.0"), Self::Fetched("16.15.0"), Self::Fetched("17.11.0"), Self::NEWEST];

    /// What tests of it are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Fetched(version) => version.split('.').next().unwrap_or(version),
        }
    }

    /// Whether what it needs is at hand.
    pub fn is_at_hand(self) -> bool {
        // Others are run as the user that Debian's package has made.
        let is_installed = installed().is_some();
        let can_fetch = || ["mvn", "jar", "tar", "xz"].into_iter().all(has_program);
        is_installed && (self == Self::Installed || can_fetch())
    }

    /// The folder of its programs; what has to be unpacked for it goes into `folder`.
    ///
    /// # Errors
    /// Where they cannot be had.
    pub(super) fn programs(self, folder: &Path) -> Result<PathBuf> {
        let version = match self {
            Self::Installed => return installed().context("PostgreSQL's server is not installed"),
            Self::Fetched(version) => version,
        };
        let machine = if cfg!(target_arch = "aarch64") { "arm64v8" } else { "amd64" };
        let name = format!("embedded-postgres-binaries-linux-{machine}");
        let jar = artifact("postgresql", &format!("io.zonky.test.postgres:{name}:{version}:jar"))?;
        let unpacked = folder.join("programs");
        fs::create_dir(&unpacked)?;
        unpack(&jar, &unpacked)?;
        let packed = first_in(&unpacked, |path| path.extension().is_some_and(|kind| kind == "txz"))?;
        unpack_tar(&packed, &unpacked)?;
        Ok(unpacked.join("bin"))
    }
}

/// The folder of the server's programs, of the newest version that is installed.
fn installed() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    folders.filter(|folder| folder.join("initdb").exists()).max()
}
