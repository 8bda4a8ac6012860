//! `ruam sql`

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use ruam_query::Caller;
use ruam_query::format::{self, Format};

use crate::console;
use crate::deployment::{Deployment, Place};

/// Ask a question in SQL.
///
/// Tables are named agency.dataset, as `ruam datasets` lists them. Beside each lie
/// agency.dataset__rejects and, where history is kept, agency.dataset__changes and
/// agency.dataset__history. table_changes('agency.dataset', from, to) gives what changed between two
/// versions. ruam.datasets, ruam.columns, ruam.rejects and ruam.versions tell about all of them.
/// The tables are read as they are; nothing has to be running.
///
/// A table as it was: agency.dataset version as of 7, or agency.dataset timestamp as of '2026-01-31
/// 12:00:00Z'. Functions for Thai data: be_date(text), be_text(date), fiscal_year(date),
/// thai_id_valid(text), baht_text(amount).
///
/// Example: ruam sql "select level, count(*) from dopa.administrative_area group by level"
#[derive(Debug, clap::Args)]
pub(crate) struct Sql {
    /// The statement; without one, it is read from the input
    statement: Option<String>,
    /// How to write the result
    #[arg(long, default_value = "table", value_name = "FORMAT", value_parser = clap::builder::PossibleValuesParser::new(Format::NAMES))]
    format: String,
    /// Ask as somebody with these roles would, to see what the policies show them
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    roles: Option<Vec<String>>,
    /// State what the question is for
    #[arg(long, value_name = "PURPOSE")]
    purpose: Option<String>,
    /// Write to a file instead
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Sql {
    pub(crate) async fn run(&self, place: &Place) -> Result<ExitCode> {
        let statement = match &self.statement {
            Some(statement) => statement.clone(),
            None => {
                let mut statement = String::new();
                io::stdin().read_to_string(&mut statement).context("cannot read the statement from the input")?;
                statement
            }
        };
        let format: Format = self.format.parse().map_err(anyhow::Error::msg)?;
        let deployment = Deployment::open(place.settings()?)?;
        let caller = match &self.roles {
            Some(roles) => Caller::new("somebody", roles.iter().cloned(), "ruam sql"),
            None => Caller::system("ruam sql"),
        };
        let session = deployment.engine()?.session(caller)?;
        session.state_purpose(self.purpose.clone());
        let results = session.query(&statement).await?;
        match &self.output {
            Some(path) => {
                let file = File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
                let mut out = BufWriter::new(file);
                format::write(results, format, None, &mut out).await?;
                out.flush().with_context(|| format!("cannot write to {}", path.display()))?;
            }
            None => {
                if matches!(format, Format::Arrow | Format::Parquet) && io::stdout().is_terminal() {
                    bail!(
                        "this format is not for reading in a terminal: name a file with --output, or send it on with | or >"
                    );
                }
                let mut out = BufWriter::new(io::stdout());
                format::write(results, format, console::width(), &mut out).await?;
                out.flush()?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
