//! What others may know of the tables: snapshots to query, and how far they are.

use deltalake::DeltaTable;
use ruam_event::Partition;

use crate::error::LakeError;
use crate::location::{Lake, TableName};
use crate::progress::Progress;
use crate::table;

impl Lake {
    /// A table as it is now, to be read.
    ///
    /// # Errors
    /// Where it does not exist or does not open.
    pub async fn table(&self, name: &TableName) -> Result<DeltaTable, LakeError> {
        table::load(self, name).await?.ok_or_else(|| LakeError::Missing { table: name.clone() })
    }

    /// How far a table is with each of some partitions, now or in one of its versions; none where
    /// one has never been read, or the table does not exist.
    ///
    /// # Errors
    /// Where the table does not open, or belongs to another topic of the same name.
    pub async fn progress(
        &self,
        name: &TableName,
        version: Option<u64>,
        partitions: &[Partition],
    ) -> Result<Vec<Option<Progress>>, LakeError> {
        let Some(mut table) = table::load(self, name).await? else { return Ok(vec![None; partitions.len()]) };
        if let Some(version) = version {
            table.load_version(version).await.map_err(|error| LakeError::table("go back in", name, error))?;
        }
        let mut found = Vec::with_capacity(partitions.len());
        for partition in partitions {
            found.push(table::progress(&table, name, partition).await?);
        }
        Ok(found)
    }
}
