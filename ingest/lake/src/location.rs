//! Where the lake is, and where each table lies in it.
//!
//! A dataset's tables are side by side, so that any Delta reader finds them by name:
//!
//! ```text
//! <lake>/bora/person             the rows
//! <lake>/bora/person__rejects    what could not become a row, and why
//! <lake>/bora/person__changes    every accepted change, where the dataset keeps history
//! <lake>/_ruam/lake.json         which lake this is
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, PutResult};
use ruam_event::{DatasetId, Secret};
use url::Url;
use uuid::Uuid;

use crate::checkpoint_cache::CheckpointCache;
use crate::durable::DurableFileSystem;
use crate::error::{BoxError, LakeError, is_disk_full};

/// The lake.
#[derive(Clone, Debug)]
pub struct Lake {
    /// Its address; the path ends with a slash.
    url: Url,
    root: Arc<dyn ObjectStore>,
}

/// Names a table of the lake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The dataset that it belongs to.
    pub dataset: DatasetId,
    /// What it holds of it.
    pub kind: TableKind,
}

/// What a table holds of its dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableKind {
    /// The rows as they are.
    Rows,
    /// What could not become a row.
    Rejects,
    /// Every accepted change.
    Changes,
}

impl TableName {
    /// A table of a dataset.
    pub fn new(dataset: &DatasetId, kind: TableKind) -> Self {
        Self { dataset: dataset.clone(), kind }
    }

    /// The name in SQL, within the schema of the agency.
    pub fn table(&self) -> String {
        format!("{}{}", self.dataset.name(), self.kind.suffix())
    }
}

impl TableKind {
    /// What follows the dataset's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Rows => "",
            Self::Rejects => "__rejects",
            Self::Changes => "__changes",
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dataset, self.kind.suffix())
    }
}

impl Lake {
    /// The lake at an address: a path, or a URL of a kind that object_store knows. Settings of the
    /// store (region, endpoint, keys) come from `options`, and before them from the environment.
    ///
    /// # Errors
    /// Where the address is not one.
    pub fn open(address: &str, options: &BTreeMap<String, Secret>) -> Result<Self, LakeError> {
        let wrong = |problem: String| LakeError::Address { url: address.to_owned(), problem };
        let mut url = match Url::parse(address) {
            // A Windows drive is not a scheme, and neither is anything else of one letter.
            Ok(url) if url.scheme().len() > 1 => url,
            _ => {
                let path = std::path::absolute(address).map_err(|error| wrong(error.to_string()))?;
                Url::from_directory_path(path).map_err(|()| wrong("it is not a path".to_owned()))?
            }
        };
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        let root: Arc<dyn ObjectStore> = if url.scheme() == "file" {
            let path = url.to_file_path().map_err(|()| wrong("it is not a path of this machine".to_owned()))?;
            let create = std::fs::create_dir_all(&path);
            create.map_err(|source| LakeError::NotWritable { url: address.to_owned(), source: io_error(source) })?;
            Arc::new(DurableFileSystem::new(LocalFileSystem::new()))
        } else {
            let environment = std::env::vars()
                .filter(|(name, _)| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|prefix| name.starts_with(prefix)));
            let given = options.iter().map(|(key, value)| (key.clone(), value.reveal().to_owned()));
            let settings = environment.map(|(name, value)| (name.to_ascii_lowercase(), value)).chain(given);
            let (store, _) = object_store::parse_url_opts(&url, settings).map_err(|error| wrong(error.to_string()))?;
            Arc::from(store)
        };
        Ok(Self { url, root })
    }

    /// Its address, without any credentials.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Tries whether the lake can be written to, and commits be kept apart.
    ///
    /// # Errors
    /// Where it cannot.
    pub async fn check_writable(&self) -> Result<(), LakeError> {
        let probe = self.own_file(&format!("probe-{}", Uuid::new_v4().simple()))?;
        self.create(&probe, "ruam".into()).await.map_err(|error| self.write_failed(error))?;
        let again = self.create(&probe, "ruam".into()).await;
        self.root.delete(&probe).await.map_err(|error| self.write_failed(error))?;
        match again {
            Err(error) if is_there_already(&error) => Ok(()),
            Err(error) => Err(self.write_failed(error)),
            // Without this, two writers could both believe that their commit is the one.
            Ok(_) => Err(LakeError::Address {
                url: self.url.to_string(),
                problem: "the store overwrites an object that must not exist (no conditional put)".to_owned(),
            }),
        }
    }

    /// Which lake this is, wherever it is looked at from. Whoever asks first decides.
    ///
    /// # Errors
    /// Where it cannot be read, or written at first.
    pub async fn identity(&self) -> Result<Uuid, LakeError> {
        let file = self.own_file("lake.json")?;
        let failed = |source: BoxError| LakeError::Identity { url: self.url.to_string(), source };
        let text = match self.read(&file).await {
            Err(object_store::Error::NotFound { .. }) => {
                let new = serde_json::json!({ "format": 1, "lake": Uuid::new_v4() }).to_string();
                match self.create(&file, new.into()).await {
                    Err(error) if !is_there_already(&error) => return Err(self.write_failed(error)),
                    // Made here, or by another at the same time.
                    _ => self.read(&file).await,
                }
            }
            found => found,
        };
        let file: IdentityFile = serde_json::from_slice(&text.map_err(|error| failed(error.into()))?)
            .map_err(|error| failed(error.into()))?;
        Ok(file.lake)
    }

    fn own_file(&self, name: &str) -> Result<Path, LakeError> {
        let base = Path::from_url_path(self.url.path())
            .map_err(|error| LakeError::Address { url: self.url.to_string(), problem: error.to_string() })?;
        Ok(base.join("_ruam").join(name))
    }

    async fn create(&self, path: &Path, content: PutPayload) -> object_store::Result<PutResult> {
        self.root.put_opts(path, content, PutMode::Create.into()).await
    }

    async fn read(&self, path: &Path) -> object_store::Result<Bytes> {
        self.root.get(path).await?.bytes().await
    }

    fn write_failed(&self, source: object_store::Error) -> LakeError {
        match is_disk_full(&source) {
            true => LakeError::Full { url: self.url.to_string() },
            false => LakeError::NotWritable { url: self.url.to_string(), source },
        }
    }

    /// The store of a table, as the Delta library wants it.
    pub(crate) fn log_store(&self, name: &TableName) -> Result<LogStoreRef, LakeError> {
        let path = format!("{}/{}/", name.dataset.agency(), name.table());
        let location = self.url.join(&path).map_err(|error| LakeError::table("locate", name, error))?;
        let config = StorageConfig::default();
        let root: Arc<dyn ObjectStore> = Arc::new(CheckpointCache::new(self.root.clone()));
        let prefixed =
            config.decorate_store(root.clone(), &location).map_err(|error| LakeError::table("locate", name, error))?;
        Ok(default_logstore(Arc::new(prefixed), root, &location, &config))
    }

    /// The store that the whole lake lies in, and its address, for engines that read it.
    pub fn object_store(&self) -> (&Url, Arc<dyn ObjectStore>) {
        (&self.url, self.root.clone())
    }
}

/// What [`Lake::identity`] keeps.
#[derive(serde::Deserialize)]
struct IdentityFile {
    lake: Uuid,
}

fn is_there_already(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
}

fn io_error(source: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "file", source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_is_a_lake() {
        let dir = tempfile::tempdir().unwrap();
        let lake = Lake::open(dir.path().join("a b/lake").to_str().unwrap(), &BTreeMap::new()).unwrap();
        assert!(lake.url().ends_with("/a%20b/lake/"));
        lake.check_writable().await.unwrap();
        let left = std::fs::read_dir(dir.path().join("a b/lake/_ruam")).unwrap().count();
        assert_eq!(left, 0, "no probe is left behind");
    }

    #[tokio::test]
    async fn all_who_look_at_a_lake_agree_which_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| Lake::open(dir.path().join(name).to_str().unwrap(), &BTreeMap::new()).unwrap();
        let (a, also_a, b) = (open("a"), open("a"), open("b"));
        let (first, second) = tokio::join!(a.identity(), also_a.identity());
        assert_eq!(first.as_ref().unwrap(), second.as_ref().unwrap());
        assert_eq!(&open("a").identity().await.unwrap(), first.as_ref().unwrap());
        assert_ne!(&b.identity().await.unwrap(), first.as_ref().unwrap());
        std::fs::write(dir.path().join("b/_ruam/lake.json"), "{").unwrap();
        let error = b.identity().await.unwrap_err().to_string();
        assert!(error.contains("_ruam/lake.json"), "{error}");
    }

    #[tokio::test]
    async fn what_cannot_be_written_to_says_so() {
        let error = Lake::open("/proc/ruam", &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.starts_with("cannot write to the lake at /proc/ruam: "), "{error}");
        assert!(error.contains("set lake.url to another place"), "{error}");
        let error = Lake::open("ftp://x/y", &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.starts_with("lake.url = `ftp://x/y` does not work"), "{error}");
    }
}
