//! `ruam status`

use std::process::ExitCode;

use anyhow::{Context, Result};
use ruam_connectors::Surroundings;

use crate::account::accounts;
use crate::console::{number, say, table};
use crate::data_dir::Part;
use crate::deployment::{Deployment, Place};
use crate::gateway;
use crate::intake::Sequences;

/// Show how far each dataset is, and what is running.
///
/// Where an agency numbers its events, it is told which are missing; of each database that is followed, how much of
/// its log it keeps until that is read.
///
/// late: events that came when a later one of the same row was there already, so that they had no
/// effect. waiting: in the log, not read yet. The embedded log is only asked while it runs; without it,
/// what late is and what waits is shown as ?.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(&self, place: &Place) -> Result<ExitCode> {
        let deployment = Deployment::open(place.settings()?)?;
        let mut nothing_runs = true;
        for part in [Part::Broker, Part::Connectors, Part::Gateway, Part::Workers, Part::Query] {
            if let Some(holder) = deployment.data_dir.holder(part) {
                nothing_runs = false;
                let address = holder.address.map(|address| format!(" at {address}")).unwrap_or_default();
                say(format!("{}: process {} ({}){address}", part.name(), holder.pid, holder.command))?;
            }
        }
        if nothing_runs {
            say(format!(
                "nothing of this installation runs on this machine ({})",
                deployment.data_dir.path().display()
            ))?;
        }
        let is_reachable = !deployment.is_embedded() || deployment.data_dir.holder(Part::Broker).is_some();
        let log = if is_reachable { Some(deployment.open_log().await?) } else { None };
        let engine = deployment.engine()?;
        let mut rows = Vec::new();
        for dataset in deployment.datasets.all.values() {
            let accounts = accounts(dataset, log.as_ref().map(|log| &log.log), &deployment.lake, &engine).await?;
            let waiting = accounts.iter().map(|account| account.lag()).sum::<Option<i64>>().filter(|_| log.is_some());
            let late =
                accounts.iter().filter_map(|account| account.progress).map(|progress| progress.late).sum::<u64>();
            let late = log.is_some().then_some(late);
            rows.push(vec![
                dataset.spec.id().to_string(),
                dataset.spec.mode.to_string(),
                number(accounts.iter().map(|account| account.rows).sum::<u64>()),
                number(accounts.iter().map(|account| account.rejected).sum::<u64>()),
                late.map_or("?".to_owned(), number),
                waiting.map_or("?".to_owned(), number),
                if dataset.spec.generated { "generated" } else { "" }.to_owned(),
            ]);
        }
        say(table(&["dataset", "mode", "rows", "rejects", "late", "waiting", ""], rows, &[2, 3, 4, 5]))?;
        tell_missing(&deployment)?;
        tell_retained(&deployment).await?;
        say(format!("lake: {}", deployment.lake.url()))?;
        if let Some(log) = log {
            say(format!("log: {}", log.place))?;
            log.close().await;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Tells which events are missing, by the numbers that agencies give theirs.
fn tell_missing(deployment: &Deployment) -> Result<()> {
    let mut files = Vec::new();
    for dataset in gateway::sent(&deployment.datasets) {
        let id = dataset.spec.id();
        let folder = deployment.data_dir.sources().join(id.to_string());
        let sequences = Sequences::open(&folder).with_context(|| {
            format!("{}: it cannot be read which events are missing. Check what this user may read", folder.display())
        })?;
        let troubles = sequences.troubles();
        for trouble in &troubles {
            say(format!("{id}: {trouble}"))?;
        }
        files.extend((!troubles.is_empty()).then(|| sequences.path().display().to_string()));
    }
    if !files.is_empty() {
        say(
            "  Ask the agency to send what is missing. What cannot come any more is forgotten with these files, once ruam is stopped:",
        )?;
        files.into_iter().try_for_each(|file| say(format!("  {file}")))?;
    }
    Ok(())
}

/// Tells what databases keep for sources, until it is in the log.
async fn tell_retained(deployment: &Deployment) -> Result<()> {
    let (connections, state) = (deployment.settings.connections.clone(), deployment.data_dir.sources());
    let surroundings = Surroundings { connections, state, ..Surroundings::default() };
    let mut asked = Vec::new();
    for dataset in deployment.datasets.all.values() {
        if let Some(source) = ruam_connectors::open(&dataset.spec, &surroundings)? {
            asked.push((dataset.spec.id(), tokio::task::spawn_blocking(move || source.retained())));
        }
    }
    for (id, answer) in asked {
        match answer.await? {
            Ok(None) => {}
            Ok(Some(retained)) => say(format!("{id}: {retained}"))?,
            Err(error) => say(format!("{id}: {error}"))?,
        }
    }
    Ok(())
}
