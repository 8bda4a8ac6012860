//! What others may know of the tables: snapshots to query, their rows, and how far they are.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use deltalake::DeltaTable;
use object_store::ObjectMeta;
use roaring::RoaringTreemap;
use ruam_event::Partition;

use crate::error::{BoxError, LakeError};
use crate::location::{Lake, TableName};
use crate::progress::Progress;
use crate::table;
use crate::vectors::{DataFile, VectorCache};

/// The rows of a table that are in one of its files.
#[derive(Clone, Debug)]
pub struct LiveFile {
    /// The file, by its path in the table.
    pub meta: ObjectMeta,
    /// How many rows it has, those that were deleted not counted; none where it does not say.
    pub rows: Option<u64>,
    /// For each of its rows whether it is one of these; none where all are.
    pub live: Option<BooleanBuffer>,
}

/// The files of a table as it was last looked at. The next look reads what has changed since.
#[derive(Debug, Default)]
pub struct LiveFiles {
    vectors: VectorCache,
    version: Option<u64>,
    files: Arc<[LiveFile]>,
    /// The vector that each file's live rows are known by.
    deleted: HashMap<String, Arc<RoaringTreemap>>,
}

impl LiveFiles {
    /// The live files of a table, in the order of its log's data.
    ///
    /// # Errors
    /// Where a deletion vector cannot be read, or has no place in its file.
    pub async fn of(&mut self, name: &TableName, table: &DeltaTable) -> Result<Arc<[LiveFile]>, LakeError> {
        if self.version.is_none() || self.version != table.version() {
            let read = self.read(table).await;
            self.files = read.map_err(|source| LakeError::table("look at the files of", name, source))?;
            self.version = table.version();
        }
        Ok(self.files.clone())
    }

    async fn read(&mut self, table: &DeltaTable) -> Result<Arc<[LiveFile]>, BoxError> {
        let known: HashMap<_, _> = self.files.iter().map(|file| (file.meta.location.clone(), file)).collect();
        let (mut files, mut deleted) = (Vec::new(), HashMap::new());
        for file in self.vectors.files(table).await? {
            let path = file.view.path().into_owned();
            let location = object_store::path::Path::from(path.as_str());
            let is_same = self.deleted.get(&path).is_some_and(|before| Arc::ptr_eq(before, &file.deleted));
            files.push(match known.get(&location).filter(|_| is_same) {
                Some(known) => (*known).clone(),
                None => live_file(&file, location)?,
            });
            deleted.insert(path, file.deleted);
        }
        self.deleted = deleted;
        Ok(files.into())
    }
}

fn live_file(file: &DataFile, location: object_store::path::Path) -> Result<LiveFile, BoxError> {
    let meta = ObjectMeta {
        location,
        last_modified: file.view.modification_datetime()?,
        size: file.view.size().unsigned_abs(),
        e_tag: None,
        version: None,
    };
    let rows = file.view.num_records();
    if file.deleted.is_empty() {
        return Ok(LiveFile { meta, rows: rows.map(|rows| rows as u64), live: None });
    }
    let rows = rows.ok_or("a file with deleted rows does not say how many rows it has")?;
    let live = live_rows(rows, &file.deleted)?;
    Ok(LiveFile { meta, rows: Some(rows as u64 - file.deleted.len()), live: Some(live) })
}

/// For each row of a file whether it has not been deleted.
pub(crate) fn live_rows(rows: usize, deleted: &RoaringTreemap) -> Result<BooleanBuffer, BoxError> {
    Ok(!&those(rows, deleted)?)
}

/// For each row of a file whether it is in a vector.
pub(crate) fn those(rows: usize, vector: &RoaringTreemap) -> Result<BooleanBuffer, BoxError> {
    if vector.max().is_some_and(|last| last >= rows as u64) {
        return Err("a row was deleted that its file does not have".into());
    }
    let mut bits = vec![0_u8; rows.div_ceil(8)];
    for row in vector {
        bits[(row / 8) as usize] |= 1 << (row % 8);
    }
    Ok(BooleanBuffer::new(bits.into(), 0, rows))
}

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
