//! What stands between the network and the servers: sign-on and TLS, as the settings have them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ruam_identity::{Authenticator, ServerConfig, SignOnError};
use ruam_query::pg::Admission;

use crate::config::Settings;
use crate::port::PortError;

/// Sign-on and TLS, each where it is set up.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) sign_on: Option<Arc<Authenticator>>,
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

impl Guard {
    /// Sets up what the settings ask for, with the users and tokens of a folder. Connects to nothing.
    ///
    /// # Errors
    /// Where a setting is wrong, or one of the files.
    pub(crate) fn open(settings: &Settings, access: &Path) -> Result<Self, SignOnError> {
        let sign_on = settings.sign_on.as_ref().map(|sign_on| Authenticator::open(sign_on, access)).transpose()?;
        let tls = settings.tls.as_ref().map(ruam_identity::TlsSettings::server_config).transpose()?;
        Ok(Self { sign_on: sign_on.map(Arc::new), tls })
    }

    /// How clients are let in.
    pub(crate) fn admission(self) -> Admission {
        Admission { sign_on: self.sign_on, tls: self.tls }
    }

    /// Refuses an address that others on the network reach, unless they have to sign in and nobody in between
    /// can listen: without TLS a password or token is everybody's, without sign-on the lake is.
    ///
    /// # Errors
    /// Where it is not a loopback address, and one of the two is missing.
    pub(crate) fn admits(&self, address: SocketAddr, setting: &'static str) -> Result<(), PortError> {
        let remedy = "Use 127.0.0.1, or set up both [sign_on] and [tls] in ruam.toml";
        let missing = match (&self.sign_on, &self.tls) {
            (Some(_), Some(_)) => return Ok(()),
            _ if address.ip().is_loopback() => return Ok(()),
            (None, None) => "there is neither sign-on nor TLS",
            (None, Some(_)) => "there is no sign-on",
            (Some(_), None) => "there is no TLS, and passwords would be sent in clear",
        };
        Err(PortError::Open { address, setting, missing, remedy })
    }
}
