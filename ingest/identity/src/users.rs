//! The local users: those of a single machine, whose passwords are checked here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ruam_event::Secret;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, SystemClock};
use crate::error::SignOnError;
use crate::kept::Kept;
use crate::principal::{Method, Principal, Scope, check_name, check_role};
use crate::random;
use crate::verifier::Verifier;

/// Whoever signs in as this user gives an API token or an OIDC token as password. So they can be used where a
/// tool asks for a name and a password.
pub const TOKEN_USER: &str = "token";

const HEADER: &str =
    "# The local users of ruam, as `ruam user` writes them: no passwords, and yet nobody else's business.\n";

/// The local users, in `users.toml`.
#[derive(Debug)]
pub struct Users {
    kept: Kept<UsersFile>,
    clock: Arc<dyn Clock>,
    /// Stands for the file's decoy where there is no file.
    decoy: [u8; 32],
}

/// A local user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The roles, as policies name them.
    pub roles: BTreeSet<String>,
    /// When the password was given.
    pub since: DateTime<Utc>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    /// From this comes the salt that is told to users who do not exist, the same after each start.
    decoy: Option<Decoy>,
    #[serde(default)]
    users: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    roles: BTreeSet<String>,
    verifier: Verifier,
    since: DateTime<Utc>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct Decoy(String);

impl std::fmt::Debug for Decoy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Users {
    /// Those in a folder. Nothing is read or made yet.
    ///
    /// # Errors
    /// Where the operating system gives no random bytes.
    pub fn open(folder: &Path) -> Result<Self, SignOnError> {
        Self::with_clock(folder, Arc::new(SystemClock))
    }

    pub(crate) fn with_clock(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, SignOnError> {
        Ok(Self { kept: Kept::new(folder.join("users.toml"), HEADER), clock, decoy: random::bytes()? })
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// Where the file cannot be read or is wrong.
    pub fn list(&self) -> Result<Vec<User>, SignOnError> {
        let file = self.kept.get()?;
        let user = |(name, entry): (&String, &Entry)| User {
            name: name.clone(),
            roles: entry.roles.clone(),
            since: entry.since,
        };
        Ok(file.users.iter().map(user).collect())
    }

    /// Adds a user.
    ///
    /// # Errors
    /// Where there is one of that name, the name, a role or the password will not do, or the file cannot be
    /// written.
    pub fn add(&self, name: &str, roles: BTreeSet<String>, password: &Secret) -> Result<(), SignOnError> {
        check_name(name, "the name of a user")?;
        if name == TOKEN_USER {
            let remedy = "This user signs in with a token in place of a password. Choose another name";
            return Err(SignOnError::Name { text: name.to_owned(), what: "the name of a user", remedy });
        }
        roles.iter().try_for_each(|role| check_role(role))?;
        let entry = Entry { roles, verifier: Verifier::of_new(password)?, since: self.clock.now() };
        let decoy = Decoy(hex::encode(random::bytes::<32>()?));
        self.kept.change(|file| {
            if file.users.contains_key(name) {
                return Err(SignOnError::Exists { name: name.to_owned() });
            }
            file.decoy.get_or_insert(decoy);
            file.users.insert(name.to_owned(), entry);
            Ok(())
        })
    }

    /// Gives a user another password.
    ///
    /// # Errors
    /// Where there is no such user, the password will not do, or the file cannot be written.
    pub fn set_password(&self, name: &str, password: &Secret) -> Result<(), SignOnError> {
        let (verifier, since) = (Verifier::of_new(password)?, self.clock.now());
        self.kept.change(|file| {
            let entry = file.users.get_mut(name).ok_or_else(|| unknown(name))?;
            (entry.verifier, entry.since) = (verifier, since);
            Ok(())
        })
    }

    /// Removes a user.
    ///
    /// # Errors
    /// Where there is no such user, or the file cannot be written.
    pub fn remove(&self, name: &str) -> Result<(), SignOnError> {
        self.kept.change(|file| file.users.remove(name).map(drop).ok_or_else(|| unknown(name)))
    }

    /// The verifier of a user's password, and who signs in with it. For one who does not exist, a verifier
    /// that nothing fits.
    pub(crate) fn verifier(&self, name: &str) -> Result<(Verifier, Option<Principal>), SignOnError> {
        let file = self.kept.get()?;
        Ok(match file.users.get(name) {
            Some(entry) => (entry.verifier.clone(), Some(entry.principal(name))),
            None => {
                let key = file.decoy.as_ref().map_or(&self.decoy[..], |decoy| decoy.0.as_bytes());
                (Verifier::decoy(key, name), None)
            }
        })
    }

    /// A user as it is now.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Principal>, SignOnError> {
        Ok(self.kept.get()?.users.get(name).map(|entry| entry.principal(name)))
    }
}

impl Entry {
    fn principal(&self, name: &str) -> Principal {
        Principal {
            name: name.to_owned(),
            roles: self.roles.clone(),
            method: Method::Password,
            expires: None,
            scopes: BTreeSet::from([Scope::Sql]),
        }
    }
}

fn unknown(name: &str) -> SignOnError {
    SignOnError::Unknown { what: "user", name: name.escape_debug().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password() -> Secret {
        Secret::new("correct horse battery")
    }

    #[test]
    fn users_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let users = Users::open(folder.path()).unwrap();
        assert!(users.list().unwrap().is_empty());
        users.add("somchai", BTreeSet::from(["analyst".to_owned()]), &password()).unwrap();
        let error = users.add("somchai", BTreeSet::new(), &password()).unwrap_err().to_string();
        assert!(error.starts_with("there is a user `somchai` already"), "{error}");
        let (verifier, principal) = users.verifier("somchai").unwrap();
        assert!(verifier.is_of(&password()));
        assert_eq!(principal.unwrap().to_string(), "somchai (password)");
        users.set_password("somchai", &Secret::new("another of its kind")).unwrap();
        assert!(!users.verifier("somchai").unwrap().0.is_of(&password()));
        users.remove("somchai").unwrap();
        assert!(users.verifier("somchai").unwrap().1.is_none() && users.find("somchai").unwrap().is_none());
        let error = users.remove("somchai").unwrap_err().to_string();
        assert_eq!(error, "there is no user `somchai`. `ruam user list` shows those that there are");
    }

    #[test]
    fn whoever_does_not_exist_has_the_same_salt_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let users = || Users::open(folder.path()).unwrap();
        users().add("somchai", BTreeSet::new(), &password()).unwrap();
        assert_eq!(users().verifier("nobody").unwrap().0.salt(), users().verifier("nobody").unwrap().0.salt());
        let somchai = users().verifier("somchai").unwrap().0;
        let nobody = users().verifier("nobody").unwrap().0;
        assert_eq!((somchai.iterations(), somchai.salt().len()), (nobody.iterations(), nobody.salt().len()));
    }

    #[test]
    fn names_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let users = Users::open(folder.path()).unwrap();
        for (name, role, expected) in [
            ("a\nb", "analyst", "`a\\nb` cannot be the name of a user. Write 1 to 128 characters"),
            ("token", "analyst", "`token` cannot be the name of a user. This user signs in with a token"),
            ("a", "b,c", "`b,c` cannot be a role. Use letters, digits"),
        ] {
            let error = users.add(name, BTreeSet::from([role.to_owned()]), &password()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
