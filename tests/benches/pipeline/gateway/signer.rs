//! An agency that signs its events, by Ed25519.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, KeyPair, UnparsedPublicKey};
use ruam_tests::Installation;
use ruam_tests::signer::Pair;

/// A pair of keys, and what its public half is called.
pub struct Signer {
    pair: Pair,
    name: String,
}

impl Signer {
    /// Makes one, and registers its public half.
    pub fn register(installation: &Installation) -> Result<Self> {
        let pair = Pair::ed25519()?;
        let name = pair.register(installation, "bora")?;
        Ok(Self { pair, name })
    }

    /// What is signed of an event: its members in the order of their names (RFC 8785).
    fn statement(number: usize) -> String {
        format!(
            "{{\"data\":{{\"address\":\"99/1 ถนนราชดำเนิน แขวงบวรนิเวศ เขตพระนคร กรุงเทพมหานคร 10200\",\"holder\":\"สมชาย ใจดี\",\"number\":\"{number}\"}},\
             \"id\":\"{number}\",\"source\":\"/bora/licence\",\"time\":\"2026-01-31T09:30:00+07:00\",\"type\":\"th.go.bora.licence.insert\"}}"
        )
    }

    /// An event as the agency sends it.
    pub fn event(&self, number: usize) -> Result<String> {
        let statement = Self::statement(number);
        let signature = self.pair.sign(self.pair.alg(), &self.name, &statement)?;
        Ok(format!("{{\"specversion\":\"1.0\",\"signature\":\"{signature}\",{}", &statement[1..]))
    }

    /// The text below a signature, and the signature.
    fn signed(&self, number: usize) -> Result<(String, Vec<u8>)> {
        let statement = Self::statement(number);
        let detached = self.pair.sign(self.pair.alg(), &self.name, &statement)?;
        let (header, signature) = detached.split_once("..").context("a detached signature")?;
        Ok((format!("{header}.{}", URL_SAFE_NO_PAD.encode(statement)), URL_SAFE_NO_PAD.decode(signature)?))
    }

    /// How many signatures a second can be checked by all cores, where nothing else is done.
    pub fn check(&self, count: usize) -> Result<f64> {
        let Pair::Ed25519(pair) = &self.pair else { bail!("a key of Ed25519") };
        let signed: Vec<_> = (0..count).map(|number| self.signed(number)).collect::<Result<_>>()?;
        let key = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
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
