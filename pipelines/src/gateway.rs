//! The gateway, as the settings have it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ruam_connectors::gateway::{GatewayLimits, Offered, Quota};
use serde::Deserialize;

use crate::config::Settings;
use crate::guard::Guard;
use crate::specs::{Dataset, Datasets};

/// Where agencies send their events: `[gateway]` of `ruam.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GatewaySection {
    /// Where it is served. Port 0 is any free one.
    pub(crate) listen: SocketAddr,
    /// An event that has the id of one of the last so many of its dataset is a duplicate.
    pub(crate) window: usize,
    /// The most bytes of a body, unpacked, in MB.
    pub(crate) max_body_mb: u64,
    /// The most bytes of an event, in KB.
    pub(crate) max_event_kb: usize,
    /// The certificates, in PEM, of those who issue the agencies' certificates. None: clients need to show none.
    pub(crate) client_certificates: Option<PathBuf>,
    /// What each agency may send.
    pub(crate) quota: Quota,
    /// What an agency may send that has a quota of its own, by its short name.
    pub(crate) quotas: BTreeMap<String, Quota>,
}

impl Default for GatewaySection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8282)),
            window: 250_000,
            max_body_mb: 4096,
            max_event_kb: 512,
            client_certificates: None,
            quota: Quota::default(),
            quotas: BTreeMap::new(),
        }
    }
}

impl GatewaySection {
    /// What stands between the network and the gateway.
    ///
    /// # Errors
    /// Where a setting is wrong, or the gateway would let anybody in.
    pub(crate) fn guard(&self, settings: &Settings, access: &Path) -> Result<Guard> {
        let mut guard = Guard::open(settings, access)?;
        if let Some(issuers) = &self.client_certificates {
            let Some(tls) = &settings.tls else {
                anyhow::bail!(
                    "gateway.client_certificates: clients show certificates by TLS only. Set up [tls], or remove the line"
                );
            };
            guard.tls = Some(tls.server_config_asking(issuers)?);
        }
        guard.admits(self.listen, "gateway.listen")?;
        Ok(guard)
    }

    /// Looks for what cannot be meant.
    ///
    /// # Errors
    /// Where nothing could be sent.
    pub(crate) fn check(&self, datasets: &Datasets) -> Result<()> {
        ensure!(
            self.window > 0,
            "gateway.window: without a window, nothing that is sent again is known. Set it to at least 1"
        );
        ensure!(
            self.max_body_mb > 0 && self.max_event_kb > 0,
            "gateway.max_body_mb, gateway.max_event_kb: nothing could be sent. Set each to at least 1"
        );
        for quota in self.quotas.values().chain([&self.quota]) {
            ensure!(
                quota.events_per_second > 0 && quota.bytes_per_second > 0,
                "gateway.quota: nothing could be sent. Set events_per_second and bytes_per_second to at least 1"
            );
        }
        for agency in self.quotas.keys() {
            ensure!(
                datasets.all.keys().any(|id| id.agency() == agency),
                "gateway.quotas.{agency}: there is no dataset of this agency. Correct its name, or remove the section"
            );
        }
        Ok(())
    }

    pub(crate) fn limits(&self) -> GatewayLimits {
        GatewayLimits {
            body_bytes: self.max_body_mb << 20,
            event_bytes: self.max_event_kb << 10,
            quota: self.quota,
            quotas: self.quotas.clone().into_iter().collect(),
        }
    }
}

/// The datasets whose events are sent.
pub(crate) fn sent(datasets: &Datasets) -> impl Iterator<Item = &Dataset> {
    datasets.all.values().filter(|dataset| ruam_connectors::is_sent(&dataset.spec))
}

/// A dataset as the gateway offers it.
///
/// # Errors
/// Where a column's type is wrong.
pub(crate) fn offered(dataset: &Dataset) -> Result<Offered> {
    let schema = ruam_transform::json_schema(&dataset.spec)?;
    Ok(Offered { spec: dataset.spec.clone(), schema })
}
