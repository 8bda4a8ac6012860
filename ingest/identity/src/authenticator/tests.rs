use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::clock::tests::Hand;
use crate::oidc::tests::issuer::Issuer;
use crate::principal::Scope;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const PASSWORD: &str = "correct horse battery";
const URL: &str = "https://login.example.go.th";

struct Setting {
    folder: TempDir,
    clock: Arc<Hand>,
    issuer: Arc<Issuer>,
    who: Authenticator,
}

fn setting(settings: &str) -> Setting {
    let (folder, clock, issuer) = (tempfile::tempdir().unwrap(), Arc::new(Hand::default()), Issuer::new(URL));
    let settings = toml::from_str(settings).unwrap();
    let who = Authenticator::with(&settings, folder.path(), clock.clone(), || Ok(issuer.clone())).unwrap();
    Setting { folder, clock, issuer, who }
}

fn all() -> Setting {
    setting(&format!("local_users = true\ntokens = true\n[oidc]\nissuer = \"{URL}\"\naudience = \"ruam\"\n"))
}

impl Setting {
    fn users(&self) -> Users {
        Users::open(self.folder.path()).unwrap()
    }

    fn tokens(&self) -> Tokens {
        Tokens::with_clock(self.folder.path(), self.clock.clone())
    }

    async fn password(&self, user: &str, password: &str) -> Result<Principal, SignOnError> {
        let credentials = Credentials::Password { user: user.to_owned(), password: Secret::new(password) };
        self.who.authenticate(&credentials, HERE).await
    }

    async fn token(&self, token: &Secret) -> Result<Principal, SignOnError> {
        self.who.authenticate(&Credentials::Token(token.clone()), HERE).await
    }
}

/// Where there is no issuer, none is asked.
fn no_issuer() -> Result<Arc<dyn Fetch>, SignOnError> {
    panic!("there is no issuer")
}

/// The last message of a client that knows no password.
fn wrong_proof(answer: &str) -> Vec<u8> {
    let nonce = answer.split(',').next().unwrap();
    format!("c=biws,{nonce},p={}", STANDARD.encode([0; 32])).into_bytes()
}

fn analyst() -> BTreeSet<String> {
    BTreeSet::from(["analyst".to_owned()])
}

#[tokio::test]
async fn each_way_signs_in() {
    let setting = all();
    setting.users().add("somchai", analyst(), &Secret::new(PASSWORD)).unwrap();
    let principal = setting.password("somchai", PASSWORD).await.unwrap();
    assert_eq!((principal.to_string().as_str(), principal.roles()), ("somchai (password)", &analyst()));
    let token = setting.tokens().issue("dashboard", analyst(), BTreeSet::from([Scope::Sql]), 90).unwrap();
    assert_eq!(setting.token(&token).await.unwrap().name(), "dashboard");
    assert_eq!(setting.password(TOKEN_USER, token.reveal()).await.unwrap().name(), "dashboard");
    let exp = setting.clock.now().timestamp() + 60;
    let claims = json!({"iss": URL, "aud": "ruam", "exp": exp, "preferred_username": "suda"});
    let jwt = setting.issuer.add("1", "EdDSA").token(&json!({"alg": "EdDSA", "kid": "1"}), &claims);
    assert_eq!(setting.token(&Secret::new(&jwt)).await.unwrap().to_string(), "suda (OIDC)");
    assert_eq!(setting.password(TOKEN_USER, &jwt).await.unwrap().to_string(), "suda (OIDC)");
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_are_told_the_same() {
    let setting = all();
    setting.users().add("somchai", analyst(), &Secret::new(PASSWORD)).unwrap();
    let wrong = setting.password("somchai", "wrong").await.unwrap_err().to_string();
    let unknown = setting.password("nobody", PASSWORD).await.unwrap_err().to_string();
    assert_eq!(wrong, unknown);
    let first = |user: &str| setting.who.scram(user, HERE).unwrap().first(b"n,,n=,r=abc").unwrap().0;
    let form = |answer: String| answer.split(',').map(|part| (part[..1].to_owned(), part.len())).collect::<Vec<_>>();
    assert_eq!(form(first("somchai")), form(first("nobody")));
    let salt = |answer: String| answer.split(',').nth(1).unwrap().to_owned();
    assert_eq!(salt(first("nobody")), salt(first("nobody")));
}

#[tokio::test]
async fn whoever_guesses_waits() {
    let setting = all();
    setting.users().add("somchai", analyst(), &Secret::new(PASSWORD)).unwrap();
    assert!(matches!(setting.password("somchai", "wrong").await, Err(SignOnError::Refused)));
    for _ in 0..9 {
        let (answer, proof) = setting.who.scram("somchai", HERE).unwrap().first(b"n,,n=,r=abc").unwrap();
        assert!(matches!(proof.finish(&wrong_proof(&answer)), Err(SignOnError::Refused)));
    }
    // The right password is not looked at, and neither is a proof of it.
    assert!(matches!(setting.password("somchai", PASSWORD).await, Err(SignOnError::TooMany { .. })));
    assert!(matches!(setting.who.scram("somchai", HERE), Err(SignOnError::TooMany { .. })));
    setting.clock.forward(6);
    setting.password("somchai", PASSWORD).await.unwrap();
}

#[tokio::test]
async fn what_was_begun_before_counts_with_the_rest() {
    let setting = all();
    let begun: Vec<_> =
        (0..20).map(|_| setting.who.scram("nobody", HERE).unwrap().first(b"n,,n=,r=abc").unwrap()).collect();
    let mut refused = 0;
    for (answer, proof) in begun {
        match proof.finish(&wrong_proof(&answer)) {
            Err(SignOnError::Refused) => refused += 1,
            Err(SignOnError::TooMany { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 10);
}

#[tokio::test]
async fn what_is_taken_away_counts_no_longer() {
    let setting = all();
    setting.users().add("somchai", analyst(), &Secret::new(PASSWORD)).unwrap();
    let token = setting.tokens().issue("dashboard", analyst(), BTreeSet::from([Scope::Sql]), 90).unwrap();
    let (user, by_token) = (setting.password("somchai", PASSWORD).await.unwrap(), setting.token(&token).await.unwrap());
    assert_eq!(setting.who.renew(&user).unwrap(), user);
    assert_eq!(setting.who.renew(&by_token).unwrap(), by_token);
    assert!(setting.who.still_counts(&user) && setting.who.still_counts(&by_token));
    setting.users().remove("somchai").unwrap();
    let Method::Token { id } = by_token.method() else { panic!("by a token") };
    setting.tokens().revoke(id).unwrap();
    assert!(matches!(setting.who.renew(&user), Err(SignOnError::Refused)));
    assert!(matches!(setting.who.renew(&by_token), Err(SignOnError::Refused)));
    assert!(!setting.who.still_counts(&user) && !setting.who.still_counts(&by_token));
    assert!(matches!(setting.password("somchai", PASSWORD).await, Err(SignOnError::Refused)));
    assert!(matches!(setting.token(&token).await, Err(SignOnError::Refused)));
}

#[tokio::test]
async fn what_is_switched_off_signs_in_nobody() {
    let setting = setting("tokens = true");
    setting.users().add("somchai", analyst(), &Secret::new(PASSWORD)).unwrap();
    let error = setting.password("somchai", PASSWORD).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "nobody signs in by name and password here. Use another way, or switch it on in [sign_on] of ruam.toml"
    );
    assert!(matches!(setting.who.scram("somchai", HERE), Err(SignOnError::NotOffered { .. })));
    let error = setting.token(&Secret::new("eyJ.e30.x")).await.unwrap_err();
    assert_eq!(error.for_strangers(), "nobody signs in by OIDC here. Use another way");
    let off = Authenticator::with(&SignOnSettings::default(), setting.folder.path(), setting.clock.clone(), no_issuer);
    assert!(matches!(off, Err(SignOnError::Setting { setting: "sign_on", .. })));
}

#[tokio::test]
async fn a_file_that_is_wrong_lets_nobody_in() {
    let setting = all();
    setting.users().add("somchai", analyst(), &Secret::new(PASSWORD)).unwrap();
    let path = setting.folder.path().join("users.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("SCRAM-SHA-256", "MD5")).unwrap();
    let error = setting.password("somchai", PASSWORD).await.unwrap_err();
    assert!(error.to_string().contains("is not as ruam writes it"), "{error}");
    assert!(error.for_strangers().starts_with("sign-in does not work at present"), "{}", error.for_strangers());
}

#[test]
fn headers_are_read() {
    let Some(Credentials::Token(token)) = Credentials::of_header(b"bearer  ruam_1") else { panic!("a token") };
    assert_eq!(token.reveal(), "ruam_1");
    // RFC 7617, section 2.
    let basic = Credentials::of_header(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    let Some(Credentials::Password { user, password }) = basic else { panic!("a password") };
    assert_eq!((user.as_str(), password.reveal()), ("Aladdin", "open sesame"));
    for header in ["", "Basic", "Basic !", "Basic QWxhZGRpbg==", "Digest x", "ruam_1"] {
        assert!(Credentials::of_header(header.as_bytes()).is_none(), "{header}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_header_signs_in(header in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        "(Bearer|Basic) [A-Za-z0-9+/=._-]{0,90}".prop_map(String::into_bytes),
    ]) {
        let setting = setting("tokens = true");
        setting.tokens().issue("dashboard", analyst(), BTreeSet::new(), 90).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        if let Some(credentials) = Credentials::of_header(&header) {
            prop_assert!(runtime.block_on(setting.who.authenticate(&credentials, HERE)).is_err());
            let printed = format!("{credentials:?}");
            prop_assert!(printed.contains("***") && !printed.contains("Bearer"));
        }
    }

    #[test]
    fn no_file_breaks_the_start(users in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        "decoy = \"x\"\n[users.a]\n(roles|verifier|since) = .{0,40}".prop_map(String::into_bytes),
    ]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        std::fs::write(&path, users).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let settings = SignOnSettings { local_users: true, ..SignOnSettings::default() };
        if let Ok(who) = Authenticator::with(&settings, folder.path(), Arc::new(Hand::default()), no_issuer) {
            prop_assert!(who.scram("a", HERE).is_ok());
        }
    }
}
