//! What the embedded broker does for each kind of request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::Broker;
use super::partition::{AppendError, Appended, Partition};
use super::server::Answer;
use super::topics::{TopicLog, storage_error};

mod groups;
mod topics;

/// The one broker's id.
const NODE: BrokerId = BrokerId(1);
/// The most bytes that one fetch is answered with, whatever the client asks for.
const MAX_FETCH_BYTES: usize = 50 << 20;

/// What is offered, in which versions.
const OFFERED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 9),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::OffsetCommit, 2, 8),
    (ApiKey::OffsetFetch, 1, 8),
    (ApiKey::FindCoordinator, 0, 4),
    (ApiKey::JoinGroup, 0, 8),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 5),
    (ApiKey::ListGroups, 0, 4),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::DescribeCluster, 0, 1),
];

/// Why a connection has to be closed: what came is not a request that is offered.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadRequest(String);

type Result<T, E = BadRequest> = std::result::Result<T, E>;

impl BadRequest {
    fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// A request's header, and who sent it.
struct Request {
    key: ApiKey,
    version: i16,
    correlation: i32,
    client_id: String,
    peer: SocketAddr,
}

/// Reads a request and does what has to be done in its order; the rest is in the answer.
///
/// # Errors
/// Where the bytes are not a request that is offered: the connection has to be closed.
pub(super) async fn begin(broker: &Arc<Broker>, mut frame: Bytes, peer: SocketAddr) -> Result<Answer> {
    let [a, b, c, d, ..] = frame[..] else { return Err(BadRequest::new("a request without a header")) };
    let (key, version) = (i16::from_be_bytes([a, b]), i16::from_be_bytes([c, d]));
    let key = ApiKey::try_from(key).map_err(|()| BadRequest(format!("unknown request {key}")))?;
    let offered = OFFERED.iter().any(|(known, min, max)| *known == key && (*min..=*max).contains(&version));
    let header_version = if offered { key.request_header_version(version) } else { 1 };
    let header = RequestHeader::decode(&mut frame, header_version).map_err(BadRequest::new)?;
    let request = Request {
        key,
        version,
        correlation: header.correlation_id,
        client_id: header.client_id.map(|id| id.to_string()).unwrap_or_default(),
        peer,
    };
    if !offered {
        if key == ApiKey::ApiVersions {
            // A client that is newer than this broker asks again with a version from this list.
            let request = Request { version: 0, ..request };
            return request.ready(&api_versions(ResponseError::UnsupportedVersion.code()));
        }
        return Err(BadRequest(format!("{key:?} version {version} is not offered")));
    }
    dispatch(broker, request, frame).await
}

async fn dispatch(broker: &Arc<Broker>, request: Request, mut body: Bytes) -> Result<Answer> {
    let (key, version) = (request.key, request.version);
    macro_rules! read {
        ($type:ident) => {
            $type::decode(&mut body, version)
                .map_err(|error| BadRequest(format!("{key:?} version {version}: {error}")))?
        };
    }
    match key {
        ApiKey::Produce => produce(broker, request, read!(ProduceRequest)).await,
        ApiKey::Fetch => {
            let (broker, fetch) = (broker.clone(), read!(FetchRequest));
            Ok(async move { request.encode(&broker.fetch(fetch).await) }.boxed())
        }
        ApiKey::JoinGroup => groups::join(broker, request, read!(JoinGroupRequest)),
        ApiKey::SyncGroup => groups::sync(broker, request, read!(SyncGroupRequest)),
        ApiKey::Heartbeat => request.ready(&groups::heartbeat(broker, &read!(HeartbeatRequest))),
        ApiKey::LeaveGroup => request.ready(&groups::leave(broker, version, read!(LeaveGroupRequest))),
        ApiKey::OffsetCommit => request.ready(&groups::commit(broker, read!(OffsetCommitRequest))),
        ApiKey::OffsetFetch => request.ready(&groups::fetch_offsets(broker, version, read!(OffsetFetchRequest))),
        ApiKey::FindCoordinator => {
            request.ready(&groups::find_coordinator(broker, version, read!(FindCoordinatorRequest)))
        }
        ApiKey::DescribeGroups => request.ready(&groups::describe(broker, read!(DescribeGroupsRequest))),
        ApiKey::ListGroups => request.ready(&groups::list(broker)),
        ApiKey::ListOffsets => request.ready(&broker.list_offsets(read!(ListOffsetsRequest))),
        ApiKey::Metadata => request.ready(&broker.metadata(version, read!(MetadataRequest))),
        ApiKey::ApiVersions => request.ready(&api_versions(0)),
        ApiKey::CreateTopics => topics::create(broker, request, read!(CreateTopicsRequest)),
        ApiKey::DeleteTopics => topics::delete(broker, request, read!(DeleteTopicsRequest)),
        ApiKey::DescribeConfigs => request.ready(&topics::describe_configs(read!(DescribeConfigsRequest))),
        ApiKey::DescribeCluster => request.ready(&topics::describe_cluster(broker)),
        ApiKey::InitProducerId => request.ready(&init_producer_id(&read!(InitProducerIdRequest))),
        other => Err(BadRequest(format!("{other:?} is not offered"))),
    }
}

impl Request {
    /// The bytes of an answer; none, and a closed connection, should it not encode.
    fn encode<T: Encodable>(&self, response: &T) -> Option<Bytes> {
        let mut frame = BytesMut::new();
        let header = ResponseHeader::default().with_correlation_id(self.correlation);
        let encoded = header
            .encode(&mut frame, self.key.response_header_version(self.version))
            .and_then(|()| response.encode(&mut frame, self.version));
        match encoded {
            Ok(()) => Some(frame.freeze()),
            Err(error) => {
                tracing::error!(request = ?self.key, version = self.version, %error, "an answer of the embedded broker does not encode");
                None
            }
        }
    }

    fn ready<T: Encodable>(&self, response: &T) -> Result<Answer> {
        let frame = self.encode(response).ok_or_else(|| BadRequest::new("the answer does not encode"))?;
        Ok(std::future::ready(Some(frame)).boxed())
    }
}

fn api_versions(error: i16) -> ApiVersionsResponse {
    let version = |(key, min, max): &(ApiKey, i16, i16)| {
        ApiVersion::default().with_api_key(*key as i16).with_min_version(*min).with_max_version(*max)
    };
    ApiVersionsResponse::default().with_error_code(error).with_api_keys(OFFERED.iter().map(version).collect())
}

/// Producer ids only have to be unique; nothing is remembered of a producer but its last batches.
fn init_producer_id(request: &InitProducerIdRequest) -> InitProducerIdResponse {
    if request.transactional_id.is_some() {
        return InitProducerIdResponse::default()
            .with_error_code(ResponseError::TransactionalIdAuthorizationFailed.code());
    }
    let id = (uuid::Uuid::new_v4().as_u128() as i64) & i64::MAX;
    InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0)
}

/// Appends at once, and answers when the disk has confirmed.
async fn produce(broker: &Arc<Broker>, request: Request, produce: ProduceRequest) -> Result<Answer> {
    let (acks, timeout) = (produce.acks, Duration::from_millis(produce.timeout_ms.unsigned_abs().into()));
    let appending = broker.clone();
    let appended = tokio::task::spawn_blocking(move || appending.append(produce)).await.map_err(BadRequest::new)?;
    for partition in appended.iter().flat_map(|topic| &topic.1).filter_map(|partition| partition.1.as_ref().ok()) {
        broker.syncer.request(&partition.1);
    }
    if acks == 0 {
        return Ok(std::future::ready(None).boxed());
    }
    Ok(async move {
        let mut responses = Vec::new();
        for (name, partitions) in appended {
            let mut answers = Vec::new();
            for (index, result) in partitions {
                answers.push(confirm(index, result, timeout).await);
            }
            responses.push(TopicProduceResponse::default().with_name(name).with_partition_responses(answers));
        }
        request.encode(&ProduceResponse::default().with_responses(responses))
    }
    .boxed())
}

type PartitionAppend = (i32, Result<(Appended, Arc<Partition>), ResponseError>);

async fn confirm(
    index: i32,
    result: Result<(Appended, Arc<Partition>), ResponseError>,
    timeout: Duration,
) -> PartitionProduceResponse {
    let answer = PartitionProduceResponse::default().with_index(index).with_log_append_time_ms(-1);
    let confirmed = match result {
        Ok((appended, partition)) => {
            let mut safe = partition.safe();
            match tokio::time::timeout(timeout, safe.wait_for(|safe| *safe >= appended.end_offset)).await {
                Ok(Ok(_)) => Ok((appended.base_offset, partition.range().0)),
                _ => Err(ResponseError::RequestTimedOut),
            }
        }
        Err(error) => Err(error),
    };
    match confirmed {
        Ok((base_offset, log_start)) => answer.with_base_offset(base_offset).with_log_start_offset(log_start),
        Err(error) => answer.with_error_code(error.code()).with_base_offset(-1).with_log_start_offset(-1),
    }
}

impl Broker {
    fn append(&self, produce: ProduceRequest) -> Vec<(TopicName, Vec<PartitionAppend>)> {
        let topic = |topic: produce_request::TopicProduceData| {
            let partitions = topic
                .partition_data
                .into_iter()
                .map(|data| {
                    let records = data.records.unwrap_or_default();
                    (
                        data.index,
                        self.append_partition(&topic.name.0, data.index, records, produce.transactional_id.is_some()),
                    )
                })
                .collect();
            (topic.name, partitions)
        };
        produce.topic_data.into_iter().map(topic).collect()
    }

    fn append_partition(
        &self,
        topic: &str,
        index: i32,
        records: Bytes,
        transactional: bool,
    ) -> Result<(Appended, Arc<Partition>), ResponseError> {
        if transactional {
            return Err(ResponseError::TransactionalIdAuthorizationFailed);
        }
        let partition = self.topics.partition(topic, index)?;
        let mut batch = BytesMut::from(records);
        match partition.append(&mut batch) {
            Ok(appended) => Ok((appended, partition)),
            Err(AppendError::Refused(error)) => Err(error),
            Err(AppendError::Io(error)) => Err(storage_error(&error)),
        }
    }

    /// Records from the offsets that a client asks for; waits for some, as long as the client says.
    async fn fetch(self: &Arc<Self>, fetch: FetchRequest) -> FetchResponse {
        let deadline = Instant::now() + Duration::from_millis(fetch.max_wait_ms.unsigned_abs().into());
        let fetch = Arc::new(fetch);
        let mut confirmed = self.syncer.confirmed();
        loop {
            confirmed.mark_unchanged();
            let (reading, request) = (self.clone(), fetch.clone());
            let read = tokio::task::spawn_blocking(move || reading.read(&request)).await;
            let Ok((responses, bytes, failed)) = read else {
                return FetchResponse::default().with_error_code(ResponseError::UnknownServerError.code());
            };
            let enough = failed || bytes >= usize::try_from(fetch.min_bytes).unwrap_or(0);
            let more = tokio::time::timeout_at(deadline.into(), confirmed.changed());
            if enough || !matches!(more.await, Ok(Ok(()))) {
                return FetchResponse::default().with_responses(responses);
            }
        }
    }

    /// Reads once: the answers, how many bytes of records are in them, and whether one is an error.
    fn read(&self, fetch: &FetchRequest) -> (Vec<FetchableTopicResponse>, usize, bool) {
        let limit = usize::try_from(fetch.max_bytes).unwrap_or(MAX_FETCH_BYTES).min(MAX_FETCH_BYTES);
        let (mut bytes, mut failed) = (0, false);
        let mut responses = Vec::new();
        for topic in &fetch.topics {
            let mut partitions = Vec::new();
            for wanted in &topic.partitions {
                let left = limit.saturating_sub(bytes).min(usize::try_from(wanted.partition_max_bytes).unwrap_or(0));
                let answer = PartitionData::default()
                    .with_partition_index(wanted.partition)
                    .with_aborted_transactions(Some(Vec::new()));
                partitions.push(match self.read_partition(&topic.topic, wanted.partition, wanted.fetch_offset, left) {
                    Ok((records, (start, end))) => {
                        bytes += records.len();
                        answer
                            .with_high_watermark(end)
                            .with_last_stable_offset(end)
                            .with_log_start_offset(start)
                            .with_records(Some(Bytes::from(records)))
                    }
                    Err(error) => {
                        failed = true;
                        answer.with_error_code(error.code()).with_high_watermark(-1).with_records(Some(Bytes::new()))
                    }
                });
            }
            responses
                .push(FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_partitions(partitions));
        }
        (responses, bytes, failed)
    }

    fn read_partition(
        &self,
        topic: &str,
        index: i32,
        offset: i64,
        max_bytes: usize,
    ) -> Result<(Vec<u8>, (i64, i64)), ResponseError> {
        let partition = self.topics.partition(topic, index)?;
        let records = if max_bytes == 0 { Ok(Vec::new()) } else { partition.read(offset, max_bytes) };
        match records {
            Ok(records) => Ok((records, partition.range())),
            Err(AppendError::Refused(error)) => Err(error),
            Err(AppendError::Io(error)) => Err(storage_error(&error)),
        }
    }

    fn list_offsets(&self, request: ListOffsetsRequest) -> ListOffsetsResponse {
        let topic = |topic: list_offsets_request::ListOffsetsTopic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let answer = ListOffsetsPartitionResponse::default().with_partition_index(wanted.partition_index);
                match self.topics.partition(&topic.name, wanted.partition_index) {
                    Ok(partition) => {
                        let (start, end) = partition.range();
                        let offset = match wanted.timestamp {
                            -1 => end,
                            -2 => start,
                            timestamp => partition.offset_at(timestamp).unwrap_or(-1),
                        };
                        answer.with_offset(offset).with_timestamp(-1)
                    }
                    Err(error) => answer.with_error_code(error.code()).with_offset(-1),
                }
            });
            ListOffsetsTopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name)
        };
        ListOffsetsResponse::default().with_topics(request.topics.into_iter().map(topic).collect())
    }

    fn metadata(&self, version: i16, request: MetadataRequest) -> MetadataResponse {
        let all = match &request.topics {
            None => true,
            Some(topics) => version == 0 && topics.is_empty(),
        };
        let topics = if all {
            self.topics.all().iter().map(|topic| describe_topic(topic)).collect()
        } else {
            request.topics.into_iter().flatten().map(|wanted| self.wanted_topic(wanted)).collect()
        };
        let broker = MetadataResponseBroker::default()
            .with_node_id(NODE)
            .with_host(StrBytes::from_string(self.address.ip().to_string()))
            .with_port(self.address.port().into());
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_cluster_id(Some(StrBytes::from_static_str("ruam-embedded")))
            .with_controller_id(NODE)
            .with_topics(topics)
    }

    fn wanted_topic(&self, wanted: metadata_request::MetadataRequestTopic) -> MetadataResponseTopic {
        let found = match &wanted.name {
            Some(name) => self.topics.get(name),
            None => self.topics.get_by_id(wanted.topic_id),
        };
        match found {
            Some(topic) => describe_topic(&topic),
            None => MetadataResponseTopic::default()
                .with_error_code(ResponseError::UnknownTopicOrPartition.code())
                .with_name(wanted.name)
                .with_topic_id(wanted.topic_id),
        }
    }
}

fn describe_topic(topic: &TopicLog) -> MetadataResponseTopic {
    let partition = |index: usize| {
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(NODE)
            .with_leader_epoch(0)
            .with_replica_nodes(vec![NODE])
            .with_isr_nodes(vec![NODE])
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_partitions((0..topic.partitions.len()).map(partition).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::groups::Groups;
    use crate::embedded::partition::Limits;
    use crate::embedded::syncer::Syncer;
    use crate::embedded::topics::Topics;
    use proptest::prelude::*;

    fn broker(dir: &std::path::Path) -> Arc<Broker> {
        let limits = Limits { batch: 1 << 20, segment: 1 << 20, retention: i64::MAX };
        Arc::new(Broker {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            topics: Topics::open(dir, limits).unwrap(),
            groups: Groups::open(dir).unwrap(),
            syncer: Syncer::start().unwrap(),
        })
    }

    proptest! {
        /// Whatever comes over the wire is answered or refused. However the bytes are read, no length is of more
        /// than 2²⁵ items: what the library does with larger ones is told at the head of `embedded`.
        #[test]
        fn no_bytes_break_it(
            offered in 0..OFFERED.len(),
            step in 0i16..16,
            body in prop::collection::vec(prop_oneof![
                8 => Just(&[0u8][..]),
                2 => Just(&[1][..]),
                1 => Just(&[0xff, 0xff, 0][..]),
            ], 0..150),
        ) {
            let (key, min, max) = OFFERED[offered];
            let version = (min + step).min(max);
            let mut frame = Vec::new();
            frame.extend((key as i16).to_be_bytes());
            frame.extend(version.to_be_bytes());
            frame.extend([0, 0, 0, 7, 0xff, 0xff]);
            frame.extend(body.concat());
            let dir = tempfile::tempdir().unwrap();
            let broker = broker(dir.path());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let peer = SocketAddr::from(([127, 0, 0, 1], 2));
            let _ = runtime.block_on(begin(&broker, Bytes::from(frame), peer));
        }
    }
}
