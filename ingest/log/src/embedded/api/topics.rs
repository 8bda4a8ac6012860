//! Requests about topics and the cluster.

use std::sync::Arc;

use futures::FutureExt;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{Answer, Broker, NODE, Request, Result};

pub(super) fn create(broker: &Arc<Broker>, request: Request, create: CreateTopicsRequest) -> Result<Answer> {
    let broker = broker.clone();
    let create = move || {
        let topics = create.topics.iter().map(|topic| {
            let result = CreatableTopicResult::default().with_name(topic.name.clone()).with_replication_factor(1);
            match broker.topics.create(&topic.name, topic.num_partitions) {
                Ok(created) => result.with_topic_id(created.id).with_num_partitions(created.partitions.len() as i32),
                Err(error) => result.with_error_code(error.code()),
            }
        });
        CreateTopicsResponse::default().with_topics(topics.collect())
    };
    Ok(async move { request.encode(&tokio::task::spawn_blocking(create).await.ok()?) }.boxed())
}

pub(super) fn delete(broker: &Arc<Broker>, request: Request, delete: DeleteTopicsRequest) -> Result<Answer> {
    let broker = broker.clone();
    let delete = move || {
        let by_id =
            delete.topics.into_iter().filter_map(|topic| topic.name.or_else(|| name_of(&broker, topic.topic_id)));
        let names: Vec<TopicName> = by_id.chain(delete.topic_names).collect();
        let responses = names.into_iter().map(|name| {
            let error = broker.topics.delete(&name).map_or_else(|error| error.code(), |()| 0);
            DeletableTopicResult::default().with_name(Some(name)).with_error_code(error)
        });
        DeleteTopicsResponse::default().with_responses(responses.collect())
    };
    Ok(async move { request.encode(&tokio::task::spawn_blocking(delete).await.ok()?) }.boxed())
}

fn name_of(broker: &Broker, id: uuid::Uuid) -> Option<TopicName> {
    broker.topics.get_by_id(id).map(|topic| TopicName(StrBytes::from_string(topic.name.clone())))
}

/// Topics have no settings of their own here; tools that ask get an empty list.
pub(super) fn describe_configs(request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| {
        DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

pub(super) fn describe_cluster(broker: &Broker) -> DescribeClusterResponse {
    let node = DescribeClusterBroker::default()
        .with_broker_id(NODE)
        .with_host(StrBytes::from_string(broker.address.ip().to_string()))
        .with_port(broker.address.port().into());
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_static_str("ruam-embedded"))
        .with_controller_id(NODE)
        .with_brokers(vec![node])
}
