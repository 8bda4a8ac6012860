//! `ruam check`

use std::process::ExitCode;

use anyhow::Result;

use crate::console::say;
use crate::data_dir;
use crate::deployment::Place;
use crate::guard::Guard;
use crate::specs::Datasets;

/// Check the settings and all dataset files, without connecting to anything.
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
            Err(problems) => {
                for problem in &problems.0 {
                    say(problem.to_string())?;
                }
                let count = problems.0.len();
                say(format!("{count} {} found", if count == 1 { "mistake" } else { "mistakes" }))?;
                return Ok(ExitCode::FAILURE);
            }
        };
        for dataset in datasets.all.values() {
            let spec = &dataset.spec;
            say(format!("{}: {}, {} columns, {}: right", spec.path(), spec.id(), spec.columns.len(), spec.mode))?;
        }
        if let Some(sign_on) = &guard.sign_on {
            say(format!("sign-on by {}: right", sign_on.ways().join(", ")))?;
        }
        if let (Some(_), Some(tls)) = (&guard.tls, &settings.tls) {
            say(format!("{} and its key: right", tls.certificate.display()))?;
        }
        say(format!("{} datasets in {} are right", datasets.all.len(), datasets.place))?;
        Ok(ExitCode::SUCCESS)
    }
}
