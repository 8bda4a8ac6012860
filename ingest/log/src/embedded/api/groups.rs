//! Requests about consumer groups.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::super::groups::{Committed, Join};
use super::{Answer, Broker, NODE, Request, Result};

/// For each topic, what is committed of each partition.
type Offsets = Vec<(TopicName, Vec<(i32, Option<Committed>)>)>;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn join(broker: &Arc<Broker>, request: Request, join: JoinGroupRequest) -> Result<Answer> {
    let millis = |millis: i32| Duration::from_millis(millis.unsigned_abs().into());
    let session_timeout = millis(join.session_timeout_ms);
    let answer = broker.groups.join(Join {
        group: join.group_id.to_string(),
        member: join.member_id.to_string(),
        instance: join.group_instance_id.map(|instance| instance.to_string()),
        client_id: request.client_id.clone(),
        client_host: format!("/{}", request.peer.ip()),
        session_timeout,
        rebalance_timeout: if join.rebalance_timeout_ms < 0 {
            session_timeout
        } else {
            millis(join.rebalance_timeout_ms)
        },
        protocol_type: join.protocol_type.to_string(),
        protocols: join.protocols.into_iter().map(|protocol| (protocol.name.to_string(), protocol.metadata)).collect(),
    });
    Ok(async move {
        let response = match answer.await.unwrap_or(Err(ResponseError::UnknownMemberId)) {
            Ok(joined) => {
                let members = joined.members.into_iter().map(|(id, instance, metadata)| {
                    JoinGroupResponseMember::default()
                        .with_member_id(text(&id))
                        .with_group_instance_id(instance.as_deref().map(text))
                        .with_metadata(metadata)
                });
                JoinGroupResponse::default()
                    .with_generation_id(joined.generation)
                    .with_protocol_type(Some(text(&joined.protocol_type)))
                    .with_protocol_name(Some(text(&joined.protocol)))
                    .with_leader(text(&joined.leader))
                    .with_member_id(text(&joined.member))
                    .with_members(members.collect())
            }
            // Before version 7 the name of the protocol may not be null.
            Err(error) => JoinGroupResponse::default()
                .with_error_code(error.code())
                .with_generation_id(-1)
                .with_protocol_name(Some(StrBytes::new())),
        };
        request.encode(&response)
    }
    .boxed())
}

pub(super) fn sync(broker: &Arc<Broker>, request: Request, sync: SyncGroupRequest) -> Result<Answer> {
    let assignments = sync
        .assignments
        .into_iter()
        .map(|assignment| (assignment.member_id.to_string(), assignment.assignment))
        .collect();
    let answer = broker.groups.sync(
        &sync.group_id,
        &sync.member_id,
        sync.group_instance_id.as_deref(),
        sync.generation_id,
        assignments,
    );
    Ok(async move {
        let response = match answer.await.unwrap_or(Err(ResponseError::RebalanceInProgress)) {
            Ok(synced) => SyncGroupResponse::default()
                .with_protocol_type(Some(text(&synced.protocol_type)))
                .with_protocol_name(Some(text(&synced.protocol)))
                .with_assignment(synced.assignment),
            Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
        };
        request.encode(&response)
    }
    .boxed())
}

fn code(result: Result<(), ResponseError>) -> i16 {
    result.map_or_else(|error| error.code(), |()| 0)
}

pub(super) fn heartbeat(broker: &Broker, request: &HeartbeatRequest) -> HeartbeatResponse {
    let instance = request.group_instance_id.as_deref();
    let result = broker.groups.heartbeat(&request.group_id, &request.member_id, instance, request.generation_id);
    HeartbeatResponse::default().with_error_code(code(result))
}

pub(super) fn leave(broker: &Broker, version: i16, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let members =
        if version < 3 { vec![MemberIdentity::default().with_member_id(request.member_id)] } else { request.members };
    let leaving = members.into_iter().map(|member| {
        let result = broker.groups.leave(&request.group_id, &member.member_id, member.group_instance_id.as_deref());
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code(result))
    });
    let left: Vec<_> = leaving.collect();
    let error = if version < 3 { left.first().map_or(0, |member| member.error_code) } else { 0 };
    LeaveGroupResponse::default().with_error_code(error).with_members(if version < 3 { Vec::new() } else { left })
}

pub(super) fn commit(broker: &Broker, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let offsets = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            let metadata = partition.committed_metadata.as_ref().map(ToString::to_string);
            (
                topic.name.to_string(),
                partition.partition_index,
                Committed { offset: partition.committed_offset, metadata },
            )
        })
    });
    let (group, member, instance) = (&request.group_id, &request.member_id, request.group_instance_id.as_deref());
    let error =
        code(broker.groups.commit(group, member, instance, request.generation_id_or_member_epoch, offsets.collect()));
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error)
        });
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Offsets of one group: of the partitions that are named, or of all that it has committed.
fn offsets(broker: &Broker, group: &str, wanted: Option<Vec<(TopicName, Vec<i32>)>>) -> Offsets {
    let Some(wanted) = wanted else {
        let committed = broker.groups.all_committed(group).into_iter();
        return committed
            .map(|(topic, partition, offset)| (TopicName(text(&topic)), vec![(partition, Some(offset))]))
            .collect();
    };
    let of_topic = |(topic, partitions): (TopicName, Vec<i32>)| {
        let offsets = partitions
            .into_iter()
            .map(|partition| (partition, broker.groups.committed(group, &topic, partition)))
            .collect();
        (topic, offsets)
    };
    wanted.into_iter().map(of_topic).collect()
}

pub(super) fn fetch_offsets(broker: &Broker, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if version < 8 {
        let wanted = request
            .topics
            .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect());
        let topics = offsets(broker, &request.group_id, wanted).into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, committed)| {
                OffsetFetchResponsePartition::default()
                    .with_partition_index(index)
                    .with_committed_offset(committed.as_ref().map_or(-1, |committed| committed.offset))
                    .with_metadata(Some(text(
                        committed.and_then(|committed| committed.metadata).as_deref().unwrap_or_default(),
                    )))
            });
            OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
        });
        return OffsetFetchResponse::default().with_topics(topics.collect());
    }
    let groups = request.groups.into_iter().map(|group| {
        let wanted =
            group.topics.map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect());
        let topics = offsets(broker, &group.group_id, wanted).into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, committed)| {
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(index)
                    .with_committed_offset(committed.as_ref().map_or(-1, |committed| committed.offset))
                    .with_metadata(Some(text(
                        committed.and_then(|committed| committed.metadata).as_deref().unwrap_or_default(),
                    )))
            });
            OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
        });
        OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone()).with_topics(topics.collect())
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

/// This broker coordinates every group, and no transactions.
pub(super) fn find_coordinator(
    broker: &Broker,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let (host, port) = (text(&broker.address.ip().to_string()), i32::from(broker.address.port()));
    let error = if request.key_type == 0 { 0 } else { ResponseError::TransactionalIdAuthorizationFailed.code() };
    if version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(error)
            .with_node_id(NODE)
            .with_host(host)
            .with_port(port);
    }
    let coordinator = |key: StrBytes| {
        Coordinator::default()
            .with_key(key)
            .with_node_id(NODE)
            .with_host(host.clone())
            .with_port(port)
            .with_error_code(error)
    };
    FindCoordinatorResponse::default()
        .with_coordinators(request.coordinator_keys.into_iter().map(coordinator).collect())
}

pub(super) fn describe(broker: &Broker, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let groups = request.groups.into_iter().map(|id| {
        let Some(group) = broker.groups.describe(&id) else {
            return DescribedGroup::default().with_group_id(id).with_group_state(StrBytes::from_static_str("Dead"));
        };
        let members = group.members.into_iter().map(|(id, instance, client, host, metadata, assignment)| {
            DescribedGroupMember::default()
                .with_member_id(text(&id))
                .with_group_instance_id(instance.as_deref().map(text))
                .with_client_id(text(&client))
                .with_client_host(text(&host))
                .with_member_metadata(metadata)
                .with_member_assignment(assignment)
        });
        DescribedGroup::default()
            .with_group_id(id)
            .with_group_state(text(group.phase))
            .with_protocol_type(text(&group.protocol_type))
            .with_protocol_data(text(&group.protocol))
            .with_members(members.collect())
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

pub(super) fn list(broker: &Broker) -> ListGroupsResponse {
    let groups = broker.groups.names().into_iter().filter_map(|name| {
        let group = broker.groups.describe(&name)?;
        Some(
            ListedGroup::default()
                .with_group_id(GroupId(text(&group.group)))
                .with_protocol_type(text(&group.protocol_type))
                .with_group_state(text(group.phase)),
        )
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}
