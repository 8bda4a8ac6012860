//! Fetching what an issuer publishes.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::redirect::Policy;
use url::Url;

/// How long an issuer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of a document.
const MAX_BYTES: usize = 1 << 20;

/// Fetches documents of an issuer. Tests have one that needs no network.
#[async_trait]
pub trait Fetch: fmt::Debug + Send + Sync {
    /// The document at a URL.
    ///
    /// # Errors
    /// Where there is none: what happened, for people.
    async fn get(&self, url: &Url) -> Result<Vec<u8>, String>;
}

/// Fetches over HTTP, as the system's certificates and proxy settings have it.
#[derive(Debug)]
pub(crate) struct Http(reqwest::Client);

impl Http {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        // An issuer that moves is named anew in the settings: a redirection could lead anywhere.
        let client = reqwest::Client::builder().timeout(PATIENCE).redirect(Policy::none());
        Ok(Self(client.user_agent(concat!("ruam/", env!("CARGO_PKG_VERSION"))).build()?))
    }
}

#[async_trait]
impl Fetch for Http {
    async fn get(&self, url: &Url) -> Result<Vec<u8>, String> {
        let mut response = self.0.get(url.clone()).send().await.map_err(|error| plain(&error))?;
        if response.status().as_u16() != 200 {
            return Err(format!("{url} answers with {}", response.status()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| plain(&error))? {
            if document.len() + chunk.len() > MAX_BYTES {
                return Err(format!("{url} answers with more than {MAX_BYTES} bytes"));
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document)
    }
}

/// The innermost message, which says why: the outer ones say that something went wrong.
fn plain(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if error.is_timeout() { format!("no answer within {} s", PATIENCE.as_secs()) } else { innermost.to_string() }
}
