//! `ruam verify`

use std::process::ExitCode;

use anyhow::Result;

use crate::account::accounts;
use crate::console::{number, say, table};
use crate::deployment::{Deployment, Place};

/// Prove that nothing was lost and nothing counted twice.
///
/// For each partition (#) of each dataset: published = rows + rejected + filtered + folded.
///
/// published: records that were read. rows: in the table now. rejected: refused, with a reason
/// (ruam rejects list). filtered: records that say nothing (Kafka's tombstones). folded: accepted
/// events whose effect a later one has replaced, deletes, and what came late (ruam status). waiting: in
/// the log, not read yet.
/// Rows and rejects are counted in the tables themselves, and looked through for doubles. Ends with
/// 1 if the books do not balance.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Only this dataset, as agency.dataset
    dataset: Option<String>,
}

impl Verify {
    pub(crate) async fn run(&self, place: &Place) -> Result<ExitCode> {
        let deployment = Deployment::open(place.settings()?)?;
        let datasets = deployment.datasets.named(self.dataset.as_slice())?;
        let log = deployment.open_log().await?;
        let engine = deployment.engine()?;
        let (mut rows, mut wrong) = (Vec::new(), 0);
        for dataset in datasets {
            let mut first = true;
            for account in accounts(dataset, Some(&log.log), &deployment.lake, &engine).await? {
                let progress = account.progress.unwrap_or_default();
                let verdict = match (account.difference(), account.doubled) {
                    (0, 0) => "ok".to_owned(),
                    (0, doubled) => format!("{doubled} DOUBLED"),
                    (missing, _) if missing > 0 => format!("{missing} MISSING"),
                    (extra, _) => format!("{} TOO MANY", -extra),
                };
                wrong += u32::from(!account.balances());
                let name = if std::mem::take(&mut first) { dataset.spec.id().to_string() } else { String::new() };
                rows.push(vec![
                    name,
                    account.partition.to_string(),
                    number(account.published()),
                    number(account.rows),
                    number(account.rejected),
                    number(progress.filtered),
                    number(progress.folded),
                    account.lag().map_or("?".to_owned(), number),
                    verdict,
                ]);
            }
        }
        log.close().await;
        let header = ["dataset", "#", "published", "rows", "rejected", "filtered", "folded", "waiting", ""];
        say(table(&header, rows, &[1, 2, 3, 4, 5, 6, 7]))?;
        if wrong > 0 {
            say(format!("{wrong} partitions do not balance. Keep the log and the lake as they are, and report this"))?;
            return Ok(ExitCode::FAILURE);
        }
        say("every record is accounted for")?;
        Ok(ExitCode::SUCCESS)
    }
}
