//! `ruam audit`

use std::io::{self, BufWriter, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use ruam_query::audit::{self, Event, Head};
use ruam_query::format::{self, Format};

use crate::console::{self, number, say};
use crate::deployment::{Deployment, Place};

/// How many digits the number of a citizen has.
const DIGITS: usize = 13;

/// See who asked what, and that the account of it is whole.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Audit {
    /// List what was asked, the newest first
    List(List),
    /// Check that nobody has changed the account; prints its head, to be noted down elsewhere
    Verify(Verify),
    /// Find who asked about a person, by the number of a citizen
    Subject(Subject),
}

/// List what was asked, the newest first.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only what somebody asked
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u64,
    /// How to write the result
    #[arg(long, default_value = "table", value_name = "FORMAT", value_parser = clap::builder::PossibleValuesParser::new(["table", "csv", "json"]))]
    format: String,
}

/// Check the whole account: each record is chained to those before it, so that one that was changed, left out
/// or put in shows. Where the end was cut off shows against a head that was noted down before.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// A head that was noted down, as this command printed it
    #[arg(long, value_name = "HEAD")]
    head: Option<Head>,
}

/// Find who asked about a person. The account holds pseudonyms of citizens' numbers, by which it is searched.
#[derive(Debug, clap::Args)]
pub(crate) struct Subject {
    /// The number of a citizen; without one it is read from the input, which no history of commands keeps
    number: Option<String>,
}

impl Audit {
    pub(crate) async fn run(&self, place: &Place) -> Result<ExitCode> {
        let deployment = Deployment::open(place.settings()?)?;
        match self {
            Self::List(list) => list.run(&deployment).await,
            Self::Verify(verify) => verify.run(&deployment),
            Self::Subject(subject) => subject.run(&deployment),
        }
    }
}

impl List {
    async fn run(&self, deployment: &Deployment) -> Result<ExitCode> {
        let who =
            self.who.as_ref().map_or_else(String::new, |who| format!("where who = '{}'", who.replace('\'', "''")));
        let statement = format!(
            "select min(at) as at, who, purpose, max(rows) as rows, max(milliseconds) as ms, max(event) filter (where event <> 'begun') \
             as ended, tables, sql from ruam.audit {who} group by query, who, purpose, tables, sql order by at desc limit {}",
            self.limit
        );
        let results = deployment.engine()?.query(&statement).await?;
        let format: Format = self.format.parse().map_err(anyhow::Error::msg)?;
        let mut out = BufWriter::new(io::stdout());
        format::write(results, format, console::width(), &mut out).await?;
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Verify {
    fn run(&self, deployment: &Deployment) -> Result<ExitCode> {
        let log = deployment.audit()?;
        let head = audit::verify(log.folder(), self.head)?;
        say(format!(
            "{} records, none changed. Note down the head where nobody who can change them can:",
            number(head.records())
        ))?;
        say(format!("  {head}"))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Subject {
    fn run(&self, deployment: &Deployment) -> Result<ExitCode> {
        let text = match &self.number {
            Some(number) => number.clone(),
            None => {
                let mut number = String::new();
                io::stdin().read_to_string(&mut number).context("cannot read the number from the input")?;
                number
            }
        };
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        ensure!(digits.len() == DIGITS, "that is not the number of a citizen, which has {DIGITS} digits");
        let log = deployment.audit()?;
        audit::verify(log.folder(), None)?;
        let subject = log.pseudonym(&digits);
        let (mut named, mut others) = (Vec::new(), 0_u64);
        for record in log.records()? {
            let record = record?;
            if record.event != Event::Begun {
                continue;
            }
            if record.subjects.contains(&subject) {
                let tables = record.tables.iter().map(|(table, _)| table.as_str()).collect::<Vec<_>>().join(", ");
                named.push(vec![record.at, record.who, record.purpose.unwrap_or_default(), tables, record.sql]);
            } else if record.shows_persons && record.subjects.is_empty() {
                others += 1;
            }
        }
        if named.is_empty() {
            say("nobody asked for this person by number")?;
        } else {
            say(console::table(&["when", "who", "purpose", "tables", "asked"], named, &[]))?;
        }
        say(format!(
            "{} other questions read numbers of citizens without naming one: the person may be among their rows \
             (select * from ruam.audit where shows_persons)",
            number(others)
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
