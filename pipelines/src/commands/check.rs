//! `ruam check`

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use ruam_event::spec::TopicEncoding;
use ruam_log::SchemaRegistry;
use ruam_query::PseudonymKey;

use crate::console::say;
use crate::data_dir;
use crate::deployment::Place;
use crate::gateway;
use crate::guard::Guard;
use crate::policies::{self, PoliciesError};
use crate::specs::{Dataset, Datasets};

/// Check the settings and all dataset and policy files, without connecting to anything.
///
/// Every mistake is shown with its file, line, key and remedy. Ends with 1 if there is one.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {}

impl Check {
    pub(crate) fn run(&self, place: &Place) -> Result<ExitCode> {
        let settings = place.settings()?;
        let guard = Guard::open(&settings, &data_dir::access(&settings.data_dir))?;
        guard.admits(settings.query.listen, "query.listen")?;
        let datasets = match Datasets::load(settings.specs.as_deref(), settings.limits.max_record_bytes) {
            Ok(datasets) => datasets,
            Err(problems) => return tell(&problems.0),
        };
        let connected = |dataset: &Dataset| ruam_connectors::check_connection(&dataset.spec, &settings.connections);
        let mut unconnected: Vec<_> = datasets.all.values().filter_map(|dataset| connected(dataset).err()).collect();
        if settings.registry.is_none() {
            let in_avro = datasets.all.values().filter(|dataset| dataset.spec.topic_encoding() == TopicEncoding::Avro);
            unconnected.extend(in_avro.map(|dataset| dataset.spec.without_registry()));
        }
        if !unconnected.is_empty() {
            return tell(&unconnected);
        }
        for dataset in datasets.all.values() {
            let spec = &dataset.spec;
            say(format!("{}: {}, {} columns, {}: right", spec.path(), spec.id(), spec.columns.len(), spec.mode))?;
        }
        if let Some(registry) = &settings.registry {
            SchemaRegistry::open(registry)?;
            say(format!("the schema registry at {}: right", registry.url))?;
        }
        let sent = gateway::sent(&datasets).count();
        if let Some(section) = &settings.gateway {
            section.check(&datasets)?;
            section.guard(&settings, &data_dir::access(&settings.data_dir))?;
            say(format!("the gateway at {}, for {sent} datasets: right", section.listen))?;
        } else if sent > 0 {
            say(format!(
                "{sent} datasets take events by the gateway, and ruam.toml has no [gateway]: nobody can send any"
            ))?;
        }
        if let Some(sign_on) = &guard.sign_on {
            say(format!("sign-on by {}: right", sign_on.ways().join(", ")))?;
        }
        if let (Some(_), Some(tls)) = (&guard.tls, &settings.tls) {
            say(format!("{} and its key: right", tls.certificate.display()))?;
        }
        say(format!("{} datasets in {} are right", datasets.all.len(), datasets.place))?;
        if let Some(folder) = policies::folder(settings.policies.as_deref(), &datasets.place) {
            let queried: Vec<_> = datasets.all.values().map(|dataset| Arc::new(dataset.queried())).collect();
            // Which secret pseudonyms are made with makes no difference to whether the files are right.
            match policies::load(Some(&folder), &queried, &PseudonymKey::default()) {
                Ok(_) => say(format!("the policies in {} are right", folder.display()))?,
                Err(error) => match error.downcast::<PoliciesError>() {
                    Ok(mistakes) => return tell(&mistakes.0),
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Tells of mistakes.
fn tell(mistakes: &[impl ToString]) -> Result<ExitCode> {
    for mistake in mistakes {
        say(mistake.to_string())?;
    }
    say(format!("{} {} found", mistakes.len(), if mistakes.len() == 1 { "mistake" } else { "mistakes" }))?;
    Ok(ExitCode::FAILURE)
}
