//! The topics of the embedded broker, and where their partitions lie on disk.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::partition::{Limits, Partition};

const MAX_PARTITIONS: i32 = 1000;

/// All topics.
#[derive(Debug)]
pub(super) struct Topics {
    dir: PathBuf,
    limits: Limits,
    by_name: RwLock<BTreeMap<String, Arc<TopicLog>>>,
}

/// One topic.
#[derive(Debug)]
pub(super) struct TopicLog {
    pub id: Uuid,
    pub name: String,
    pub partitions: Vec<Arc<Partition>>,
}

/// A topic as `topics.json` has it.
#[derive(Serialize, Deserialize)]
struct Entry {
    id: Uuid,
    name: String,
    partitions: i32,
}

impl Topics {
    /// Opens the topics in a directory.
    pub(super) fn open(dir: &Path, limits: Limits) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let entries: Vec<Entry> = match std::fs::read(dir.join("topics.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let topics = Self { dir: dir.to_owned(), limits, by_name: RwLock::default() };
        for entry in entries {
            let topic = topics.open_topic(entry.id, &entry.name, entry.partitions)?;
            topics.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(entry.name, Arc::new(topic));
        }
        Ok(topics)
    }

    fn open_topic(&self, id: Uuid, name: &str, partitions: i32) -> io::Result<TopicLog> {
        let dir = self.dir.join(id.to_string());
        let partitions = (0..partitions)
            .map(|index| Partition::open(&dir.join(index.to_string()), self.limits).map(Arc::new))
            .collect::<io::Result<_>>()?;
        Ok(TopicLog { id, name: name.to_owned(), partitions })
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<TopicLog>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn get_by_id(&self, id: Uuid) -> Option<Arc<TopicLog>> {
        self.all().into_iter().find(|topic| topic.id == id)
    }

    pub(super) fn partition(&self, name: &str, index: i32) -> Result<Arc<Partition>, ResponseError> {
        let topic = self.get(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index)).cloned();
        partition.ok_or(ResponseError::UnknownTopicOrPartition)
    }

    pub(super) fn all(&self) -> Vec<Arc<TopicLog>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Creates a topic.
    pub(super) fn create(&self, name: &str, partitions: i32) -> Result<Arc<TopicLog>, ResponseError> {
        let valid_name = (1..=249).contains(&name.len())
            && !matches!(name, "." | "..")
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if !valid_name {
            return Err(ResponseError::InvalidTopicException);
        }
        // -1 asks for the broker's default.
        let partitions = if partitions == -1 { 1 } else { partitions };
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(ResponseError::InvalidPartitions);
        }
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if by_name.contains_key(name) {
            return Err(ResponseError::TopicAlreadyExists);
        }
        let topic =
            self.open_topic(Uuid::new_v4(), name, partitions).map(Arc::new).map_err(|error| storage_error(&error))?;
        by_name.insert(name.to_owned(), topic.clone());
        if let Err(error) = self.store(&by_name) {
            by_name.remove(name);
            return Err(storage_error(&error));
        }
        Ok(topic)
    }

    /// Deletes a topic and its records.
    pub(super) fn delete(&self, name: &str) -> Result<(), ResponseError> {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let topic = by_name.remove(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        self.store(&by_name).map_err(|error| storage_error(&error))?;
        std::fs::remove_dir_all(self.dir.join(topic.id.to_string())).map_err(|error| storage_error(&error))
    }

    fn store(&self, topics: &BTreeMap<String, Arc<TopicLog>>) -> io::Result<()> {
        let entry = |topic: &Arc<TopicLog>| Entry {
            id: topic.id,
            name: topic.name.clone(),
            partitions: topic.partitions.len() as i32,
        };
        let entries: Vec<_> = topics.values().map(entry).collect();
        replace_file(&self.dir.join("topics.json"), &serde_json::to_vec_pretty(&entries)?)
    }
}

/// Says in the log what a client only learns as a code.
pub(super) fn storage_error(error: &io::Error) -> ResponseError {
    tracing::error!(%error, "the embedded broker cannot write to its directory; make room or mend the disk, producers retry until then");
    ResponseError::KafkaStorageError
}

/// Replaces a file as a whole: after a crash it is the old one or the new one.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes)?;
    std::fs::File::open(&beside)?.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { batch: 1000, segment: 1000, retention: 1000 };

    #[test]
    fn topics_outlive_a_restart_and_a_new_one_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let topics = Topics::open(dir.path(), LIMITS).unwrap();
        let first = topics.create("a.b", 3).unwrap().id;
        assert_eq!(topics.create("a.b", 3).unwrap_err(), ResponseError::TopicAlreadyExists);
        assert_eq!(topics.create("a/b", 3).unwrap_err(), ResponseError::InvalidTopicException);
        assert_eq!(topics.create("c", 0).unwrap_err(), ResponseError::InvalidPartitions);
        let topics = Topics::open(dir.path(), LIMITS).unwrap();
        assert_eq!(topics.get("a.b").map(|topic| (topic.id, topic.partitions.len())), Some((first, 3)));
        assert!(
            topics.partition("a.b", 2).is_ok()
                && topics.partition("a.b", 3).is_err()
                && topics.partition("a.b", -1).is_err()
        );
        topics.delete("a.b").unwrap();
        assert!(topics.get("a.b").is_none());
        assert_ne!(topics.create("a.b", 3).unwrap().id, first);
    }
}
