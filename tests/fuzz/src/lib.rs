//! What the fuzz targets share: servers, and the law that they are held to.

#[path = "../../src/strangers.rs"]
pub mod strangers;

use std::sync::{Arc, LazyLock};

use ruam_event::DatasetSpec;
use ruam_query::QueryDataset;
use ruam_transform::{Transform, reject};

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
