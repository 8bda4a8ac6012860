//! Signatures that come apart from what they sign: detached JWS (RFC 7515, appendix F).
//!
//! What passes through: a text `<protected>..<signature>` and the bytes that it is to have signed; out comes the
//! whole JWS, `<protected>.<payload>.<signature>`, which says by itself what was signed and by which key, so that
//! anybody can check it again at any time. Guaranteed: a text has one reading. What it names is not followed: the
//! key is known before, or it does not count.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::SignOnError;
use crate::public_key::{PublicKey, SigningAlgorithm};

/// The most bytes of a signature's text. What a header has to say is little.
const MAX_BYTES: usize = 2048;

/// A signature without what it signs.
#[derive(Debug)]
pub(crate) struct DetachedJws<'a> {
    /// Its header, in base64url.
    protected: &'a str,
    /// The signature itself, in base64url and as bytes.
    encoded: &'a str,
    signature: Vec<u8>,
    algorithm: SigningAlgorithm,
    /// The thumbprint of the key.
    key: String,
}

/// What is read of the header. Whatever else it says is let pass, unless it has to be understood.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
    b64: Option<IgnoredAny>,
}

impl<'a> DetachedJws<'a> {
    /// Reads a signature.
    ///
    /// # Errors
    /// Where the text is none, or asks for what is not known here.
    pub(crate) fn parse(text: &'a str) -> Result<Self, SignOnError> {
        let (protected, encoded) = text
            .split_once("..")
            .filter(|_| text.len() <= MAX_BYTES)
            .ok_or_else(|| wrong("it is no detached JWS, which is <protected>..<signature> (RFC 7515, appendix F)"))?;
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| wrong("a part of it is no base64url"));
        let header: Header = serde_json::from_slice(&decoded(protected)?)
            .map_err(|_| wrong("its protected header is no JSON object with the texts `alg` and `kid`"))?;
        if header.crit.is_some() || header.b64.is_some() {
            return Err(wrong("its header has `crit` or `b64`, and no extension of JWS is known here"));
        }
        let algorithm = SigningAlgorithm::of_name(&header.alg)
            .ok_or_else(|| wrong("its `alg` is not EdDSA and not ES256, and no other counts here"))?;
        let key = header.kid.ok_or_else(|| wrong("its header has no `kid`: the thumbprint of the agency's key"))?;
        Ok(Self { protected, encoded, signature: decoded(encoded)?, algorithm, key })
    }

    /// The thumbprint of the key that it names.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The whole JWS, if a key has signed a payload.
    ///
    /// # Errors
    /// Where it has not.
    pub(crate) fn verified(&self, key: &PublicKey, payload: &[u8]) -> Result<String, SignOnError> {
        if self.algorithm != key.algorithm() {
            return Err(wrong("its `alg` is not that of the key"));
        }
        let mut whole = format!("{}.", self.protected);
        URL_SAFE_NO_PAD.encode_string(payload, &mut whole);
        if !key.verifies(whole.as_bytes(), &self.signature) {
            return Err(wrong("the key that it names has not signed this event as it has come"));
        }
        whole.extend([".", self.encoded]);
        Ok(whole)
    }
}

pub(crate) fn wrong(problem: &'static str) -> SignOnError {
    SignOnError::Signature { problem }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::public_key::tests::{ED25519_JWK, P256_JWK};

    const THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

    /// A signature by the key of RFC 8037, appendix A.1, with a header of its own.
    fn signed(header: &str, payload: &[u8]) -> String {
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let [header, payload] = [header.as_bytes(), payload].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signature = pair.sign(format!("{header}.{payload}").as_bytes());
        format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn header() -> String {
        format!(r#"{{"alg":"EdDSA","kid":"{THUMBPRINT}"}}"#)
    }

    fn check(text: &str, payload: &[u8]) -> Result<String, String> {
        let key = PublicKey::parse(ED25519_JWK).unwrap();
        DetachedJws::parse(text).and_then(|jws| jws.verified(&key, payload)).map_err(|error| error.to_string())
    }

    /// The key, the two parts and the payload of a vector, whose header names no key: only the second half is asked.
    fn vector(jwk: &str, protected: &str, signature: &str, payload: &[u8]) -> Result<String, SignOnError> {
        let key = PublicKey::parse(jwk).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let algorithm = key.algorithm();
        DetachedJws { protected, encoded: signature, signature: bytes, algorithm, key: String::new() }
            .verified(&key, payload)
    }

    #[test]
    fn the_vectors_of_the_standards_hold() {
        // RFC 8037, appendix A.4.
        let payload = b"Example of Ed25519 signing";
        let (protected, signature) = (
            "eyJhbGciOiJFZERTQSJ9",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        );
        assert_eq!(
            vector(ED25519_JWK, protected, signature, payload).unwrap(),
            format!("{protected}.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.{signature}")
        );
        vector(ED25519_JWK, protected, signature, b"Example of Ed25519 signing.").unwrap_err();
        // RFC 7515, appendix A.3.
        let payload = b"{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
        let (protected, signature) = (
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        );
        vector(P256_JWK, protected, signature, payload).unwrap();
        vector(P256_JWK, protected, signature, &payload[1..]).unwrap_err();
    }

    #[test]
    fn what_is_verified_is_whole() {
        let whole = check(&signed(&header(), b"a"), b"a").unwrap();
        assert_eq!(whole.split('.').nth(1), Some("YQ"));
        assert_eq!(DetachedJws::parse(&signed(&header(), b"a")).unwrap().key(), THUMBPRINT);
    }

    #[test]
    fn what_is_not_known_here_is_refused() {
        let with = |more: &str| signed(&header().replace('}', &format!(",{more}}}")), b"a");
        assert!(check(&with(r#""typ":"JOSE","jku":"https://evil.example""#), b"a").is_ok(), "it is let pass");
        for (text, expected) in [
            ("x.y.z".to_owned(), "it is no detached JWS"),
            ("x..y!".to_owned(), "a part of it is no base64url"),
            ("YQ..YQ".to_owned(), "its protected header is no JSON object"),
            (signed(&header(), b"a") + "=", "a part of it is no base64url"),
            (format!("{}..", "x".repeat(MAX_BYTES)), "it is no detached JWS"),
            (with(r#""crit":["exp"],"exp":1"#), "its header has `crit` or `b64`"),
            (with(r#""b64":false"#), "its header has `crit` or `b64`"),
            (with(r#""alg":"EdDSA""#), "its protected header is no JSON object"),
            (signed(r#"{"alg":"none","kid":"x"}"#, b"a"), "its `alg` is not EdDSA and not ES256"),
            (signed(r#"{"alg":"HS256","kid":"x"}"#, b"a"), "its `alg` is not EdDSA and not ES256"),
            (signed(r#"{"alg":"ES256","kid":"x"}"#, b"a"), "its `alg` is not that of the key"),
            (signed(r#"{"alg":"EdDSA"}"#, b"a"), "its header has no `kid`"),
            (signed(&header(), b"b"), "the key that it names has not signed this event"),
        ] {
            let error = check(&text, b"a").unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_refused(payload in prop::collection::vec(any::<u8>(), 1..60), at: prop::sample::Index, bit in 0..7_u32) {
            let signed = signed(&header(), &payload);
            prop_assert!(check(&signed, &payload).is_ok());
            let mut other = payload.clone();
            other[at.index(payload.len())] ^= 1 << bit;
            prop_assert!(check(&signed, &other).is_err());
            let mut other = signed.into_bytes();
            let at = at.index(other.len());
            other[at] ^= 1 << bit;
            prop_assert!(check(&String::from_utf8(other).unwrap(), &payload).is_err());
        }

        #[test]
        fn no_text_breaks_it(text in "[A-Za-z0-9_-]{0,60}\\.\\.[A-Za-z0-9_-]{0,90}|.{0,60}", header in ".{0,40}") {
            prop_assert!(check(&text, b"a").is_err());
            let _ = check(&signed(&header, b"a"), b"a");
        }
    }
}
