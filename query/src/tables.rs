//! The tables of the lake as they are looked at by all sessions.
//!
//! What passes through: a table's name, into the table as it is at that moment. What is known of a table is
//! kept, so that the next look costs little; whoever asks while somebody else looks shares the next look.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

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
    seats: Mutex<HashMap<TableName, Arc<Seat>>>,
    /// With a pinned catalog, the version that each table was first looked at in.
    pinned: Option<Mutex<BTreeMap<TableName, u64>>>,
}

/// Where a table is known, by one at a time.
type Seat = tokio::sync::Mutex<Option<Known>>;

/// A table that has been looked at.
#[derive(Debug)]
struct Known {
    table: DeltaTable,
    files: LiveFiles,
    /// When the last look at it began.
    looked: Instant,
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
        Self { lake, seats: Mutex::default(), pinned: pinned.then(Mutex::default) }
    }

    /// The versions that have been looked at, if the catalog is pinned.
    pub(crate) fn versions(&self) -> BTreeMap<TableName, u64> {
        let pinned = self.pinned.as_ref().map(|pinned| pinned.lock().unwrap_or_else(PoisonError::into_inner).clone());
        pinned.unwrap_or_default()
    }

    /// A table to scan; empty where nothing has been written to it.
    pub(crate) async fn provider(&self, name: &TableName, schema: &SchemaRef) -> Result<Arc<dyn TableProvider>> {
        let (asked, seat) = (Instant::now(), self.seat(name));
        let mut seat = seat.lock().await;
        match self.look(&mut seat, name, asked).await? {
            Some(known) => known.provider(name).await,
            None => Ok(Arc::new(MemTable::try_new(LakeTable::schema_of(schema), vec![Vec::new()])?)),
        }
    }

    /// A table as it is now, or in its pinned version; none where nothing has been written to it.
    pub(crate) async fn table(&self, name: &TableName) -> Result<Option<DeltaTable>> {
        let (asked, seat) = (Instant::now(), self.seat(name));
        let mut seat = seat.lock().await;
        Ok(self.look(&mut seat, name, asked).await?.map(|known| known.table.clone()))
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

    fn seat(&self, name: &TableName) -> Arc<Seat> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().clone()
    }

    async fn look<'a>(
        &self,
        seat: &'a mut Option<Known>,
        name: &TableName,
        asked: Instant,
    ) -> Result<Option<&'a mut Known>> {
        if let Some(known) = seat {
            // Somebody else's look that began after this one was asked for serves as well.
            let is_fresh = self.pinned.is_some() || known.looked >= asked;
            let looked = Instant::now();
            if is_fresh || known.table.update_incremental(None).await.is_ok() {
                known.looked = if is_fresh { known.looked } else { looked };
            } else {
                // It may have been replaced as a whole; then it is opened anew.
                *seat = None;
            }
        }
        if seat.is_none() {
            let looked = Instant::now();
            let table = match self.lake.table(name).await {
                Ok(table) => table,
                Err(LakeError::Missing { .. }) => return Ok(None),
                Err(error) => return Err(external(error)),
            };
            if let Some(pinned) = &self.pinned {
                let version = table.version().unwrap_or_default();
                pinned.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), version);
            }
            *seat = Some(Known { table, files: LiveFiles::default(), looked });
        }
        Ok(seat.as_mut())
    }
}
