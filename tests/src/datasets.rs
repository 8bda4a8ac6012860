//! The datasets that come with the program, by `agency/dataset`.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ruam_connectors::Surroundings;
use ruam_connectors::conformance::drain;
use ruam_event::{ChangeEvent, DatasetSpec};
use ruam_lake::changes_schema;
use ruam_query::QueryDataset;
use ruam_transform::{Transform, reject};

/// The folder of their files.
pub const SPECS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/specs");

/// All of them.
pub const ALL: [&str; 4] = ["bora/person", "cgd/disbursement", "dopa/administrative_area", "msdhs/welfare_payment"];

/// The file of a dataset, with a topic of another name if one is given.
///
/// # Errors
/// Where it cannot be read, or says nothing about its topic.
pub fn text(dataset: &str, topic: Option<&str>) -> Result<String> {
    let path = format!("{SPECS}/{dataset}.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let Some(topic) = topic else { return Ok(text) };
    let named = text.replacen("[topic]", &format!("[topic]\nname = \"{topic}\""), 1);
    ensure!(named != text, "{path} has no [topic]");
    Ok(named)
}

/// What a dataset declares, with a topic of another name if one is given.
///
/// # Errors
/// Where its file is wrong.
pub fn spec(dataset: &str, topic: Option<&str>) -> Result<DatasetSpec> {
    Ok(DatasetSpec::parse(&format!("{SPECS}/{dataset}.toml"), &text(dataset, topic)?)?)
}

/// A dataset as queries see it.
///
/// # Errors
/// Where its columns are wrong.
pub fn queried(spec: DatasetSpec) -> Result<Arc<QueryDataset>> {
    let rows = Transform::new(&spec, 1 << 20)?.schema().clone();
    let changes = spec.history.then(|| changes_schema(&rows));
    Ok(Arc::new(QueryDataset { spec: Arc::new(spec), rows, rejects: reject::SCHEMA.clone(), changes }))
}

/// All events of a dataset, where the generated ones come to `total` together.
///
/// # Errors
/// Where its source cannot be read.
pub fn events(spec: &DatasetSpec, total: u64) -> Result<Vec<ChangeEvent>> {
    let surroundings = Surroundings { generated_total: Some(total), ..Surroundings::default() };
    let mut source = ruam_connectors::open(spec, &surroundings)?.context("a source")?;
    Ok(drain(source.as_mut(), None, 1000, &|_| false)?)
}
