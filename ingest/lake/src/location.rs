//! Where the lake is, and where each table lies in it.
//!
//! A dataset's tables are side by side, so that any Delta reader finds them by name:
//!
//! ```text
//! <lake>/bora/person             the rows
//! <lake>/bora/person__rejects    what could not become a row, and why
//! <lake>/bora/person__changes    every accepted change, where the dataset keeps history
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use ruam_event::{DatasetId, Secret};
use url::Url;

use crate::durable::DurableFileSystem;
use crate::error::{LakeError, is_disk_full};

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
        let base = Path::from_url_path(self.url.path())
            .map_err(|error| LakeError::Address { url: self.url.to_string(), problem: error.to_string() })?;
        let probe = base.join(format!("_ruam_probe_{}", uuid::Uuid::new_v4().simple()));
        let failed = |source| match is_disk_full(&source) {
            true => LakeError::Full { url: self.url.to_string() },
            false => LakeError::NotWritable { url: self.url.to_string(), source },
        };
        let create = object_store::PutOptions::from(object_store::PutMode::Create);
        self.root.put_opts(&probe, PutPayload::from_static(b"ruam"), create.clone()).await.map_err(failed)?;
        let again = self.root.put_opts(&probe, PutPayload::from_static(b"ruam"), create).await;
        self.root.delete(&probe).await.map_err(failed)?;
        match again {
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
            // Without this, two writers could both believe that their commit is the one.
            Ok(_) => Err(LakeError::Address {
                url: self.url.to_string(),
                problem: "the store overwrites an object that must not exist (no conditional put)".to_owned(),
            }),
        }
    }

    /// The store of a table, as the Delta library wants it.
    pub(crate) fn log_store(&self, name: &TableName) -> Result<LogStoreRef, LakeError> {
        let path = format!("{}/{}/", name.dataset.agency(), name.table());
        let location = self.url.join(&path).map_err(|error| LakeError::table("locate", name, error))?;
        let config = StorageConfig::default();
        let prefixed = config
            .decorate_store(self.root.clone(), &location)
            .map_err(|error| LakeError::table("locate", name, error))?;
        Ok(default_logstore(Arc::new(prefixed), self.root.clone(), &location, &config))
    }

    /// The store that the whole lake lies in, and its address, for engines that read it.
    pub fn object_store(&self) -> (&Url, Arc<dyn ObjectStore>) {
        (&self.url, self.root.clone())
    }
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
        assert_eq!(std::fs::read_dir(dir.path().join("a b/lake")).unwrap().count(), 0, "nothing is left behind");
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
