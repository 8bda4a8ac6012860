//! `ruam maintain`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use ruam_lake::{DatasetWriter, LakeError, Maintained, TableKind, TableName};

use crate::console::{bytes, number, say, table};
use crate::deployment::{Deployment, Place};
use crate::worker::contract;

/// Nothing goes sooner, whatever the settings say.
const LEAST_RETENTION: Duration = Duration::from_secs(3600);

/// Make the tables fast and small again, now.
///
/// Merges small files and those of which much is deleted, sorts by its dataset's cluster_by what is not
/// sorted yet, writes a checkpoint, clears the table's log, and deletes files that nobody has needed for
/// worker.retention_hours (6 hours, if they belong only to versions between those that are kept: each
/// version of the last hour, and one an hour before that). Running workers do the same by themselves, in
/// the background; both may run at the same time, and nothing that is being written or read is lost.
///
/// merged, into: files that were made fewer. rows out: deleted rows that their files do not carry any
/// more. freed: the bytes of files that are gone. waiting: files that are to go later.
///
/// Rows that are sorted and find no room in memory wait in the system's folder for temporary files
/// (TMPDIR).
///
/// A file that is not needed any more is first remembered as waiting, and is deleted when it is still
/// not needed after the retention: until then, older versions of the table can be read.
#[derive(Debug, clap::Args)]
pub(crate) struct Maintain {
    /// Only these datasets, as agency.dataset
    datasets: Vec<String>,
}

impl Maintain {
    pub(crate) async fn run(&self, place: &Place) -> Result<ExitCode> {
        let deployment = Deployment::open(place.settings()?)?;
        let datasets = deployment.datasets.named(&self.datasets)?;
        // What a worker is just writing looks like what nobody needs, so that there is a least.
        let retention = deployment.settings.worker.retention().max(LEAST_RETENTION);
        let (begun, mut rows, mut sum) = (Instant::now(), Vec::new(), Maintained::default());
        for dataset in datasets {
            match deployment.lake.table(&TableName::new(dataset.spec.id(), TableKind::Rows)).await {
                Ok(_) => {}
                // Nothing has been written yet, and maintenance is no reason to begin.
                Err(LakeError::Missing { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            let writer = DatasetWriter::open(&deployment.lake, contract(dataset), None).await?;
            for (name, done) in writer.maintain(retention).await? {
                sum = sum.and(done);
                rows.push(line(&name, &done));
            }
        }
        if rows.is_empty() {
            say("no tables yet: `ruam up` makes them as events arrive")?;
            return Ok(ExitCode::SUCCESS);
        }
        let header = ["table", "merged", "into", "rows out", "freed", "waiting"];
        say(table(&header, rows, &[1, 2, 3, 4, 5]))?;
        say(told(&sum, begun.elapsed(), retention))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn line(name: &TableName, Maintained { compacted, vacuumed, .. }: &Maintained) -> Vec<String> {
    vec![
        name.to_string(),
        number(compacted.files_before),
        number(compacted.files_after),
        number(compacted.purged),
        bytes(vacuumed.bytes),
        number(vacuumed.waiting),
    ]
}

/// What it came to over all tables.
fn told(Maintained { compacted, vacuumed, cleared }: &Maintained, took: Duration, retention: Duration) -> String {
    let mut text = if compacted.files_before == 0 {
        "no files were to be merged".to_owned()
    } else {
        format!("{} files became {}", number(compacted.files_before), number(compacted.files_after))
    };
    if compacted.sorted > 0 {
        text.push_str(&format!(", {} sorted", number(compacted.sorted)));
    }
    let (files, freed) = (number(vacuumed.files + cleared.files), bytes(vacuumed.bytes + cleared.bytes));
    text.push_str(&format!("; {files} files deleted, {freed} freed; in {:.1} s", took.as_secs_f64()));
    if vacuumed.waiting > 0 {
        text.push_str(&format!(
            "\n{} files go when unused for up to {} h (worker.retention_hours):\nrun it again then, or leave it to `ruam up`",
            number(vacuumed.waiting),
            retention.as_secs() / 3600
        ));
    }
    text
}
