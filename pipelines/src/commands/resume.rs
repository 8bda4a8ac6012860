//! `ruam resume`

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use ruam_event::Partition;

use crate::console::say;
use crate::data_dir::Part;
use crate::deployment::{Deployment, Place};

/// Let a dataset go on from another place in its topic, after a person has decided so.
///
/// Needed when a topic was deleted and created anew, or when records were deleted before they were
/// read: then workers stop and say so, rather than skip anything. Workers of this installation must
/// not be running. What was read before stays; offsets that are passed over are counted.
#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// The dataset, as agency.dataset
    dataset: String,
    /// Where to go on: beginning, end, or an offset
    #[arg(long, value_name = "PLACE")]
    from: From,
}

#[derive(Clone, Copy, Debug)]
enum From {
    Beginning,
    End,
    Offset(i64),
}

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "end" => Ok(Self::End),
            offset => {
                let offset = offset.parse().ok().filter(|offset| *offset >= 0);
                offset.map(Self::Offset).ok_or_else(|| "it is `beginning`, `end`, or an offset such as 1200".to_owned())
            }
        }
    }
}

impl Resume {
    pub(crate) async fn run(&self, place: &Place) -> Result<ExitCode> {
        let deployment = Deployment::open(place.settings()?)?;
        let spec = deployment.datasets.get(&self.dataset)?.spec.clone();
        let _workers = deployment.data_dir.take(Part::Workers).context("workers must not be running")?;
        let log = deployment.open_log().await?;
        let layout = log.log.topic(&spec.topic()).await?;
        let Some(layout) = layout else { bail!("topic `{}` does not exist", spec.topic()) };
        let held = log.log.held(&layout).await?;
        let starts: Vec<_> = held
            .iter()
            .zip(0..)
            .map(|(held, index)| {
                let start = match self.from {
                    From::Beginning => held.start,
                    From::End => held.end,
                    From::Offset(offset) => offset.clamp(held.start, held.end),
                };
                (Partition { topic: layout.topic.clone(), index }, start)
            })
            .collect();
        deployment.lake.resume(spec.id(), &starts).await?;
        for (partition, start) in &starts {
            say(format!("{partition} goes on from offset {start}"))?;
        }
        log.close().await;
        Ok(ExitCode::SUCCESS)
    }
}
