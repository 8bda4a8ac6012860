//! The keys that agencies sign their events with: the public half of each, in `signers.toml`.
//!
//! What passes through: an agency, a signature and what it is to have signed; out comes the whole JWS. Guaranteed:
//! a key counts for the agency that it was registered for and no other, until it is revoked, and never again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ruam_event::dataset::is_name;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, SystemClock};
use crate::error::SignOnError;
use crate::jws::{DetachedJws, wrong};
use crate::kept::Kept;
use crate::principal::check_name;
use crate::public_key::PublicKey;

const HEADER: &str =
    "# The public keys that agencies sign with, by their thumbprints, as `ruam agency signer` writes them.\n";

/// The keys that agencies sign with.
#[derive(Debug)]
pub struct Signers {
    kept: Kept<SignersFile>,
    clock: Arc<dyn Clock>,
}

/// A key that an agency signs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// The agency's short name.
    pub agency: String,
    /// Which of its systems has the private half.
    pub name: String,
    /// When it was registered.
    pub created: DateTime<Utc>,
    /// When it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<DateTime<Utc>>,
    /// The public half.
    pub key: PublicKey,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignersFile {
    /// By their thumbprints.
    #[serde(default)]
    signers: BTreeMap<String, Signer>,
}

/// The keys as they were at a moment.
#[derive(Clone, Debug)]
pub struct KnownSigners(Arc<SignersFile>);

impl Signers {
    /// Those in a folder. Nothing is read or made yet.
    pub fn open(folder: &Path) -> Self {
        Self::with_clock(folder, Arc::new(SystemClock))
    }

    pub(crate) fn with_clock(folder: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { kept: Kept::new(folder.join("signers.toml"), HEADER), clock }
    }

    /// All of them with their thumbprints, those that are revoked included; the newest first.
    ///
    /// # Errors
    /// Where the file cannot be read or is wrong.
    pub fn list(&self) -> Result<Vec<(String, Signer)>, SignOnError> {
        let mut signers: Vec<_> =
            self.kept.get()?.signers.iter().map(|(id, signer)| (id.clone(), signer.clone())).collect();
        signers.sort_by_key(|(_, signer)| std::cmp::Reverse(signer.created));
        Ok(signers)
    }

    /// Registers a key of an agency; `name` says which of its systems signs with it. Returns its thumbprint.
    ///
    /// # Errors
    /// Where a name will not do, the key is registered already, be it for another or revoked, or the file cannot be
    /// written.
    pub fn add(&self, agency: &str, name: &str, key: PublicKey) -> Result<String, SignOnError> {
        if !is_name(agency) {
            let text = agency.escape_debug().to_string();
            return Err(SignOnError::Name { text, what: "an agency", remedy: "Write its short name, such as bora" });
        }
        check_name(name, "the name of a signer")?;
        let (id, created) = (key.thumbprint(), self.clock.now());
        let signer = Signer { agency: agency.to_owned(), name: name.to_owned(), created, revoked: None, key };
        self.kept.change(|file| match file.signers.get(&id) {
            Some(known) => Err(SignOnError::KnownKey {
                agency: known.agency.clone(),
                state: if known.revoked.is_some() { "revoked" } else { "registered" },
            }),
            None => {
                file.signers.insert(id.clone(), signer);
                Ok(())
            }
        })?;
        Ok(id)
    }

    /// Makes a key count no longer, from the next request on.
    ///
    /// # Errors
    /// Where there is no such key, or the file cannot be written.
    pub fn revoke(&self, id: &str) -> Result<(), SignOnError> {
        let now = self.clock.now();
        self.kept.change(|file| {
            let unknown = || SignOnError::Unknown { what: "agency signer", name: id.escape_debug().to_string() };
            file.signers.get_mut(id).ok_or_else(unknown)?.revoked.get_or_insert(now);
            Ok(())
        })
    }

    /// The keys as they are now.
    ///
    /// # Errors
    /// Where the file cannot be read or is wrong.
    pub fn known(&self) -> Result<KnownSigners, SignOnError> {
        Ok(KnownSigners(self.kept.get()?))
    }
}

impl KnownSigners {
    /// Checks that an agency has signed a payload: `signature` is a detached JWS. Returns the whole JWS, payload
    /// included.
    ///
    /// # Errors
    /// Where it has not, or by a key that does not count; what is told may be told to the agency.
    pub fn check(&self, agency: &str, signature: &str, payload: &[u8]) -> Result<String, SignOnError> {
        let jws = DetachedJws::parse(signature)?;
        // Whether it is another agency's is nobody's business.
        let signer = self.0.signers.get(jws.key()).filter(|signer| signer.agency == agency);
        let signer = signer.ok_or_else(|| wrong("its `kid` names no key that is registered for this agency"))?;
        if signer.revoked.is_some() {
            return Err(wrong("the key that it names has been revoked"));
        }
        jws.verified(&signer.key, payload)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::clock::tests::Hand;

    /// A pair of keys: the public half, and what signs a payload.
    type Pair = (PublicKey, Box<dyn Fn(&[u8]) -> String>);

    fn detached(alg: &str, key: &PublicKey, payload: &[u8], sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}","kid":"{}"}}"#, key.thumbprint()));
        let signature = sign(format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload)).as_bytes());
        format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn ed25519() -> Pair {
        let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let key = PublicKey::parse(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#)).unwrap();
        let public = key.clone();
        (key, Box::new(move |payload| detached("EdDSA", &public, payload, |text| pair.sign(text).as_ref().to_vec())))
    }

    fn p256() -> Pair {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pair = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pair.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|number| URL_SAFE_NO_PAD.encode(number));
        let key = PublicKey::parse(&format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#)).unwrap();
        let public = key.clone();
        let sign = move |text: &[u8]| pair.sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec();
        (key, Box::new(move |payload| detached("ES256", &public, payload, &sign)))
    }

    fn signers(folder: &Path) -> Signers {
        Signers::with_clock(folder, Arc::new(Hand::default()))
    }

    #[test]
    fn a_key_counts_for_its_agency_until_it_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let (signers, server) = (signers(folder.path()), signers(folder.path()));
        for (key, sign) in [ed25519(), p256()] {
            let check = |agency: &str, payload: &[u8]| {
                let checked = server.known().unwrap().check(agency, &sign(payload), b"a");
                checked.map(|_| ()).map_err(|error| error.to_string())
            };
            let refused = |agency: &str, expected: &str| {
                let error = check(agency, b"a").unwrap_err();
                assert!(error.contains(expected), "{error}");
            };
            refused("bora", "its `kid` names no key that is registered for this agency");
            let id = signers.add("bora", "civil register", key.clone()).unwrap();
            assert_eq!(id, key.thumbprint());
            check("bora", b"a").unwrap();
            check("bora", b"b").unwrap_err();
            refused("cgd", "its `kid` names no key that is registered for this agency");
            signers.revoke(&id).unwrap();
            refused("bora", "the key that it names has been revoked");
            let error = signers.add("bora", "again", key).unwrap_err().to_string();
            assert!(error.starts_with("the key is revoked already, for `bora`"), "{error}");
        }
        assert_eq!(server.list().unwrap().len(), 2);
    }

    #[test]
    fn several_keys_of_an_agency_count_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (signers, [one, two]) = (signers(folder.path()), [ed25519(), ed25519()]);
        for (key, _) in [&one, &two] {
            signers.add("bora", "register", key.clone()).unwrap();
        }
        let known = signers.known().unwrap();
        for (_, sign) in [&one, &two] {
            known.check("bora", &sign(b"a"), b"a").unwrap();
        }
        // The header names one key, and the other has signed.
        let (header, signature) = (one.1(b"a"), two.1(b"a"));
        let mixed = format!("{}..{}", header.split_once("..").unwrap().0, signature.split_once("..").unwrap().1);
        known.check("bora", &mixed, b"a").unwrap_err();
    }

    #[test]
    fn what_cannot_be_registered_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (signers, (key, _)) = (signers(folder.path()), ed25519());
        let told = |agency: &str, name: &str| signers.add(agency, name, key.clone()).unwrap_err().to_string();
        assert_eq!(told("Bora", "a"), "`Bora` cannot be an agency. Write its short name, such as bora");
        assert!(told("bora", "").starts_with("`` cannot be the name of a signer"));
        signers.add("bora", "a", key.clone()).unwrap();
        assert!(told("cgd", "a").starts_with("the key is registered already, for `bora`"));
        let error = signers.revoke("x").unwrap_err().to_string();
        assert_eq!(error, "there is no agency signer `x`. `ruam agency signer list` shows those that there are");
    }
}
