//! Any text as a signature of anything, and any text as a public key. Nothing is signed but what a key has signed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ruam_identity::{KnownSigners, PublicKey, Signers};

/// The keys of RFC 8037, appendix A, and of RFC 7515, appendix A.3.
const KEYS: [&str; 2] = [
    r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
    r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
];

static KNOWN: LazyLock<KnownSigners> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let signers = Signers::open(folder.path());
    for key in KEYS {
        signers.add("bora", "register", PublicKey::parse(key).expect("a key")).expect("a file");
    }
    signers.known().expect("a file")
});

fuzz_target!(|sent: (&str, &[u8])| {
    let (text, payload) = sent;
    if let Ok(whole) = KNOWN.check("bora", text, payload) {
        panic!("nobody has signed this: {whole}");
    }
    if let Ok(key) = PublicKey::parse(text) {
        assert_eq!(PublicKey::parse(&key.to_string()).expect("what was written"), key);
    }
});
