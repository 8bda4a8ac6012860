//! The tables of the lake as they are looked at by all sessions.
//!
//! What passes through: a table's name, into the table as it is at that moment. What is known of a table is
//! kept, so that the next look costs little, and each table is looked at by one at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::Result;
use deltalake::DeltaTable;
use ruam_lake::{AsOf, Lake, LakeError, LiveFile, LiveFiles, TableName};

use crate::error::external;
use crate::scan::LakeTable;

/// The tables of the lake, looked at and kept so that the next look costs little.
#[derive(Debug)]
pub(crate) struct Tables {
    lake: Lake,
    known: tokio::sync::Mutex<HashMap<TableName, Known>>,
    /// With a pinned catalog, the version that each table was first looked at in.
    pinned: Option<Mutex<BTreeMap<TableName, u64>>>,
}

/// A table that has been looked at.
#[derive(Debug)]
struct Known {
    table: DeltaTable,
    files: LiveFiles,
}

impl Known {
    /// The table to scan, as it is now known.
    async fn provider(&mut self, name: &TableName) -> Result<Arc<dyn TableProvider>> {
        if !LakeTable::is_plain(&self.table) {
            return self.table.table_provider().await.map_err(external);
        }
        let files = self.files.of(name, &self.table).await.map_err(external)?;
        Ok(Arc::new(LakeTable::new(self.table.clone(), files)?))
    }
}

impl Tables {
    pub(crate) fn new(lake: Lake, pinned: bool) -> Self {
        Self { lake, known: tokio::sync::Mutex::default(), pinned: pinned.then(Mutex::default) }
    }

    /// The versions that have been looked at, if the catalog is pinned.
    pub(crate) fn versions(&self) -> BTreeMap<TableName, u64> {
        let pinned = self.pinned.as_ref().map(|pinned| pinned.lock().unwrap_or_else(PoisonError::into_inner).clone());
        pinned.unwrap_or_default()
    }

    /// A table to scan; empty where nothing has been written to it.
    pub(crate) async fn provider(&self, name: &TableName, schema: &SchemaRef) -> Result<Arc<dyn TableProvider>> {
        let mut known = self.known.lock().await;
        match self.look(&mut known, name).await? {
            Some(known) => known.provider(name).await,
            None => Ok(Arc::new(MemTable::try_new(schema.clone(), vec![Vec::new()])?)),
        }
    }

    /// A table as it is now, or in its pinned version; none where nothing has been written to it.
    pub(crate) async fn table(&self, name: &TableName) -> Result<Option<DeltaTable>> {
        let mut known = self.known.lock().await;
        Ok(self.look(&mut known, name).await?.map(|known| known.table.clone()))
    }

    /// A table as it was, with the files that it had.
    ///
    /// # Errors
    /// Where it is not kept as it was then, or nothing has been written to it.
    pub(crate) async fn as_of(&self, name: &TableName, as_of: AsOf) -> Result<(DeltaTable, Arc<[LiveFile]>)> {
        let table = self.lake.table_as_of(name, as_of).await.map_err(external)?;
        let files = LiveFiles::default().of(name, &table).await.map_err(external)?;
        Ok((table, files))
    }

    async fn look<'a>(
        &self,
        known: &'a mut HashMap<TableName, Known>,
        name: &TableName,
    ) -> Result<Option<&'a mut Known>> {
        if let (Some(Known { table, .. }), None) = (known.get_mut(name), &self.pinned)
            && table.update_incremental(None).await.is_err()
        {
            // It may have been replaced as a whole; then it is opened anew.
            known.remove(name);
        }
        if !known.contains_key(name) {
            let table = match self.lake.table(name).await {
                Ok(table) => table,
                Err(LakeError::Missing { .. }) => return Ok(None),
                Err(error) => return Err(external(error)),
            };
            if let Some(pinned) = &self.pinned {
                let version = table.version().unwrap_or_default();
                pinned.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), version);
            }
            known.insert(name.clone(), Known { table, files: LiveFiles::default() });
        }
        Ok(known.get_mut(name))
    }
}
