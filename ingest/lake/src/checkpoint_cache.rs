//! A table's checkpoint, fetched once.
//!
//! What passes through: all requests of a table's log. Whoever opens a table reads its checkpoint a dozen
//! times: its footer, and then some of its columns for the protocol, the files, and each transaction that is
//! asked for. Each is a hop to another thread on a file system and a request on S3, for a file of a few
//! kilobytes.
//!
//! Guaranteed: one checkpoint of limited size is kept, the one that was read last; what is read is what a
//! listing told of last. Writers of a log may make the checkpoint of one version each, which say the same in
//! other bytes.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::log;

/// The largest checkpoint that is kept, in bytes; of a larger one requests are no longer what takes the time.
const LARGEST: u64 = 1 << 20;

/// A store of which the checkpoint that was read last is kept.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointCache {
    store: Arc<dyn ObjectStore>,
    last: Arc<Mutex<Option<Checkpoint>>>,
}

#[derive(Clone, Debug)]
struct Checkpoint {
    meta: ObjectMeta,
    bytes: Bytes,
}

impl CheckpointCache {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, last: Arc::default() }
    }

    /// The checkpoint at a place; none where it is something else, or too large.
    async fn checkpoint(&self, location: &Path) -> Result<Option<Checkpoint>> {
        if !is_checkpoint(location) {
            return Ok(None);
        }
        let known = self.change(|last| last.clone().filter(|last| last.meta.location == *location));
        if known.is_some() {
            return Ok(known);
        }
        let found = self.store.get(location).await?;
        if found.meta.size > LARGEST {
            return Ok(None);
        }
        let checkpoint = Checkpoint { meta: found.meta.clone(), bytes: found.bytes().await? };
        self.change(|last| *last = Some(checkpoint.clone()));
        Ok(Some(checkpoint))
    }

    /// What was read of a place is not what is there now.
    fn forget(&self, location: &Path) {
        self.change(|last| last.take_if(|last| last.meta.location == *location));
    }

    /// A listing tells what is there.
    fn see(&self, listed: &ObjectMeta) {
        let is_another = |read: &ObjectMeta| {
            read.size != listed.size || read.e_tag.as_ref().zip(listed.e_tag.as_ref()).is_some_and(|(a, b)| a != b)
        };
        self.change(|last| last.take_if(|last| last.meta.location == listed.location && is_another(&last.meta)));
    }

    /// The lock is held for no longer than it takes to look.
    fn change<T>(&self, change: impl FnOnce(&mut Option<Checkpoint>) -> T) -> T {
        change(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn watch(&self, listing: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let cache = self.clone();
        listing.inspect_ok(move |meta| cache.see(meta)).boxed()
    }
}

impl Checkpoint {
    fn range(&self, range: &Range<u64>) -> Result<Bytes> {
        let ends = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let within = ends.filter(|(start, end)| start <= end && *end <= self.bytes.len());
        let (start, end) = within.ok_or_else(|| Error::Generic {
            store: "checkpoint",
            source: format!("{} has {} bytes, not {range:?}", self.meta.location, self.meta.size).into(),
        })?;
        Ok(self.bytes.slice(start..end))
    }
}

fn is_checkpoint(location: &Path) -> bool {
    let name = location.filename().and_then(|name| name.split_once('.'));
    name.is_some_and(|(_, kind)| kind == log::CHECKPOINT)
}

/// Whether nothing is asked but for bytes.
fn is_plain(options: &GetOptions) -> bool {
    options.if_match.is_none()
        && options.if_none_match.is_none()
        && options.if_modified_since.is_none()
        && options.if_unmodified_since.is_none()
        && options.version.is_none()
}

impl fmt::Display for CheckpointCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for CheckpointCache {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let result = self.store.put_opts(location, payload, options).await;
        self.forget(location);
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        // Of what is there: only the store knows that now.
        if options.head || !is_plain(&options) {
            return self.store.get_opts(location, options).await;
        }
        let Some(checkpoint) = self.checkpoint(location).await? else {
            return self.store.get_opts(location, options).await;
        };
        let range = match &options.range {
            Some(range) => range
                .as_range(checkpoint.meta.size)
                .map_err(|source| Error::Generic { store: "checkpoint", source: Box::new(source) })?,
            None => 0..checkpoint.meta.size,
        };
        let bytes = checkpoint.range(&range)?;
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed()),
            meta: checkpoint.meta,
            range,
            attributes: Attributes::default(),
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.checkpoint(location).await? {
            Some(checkpoint) => ranges.iter().map(|range| checkpoint.range(range)).collect(),
            None => self.store.get_ranges(location, ranges).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let cache = self.clone();
        self.store.delete_stream(locations).inspect_ok(move |location| cache.forget(location)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.watch(self.store.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.watch(self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.store.list_with_delimiter(prefix).await?;
        listed.objects.iter().for_each(|meta| self.see(meta));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let result = self.store.copy_opts(from, to, options).await;
        self.forget(to);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::GetRange;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn a_checkpoint_is_read_once_until_another_is_listed() {
        let store = Arc::new(InMemory::new());
        let cache = CheckpointCache::new(store.clone());
        let log = Path::from("lake/a/b/_delta_log");
        let checkpoint = log.clone().join("00000000000000000007.checkpoint.parquet");
        store.put(&checkpoint, "PAR1 first PAR1".into()).await.unwrap();
        let read = async || cache.get(&checkpoint).await.unwrap().bytes().await.unwrap();
        let listed = async || cache.list(Some(&log)).try_collect::<Vec<_>>().await.unwrap();

        assert_eq!(cache.get_range(&checkpoint, 5..10).await.unwrap(), "first");
        let tail = GetOptions { range: Some(GetRange::Suffix(4)), ..GetOptions::default() };
        assert_eq!(cache.get_opts(&checkpoint, tail).await.unwrap().bytes().await.unwrap(), "PAR1");
        assert_eq!(cache.get_ranges(&checkpoint, &[0..4, 5..10]).await.unwrap(), ["PAR1", "first"]);
        assert!(cache.get_range(&checkpoint, 15..16).await.is_err(), "it has no more bytes");

        // Another writer's, which nobody has told of yet: an opening goes on with what it began with.
        store.put(&checkpoint, "PAR1 other PAR1".into()).await.unwrap();
        assert_eq!(read().await, "PAR1 first PAR1");
        assert_eq!(listed().await.len(), 1);
        assert_eq!(read().await, "PAR1 other PAR1");
        listed().await;
        store.delete(&checkpoint).await.unwrap();
        assert_eq!(read().await, "PAR1 other PAR1", "what was listed is what is read");

        cache.put(&checkpoint, "PAR1 own PAR1".into()).await.unwrap();
        assert_eq!(read().await, "PAR1 own PAR1");
        cache.delete(&checkpoint).await.unwrap();
        assert!(matches!(cache.get(&checkpoint).await, Err(Error::NotFound { .. })));
    }

    #[tokio::test]
    async fn nothing_else_is_kept() {
        let store = Arc::new(InMemory::new());
        let cache = CheckpointCache::new(store.clone());
        let large = "x".repeat(LARGEST as usize + 1);
        for (name, first) in [("0.json", "a"), ("part.parquet", "a"), ("0.checkpoint.parquet", large.as_str())] {
            let path = Path::from(name);
            for content in [first, "b"] {
                store.put(&path, content.to_owned().into()).await.unwrap();
                assert_eq!(cache.get(&path).await.unwrap().bytes().await.unwrap(), content, "{name}");
            }
        }
    }
}
