//! Deletion vectors: which rows of a data file are no more, without rewriting the file.
//!
//! A vector is a bitmap of row numbers, counted over the whole file. A commit removes the file as it
//! was known (with its old vector) and adds it again with the new one; all vectors of a commit lie
//! in one file of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use delta_kernel::actions::deletion_vector::{DeletionVectorDescriptor as KernelDescriptor, DeletionVectorStorageType};
use deltalake::DeltaTable;
use deltalake::kernel::{Action, Add, DeletionVectorDescriptor, LogicalFileView, Remove, StorageType};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use roaring::RoaringTreemap;

use crate::error::BoxError;

/// A live data file and the rows of it that are no more.
#[derive(Clone)]
pub(crate) struct DataFile {
    pub view: LogicalFileView,
    pub deleted: Arc<RoaringTreemap>,
    /// When the vector was written, where that was done here.
    written: Option<Instant>,
}

/// The vectors that were read, by file and by the identity of the vector.
#[derive(Debug, Default)]
pub(crate) struct VectorCache {
    known: HashMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    descriptor: Option<DeletionVectorDescriptor>,
    deleted: Arc<RoaringTreemap>,
    written: Option<Instant>,
}

/// A file of vectors begins with its form, and each vector with what it is (Delta's PROTOCOL.md, "Deletion
/// Vector Format").
const FORM: u8 = 1;
const MAGIC: [u8; 4] = 1_681_511_377_u32.to_le_bytes();
/// What stands around a vector: its size before it, and its checksum after it.
const AROUND: usize = 4 + 4;

/// How many vectors are read at the same time: each is a request of a store.
const AT_ONCE: usize = 8;

/// What is replaced within this time of being written needs no tombstone.
const YOUNG: Duration = Duration::from_secs(300);

impl DataFile {
    /// The action that takes the file out of its table as it is here; whether that changes the rows of the
    /// table, and whether the same commit adds it again with another vector.
    ///
    /// It says when that was, which makes it a tombstone, only where somebody has use for one: it keeps
    /// the vacuum of other programs from what went an hour ago at most
    /// (`delta.deletedFileRetentionDuration`), and so does the age of a file that was itself written only
    /// minutes before. A table that is committed to every second would else have tens of thousands of
    /// tombstones, and whoever opens it reads them.
    pub(crate) fn remove(&self, data_change: bool, is_added_again: bool) -> Remove {
        let mut remove = self.view.remove_action(data_change);
        let age = |written: SystemTime| SystemTime::now().duration_since(written).unwrap_or_default();
        let written = u64::try_from(self.view.modification_time()).map(Duration::from_millis);
        let is_young = written.is_ok_and(|written| age(UNIX_EPOCH + written) < YOUNG);
        let is_vector_young = || match &remove.deletion_vector {
            Some(_) => self.written.is_some_and(|written| written.elapsed() < YOUNG),
            None => true,
        };
        if is_young || is_added_again && is_vector_young() {
            remove.deletion_timestamp = None;
        }
        remove
    }
}

/// A vector that was written, how its file is to name it, and the path of that file.
pub(crate) struct Written {
    path: String,
    descriptor: DeletionVectorDescriptor,
    rows: Arc<RoaringTreemap>,
}

impl VectorCache {
    /// Takes note of vectors that have just been committed: they need not be read.
    pub(crate) fn committed(&mut self, vectors: Vec<Written>) {
        let written = Some(Instant::now());
        self.known.extend(vectors.into_iter().map(|Written { path, descriptor, rows }| {
            (path, Known { descriptor: Some(descriptor), deleted: rows, written })
        }));
    }

    /// The live files of a table with their vectors. A vector that was read before is not read
    /// again.
    pub(crate) async fn files(&mut self, table: &DeltaTable) -> Result<Vec<DataFile>, BoxError> {
        let views: Vec<_> = table.snapshot()?.log_data().iter().collect();
        let with_known = views.into_iter().map(|view| {
            let path = view.path().into_owned();
            (view, self.known.remove(&path))
        });
        let files: Vec<_> = stream::iter(with_known.collect::<Vec<_>>())
            .map(async |(view, known)| {
                let descriptor = view.deletion_vector_descriptor();
                let (deleted, written) = match (known, &descriptor) {
                    (Some(same), _) if same.descriptor == descriptor => (same.deleted, same.written),
                    (_, None) => Default::default(),
                    (_, Some(descriptor)) => (Arc::new(read(table, descriptor).await?), None),
                };
                Ok::<_, BoxError>((DataFile { view, deleted, written }, descriptor))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let known = |(file, descriptor): &(DataFile, Option<DeletionVectorDescriptor>)| {
            let (deleted, written) = (file.deleted.clone(), file.written);
            (file.view.path().into_owned(), Known { descriptor: descriptor.clone(), deleted, written })
        };
        self.known = files.iter().map(known).collect();
        Ok(files.into_iter().map(|(file, _)| file).collect())
    }
}

/// Reads a vector, and nothing of those that lie in the same file.
pub(crate) async fn read(
    table: &DeltaTable,
    descriptor: &DeletionVectorDescriptor,
) -> Result<RoaringTreemap, BoxError> {
    let Some((file, offset)) = file_of(descriptor).zip(descriptor.offset) else {
        return read_elsewhere(table, descriptor).await;
    };
    let (start, size) = (u64::try_from(offset)?, usize::try_from(descriptor.size_in_bytes)?);
    let range = start..start + (AROUND + size) as u64;
    let bytes = table.log_store().object_store(None).get_range(&Path::from(file.as_str()), range).await?;
    parse(&bytes, size).ok_or_else(|| format!("the deletion vector at byte {start} of {file} is damaged").into())
}

/// The rows of a vector as they lie in a file; none where something is not as it has to be.
fn parse(bytes: &[u8], size: usize) -> Option<RoaringTreemap> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (checked, checksum) = rest.split_last_chunk()?;
    let is_sound = u32::from_be_bytes(*length) as usize == size
        && checked.len() == size
        && u32::from_be_bytes(*checksum) == crc32fast::hash(checked);
    let rows = checked.strip_prefix(&MAGIC).filter(|_| is_sound)?;
    RoaringTreemap::deserialize_from(rows).ok()
}

/// Reads a vector that lies in the log itself, or where another writer has put it.
async fn read_elsewhere(table: &DeltaTable, descriptor: &DeletionVectorDescriptor) -> Result<RoaringTreemap, BoxError> {
    let storage_type = match descriptor.storage_type {
        StorageType::UuidRelativePath => DeletionVectorStorageType::PersistedRelative,
        StorageType::Inline => DeletionVectorStorageType::Inline,
        StorageType::AbsolutePath => DeletionVectorStorageType::PersistedAbsolute,
    };
    let kernel = KernelDescriptor::try_new(
        storage_type,
        &descriptor.path_or_inline_dv,
        descriptor.offset,
        descriptor.size_in_bytes,
        descriptor.cardinality,
    )?;
    let (engine, root) = (table.log_store().engine(None), table.log_store().root_url().clone());
    Ok(tokio::task::spawn_blocking(move || kernel.read(engine.storage_handler(), &root)).await??)
}

/// A file as the log has it, with what it says of itself in tags.
pub(crate) fn add_of(view: &LogicalFileView) -> Add {
    // The way that is offered in its place, Arrow arrays, is not public.
    #[expect(deprecated)]
    view.add_action()
}

/// Writes the vectors of some files with further rows deleted; returns the actions that put them
/// in force, and the vectors.
pub(crate) async fn delete_rows(
    table: &DeltaTable,
    hits: &[(DataFile, RoaringTreemap)],
) -> Result<(Vec<Action>, Vec<Written>), BoxError> {
    let (mut actions, mut adds, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
    for (file, rows) in hits {
        let deleted = file.deleted.as_ref() | rows;
        if deleted.len() != file.deleted.len() + rows.len() {
            return Err("a row that is deleted already was to be deleted again".into());
        }
        // A file of which nothing is left is removed for good.
        let is_left = file.view.num_records().is_none_or(|records| records as u64 != deleted.len());
        actions.push(Action::Remove(file.remove(true, is_left)));
        if !is_left {
            continue;
        }
        let add = add_of(&file.view);
        let stats = add.stats.as_deref().map(loosen).transpose()?;
        adds.push(Add { data_change: true, stats, deletion_vector: None, ..add });
        vectors.push(Arc::new(deleted));
    }
    let descriptors = write(table, &vectors).await?;
    let mut written = Vec::with_capacity(vectors.len());
    for ((add, descriptor), rows) in adds.into_iter().zip(descriptors).zip(vectors) {
        written.push(Written { path: add.path.clone(), descriptor: descriptor.clone(), rows });
        actions.push(Action::Add(Add { deletion_vector: Some(descriptor), ..add }));
    }
    Ok((actions, written))
}

/// Writes vectors into a file of their own; says for each how a file is to name it.
///
/// The kernel has a writer for this, whose checksum takes as long as all the rest of a commit's vectors.
pub(crate) async fn write(
    table: &DeltaTable,
    vectors: &[Arc<RoaringTreemap>],
) -> Result<Vec<DeletionVectorDescriptor>, BoxError> {
    if vectors.is_empty() {
        return Ok(Vec::new());
    }
    let id = uuid::Uuid::new_v4();
    let size: usize = vectors.iter().map(|rows| MAGIC.len() + rows.serialized_size() + AROUND).sum();
    let (mut descriptors, mut bytes) = (Vec::with_capacity(vectors.len()), Vec::with_capacity(1 + size));
    bytes.push(FORM);
    for rows in vectors {
        let (offset, size) = (bytes.len(), MAGIC.len() + rows.serialized_size());
        bytes.extend(u32::try_from(size)?.to_be_bytes());
        let checked = bytes.len();
        bytes.extend(MAGIC);
        rows.serialize_into(&mut bytes)?;
        bytes.extend(crc32fast::hash(&bytes[checked..]).to_be_bytes());
        descriptors.push(DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: z85::encode(id.as_bytes()),
            offset: Some(offset.try_into()?),
            size_in_bytes: size.try_into()?,
            cardinality: rows.len().try_into()?,
        });
    }
    table.log_store().object_store(None).put(&Path::from(file_name(id)), PutPayload::from(bytes)).await?;
    Ok(descriptors)
}

fn file_name(id: uuid::Uuid) -> String {
    format!("deletion_vector_{id}.bin")
}

/// The file that a vector lies in, relative to its table; none where it lies in the log itself, or
/// was put somewhere else by another writer.
pub(crate) fn file_of(descriptor: &DeletionVectorDescriptor) -> Option<String> {
    if descriptor.storage_type != StorageType::UuidRelativePath {
        return None;
    }
    // The last twenty characters are the id; what stands before them is a folder.
    let split = descriptor.path_or_inline_dv.len().checked_sub(20)?;
    let (folder, id) = descriptor.path_or_inline_dv.split_at_checked(split)?;
    let id = uuid::Uuid::from_slice(&z85::decode(id).ok()?).ok()?;
    Some(if folder.is_empty() { file_name(id) } else { format!("{folder}/{}", file_name(id)) })
}

/// With rows deleted, a file's least and greatest values are bounds and not values of rows.
pub(crate) fn loosen(stats: &str) -> Result<String, serde_json::Error> {
    // As most are already; within a value the quotes would be escaped.
    if stats.contains(r#""tightBounds":false"#) {
        return Ok(stats.to_owned());
    }
    let mut stats: serde_json::Value = serde_json::from_str(stats)?;
    if let Some(stats) = stats.as_object_mut() {
        stats.insert("tightBounds".to_owned(), false.into());
    }
    serde_json::to_string(&stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn vectors_are_read_as_they_were_written_and_as_the_kernel_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let url = deltalake::ensure_table_uri(dir.path().to_string_lossy()).unwrap();
        let table = DeltaTable::try_from_url(url).await.unwrap();
        let vectors = [
            (0..70_000).step_by(3).collect::<RoaringTreemap>(),
            RoaringTreemap::from([7]),
            (5..9).chain([1 << 33]).collect(),
        ];
        let descriptors = write(&table, &vectors.clone().map(Arc::new)).await.unwrap();
        for (descriptor, rows) in descriptors.iter().zip(&vectors) {
            assert_eq!(read(&table, descriptor).await.unwrap(), *rows);
            assert_eq!(read_elsewhere(&table, descriptor).await.unwrap(), *rows);
        }
        // Each byte counts.
        let path = dir.path().join(file_of(&descriptors[1]).unwrap());
        let sound = std::fs::read(&path).unwrap();
        let (start, size) = (descriptors[1].offset.unwrap() as usize, descriptors[1].size_in_bytes as usize);
        for at in start..start + AROUND + size {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let error = read(&table, &descriptors[1]).await.unwrap_err().to_string();
            assert!(error.contains("is damaged"), "{at}: {error}");
        }
        std::fs::write(&path, &sound[..sound.len() - 1]).unwrap();
        assert!(read(&table, &descriptors[2]).await.is_err(), "it was cut off");
        assert_eq!(parse(b"", 0), None);
    }
}
