//! SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677): a client proves that it knows a password without
//! sending it.
//!
//! What passes through: the client's first message and ours, its last and ours, each as the bytes that a
//! protocol carries (PostgreSQL's SASL messages). Guaranteed: a principal comes out of a right proof only; a
//! user who does not exist is answered like one who does.
//!
//! pgwire has SCRAM, too, but asks its server for `SaltedPassword`: whoever reads that from a file can sign in
//! with it. Binding to the TLS channel (SCRAM-SHA-256-PLUS) is not offered; a client that verifies the
//! certificate does not need it.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::SignOnError;
use crate::principal::Principal;
use crate::random;
use crate::throttle::Throttle;
use crate::verifier::Verifier;

/// The most bytes of a message.
const MAX_MESSAGE: usize = 4_096;

/// A sign-in whose first message is awaited.
#[derive(Debug)]
pub struct ScramExchange {
    pub(crate) verifier: Verifier,
    /// Who it is if the proof is right; none for a user who does not exist.
    pub(crate) principal: Option<Principal>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) user: String,
    pub(crate) from: IpAddr,
}

/// A sign-in whose proof is awaited.
#[derive(Debug)]
pub struct ScramProof {
    exchange: ScramExchange,
    /// What the client said about channels, which it has to repeat.
    gs2_header: String,
    nonce: String,
    /// `client-first-message-bare,server-first-message`.
    messages: String,
}

impl ScramExchange {
    /// Reads the client's first message; returns the answer to it.
    ///
    /// The user whom it names counts for nothing, as in PostgreSQL, where the start of the connection names it.
    ///
    /// # Errors
    /// Where the message is not of SCRAM-SHA-256, or asks for a channel binding.
    pub fn first(self, client_first: &[u8]) -> Result<(String, ScramProof), SignOnError> {
        let nonce = STANDARD.encode(random::bytes::<18>()?);
        self.first_with(client_first, &nonce)
    }

    fn first_with(self, client_first: &[u8], server_nonce: &str) -> Result<(String, ScramProof), SignOnError> {
        let message = text(client_first)?;
        let mut parts = message.splitn(3, ',');
        let (flag, authzid) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let bare = parts.next().ok_or(wrong("the first message has too few parts"))?;
        if !matches!(flag, "n" | "y") {
            return Err(wrong("it asks for a channel binding, which is not offered"));
        }
        if !authzid.is_empty() {
            return Err(wrong("it asks to act for somebody else"));
        }
        let mut attributes = bare.split(',');
        if !attributes.next().is_some_and(|user| user.starts_with("n=")) {
            return Err(wrong("the first message names no user, or asks for an extension"));
        }
        let client_nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        let is_printable = |nonce: &&str| !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        let client_nonce = client_nonce.filter(is_printable).ok_or(wrong("the first message has no nonce"))?;
        let nonce = format!("{client_nonce}{server_nonce}");
        let answer = format!("r={nonce},s={},i={}", self.verifier.salt(), self.verifier.iterations());
        let messages = format!("{bare},{answer}");
        Ok((answer, ScramProof { exchange: self, gs2_header: format!("{flag},,"), nonce, messages }))
    }
}

impl ScramProof {
    /// Checks the client's last message; returns the answer to it, and who has signed in.
    ///
    /// # Errors
    /// Where the proof is wrong, too many were, or the message is not of SCRAM-SHA-256.
    pub fn finish(self, client_final: &[u8]) -> Result<(String, Principal), SignOnError> {
        let ScramExchange { verifier, principal, throttle, user, from } = self.exchange;
        // Once more: many exchanges may have begun before the first of them failed.
        throttle.check(&user, from)?;
        let message = text(client_final)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(wrong("the last message has no proof"))?;
        let mut attributes = without_proof.split(',');
        let channel = attributes.next().and_then(|channel| channel.strip_prefix("c="));
        if channel.and_then(|channel| STANDARD.decode(channel).ok()).as_deref() != Some(self.gs2_header.as_bytes()) {
            return Err(wrong("its messages differ in what they say about the channel"));
        }
        if attributes.next().and_then(|nonce| nonce.strip_prefix("r=")) != Some(&self.nonce) {
            return Err(wrong("the last message has another nonce"));
        }
        let proof = STANDARD.decode(proof).map_err(|_| wrong("the proof is not in base64"))?;
        let auth_message = format!("{},{without_proof}", self.messages);
        match (verifier.answer(auth_message.as_bytes(), &proof), principal) {
            (Some(signature), Some(principal)) => Ok((format!("v={}", STANDARD.encode(signature)), principal)),
            _ => {
                throttle.failed(&user, from);
                Err(SignOnError::Refused)
            }
        }
    }
}

fn text(message: &[u8]) -> Result<&str, SignOnError> {
    if message.len() > MAX_MESSAGE {
        return Err(wrong("a message is too long"));
    }
    std::str::from_utf8(message).map_err(|_| wrong("a message is not in UTF-8"))
}

fn wrong(problem: &'static str) -> SignOnError {
    SignOnError::Exchange { problem }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::SystemClock;
    use crate::principal::Method;
    use crate::verifier::tests::pencil;

    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_FINAL: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn exchange(principal: Option<Principal>) -> ScramExchange {
        ScramExchange {
            verifier: pencil(),
            principal,
            throttle: Arc::new(Throttle::new(Arc::new(SystemClock))),
            user: "user".to_owned(),
            from: [127, 0, 0, 1].into(),
        }
    }

    fn user() -> Option<Principal> {
        let (roles, scopes) = Default::default();
        Some(Principal { name: "user".to_owned(), roles, method: Method::Password, expires: None, scopes })
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let (answer, proof) = exchange(user()).first_with(CLIENT_FIRST.as_bytes(), SERVER_NONCE).unwrap();
        assert_eq!(answer, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let (answer, principal) = proof.finish(CLIENT_FINAL.as_bytes()).unwrap();
        assert_eq!(answer, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(principal.name(), "user");
    }

    #[test]
    fn whoever_does_not_exist_proves_nothing() {
        let (_, proof) = exchange(None).first_with(CLIENT_FIRST.as_bytes(), SERVER_NONCE).unwrap();
        assert!(matches!(proof.finish(CLIENT_FINAL.as_bytes()), Err(SignOnError::Refused)));
    }

    #[test]
    fn a_message_of_another_exchange_is_refused() {
        let (_, proof) = exchange(user()).first(CLIENT_FIRST.as_bytes()).unwrap();
        let error = proof.finish(CLIENT_FINAL.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("the last message has another nonce"), "{error}");
        for (first, expected) in [
            ("p=tls-server-end-point,,n=,r=x", "channel binding"),
            ("n,a=admin,n=,r=x", "somebody else"),
            ("n,,m=x,n=,r=x", "extension"),
            ("n,,n=,r=", "no nonce"),
            ("n", "too few parts"),
        ] {
            let error = exchange(user()).first(first.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        // A client that could bind the channel says so, and a proxy that takes that away is noticed.
        let (_, proof) = exchange(user()).first_with(b"y,,n=,r=rOprNGfwEbeRWgbNEkqO", SERVER_NONCE).unwrap();
        let error = proof.finish(CLIENT_FINAL.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("differ in what they say about the channel"), "{error}");
    }

    proptest! {
        #[test]
        fn no_message_but_the_right_one_signs_in(
            first in prop::collection::vec(any::<u8>(), 0..80),
            last in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..120),
                "c=biws,r=rOprNGfwEbeRWgbNEkqO[%]hvYDpWUa2RaTCAfuxFIlj[)]hNlF[$]k0,p=[A-Za-z0-9+/]{43}="
                    .prop_map(String::into_bytes),
            ],
        ) {
            prop_assume!(last != CLIENT_FINAL.as_bytes());
            let _ = exchange(user()).first(&first);
            let (_, proof) = exchange(user()).first_with(CLIENT_FIRST.as_bytes(), SERVER_NONCE).unwrap();
            prop_assert!(proof.finish(&last).is_err());
        }
    }
}
