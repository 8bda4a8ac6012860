//! A file system that means it: what has been put is on the disk, and not only on its way there.
//!
//! object_store's file system leaves that to the operating system, so that a power cut may leave a
//! table's log with a hole. Object stores of clouds need nothing of the kind.
//!
//! It also lists the end of a table's log in the time of that end: each commit and each opening of a table
//! asks for what has come to its log since, and object_store makes a path of each file there is. A file
//! system cannot be asked for the names after one, but names of a log are known beforehand.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use crate::log;

/// A local file system whose writes are confirmed by the disk before they are reported done.
#[derive(Clone, Debug)]
pub(crate) struct DurableFileSystem {
    files: Arc<LocalFileSystem>,
}

impl DurableFileSystem {
    pub(crate) fn new(files: LocalFileSystem) -> Self {
        Self { files: Arc::new(files) }
    }

    async fn confirm(&self, location: &Path) -> Result<()> {
        let path = self.files.path_to_filesystem(location)?;
        let confirmed = tokio::task::spawn_blocking(move || {
            File::open(&path)?.sync_all()?;
            match path.parent() {
                Some(directory) => File::open(directory)?.sync_all(),
                None => Ok(()),
            }
        });
        let confirmed: io::Result<()> = confirmed.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        confirmed.map_err(|source| Error::Generic { store: "file", source: Box::new(source) })
    }
}

impl fmt::Display for DurableFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for DurableFileSystem {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let result = self.files.put_opts(location, payload, options).await?;
        self.confirm(location).await?;
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.files.put_multipart_opts(location, options).await?;
        Ok(Box::new(DurableUpload { upload, store: self.clone(), location: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let Some((folder, after)) = prefix.zip(name_in(prefix, offset)) else {
            return self.files.list_with_offset(prefix, offset);
        };
        let (files, folder, after, offset) = (self.files.clone(), folder.clone(), after.to_owned(), offset.clone());
        let named = async move {
            let path = files.path_to_filesystem(&folder)?;
            let names = tokio::task::spawn_blocking(move || match log_names_after(&path, &after) {
                Some(names) => Ok(Some(names)),
                None => names_after(&path, &after),
            });
            let names = names.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            Ok::<_, Error>(
                match names.map_err(|source| Error::Generic { store: "file", source: Box::new(source) })? {
                    Some(names) => {
                        let found = names.into_iter().map(move |name| {
                            let (files, path) = (files.clone(), folder.clone().join(name));
                            async move { files.head(&path).await }
                        });
                        // What has been deleted since its name was read is not there.
                        let is_there =
                            |found: &Result<_>| std::future::ready(!matches!(found, Err(Error::NotFound { .. })));
                        stream::iter(found).buffered(4).filter(is_there).boxed()
                    }
                    None => files.list_with_offset(Some(&folder), &offset),
                },
            )
        };
        stream::once(named).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await?;
        self.confirm(to).await
    }
}

/// The name of a file in a folder; none where it is not right in it.
fn name_in<'a>(folder: Option<&Path>, file: &'a Path) -> Option<&'a str> {
    let name = file.filename()?;
    (folder?.as_ref().len() + 1 + name.len() == file.as_ref().len()).then_some(name)
}

/// The files of a table's log whose names come after one of them; none where they are not to be told by
/// their names.
///
/// No version is missing after the last checkpoint that a log names (Delta's PROTOCOL.md: versions are
/// contiguous, and a clean-up takes nothing that is needed after a checkpoint; ours,
/// [`log::clear`](crate::log::clear), takes nothing after this one), so that the first that is not there ends
/// the log. What a log may have besides, such as several commits in one file, is to be had from those.
fn log_names_after(folder: &std::path::Path, after: &str) -> Option<Vec<String>> {
    let from = after.get(..20).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?.parse().ok()?;
    let checkpoint = log::named_checkpoint(&fs::read(folder.join(log::LAST_CHECKPOINT)).ok()?)?;
    let is_there = |name: &String| folder.join(name).is_file();
    let named = |version: u64, kind: &str| format!("{version:020}.{kind}");
    // One of another form has names that nobody can tell.
    if from < checkpoint || from == checkpoint && !is_there(&named(from, log::CHECKPOINT)) {
        return None;
    }
    let mut names = Vec::new();
    for version in from.. {
        let of_version = [log::CHECKPOINT, log::CHECKSUM, log::COMMIT].map(|kind| named(version, kind));
        let was_there = names.len();
        names.extend(of_version.into_iter().filter(is_there));
        // The first may have been cleared.
        if names.len() == was_there && version > from {
            break;
        }
    }
    names.push(log::LAST_CHECKPOINT.to_owned());
    names.retain(|name| name.as_str() > after);
    Some(names)
}

/// The files of a folder whose names come after one; none where there is anything beside them that is not
/// a plain file with a plain name, such as a folder, or an upload under way.
fn names_after(folder: &std::path::Path, after: &str) -> io::Result<Option<Vec<String>>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Vec::new())),
        Err(error) => return Err(error),
    };
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        match name.to_str() {
            Some(name) if name <= after && is_plain(name) => {}
            Some(name) if is_plain(name) && entry.file_type()?.is_file() => names.push(name.to_owned()),
            _ => return Ok(None),
        }
    }
    Ok(Some(names))
}

#[derive(Debug)]
struct DurableUpload {
    upload: Box<dyn MultipartUpload>,
    store: DurableFileSystem,
    location: Path,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.complete().await?;
        self.store.confirm(&self.location).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_folder_is_what_object_store_finds() {
        let dir = tempfile::tempdir().unwrap();
        let plain = Arc::new(LocalFileSystem::new());
        let store = DurableFileSystem::new(LocalFileSystem::new());
        let log = Path::from_absolute_path(dir.path()).unwrap().join("_delta_log");
        let found = async |store: &dyn ObjectStore, offset: &Path| {
            let files = store.list_with_offset(Some(&log), offset).map_ok(|meta| (meta.location, meta.size));
            let mut files: Vec<_> = files.try_collect().await.unwrap();
            files.sort_unstable();
            files
        };
        let offset = |version: u64| log.clone().join(format!("{version:020}.json"));
        assert!(found(&store, &offset(3)).await.is_empty(), "there is no such folder yet");
        for version in 0..30 {
            store.put(&offset(version), vec![0; version as usize].into()).await.unwrap();
        }
        store.put(&log.clone().join("_last_checkpoint"), "x".into()).await.unwrap();
        for what in ["files alone", "an upload under way", "a folder"] {
            match what {
                "an upload under way" => {
                    fs::write(dir.path().join("_delta_log/00000000000000000031.json#1"), "").unwrap()
                }
                "a folder" => {
                    store.put(&log.clone().join("_sidecars").join("a.parquet"), "y".into()).await.unwrap();
                }
                _ => {}
            }
            for version in [0, 17, 28, 29, 40] {
                let (expected, found) = (found(&plain, &offset(version)).await, found(&store, &offset(version)).await);
                assert_eq!(found, expected, "{what}, after {version}");
                assert!(found.len() > 29_usize.saturating_sub(version as usize));
            }
        }
    }

    #[tokio::test]
    async fn the_end_of_a_log_is_told_by_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let plain = Arc::new(LocalFileSystem::new());
        let log = Path::from_absolute_path(dir.path()).unwrap();
        let file = |version: u64, kind: &str| dir.path().join(format!("{version:020}.{kind}"));
        for version in (3..9).chain(20..40) {
            fs::write(file(version, "json"), "x").unwrap();
        }
        for version in [6, 20, 31, 33, 38] {
            fs::write(file(version, "checkpoint.parquet"), "x").unwrap();
        }
        fs::write(file(36, "crc"), "x").unwrap();
        for hint in [r#"{"version":31,"size":7}"#, r#"{"version":20}"#, r#"{"version":35}"#] {
            fs::write(dir.path().join("_last_checkpoint"), hint).unwrap();
            for version in [0, 5, 19, 20, 30, 31, 32, 33, 37, 39, 40] {
                for after in [format!("{version:020}"), format!("{version:020}.json")] {
                    let listed = plain.list_with_offset(Some(&log), &log.clone().join(after.as_str()));
                    let listed = listed.map_ok(|meta| meta.location.filename().unwrap().to_owned());
                    let mut expected: Vec<String> = listed.try_collect().await.unwrap();
                    expected.sort_unstable();
                    let told = log_names_after(dir.path(), &after).map(|mut names| {
                        names.sort_unstable();
                        names
                    });
                    let is_told = match hint {
                        r#"{"version":31,"size":7}"# => version >= 31,
                        r#"{"version":20}"# => version >= 20,
                        // There is no checkpoint of this name.
                        _ => version > 35,
                    };
                    assert_eq!(told, is_told.then_some(expected), "{hint}, after {after}");
                }
            }
        }
        fs::write(dir.path().join("_last_checkpoint"), "x").unwrap();
        assert_eq!(log_names_after(dir.path(), "00000000000000000039.json"), None, "nobody knows where it begins");
        assert_eq!(log_names_after(dir.path(), "part-1.parquet"), None);
    }
}
