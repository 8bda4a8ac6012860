//! What can go wrong with the lake, and what to do about it.

use std::io;

use deltalake::DeltaTableError;
use ruam_event::{Classify, DatasetId, Fault, TopicId};

use crate::as_of::AsOf;
use crate::location::TableName;

/// A fault whose table and operation the caller knows and puts to it.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error of the lake.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The address of the lake is not one.
    #[error(
        "lake.url = `{url}` does not work: {problem}. Use a path, or a URL such as s3://bucket/path, gs://bucket/path or az://container/path"
    )]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing can be written there.
    #[error(
        "cannot write to the lake at {url}: {source}. Give this user the right to write there, or set lake.url to another place"
    )]
    NotWritable {
        /// The address.
        url: String,
        /// What the store says.
        source: object_store::Error,
    },
    /// There is no room left.
    #[error("the disk of the lake at {url} is full. Make room; nothing is lost, and writing goes on by itself")]
    Full {
        /// The address.
        url: String,
    },
    /// The lake does not say which it is.
    #[error(
        "cannot read which lake is at {url} from its `_ruam/lake.json`: {source}. If the file is damaged, delete it: nothing hangs on it but the name under which brokers know this lake's readers"
    )]
    Identity {
        /// The address.
        url: String,
        /// What the store or the file says.
        source: BoxError,
    },
    /// Something failed with a table.
    #[error("cannot {operation} table `{table}`: {source}")]
    Table {
        /// What was being done.
        operation: &'static str,
        /// The table.
        table: TableName,
        /// What the store or the format says.
        source: BoxError,
    },
    /// A table does not exist.
    #[error("there is no table `{table}` yet: nothing has been written to it")]
    Missing {
        /// The table.
        table: TableName,
    },
    /// A version of a table does not exist yet.
    #[error(
        "there is no version {version} of table `{table}` yet: the newest is {newest}. `select * from ruam.versions` lists them"
    )]
    NoVersion {
        /// The table.
        table: TableName,
        /// The version.
        version: u64,
        /// The newest that there is.
        newest: u64,
    },
    /// What a version of a table changed can no longer be told.
    #[error(
        "what version {version} of table `{table}` changed can no longer be told: {what} is gone, as is whatever nobody has needed for worker.retention_hours. Ask from a later version; the log begins with version {oldest}"
    )]
    VersionGone {
        /// The table.
        table: TableName,
        /// The version.
        version: u64,
        /// What is not there.
        what: String,
        /// The first version that the log still tells of.
        oldest: u64,
    },
    /// A table is not kept as it was.
    #[error(
        "table `{table}` is not kept as of {as_of}: of what is older than an hour one version an hour is, for worker.retention_hours. `select * from ruam.versions where table_name = '{table}'` lists them"
    )]
    NotKept {
        /// The table.
        table: TableName,
        /// What was asked for.
        as_of: AsOf,
    },
    /// A table did not exist yet.
    #[error(
        "table `{table}` began after {as_of}. `select * from ruam.versions where table_name = '{table}'` says when"
    )]
    NotBegun {
        /// The table.
        table: TableName,
        /// What was asked for.
        as_of: AsOf,
    },
    /// The declaration of a dataset does not fit its table any more.
    #[error("what `{dataset}` declares does not fit its table any more: {problem}. {remedy}")]
    Incompatible {
        /// The dataset.
        dataset: DatasetId,
        /// What does not fit.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A topic was deleted and created anew.
    #[error(
        "topic `{topic}` is not the one that `{dataset}` was written from: it was deleted and created anew (now {now}). If that was meant, run `ruam resume {dataset} --from beginning`"
    )]
    Recreated {
        /// The dataset.
        dataset: DatasetId,
        /// The topic.
        topic: String,
        /// The id that it has.
        now: TopicId,
    },
    /// A table has rows, and nothing says up to where they were read.
    #[error(
        "table `{table}` has rows and no record of how far its topic was read: something else wrote to it, or its transactions expired. Run `ruam resume {dataset}` with the place to go on from"
    )]
    NoProgress {
        /// The dataset.
        dataset: DatasetId,
        /// The table.
        table: TableName,
    },
    /// Another writer was quicker; what was to be written is read again from where the table is.
    #[error("another writer has moved `{dataset}` on ({detail}); reading again from where its table is")]
    Superseded {
        /// The dataset.
        dataset: DatasetId,
        /// What was found.
        detail: String,
    },
    /// The columns of a batch are not those of the table.
    #[error("a batch of `{dataset}` does not fit its table: {source}")]
    Batch {
        /// The dataset.
        dataset: DatasetId,
        /// What Arrow says.
        source: arrow::error::ArrowError,
    },
}

impl LakeError {
    pub(crate) fn table(operation: &'static str, table: &TableName, source: impl Into<BoxError>) -> Self {
        Self::Table { operation, table: table.clone(), source: source.into() }
    }

    /// Names a full disk for what it is, wherever in a chain of errors it hides.
    pub(crate) fn or_full(self, url: &str) -> Self {
        if let Self::Table { source, .. } = &self
            && is_disk_full(source.as_ref())
        {
            return Self::Full { url: url.to_owned() };
        }
        self
    }
}

/// Whether a full disk is at the root of an error.
pub(crate) fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        next = error.source();
    }
    // Some layers keep the text of an error and not the error.
    error.to_string().contains("No space left on device")
}

/// Whether a commit failed because the table has moved on.
pub(crate) fn is_conflict(error: &DeltaTableError) -> bool {
    use deltalake::kernel::transaction::TransactionError;
    matches!(error, DeltaTableError::VersionAlreadyExists(_))
        || matches!(
            error,
            DeltaTableError::Transaction {
                source: TransactionError::MaxCommitAttempts(_)
                    | TransactionError::CommitConflict(_)
                    | TransactionError::VersionAlreadyExists(_)
            }
        )
}

impl Classify for LakeError {
    fn fault(&self) -> Fault {
        match self {
            Self::Full { .. }
            | Self::Identity { .. }
            | Self::Table { .. }
            | Self::Superseded { .. }
            | Self::Missing { .. } => Fault::Transient,
            Self::Address { .. }
            | Self::NotWritable { .. }
            | Self::Incompatible { .. }
            | Self::Recreated { .. }
            | Self::NoProgress { .. }
            | Self::NoVersion { .. }
            | Self::VersionGone { .. }
            | Self::NotKept { .. }
            | Self::NotBegun { .. }
            | Self::Batch { .. } => Fault::Operator,
        }
    }
}
