//! An agency that signs its events.

use std::fs;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use crate::installation::Installation;

/// A pair of keys of an agency.
#[derive(Debug)]
pub enum Pair {
    /// Of Ed25519.
    Ed25519(Ed25519KeyPair),
    /// Of the curve P-256.
    P256(EcdsaKeyPair),
}

impl Pair {
    /// A new one of Ed25519.
    ///
    /// # Errors
    /// Where none can be made.
    pub fn ed25519() -> Result<Self> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok().context("a key")?;
        Ok(Self::Ed25519(Ed25519KeyPair::from_pkcs8(made.as_ref()).ok().context("a key")?))
    }

    /// A new one of the curve P-256.
    ///
    /// # Errors
    /// Where none can be made.
    pub fn p256() -> Result<Self> {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).ok().context("a key")?;
        Ok(Self::P256(EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).ok().context("a key")?))
    }

    /// What its signatures are called in a JWS.
    pub fn alg(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
        }
    }

    /// The public half: as PEM of one kind of key, and as a JWK of the other.
    pub fn public(&self) -> String {
        match self {
            Self::Ed25519(pair) => {
                let spki = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], pair.public_key().as_ref()];
                format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(spki.concat()))
            }
            Self::P256(pair) => {
                let point = pair.public_key().as_ref();
                let [x, y] = [&point[1..33], &point[33..]].map(|number| URL_SAFE_NO_PAD.encode(number));
                json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y }).to_string()
            }
        }
    }

    /// Registers the public half; gives its name.
    ///
    /// # Errors
    /// Where the program does not take it.
    pub fn register(&self, installation: &Installation, agency: &str) -> Result<String> {
        let file = installation.path().join("public");
        fs::write(&file, self.public())?;
        let file = file.to_string_lossy();
        let said = installation.succeed(&["agency", "signer", "add", agency, &file, "--name", "register"])?;
        Ok(said.trim().to_owned())
    }

    /// A detached signature of a text.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn sign(&self, alg: &str, kid: &str, text: &str) -> Result<String> {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg, "kid": kid }).to_string());
        let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(text));
        let signature = match self {
            Self::Ed25519(pair) => pair.sign(input.as_bytes()).as_ref().to_vec(),
            Self::P256(pair) => {
                pair.sign(&SystemRandom::new(), input.as_bytes()).ok().context("a signature")?.as_ref().to_vec()
            }
        };
        Ok(format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
