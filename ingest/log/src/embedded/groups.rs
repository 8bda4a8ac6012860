//! Consumer groups, by Kafka's classic protocol: join, sync, heartbeat, leave, and the offsets that
//! groups commit.
//!
//! A group's members are known as long as the broker runs; their committed offsets are stored, a
//! second late at most. Ruam's own workers keep their offsets in the tables and commit here only
//! so that Kafka's tools can show how far they are.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::topics::replace_file;

/// All groups.
#[derive(Debug)]
pub(super) struct Groups {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<String, Group>,
    offsets: BTreeMap<String, BTreeMap<String, Committed>>,
    offsets_changed: bool,
    members_named: u64,
}

/// An offset that a group has committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Committed {
    pub offset: i64,
    pub metadata: Option<String>,
}

#[derive(Debug, Default)]
struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: String,
    protocol: String,
    leader: String,
    members: BTreeMap<String, Member>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Phase {
    #[default]
    Empty,
    /// Members are asked to join again, until a time.
    Joining(Option<Instant>),
    /// All have joined; the leader has to hand out the work.
    Assigning,
    Stable,
}

#[derive(Debug)]
struct Member {
    instance: Option<String>,
    client_id: String,
    client_host: String,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    protocols: Vec<(String, Bytes)>,
    assignment: Bytes,
    expires: Instant,
    joining: Option<oneshot::Sender<Result<Joined, ResponseError>>>,
    syncing: Option<oneshot::Sender<Result<Synced, ResponseError>>>,
}

/// What a member wants.
#[derive(Clone, Debug)]
pub(super) struct Join {
    pub group: String,
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub protocol_type: String,
    pub protocols: Vec<(String, Bytes)>,
}

/// What a member gets for joining.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub member: String,
    /// Id, instance and metadata of every member; for the leader alone.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// What a member gets to do.
#[derive(Clone, Debug)]
pub(super) struct Synced {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

/// What a group looks like from outside.
#[derive(Clone, Debug)]
pub(super) struct Description {
    pub group: String,
    pub phase: &'static str,
    pub protocol_type: String,
    pub protocol: String,
    /// Id, instance, client id, client host, metadata and assignment.
    pub members: Vec<(String, Option<String>, String, String, Bytes, Bytes)>,
}

impl Groups {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("groups.json");
        let offsets = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, state: Mutex::new(State { offsets, ..State::default() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a group; the answer comes when all members have joined.
    pub(super) fn join(&self, join: Join) -> oneshot::Receiver<Result<Joined, ResponseError>> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.state();
        let State { groups, members_named, .. } = &mut *state;
        let group = groups.entry(join.group.clone()).or_default();
        match group.admit(&join, members_named) {
            Ok(id) => {
                if let Some(member) = group.members.get_mut(&id) {
                    member.joining = Some(answer);
                }
                group.prepare();
                group.complete_join();
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
        answered
    }

    /// Takes the leader's assignments; the answer comes when they are there.
    pub(super) fn sync(
        &self,
        group: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        assignments: Vec<(String, Bytes)>,
    ) -> oneshot::Receiver<Result<Synced, ResponseError>> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.state();
        match state.known(group, member, instance, generation) {
            Ok(group) => group.sync(member, assignments, answer),
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
        answered
    }

    pub(super) fn heartbeat(
        &self,
        group: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), ResponseError> {
        let mut state = self.state();
        let group = state.known(group, member, instance, generation)?;
        match group.phase {
            Phase::Joining(_) => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    pub(super) fn leave(&self, group: &str, member: &str, instance: Option<&str>) -> Result<(), ResponseError> {
        let mut state = self.state();
        let group = state.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?;
        let id = match instance {
            Some(instance) => group.holder(instance).ok_or(ResponseError::UnknownMemberId)?,
            None => member.to_owned(),
        };
        group.members.remove(&id).ok_or(ResponseError::UnknownMemberId)?;
        group.membership_changed();
        Ok(())
    }

    /// Stores offsets of a group; an empty member is a client that assigns its partitions itself.
    pub(super) fn commit(
        &self,
        group: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        offsets: Vec<(String, i32, Committed)>,
    ) -> Result<(), ResponseError> {
        let mut state = self.state();
        if !(member.is_empty() && generation < 0) {
            state.known(group, member, instance, generation)?;
        }
        let committed = state.offsets.entry(group.to_owned()).or_default();
        committed.extend(offsets.into_iter().map(|(topic, partition, offset)| (offset_key(&topic, partition), offset)));
        state.offsets_changed = true;
        Ok(())
    }

    pub(super) fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<Committed> {
        self.state().offsets.get(group)?.get(&offset_key(topic, partition)).cloned()
    }

    /// Topic, partition and offset of everything that a group has committed.
    pub(super) fn all_committed(&self, group: &str) -> Vec<(String, i32, Committed)> {
        let state = self.state();
        let offsets = state.offsets.get(group).into_iter().flatten();
        offsets
            .filter_map(|(key, committed)| {
                let (topic, partition) = key.rsplit_once('/')?;
                Some((topic.to_owned(), partition.parse().ok()?, committed.clone()))
            })
            .collect()
    }

    pub(super) fn describe(&self, group: &str) -> Option<Description> {
        let state = self.state();
        let found = state.groups.get(group)?;
        let phase = match found.phase {
            Phase::Empty => "Empty",
            Phase::Joining(_) => "PreparingRebalance",
            Phase::Assigning => "CompletingRebalance",
            Phase::Stable => "Stable",
        };
        let member = |(id, member): (&String, &Member)| {
            let metadata = member.metadata(&found.protocol);
            let (client, host) = (member.client_id.clone(), member.client_host.clone());
            (id.clone(), member.instance.clone(), client, host, metadata, member.assignment.clone())
        };
        Some(Description {
            group: group.to_owned(),
            phase,
            protocol_type: found.protocol_type.clone(),
            protocol: found.protocol.clone(),
            members: found.members.iter().map(member).collect(),
        })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state().groups.keys().cloned().collect()
    }

    /// Drops members that have not been heard of, ends joins that have waited long enough, and
    /// stores the offsets. To be called every so often.
    pub(super) fn tick(&self, now: Instant) -> io::Result<()> {
        let mut state = self.state();
        for group in state.groups.values_mut() {
            group.tick(now);
        }
        if !std::mem::take(&mut state.offsets_changed) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&state.offsets)?;
        drop(state);
        replace_file(&self.path, &bytes)
    }
}

fn offset_key(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

impl State {
    /// The group of a member that is one, in its present generation; the member is heard of.
    fn known(
        &mut self,
        group: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<&mut Group, ResponseError> {
        let group = self.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?;
        if let Some(instance) = instance
            && group.holder(instance).is_some_and(|holder| holder != member)
        {
            return Err(ResponseError::FencedInstanceId);
        }
        let known = group.members.get_mut(member).ok_or(ResponseError::UnknownMemberId)?;
        known.expires = Instant::now() + known.session_timeout;
        if generation == group.generation { Ok(group) } else { Err(ResponseError::IllegalGeneration) }
    }
}

impl Group {
    /// The member that bears an instance's name.
    fn holder(&self, instance: &str) -> Option<String> {
        self.members.iter().find(|(_, member)| member.instance.as_deref() == Some(instance)).map(|(id, _)| id.clone())
    }

    /// Makes a member of who wants to join, or finds the member that it is.
    fn admit(&mut self, join: &Join, members_named: &mut u64) -> Result<String, ResponseError> {
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        } else if self.protocol_type != join.protocol_type || !self.shares_protocol(join) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let holder = join.instance.as_deref().and_then(|instance| self.holder(instance));
        let id = match (join.member.as_str(), holder) {
            // A restarted instance takes the place of its former life, which is fenced off.
            ("", Some(former)) => {
                if let Some(mut former) = self.members.remove(&former) {
                    former.fence();
                }
                name(join, members_named)
            }
            ("", None) => name(join, members_named),
            (member, Some(holder)) if holder != member => return Err(ResponseError::FencedInstanceId),
            (member, _) if self.members.contains_key(member) => member.to_owned(),
            _ => return Err(ResponseError::UnknownMemberId),
        };
        let expires = Instant::now() + join.session_timeout;
        let member = self.members.entry(id.clone()).or_insert_with(|| Member {
            instance: join.instance.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            expires,
            joining: None,
            syncing: None,
        });
        member.protocols.clone_from(&join.protocols);
        member.expires = expires;
        Ok(id)
    }

    fn shares_protocol(&self, join: &Join) -> bool {
        join.protocols.iter().any(|(name, _)| {
            self.members.values().all(|member| member.protocols.iter().any(|(known, _)| known == name))
        })
    }

    /// Asks all members to join again.
    fn prepare(&mut self) {
        if let Phase::Joining(_) = self.phase {
            return;
        }
        for member in self.members.values_mut() {
            if let Some(waiting) = member.syncing.take() {
                let _ = waiting.send(Err(ResponseError::RebalanceInProgress));
            }
        }
        let patience = self.members.values().map(|member| member.rebalance_timeout).max();
        self.phase = Phase::Joining(patience.map(|patience| Instant::now() + patience));
    }

    /// Begins the next generation, if everybody is there.
    fn complete_join(&mut self) {
        if !matches!(self.phase, Phase::Joining(_)) || self.members.values().any(|member| member.joining.is_none()) {
            return;
        }
        self.generation += 1;
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            return;
        }
        self.phase = Phase::Assigning;
        self.protocol = self.common_protocol();
        if !self.members.contains_key(&self.leader) {
            self.leader = self.members.keys().next().cloned().unwrap_or_default();
        }
        let everybody: Vec<_> = self
            .members
            .iter()
            .map(|(id, member)| (id.clone(), member.instance.clone(), member.metadata(&self.protocol)))
            .collect();
        let now = Instant::now();
        for (id, member) in &mut self.members {
            member.expires = now + member.session_timeout;
            if let Some(joining) = member.joining.take() {
                let members = if *id == self.leader { everybody.clone() } else { Vec::new() };
                let _ = joining.send(Ok(Joined {
                    generation: self.generation,
                    protocol_type: self.protocol_type.clone(),
                    protocol: self.protocol.clone(),
                    leader: self.leader.clone(),
                    member: id.clone(),
                    members,
                }));
            }
        }
    }

    /// The first protocol of any member that all of them know.
    fn common_protocol(&self) -> String {
        let known_to_all =
            |name: &String| self.members.values().all(|member| member.protocols.iter().any(|(known, _)| known == name));
        let mut offered = self.members.values().flat_map(|member| member.protocols.iter().map(|(name, _)| name));
        offered.find(|name| known_to_all(name)).cloned().unwrap_or_default()
    }

    fn sync(
        &mut self,
        id: &str,
        assignments: Vec<(String, Bytes)>,
        answer: oneshot::Sender<Result<Synced, ResponseError>>,
    ) {
        if let Phase::Joining(_) = self.phase {
            let _ = answer.send(Err(ResponseError::RebalanceInProgress));
            return;
        }
        if let Some(member) = self.members.get_mut(id) {
            member.syncing = Some(answer);
        }
        if self.phase == Phase::Assigning && id == self.leader {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
            }
            for (id, assignment) in assignments {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = assignment;
                }
            }
            self.phase = Phase::Stable;
        }
        if self.phase == Phase::Stable {
            for member in self.members.values_mut() {
                if let Some(waiting) = member.syncing.take() {
                    let _ = waiting.send(Ok(Synced {
                        protocol_type: self.protocol_type.clone(),
                        protocol: self.protocol.clone(),
                        assignment: member.assignment.clone(),
                    }));
                }
            }
        }
    }

    fn membership_changed(&mut self) {
        if self.members.is_empty() {
            *self = Self { generation: self.generation + 1, ..Self::default() };
        } else {
            self.prepare();
            self.complete_join();
        }
    }

    fn tick(&mut self, now: Instant) {
        let patience_is_over = matches!(self.phase, Phase::Joining(Some(until)) if until <= now);
        let before = self.members.len();
        self.members.retain(|_, member| {
            let silent = member.expires <= now && member.joining.is_none();
            let absent = patience_is_over && member.joining.is_none();
            !(silent || absent)
        });
        if self.members.len() < before {
            self.membership_changed();
        }
    }
}

/// A name for a new member, as Kafka makes them: client id and something unique.
fn name(join: &Join, members_named: &mut u64) -> String {
    *members_named += 1;
    format!("{}-{}-{:016x}", join.client_id, members_named, uuid::Uuid::new_v4().as_u64_pair().0)
}

impl Member {
    fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name == protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }

    fn fence(&mut self) {
        if let Some(joining) = self.joining.take() {
            let _ = joining.send(Err(ResponseError::FencedInstanceId));
        }
        if let Some(syncing) = self.syncing.take() {
            let _ = syncing.send(Err(ResponseError::FencedInstanceId));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(member: &str, instance: Option<&str>) -> Join {
        Join {
            group: "g".into(),
            member: member.into(),
            instance: instance.map(str::to_owned),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(60),
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(b"m"))],
        }
    }

    fn groups() -> (tempfile::TempDir, Groups) {
        let dir = tempfile::tempdir().unwrap();
        let groups = Groups::open(dir.path()).unwrap();
        (dir, groups)
    }

    type Answer<T> = oneshot::Receiver<Result<T, ResponseError>>;

    fn answer<T>(mut receiver: Answer<T>) -> Result<T, ResponseError> {
        receiver.try_recv().expect("an answer by now")
    }

    fn waits<T>(receiver: &mut Answer<T>) -> bool {
        matches!(receiver.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    #[test]
    fn a_second_member_makes_the_first_join_again() {
        let (_dir, groups) = groups();
        let first = answer(groups.join(join("", None))).unwrap();
        assert_eq!((first.generation, &first.leader, first.members.len()), (1, &first.member, 1));
        let work = vec![(first.member.clone(), Bytes::from_static(b"all"))];
        assert_eq!(answer(groups.sync("g", &first.member, None, 1, work)).unwrap().assignment, "all");
        assert_eq!(groups.heartbeat("g", &first.member, None, 1), Ok(()));

        let mut second = groups.join(join("", None));
        assert!(waits(&mut second));
        assert_eq!(groups.heartbeat("g", &first.member, None, 1), Err(ResponseError::RebalanceInProgress));
        let again = answer(groups.join(join(&first.member, None))).unwrap();
        let second = answer(second).unwrap();
        assert_eq!((again.generation, second.generation, again.members.len(), second.members.len()), (2, 2, 2, 0));
        let mut follower = groups.sync("g", &second.member, None, 2, vec![]);
        assert!(waits(&mut follower));
        let work =
            vec![(first.member.clone(), Bytes::from_static(b"a")), (second.member.clone(), Bytes::from_static(b"b"))];
        assert_eq!(answer(groups.sync("g", &first.member, None, 2, work)).unwrap().assignment, "a");
        assert_eq!(answer(follower).unwrap().assignment, "b");
        assert_eq!(groups.heartbeat("g", &first.member, None, 1), Err(ResponseError::IllegalGeneration));

        groups.leave("g", &second.member, None).unwrap();
        assert_eq!(groups.heartbeat("g", &first.member, None, 2), Err(ResponseError::RebalanceInProgress));
        assert_eq!(answer(groups.join(join(&first.member, None))).unwrap().generation, 3);
    }

    #[test]
    fn the_silent_are_dropped() {
        let (_dir, groups) = groups();
        let first = answer(groups.join(join("", None))).unwrap();
        let mut second = groups.join(join("", None));
        groups.tick(Instant::now()).unwrap();
        assert!(waits(&mut second), "the first may still come");
        groups.tick(Instant::now() + Duration::from_secs(11)).unwrap();
        assert_eq!(answer(second).unwrap().members.len(), 1);
        assert_eq!(groups.heartbeat("g", &first.member, None, 1), Err(ResponseError::UnknownMemberId));
    }

    #[test]
    fn a_restarted_instance_takes_its_own_place() {
        let (_dir, groups) = groups();
        let former = answer(groups.join(join("", Some("i")))).unwrap();
        let present = answer(groups.join(join("", Some("i")))).unwrap();
        assert_eq!(present.members.len(), 1);
        assert_eq!(groups.heartbeat("g", &former.member, Some("i"), 1), Err(ResponseError::FencedInstanceId));
        assert_eq!(answer(groups.join(join(&former.member, Some("i")))).unwrap_err(), ResponseError::FencedInstanceId);
        assert_eq!(groups.heartbeat("g", &present.member, Some("i"), 2), Ok(()));
    }

    #[test]
    fn offsets_outlive_a_restart() {
        let (dir, groups) = groups();
        let committed = |offset| Committed { offset, metadata: None };
        groups.commit("g", "", None, -1, vec![("t".into(), 1, committed(5))]).unwrap();
        assert!(groups.commit("g", "nobody", None, 1, vec![]).is_err());
        groups.tick(Instant::now()).unwrap();
        let groups = Groups::open(dir.path()).unwrap();
        assert_eq!(groups.committed("g", "t", 1).map(|committed| committed.offset), Some(5));
        assert_eq!(groups.all_committed("g").len(), 1);
        assert!(groups.committed("g", "t", 0).is_none());
    }

    #[test]
    fn members_need_a_protocol_in_common() {
        let (_dir, groups) = groups();
        answer(groups.join(join("", None))).unwrap();
        let other = Join { protocols: vec![("other".into(), Bytes::new())], ..join("", None) };
        assert_eq!(answer(groups.join(other)).unwrap_err(), ResponseError::InconsistentGroupProtocol);
    }
}
