//! `ruam rejects`

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::Result;
use ruam_query::format::{self, Format};

use crate::console;
use crate::deployment::{Deployment, Place};

/// Look at the records that could not become rows.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Rejects {
    /// List rejects, the newest first
    List(List),
}

/// List rejects, the newest first: why each was refused, and which record it is.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only those of a dataset, as agency.dataset
    dataset: Option<String>,
    /// Only those with a reason, such as wrong_check_digit
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u64,
    /// Count them by dataset, reason and column instead
    #[arg(long)]
    count: bool,
    /// Show the record as it came, too. It may hold personal data.
    #[arg(long)]
    raw: bool,
    /// How to write the result
    #[arg(long, default_value = "table", value_name = "FORMAT", value_parser = clap::builder::PossibleValuesParser::new(["table", "csv", "json"]))]
    format: String,
}

impl Rejects {
    pub(crate) async fn run(&self, place: &Place) -> Result<ExitCode> {
        let Self::List(list) = self;
        let deployment = Deployment::open(place.settings()?)?;
        if let Some(dataset) = &list.dataset {
            deployment.datasets.get(dataset)?;
        }
        let results = deployment.engine()?.query(&list.statement()).await?;
        let format: Format = list.format.parse().map_err(anyhow::Error::msg)?;
        let mut out = BufWriter::new(io::stdout());
        format::write(results, format, console::width(), &mut out).await?;
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    fn statement(&self) -> String {
        let equals = |column: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{column} = '{}'", value.replace('\'', "''")))
        };
        let conditions: Vec<_> =
            [equals("dataset", &self.dataset), equals("reason", &self.reason)].into_iter().flatten().collect();
        let condition =
            if conditions.is_empty() { String::new() } else { format!("where {}", conditions.join(" and ")) };
        if self.count {
            return format!(
                "select dataset, reason, column_name as column, count(*) as rejects from ruam.rejects {condition} \
                 group by dataset, reason, column_name order by dataset, rejects desc, reason"
            );
        }
        let raw = if self.raw { ", arrow_cast(raw_value, 'Utf8') as raw_value" } else { "" };
        format!(
            "select dataset, reason, column_name as column, detail, concat(_topic, '/', _partition, '/', _offset) as record, \
             _arrived_at as arrived_at{raw} from ruam.rejects {condition} order by _arrived_at desc, _offset desc limit {}",
            self.limit
        )
    }
}
