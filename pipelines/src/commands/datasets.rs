//! `ruam datasets`

use std::process::ExitCode;

use anyhow::Result;
use ruam_event::DatasetSpec;
use ruam_transform::types;

use crate::console::{say, table};
use crate::deployment::Place;
use crate::specs;

/// List the datasets, or show one with its columns and what each of them means.
#[derive(Debug, clap::Args)]
pub(crate) struct Datasets {
    /// A dataset, as agency.dataset
    dataset: Option<String>,
}

impl Datasets {
    pub(crate) fn run(&self, place: &Place) -> Result<ExitCode> {
        let settings = place.settings()?;
        let datasets = specs::Datasets::load(settings.specs.as_deref(), settings.limits.max_record_bytes)?;
        match &self.dataset {
            None => list(&datasets)?,
            Some(name) => show(datasets.get(name)?)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(datasets: &specs::Datasets) -> Result<()> {
    let row = |dataset: &specs::Dataset| {
        let spec = &dataset.spec;
        let mut title = format!("{}\n{}", spec.title.en, spec.title.th);
        if spec.generated {
            title.push_str("\nGENERATED: no row is real");
        }
        vec![spec.id().to_string(), title, spec.classification.to_string(), spec.mode.to_string()]
    };
    let rows = datasets.all.values().map(row).collect();
    say(table(&["dataset", "title", "class", "mode"], rows, &[]))?;
    say(format!("from {}", datasets.place))?;
    Ok(())
}

fn history(spec: &DatasetSpec) -> String {
    match (spec.history, spec.effective()) {
        (false, _) => "not kept".to_owned(),
        (true, None) => "every change is kept".to_owned(),
        (true, Some(column)) => format!("every change is kept; a row holds from {column} on"),
    }
}

fn show(dataset: &specs::Dataset) -> Result<()> {
    let spec = &dataset.spec;
    let source = spec.source.as_ref().map_or("the topic is filled by others", |source| source.kind.get_ref().as_str());
    let facts = [
        ("dataset", spec.id().to_string()),
        ("title", format!("{} / {}", spec.title.en, spec.title.th)),
        ("owner", format!("{} / {}", spec.owner.en, spec.owner.th)),
        ("contact", format!("{}, {}", spec.contact.name, spec.contact.email)),
        ("description", format!("{}\n{}", spec.description.en.trim(), spec.description.th.trim())),
        ("generated", if spec.generated { "yes: no row is real" } else { "no" }.to_owned()),
        ("classification", spec.classification.to_string()),
        ("purposes", spec.purposes.join(", ")),
        ("licence", spec.license.clone().unwrap_or_else(|| "none".to_owned())),
        ("mode", spec.mode.to_string()),
        ("key", spec.key().join(", ")),
        ("cluster by", if spec.cluster_by().is_empty() { "nothing".to_owned() } else { spec.cluster_by().join(", ") }),
        ("history", history(spec)),
        ("topic", format!("{}, {} partitions", spec.topic(), spec.partitions())),
        ("source", source.to_owned()),
        ("file", spec.path().to_owned()),
    ];
    say(table(&[], facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect(), &[]))?;
    let mut rows = Vec::new();
    for column in &spec.columns {
        let semantic = types::of_column(spec, column)?;
        let mut meaning = semantic.describe();
        if semantic.is_personal() {
            meaning.push_str(" (personal)");
        }
        let required = if column.required || spec.is_key(column.name()) { "yes" } else { "" };
        let title = format!("{}\n{}", column.title.en, column.title.th);
        rows.push(vec![
            column.name().to_owned(),
            column.semantic_type.get_ref().clone(),
            required.to_owned(),
            title,
            meaning,
        ]);
    }
    say(table(&["column", "type", "required", "title", "what it takes"], rows, &[]))?;
    Ok(())
}
