//! An agency that signs its events, by Ed25519.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use ruam_tests::Installation;
use serde_json::json;

/// A pair of keys, and what its public half is called.
pub struct Signer {
    pair: Ed25519KeyPair,
    name: String,
}

impl Signer {
    /// Makes one, and registers its public half.
    pub fn register(installation: &Installation) -> Result<Self> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok().context("a key")?;
        let pair = Ed25519KeyPair::from_pkcs8(made.as_ref()).ok().context("a key")?;
        let file = installation.path().join("public");
        let public = URL_SAFE_NO_PAD.encode(pair.public_key());
        fs::write(&file, json!({ "kty": "OKP", "crv": "Ed25519", "x": public }).to_string())?;
        let name =
            installation.succeed(&["agency", "signer", "add", "bora", &file.to_string_lossy(), "--name", "bench"])?;
        Ok(Self { pair, name: name.trim().to_owned() })
    }

    /// An event, and the text and signature of its signature.
    fn signed(&self, number: usize) -> (String, Vec<u8>) {
        // Its members stand in the order of their names, as what is signed has them (RFC 8785).
        let data = format!(
            "{{\"address\":\"99/1 ถนนราชดำเนิน แขวงบวรนิเวศ เขตพระนคร กรุงเทพมหานคร 10200\",\"holder\":\"สมชาย ใจดี\",\"number\":\"{number}\"}}"
        );
        let members = format!(
            "\"data\":{data},\"id\":\"{number}\",\"source\":\"/bora/licence\",\"time\":\"2026-01-31T09:30:00+07:00\",\"type\":\"th.go.bora.licence.insert\""
        );
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "EdDSA", "kid": self.name }).to_string());
        let text = format!("{header}.{}", URL_SAFE_NO_PAD.encode(format!("{{{members}}}")));
        let signature = self.pair.sign(text.as_bytes()).as_ref().to_vec();
        (text, signature)
    }

    /// An event as the agency sends it.
    pub fn event(&self, number: usize) -> String {
        let (text, signature) = self.signed(number);
        let (header, statement) = text.split_once('.').unwrap_or_default();
        let statement = URL_SAFE_NO_PAD.decode(statement).unwrap_or_default();
        let members = String::from_utf8_lossy(&statement);
        let members = members.trim_start_matches('{');
        let signature = URL_SAFE_NO_PAD.encode(signature);
        format!("{{\"specversion\":\"1.0\",\"signature\":\"{header}..{signature}\",{members}")
    }

    /// How many signatures a second can be checked by all cores, where nothing else is done.
    pub fn check(&self, count: usize) -> Result<f64> {
        let signed: Vec<_> = (0..count).map(|number| self.signed(number)).collect();
        let key = UnparsedPublicKey::new(&ED25519, self.pair.public_key().as_ref());
        let cores = std::thread::available_parallelism()?.get();
        let begun = Instant::now();
        let are_right = std::thread::scope(|scope| {
            let parts = signed.chunks(count.div_ceil(cores));
            let checks: Vec<_> = parts
                .map(|part| {
                    let key = &key;
                    scope.spawn(move || {
                        part.iter().all(|(text, signature)| key.verify(text.as_bytes(), signature).is_ok())
                    })
                })
                .collect();
            checks.into_iter().all(|check| check.join().unwrap_or(false))
        });
        ensure!(are_right, "each signature is right");
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }
}
