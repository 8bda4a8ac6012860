//! What the fuzz targets share: servers, and the law that they are held to.

pub mod gateway;
#[path = "../../src/strangers.rs"]
pub mod strangers;

use std::sync::{Arc, LazyLock};

use ruam_event::DatasetSpec;
use ruam_query::QueryDataset;
use ruam_transform::{Transform, reject};

use gateway::Gateway;
use strangers::Servers;

/// One of each server, for as long as this process runs.
pub static SERVERS: LazyLock<Servers> = LazyLock::new(|| Servers::start().expect("servers"));

/// A dataset for policies to speak of.
pub static DATASETS: LazyLock<Vec<Arc<QueryDataset>>> = LazyLock::new(|| {
    let spec = include_str!("../../../pipelines/specs/bora/person.toml");
    let spec = DatasetSpec::parse("bora/person.toml", spec).expect("a dataset");
    let rows = Transform::new(&spec, 1 << 20).expect("columns").schema().clone();
    vec![Arc::new(QueryDataset { spec: Arc::new(spec), rows, rejects: reject::SCHEMA.clone(), changes: None })]
});

/// A gateway, for as long as this process runs.
pub static GATEWAY: LazyLock<Gateway> = LazyLock::new(Gateway::start);

/// What becomes of the records of a topic that others fill, in each of its formats.
pub static TRANSFORMS: LazyLock<Vec<Transform>> = LazyLock::new(|| {
    let spec = include_str!("../../../pipelines/specs/bora/person.toml");
    let mut spec: toml::Table = toml::from_str(spec).expect("TOML");
    spec.remove("source");
    let mut of = |format: &str| {
        let topic = toml::Table::from_iter([("format".to_owned(), toml::Value::from(format))]);
        spec.insert("topic".to_owned(), topic.into());
        let spec = DatasetSpec::parse("bora/person.toml", &toml::to_string(&spec).expect("TOML")).expect("a dataset");
        Transform::new(&spec, 1 << 20).expect("columns")
    };
    ["envelope", "rows", "cloud_events"].map(&mut of).into()
});
