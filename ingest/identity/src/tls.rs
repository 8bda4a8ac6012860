//! The certificate that servers show.
//!
//! What passes through: a chain of certificates and a private key, in files that somebody else renews.
//! Guaranteed: a renewed certificate is shown from the next connection on, without a restart; files that do
//! not fit together leave the one before in force, and the log says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use serde::Deserialize;

use crate::error::SignOnError;
use crate::kept::Stamp;

/// Where the certificate is: `[tls]` of `ruam.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate and those that it leads to, in PEM, the server's own first.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

impl TlsSettings {
    /// Sets up TLS for a server: versions 1.2 and 1.3, with the cryptography of ring.
    ///
    /// # Errors
    /// Where a file cannot be read, holds something else, or the two do not fit together.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, SignOnError> {
        self.config(None)
    }

    /// The same for a server whose clients have to show a certificate as well (mutual TLS), which one of the
    /// certificates of a file, in PEM, leads to. The file is read this once.
    ///
    /// # Errors
    /// As [`Self::server_config`], and where that file is not right.
    pub fn server_config_asking(&self, issuers: &Path) -> Result<Arc<ServerConfig>, SignOnError> {
        self.config(Some(issuers))
    }

    fn config(&self, issuers: Option<&Path>) -> Result<Arc<ServerConfig>, SignOnError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (stamps, shown) = (self.stamps(), self.load(&provider)?);
        let certificate = Certificate {
            files: self.clone(),
            provider: provider.clone(),
            shown: Mutex::new((stamps, Arc::new(shown))),
        };
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let config = config.map_err(|error| wrong(&self.certificate, error.to_string(), "Report this with the log"))?;
        let config = match issuers {
            None => config.with_no_client_auth(),
            Some(issuers) => config.with_client_cert_verifier(verifier(issuers, provider)?),
        };
        Ok(Arc::new(config.with_cert_resolver(Arc::new(certificate))))
    }

    fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, SignOnError> {
        let chain = read(&self.certificate)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
            let remedy =
                "Name the chain of certificates in tls.certificate: each between BEGIN CERTIFICATE and END CERTIFICATE";
            wrong(&self.certificate, "there is no certificate in PEM in it".to_owned(), remedy)
        })?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|error| {
            let problem = match error {
                PemError::NoItemsFound => "there is no private key in PEM in it, or it is encrypted",
                _ => "it is not in PEM",
            };
            wrong(&self.key, problem.to_owned(), "Name an unencrypted private key in tls.key")
        })?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            let problem = format!("it does not fit {}: {error}", self.certificate.display());
            wrong(&self.key, problem, "Name the private key of that certificate in tls.key")
        })
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.certificate, &self.key].map(|path| Stamp::of(path).ok())
    }
}

/// Accepts the certificates of clients that one of those in a file leads to.
fn verifier(issuers: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, SignOnError> {
    let remedy = "Name the certificates of those who issue the clients', in PEM";
    let pem = read(issuers)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| wrong(issuers, "it is not in PEM".to_owned(), remedy))?;
        roots.add(certificate).map_err(|error| wrong(issuers, error.to_string(), remedy))?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built.map_err(|error| wrong(issuers, error.to_string(), remedy))
}

fn read(path: &Path) -> Result<Vec<u8>, SignOnError> {
    fs::read(path).map_err(|error| SignOnError::io(path, error))
}

fn wrong(path: &Path, problem: String, remedy: &str) -> SignOnError {
    SignOnError::File { path: path.to_owned(), problem, remedy: remedy.to_owned() }
}

/// The certificate, read again when its files have changed.
#[derive(Debug)]
struct Certificate {
    files: TlsSettings,
    provider: Arc<CryptoProvider>,
    shown: Mutex<([Option<Stamp>; 2], Arc<CertifiedKey>)>,
}

impl Certificate {
    fn now(&self) -> Arc<CertifiedKey> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        if stamps != shown.0 {
            match self.files.load(&self.provider) {
                Ok(certificate) => {
                    tracing::info!(certificate = %self.files.certificate.display(), "the certificate was renewed");
                    shown.1 = Arc::new(certificate);
                }
                // The two files are written one after the other; the next connection looks again.
                Err(error) => tracing::warn!("{error} (the certificate before stays in force)"),
            }
            shown.0 = stamps;
        }
        shown.1.clone()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    use super::*;

    /// Writes a new certificate, and returns it.
    fn renew(files: &TlsSettings) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }

    fn files(folder: &Path) -> TlsSettings {
        TlsSettings { certificate: folder.join("tls.crt"), key: folder.join("tls.key") }
    }

    /// Whether a client that trusts one certificate alone can connect.
    fn connects(server: &Arc<ServerConfig>, trusted: &CertificateDer<'static>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(server.clone()).unwrap();
        let (mut near, mut far) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || server.complete_io(&mut far).is_ok());
            client.complete_io(&mut near).is_ok()
        })
    }

    #[test]
    fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let first = renew(&files);
        let server = files.server_config().unwrap();
        assert!(connects(&server, &first));
        let key = fs::read(&files.key).unwrap();
        let second = renew(&files);
        assert!(connects(&server, &second) && !connects(&server, &first));
        // A certificate without its key is half of a renewal.
        fs::write(&files.key, key).unwrap();
        assert!(connects(&server, &second));
        let third = renew(&files);
        assert!(connects(&server, &third));
    }

    #[test]
    fn files_that_will_not_do_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let error = || files.server_config().unwrap_err().to_string();
        assert!(
            error().starts_with(&format!("cannot use {}: No such file", files.certificate.display())),
            "{}",
            error()
        );
        renew(&files);
        let (certificate, key) = (fs::read(&files.certificate).unwrap(), fs::read(&files.key).unwrap());
        renew(&files);
        fs::write(&files.key, &key).unwrap();
        assert!(error().contains(&format!("{}: it does not fit ", files.key.display())), "{}", error());
        fs::write(&files.key, &certificate).unwrap();
        assert!(error().contains("there is no private key in PEM in it"), "{}", error());
        fs::write(&files.certificate, &key).unwrap();
        assert!(error().contains("there is no certificate in PEM in it. Name the chain"), "{}", error());
    }
}
