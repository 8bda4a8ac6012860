//! The public keys that signatures are checked with.
//!
//! What passes through: a key as people hand it over, a JWK (RFC 7517, RFC 8037) or PEM of SPKI (RFC 5280,
//! RFC 8410), into a [`PublicKey`] that is called by its thumbprint (RFC 7638). Guaranteed: it is on its curve, and
//! holds nothing that is secret: a private key is refused, and what it says is not repeated.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::agreement::{self, ECDH_P256, EphemeralPrivateKey};
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::error::SignOnError;

/// What stands before the key in the SPKI of a key of Ed25519 (RFC 8410, section 4), and of one of P-256 whose point
/// is not compressed (RFC 5480, section 2).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// How an agency signs, by the name that JWS gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA with P-256 and SHA-256 (RFC 7518, section 3.4).
    Es256,
}

impl SigningAlgorithm {
    /// The algorithm of a name; none where it does not count here.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        [Self::EdDsa, Self::Es256].into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Its name in `alg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }
}

/// A public key of Ed25519 or P-256.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey {
    algorithm: SigningAlgorithm,
    /// 32 bytes for Ed25519; the point, 4 and twice 32 bytes, for P-256.
    bytes: Vec<u8>,
}

/// What is read of a JWK. Whatever else it says is let pass.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private part. It is looked at no further.
    d: Option<serde::de::IgnoredAny>,
}

impl PublicKey {
    /// Reads a key: a JWK, or PEM with `BEGIN PUBLIC KEY`.
    ///
    /// # Errors
    /// Where the text is none, its kind does not count here, or it is a private key.
    pub fn parse(text: &str) -> Result<Self, SignOnError> {
        match text.trim_start() {
            text if text.starts_with('{') => Self::of_jwk(text),
            text if text.contains("PRIVATE KEY-----") => Err(private()),
            text if text.contains("-----BEGIN ") => Self::of_pem(text),
            _ => Err(wrong("it is neither a JWK nor PEM")),
        }
    }

    fn of_jwk(text: &str) -> Result<Self, SignOnError> {
        let jwk: Jwk = serde_json::from_str(text).map_err(|_| wrong("it is no JWK"))?;
        if jwk.d.is_some() {
            return Err(private());
        }
        let number = |text: Option<String>| {
            let bytes = URL_SAFE_NO_PAD.decode(text.unwrap_or_default()).ok().filter(|bytes| bytes.len() == 32);
            bytes.ok_or_else(|| wrong("`x` or `y` is not 32 bytes in base64url"))
        };
        match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => Ok(Self { algorithm: SigningAlgorithm::EdDsa, bytes: number(jwk.x)? }),
            ("EC", Some("P-256")) => Self::of_point([vec![4], number(jwk.x)?, number(jwk.y)?].concat()),
            _ => Err(wrong("its kind does not count here")),
        }
    }

    fn of_pem(text: &str) -> Result<Self, SignOnError> {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
            .map_err(|_| wrong("its PEM has no section `PUBLIC KEY` that can be read"))?;
        match (spki.strip_prefix(&ED25519_SPKI), spki.strip_prefix(&P256_SPKI)) {
            (Some(key), _) if key.len() == 32 => Ok(Self { algorithm: SigningAlgorithm::EdDsa, bytes: key.to_vec() }),
            (_, Some(point)) if point.len() == 65 => Self::of_point(point.to_vec()),
            _ => Err(wrong("its kind does not count here")),
        }
    }

    /// The key that is a point of P-256.
    fn of_point(bytes: Vec<u8>) -> Result<Self, SignOnError> {
        // ring looks at a point when something is agreed upon with it, so this agrees upon something, once.
        let mine = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new());
        let mine = mine.map_err(|_| SignOnError::NoRandomness)?;
        agreement::agree_ephemeral(mine, &agreement::UnparsedPublicKey::new(&ECDH_P256, &bytes), |_| ())
            .map_err(|_| wrong("it is no point of its curve"))?;
        Ok(Self { algorithm: SigningAlgorithm::Es256, bytes })
    }

    /// What it signs by.
    pub fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// What it is called: its thumbprint by SHA-256 (RFC 7638), in base64url.
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.to_string().as_bytes()))
    }

    /// Whether it has signed a message.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self.algorithm {
            SigningAlgorithm::EdDsa => &ED25519,
            SigningAlgorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
        };
        UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok()
    }
}

fn wrong(problem: &'static str) -> SignOnError {
    SignOnError::PublicKey { problem }
}

fn private() -> SignOnError {
    wrong("it is a private key, which nobody but the agency's own system may have")
}

/// As a JWK, of which the thumbprint is one: its required members in their order, without spaces.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.algorithm {
            SigningAlgorithm::EdDsa => {
                let x = URL_SAFE_NO_PAD.encode(&self.bytes);
                write!(f, r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)
            }
            SigningAlgorithm::Es256 => {
                let [x, y] = [&self.bytes[1..33], &self.bytes[33..]].map(|number| URL_SAFE_NO_PAD.encode(number));
                write!(f, r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for PublicKey {
    type Error = SignOnError;

    fn try_from(text: String) -> Result<Self, SignOnError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 8037, appendix A.2 and A.3; RFC 7515, appendix A.3.
    pub(crate) const ED25519_JWK: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    pub(crate) const P256_JWK: &str = r#"{"kty":"EC","crv":"P-256",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

    #[test]
    fn a_key_is_called_by_its_thumbprint() {
        let key = PublicKey::parse(ED25519_JWK).unwrap();
        // RFC 8037, appendix A.3.
        assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let key = PublicKey::parse(P256_JWK).unwrap();
        // As hashlib of Python has it.
        assert_eq!(key.thumbprint(), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
        assert_eq!(PublicKey::parse(&key.to_string()).unwrap(), key);
    }

    #[test]
    fn keys_are_read_as_openssl_writes_them() {
        // By `openssl pkey -pubin -in … -pubout`, of the same two keys.
        for (jwk, pem) in [
            (
                ED25519_JWK,
                "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n",
            ),
            (
                P256_JWK,
                "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n-----END PUBLIC KEY-----\n",
            ),
        ] {
            assert_eq!(PublicKey::parse(pem).unwrap(), PublicKey::parse(jwk).unwrap());
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused_and_not_repeated() {
        for (text, expected) in [
            ("", "it is neither a JWK nor PEM"),
            ("{}", "it is no JWK"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AA","d":"hunter2"}"#, "it is a private key"),
            ("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----", "it is a private key"),
            ("-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----", "it is a private key"),
            ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----", "its PEM has no section `PUBLIC KEY`"),
            ("-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----", "its kind does not count here"),
            (r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#, "its kind does not count here"),
            (r#"{"kty":"RSA","n":"AA","e":"AQAB"}"#, "its kind does not count here"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#, "`x` or `y` is not 32 bytes"),
            (&P256_JWK.replace("f83O", "f83P"), "it is no point of its curve"),
        ] {
            let error = PublicKey::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "(-----BEGIN PUBLIC KEY-----\n)?[0-9a-zA-Z+/=_\n-]{0,120}|\\{(\"(kty|crv|x|y)\":\"(OKP|EC|P-256|Ed25519|A{43})\",?){0,4}\\}|.{0,40}") {
            if let Ok(key) = PublicKey::parse(&text) {
                prop_assert_eq!(PublicKey::parse(&key.to_string()).unwrap(), key);
            }
        }
    }
}
