//! A table as it was.
//!
//! What passes through: a version, or a time, into the table as it was then.
//!
//! Guaranteed: what cannot be told any more is an error. Of what is older than an hour one version an hour is
//! kept, and the one before a time is not what the table was then where another has come in between.

use std::fmt;

use chrono::DateTime;
use deltalake::DeltaTable;

use crate::error::LakeError;
use crate::feed::{self, VersionAt};
use crate::location::{Lake, TableName};

/// Which state of a table is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AsOf {
    /// A version of its log.
    Version(u64),
    /// The newest version at a time, in microseconds since 1970-01-01 UTC.
    Time(i64),
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "version {version}"),
            Self::Time(micros) => match DateTime::from_timestamp_micros(*micros) {
                Some(time) => write!(f, "{time}"),
                None => write!(f, "{micros} microseconds after 1970"),
            },
        }
    }
}

impl Lake {
    /// A table as it was, to be read.
    ///
    /// # Errors
    /// Where it does not exist or does not open, had not come so far then, or is not kept as it was then.
    pub async fn table_as_of(&self, name: &TableName, as_of: AsOf) -> Result<DeltaTable, LakeError> {
        let mut table = self.table(name).await?;
        let newest = table.version().unwrap_or_default();
        let not_kept = || LakeError::NotKept { table: name.clone(), as_of };
        let version = match as_of {
            AsOf::Version(version) if version > newest => {
                return Err(LakeError::NoVersion { table: name.clone(), version, newest });
            }
            AsOf::Version(version) => version,
            AsOf::Time(time) => match feed::version_at(name, &table, time).await? {
                VersionAt::Known(version) => version,
                VersionAt::NotBegun => return Err(LakeError::NotBegun { table: name.clone(), as_of }),
                VersionAt::NotKept => return Err(not_kept()),
            },
        };
        if version == newest {
            return Ok(table);
        }
        match table.load_version(version).await {
            Ok(()) => Ok(table),
            Err(_) if !feed::is_logged(name, &table, version).await? => Err(not_kept()),
            Err(error) => Err(LakeError::table("go back in", name, error)),
        }
    }
}
