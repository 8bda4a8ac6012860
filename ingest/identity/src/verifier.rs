//! What is kept of a password: enough to check it, and not enough to sign in with.
//!
//! RFC 5802 and RFC 7677 (SCRAM-SHA-256) keep a salt, a number of iterations, `StoredKey` and `ServerKey`. The
//! text form is PostgreSQL's: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, in base64.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use ruam_event::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;

use crate::error::SignOnError;
use crate::random;

/// How often a password is hashed. RFC 7677 asks for 4,096 at least, and for what takes 0.1 s where clients
/// allow it: about so long psql takes for these. PostgreSQL's own default is 4,096.
pub(crate) const ITERATIONS: u32 = 100_000;
/// Fewer are refused, and more than anybody has time for.
const ALLOWED_ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=2_000_000;
/// As PostgreSQL has it, in bytes.
const SALT: usize = 16;
/// The fewest characters of a password: NIST SP 800-63B-4 asks for 15 where nothing but it is asked for.
const SHORTEST: usize = 15;
/// The most bytes of a password, so that normalising it costs little.
const LONGEST: usize = 1_024;

/// A key or a hash of SHA-256.
type Key = [u8; digest::SHA256_OUTPUT_LEN];

/// The verifier of a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

/// A text that is no verifier.
#[derive(Debug, thiserror::Error)]
#[error("not a verifier of SCRAM-SHA-256")]
pub(crate) struct NotAVerifier;

impl Verifier {
    /// Makes the verifier of a new password, with a salt of its own.
    ///
    /// # Errors
    /// Where the password is too short or too long, or holds what cannot be typed.
    pub(crate) fn of_new(password: &Secret) -> Result<Self, SignOnError> {
        let unfit = |problem: String| SignOnError::Password { problem };
        let text = password.reveal();
        if text.chars().count() < SHORTEST {
            return Err(unfit(format!("has fewer than {SHORTEST} characters")));
        }
        if text.len() > LONGEST {
            return Err(unfit(format!("has more than {LONGEST} bytes")));
        }
        if text.chars().any(char::is_control) {
            return Err(unfit("has a control character".to_owned()));
        }
        let iterations = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
        Ok(Self::of(text, &random::bytes::<SALT>()?, iterations))
    }

    fn of(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        // What SASLprep prohibits is taken as it is, by PostgreSQL and its clients.
        let password = stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password));
        let mut salted: Key = Default::default();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted);
        let client_key = mac(&salted, b"Client Key");
        Self { iterations, salt: salt.to_vec(), stored_key: hash(&client_key), server_key: mac(&salted, b"Server Key") }
    }

    /// A verifier of no password for a user who does not exist. The same user is told the same salt each time,
    /// so that a stranger cannot tell who exists.
    pub(crate) fn decoy(key: &[u8], user: &str) -> Self {
        let salt = mac(key, user.as_bytes())[..SALT].to_vec();
        let iterations = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
        // Nobody knows what these would be the keys of.
        let (stored_key, server_key) = (mac(key, b"stored"), mac(key, b"server"));
        Self { iterations, salt, stored_key, server_key }
    }

    /// Whether a password is the one. Takes as long as hashing it does: tens of milliseconds.
    pub(crate) fn is_of(&self, password: &Secret) -> bool {
        // What is longer can be nobody's.
        let text = if password.reveal().len() <= LONGEST { password.reveal() } else { "" };
        let asked = Self::of(text, &self.salt, self.iterations);
        self.stored_key.ct_eq(&asked.stored_key).into()
    }

    /// How often a client has to hash the password.
    pub(crate) fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    /// The salt, in base64.
    pub(crate) fn salt(&self) -> String {
        STANDARD.encode(&self.salt)
    }

    /// Checks a client's proof that it knows the password (RFC 5802, section 3); answers with the proof that
    /// the server knows the verifier.
    pub(crate) fn answer(&self, auth_message: &[u8], proof: &[u8]) -> Option<Key> {
        let proof: Key = proof.try_into().ok()?;
        let signature = mac(&self.stored_key, auth_message);
        let client_key: Key = std::array::from_fn(|at| proof[at] ^ signature[at]);
        let is_right: bool = hash(&client_key).ct_eq(&self.stored_key).into();
        is_right.then(|| mac(&self.server_key, auth_message))
    }
}

fn mac(key: &[u8], message: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    std::array::from_fn(|at| tag.as_ref()[at])
}

fn hash(bytes: &[u8]) -> Key {
    let hash = digest::digest(&digest::SHA256, bytes);
    std::array::from_fn(|at| hash.as_ref()[at])
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for Verifier {
    type Err = NotAVerifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = || {
            let mut parts = text.strip_prefix("SCRAM-SHA-256$")?.split([':', '$']);
            let iterations = parts.next()?.parse().ok().filter(|count| ALLOWED_ITERATIONS.contains(count))?;
            let salt = STANDARD.decode(parts.next()?).ok().filter(|salt| (8..=64).contains(&salt.len()))?;
            let mut key = || Key::try_from(STANDARD.decode(parts.next()?).ok()?).ok();
            let (stored_key, server_key) = (key()?, key()?);
            let verifier = Self { iterations: NonZeroU32::new(iterations)?, salt, stored_key, server_key };
            parts.next().is_none().then_some(verifier)
        };
        parts().ok_or(NotAVerifier)
    }
}

impl Serialize for Verifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let [stored, server] = [self.stored_key, self.server_key].map(|key| STANDARD.encode(key));
        serializer.collect_str(&format_args!("SCRAM-SHA-256${}:{}${stored}:{server}", self.iterations, self.salt()))
    }
}

impl<'de> Deserialize<'de> for Verifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 7677, section 3: the password is `pencil`.
    static PENCIL: LazyLock<Verifier> = LazyLock::new(|| {
        Verifier::of("pencil", &STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), NonZeroU32::new(4096).unwrap())
    });

    pub(crate) fn pencil() -> Verifier {
        PENCIL.clone()
    }

    #[test]
    fn the_text_is_that_of_postgresql() {
        // The form of pg_authid; the keys are what hashlib and hmac of Python make of the same password and salt.
        let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        assert_eq!(serde_json::to_value(pencil()).unwrap(), text);
        assert_eq!(text.parse::<Verifier>().unwrap(), pencil());
        assert_eq!(format!("{:?}", pencil()), "***");
    }

    #[test]
    fn a_password_is_the_one_or_not() {
        assert!(pencil().is_of(&Secret::new("pencil")));
        assert!(!pencil().is_of(&Secret::new("Pencil")) && !pencil().is_of(&Secret::new("")));
        // SASLprep (RFC 4013, section 3): a soft hyphen counts for nothing, and a Roman four is I and V.
        let of = |text| Verifier::of(text, b"saltsalt", NonZeroU32::new(4096).unwrap());
        assert!(of("I\u{AD}X").is_of(&Secret::new("IX")) && of("\u{2163}").is_of(&Secret::new("IV")));
        assert!(of("รหัสผ่าน").is_of(&Secret::new("รหัสผ่าน")));
    }

    #[test]
    fn a_new_password_has_to_be_long_enough() {
        for (password, expected) in [
            ("fourteen-chars", "the password has fewer than 15 characters. Choose another"),
            ("fifteen\u{0}characters", "the password has a control character. Choose another"),
        ] {
            assert_eq!(Verifier::of_new(&Secret::new(password)).unwrap_err().to_string(), expected);
        }
        let password = Secret::new("correct horse battery");
        let [one, two] = [(); 2].map(|()| Verifier::of_new(&password).unwrap());
        assert!(one.is_of(&password) && one.salt != two.salt);
    }

    #[test]
    fn a_decoy_is_the_same_each_time_and_accepts_nothing() {
        let decoy = Verifier::decoy(b"key", "nobody");
        assert_eq!(decoy, Verifier::decoy(b"key", "nobody"));
        assert_ne!(decoy.salt, Verifier::decoy(b"key", "somebody").salt);
        assert!(decoy.answer(b"message", &[0; 32]).is_none() && !decoy.is_of(&Secret::new("")));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "(SCRAM-SHA-256[$])?[0-9A-Za-z+/=:$]{0,120}|.{0,40}") {
            if let Ok(verifier) = text.parse::<Verifier>() {
                prop_assert!(ALLOWED_ITERATIONS.contains(&verifier.iterations()));
            }
        }

        #[test]
        fn no_proof_but_the_right_one_is_accepted(proof in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(pencil().answer(b"message", &proof).is_none());
        }
    }
}
