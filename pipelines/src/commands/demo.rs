//! `ruam demo`

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use ruam_connectors::{DEFAULT_TOTAL, planted_payments};
use ruam_query::format::{self, Format};
use ruam_query::{Engine, extract};
use tokio_util::sync::CancellationToken;

use super::up::stop_on_signals;
use crate::account::{accounts, text_counts};
use crate::console::{self, bytes, millis, number, progress, say, table};
use crate::data_dir::{DataDir, Part};
use crate::deployment::{Deployment, OpenLog, Place};
use crate::fault::Patience;
use crate::meter::Meter;
use crate::run::{Pacing, Running};

/// How often progress lines are drawn, on a terminal and elsewhere.
const DRAW_EVERY: Duration = Duration::from_millis(200);
const PRINT_EVERY: Duration = Duration::from_secs(5);
/// The seed of the built-in generated datasets, which their files name.
const SEED: u64 = 2568;

/// See it all work, on this machine, with nothing else running.
///
/// Starts the embedded broker and a lake of plain files, feeds the change events of four datasets
/// through connector, topic, worker and table, asks three questions, and publishes one extract. The
/// administrative areas are real; the persons and payments are generated and say so. A second run
/// continues where the first was.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// How many events the generated datasets come to, all together
    #[arg(long, value_name = "N", default_value_t = DEFAULT_TOTAL)]
    events: u64,
    /// Start over: delete the log, the lake and the extracts first, after saying what
    #[arg(long)]
    fresh: bool,
    /// Stay up afterwards and serve SQL, until Ctrl-C
    #[arg(long)]
    serve: bool,
    /// The most events a second of each source; 0 for as many as it can
    #[arg(long, value_name = "N", default_value_t = 5000)]
    rate: u32,
}

/// A question of the demo: what it asks, the SQL, and what to know about the answer.
struct Question {
    asks: &'static str,
    sql: &'static str,
    note: &'static str,
}

const QUESTIONS: [Question; 3] = [
    Question {
        asks: "Population by province (generated persons; the ten largest)",
        sql: "select a.code, a.name_th as province, a.name_en as english,
  count(*) as persons
from bora.person p
join dopa.administrative_area a on a.code = substr(p.area_code, 1, 2)
group by a.code, a.name_th, a.name_en
order by persons desc, a.code
limit 10",
        note: "",
    },
    Question {
        asks: "Area codes in force on 1 January 2010, as far as this data knows (real)",
        sql: "select level,
  count(*) as in_force,
  count(*) filter (where abolished_on is not null) as abolished_since
from dopa.administrative_area
where abolished_on is null or abolished_on > date '2010-01-01'
group by level
order by in_force",
        note: "No dates of creation are known, so a code newer than 2010 is counted, too.",
    },
    Question {
        asks: "Payments by two agencies to one person for one purpose and month (generated)",
        sql: "select w.citizen_id, w.programme as purpose, w.period,
  w.amount as msdhs, d.amount as cgd
from msdhs.welfare_payment w
join cgd.disbursement d on d.payee_citizen_id = w.citizen_id
  and d.purpose = w.programme and d.period = w.period
order by w.citizen_id",
        note: "",
    },
];

/// How many of the rows of the last question are shown.
const SHOWN_PAYMENTS: usize = 5;

impl Demo {
    pub(crate) async fn run(&self, place: &Place) -> Result<ExitCode> {
        let begun = Instant::now();
        let settings = place.settings()?;
        if self.fresh {
            start_over(&settings.data_dir)?;
        }
        let deployment = Deployment::open(settings)?;
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;
        let log = deployment.open_log().await?;
        deployment.lake.check_writable().await?;
        introduce(&deployment, &log)?;

        let mut running = Running::new(&deployment, stop.child_token());
        let patience = Patience::GiveUp(running.stop.clone());
        let pacing = Pacing { generated_total: Some(self.events), rate: (self.rate > 0).then_some(self.rate) };
        if self.serve {
            running.start_query(&deployment).await?;
        }
        running.start_workers(&deployment, &log.log, &patience)?;
        running.start_connectors(&deployment, &log.log, pacing, &patience)?;
        let finished = watch(&deployment, &log, &running).await;
        let meters: Vec<_> = running.meters.values().cloned().collect();
        if !finished || !self.serve {
            running.close().await;
            if let Some(meter) = meters.iter().find(|meter| meter.trouble().is_some() && !finished) {
                log.close().await;
                bail!("{}: {}", meter.id(), meter.trouble().unwrap_or_default());
            }
            if !finished {
                log.close().await;
                say(format!("\nstopped; `{} demo` goes on from here", console::program()))?;
                return Ok(ExitCode::SUCCESS);
            }
            let engine = deployment.engine()?;
            self.report(&deployment, &log, &engine, &meters, begun).await?;
            log.close().await;
            return Ok(ExitCode::SUCCESS);
        }
        let engine = deployment.engine()?;
        self.report(&deployment, &log, &engine, &meters, begun).await?;
        if let Some(address) = running.query_address {
            say(format!(
                "\nSQL is served at {address} until Ctrl-C: psql -h {} -p {} ruam",
                address.ip(),
                address.port()
            ))?;
        }
        stop.cancelled().await;
        running.close().await;
        log.close().await;
        Ok(ExitCode::SUCCESS)
    }

    /// Everything that is shown when the events are in.
    async fn report(
        &self,
        deployment: &Deployment,
        log: &OpenLog,
        engine: &Engine,
        meters: &[Arc<Meter>],
        begun: Instant,
    ) -> Result<()> {
        summarise(deployment, log, engine, meters, begun.elapsed()).await?;
        ask(engine, &QUESTIONS[0]).await?;
        ask(engine, &QUESTIONS[1]).await?;
        self.ask_for_double_payments(engine).await?;
        publish(deployment, engine).await?;
        let (program, listen) = (console::program(), deployment.settings.query.listen);
        say("\nHow to go on:")?;
        for (command, what) in [
            (format!("{program} up"), "run it all; the next line then works"),
            (
                format!("psql -h {} -p {} ruam", listen.ip(), listen.port()),
                "ask from anything that speaks to PostgreSQL",
            ),
            (format!("{program} sql \"select * from ruam.datasets\""), "ask without a server"),
            (format!("{program} verify"), "prove that no record was lost"),
            (format!("{program} rejects list"), "see what was refused, and why"),
        ] {
            say(format!("  {what}:\n      {command}"))?;
        }
        Ok(())
    }

    /// The last question has an answer that is known beforehand.
    async fn ask_for_double_payments(&self, engine: &Engine) -> Result<()> {
        let question = &QUESTIONS[2];
        let found = "select 'found', count(*) from (".to_owned() + question.sql + ")";
        let found = text_counts(engine, &found).await?.first().map_or(0, |(_, count)| *count);
        let sql = format!("{} limit {SHOWN_PAYMENTS}", question.sql);
        say(format!("\n{}\n", question.asks))?;
        say(indented(question.sql))?;
        show(engine, &sql).await?;
        let planted = planted_payments(SEED, self.events)?;
        say(format!(
            "found {} in all (the first {SHOWN_PAYMENTS} are shown); planted were {}",
            number(found),
            number(planted.len() as u64)
        ))?;
        ensure!(found == planted.len() as u64, "the question has to find exactly the planted payments");
        Ok(())
    }
}

fn start_over(path: &std::path::Path) -> Result<()> {
    let data_dir = DataDir::open(path)?;
    let parts = [Part::Broker, Part::Connectors, Part::Gateway, Part::Workers, Part::Query];
    let _locks = parts.iter().map(|part| data_dir.take(*part)).collect::<Result<Vec<_>, _>>()?;
    for (folder, size) in data_dir.contents()? {
        say(format!("deleting {} ({})", folder.display(), bytes(size)))?;
    }
    Ok(data_dir.clear()?)
}

fn introduce(deployment: &Deployment, log: &OpenLog) -> Result<()> {
    say("Ruam demo")?;
    say(format!("  log       {}", log.place))?;
    say(format!("  lake      {}", deployment.lake.url()))?;
    say(format!("  datasets  {}, from {}", deployment.datasets.all.len(), deployment.datasets.place))?;
    for dataset in deployment.datasets.all.values() {
        let spec = &dataset.spec;
        let kind = if spec.generated { "GENERATED" } else { "real" };
        say(format!("    {:<26} {kind:<10} {}", spec.id().to_string(), spec.title.en))?;
    }
    say("")?;
    Ok(())
}

/// Shows progress until every event is in its table; says whether that came to be.
async fn watch(deployment: &Deployment, log: &OpenLog, running: &Running) -> bool {
    let is_terminal = io::stderr().is_terminal();
    let style = ProgressStyle::with_template("{prefix:<26}{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let line = |meter: &Arc<Meter>| {
        let bar = progress().add(ProgressBar::new_spinner().with_style(style.clone()));
        bar.set_prefix(meter.id().to_string());
        (meter.clone(), bar, Rate::default())
    };
    let mut lines: Vec<_> = running.meters.values().map(line).collect();
    let (mut printed, mut is_done) = (Instant::now(), false);
    while !is_done && !running.stop.is_cancelled() {
        tokio::select! {
            () = tokio::time::sleep(DRAW_EVERY) => {}
            () = running.stop.cancelled() => {}
        }
        for (meter, bar, rate) in &mut lines {
            bar.set_message(describe(meter, rate));
        }
        if !is_terminal && printed.elapsed() >= PRINT_EVERY {
            printed = Instant::now();
            for (meter, bar, _) in &lines {
                console::note(&format!("{:<26}{}", meter.id().to_string(), bar.message()));
            }
        }
        is_done = is_all_in(deployment, log, running).await;
    }
    for (meter, bar, rate) in &mut lines {
        rate.events_a_second = 0.0;
        bar.finish_with_message(describe(meter, rate));
    }
    is_done
}

/// Whether every source has ended, and every record of its topic is in a table.
async fn is_all_in(deployment: &Deployment, log: &OpenLog, running: &Running) -> bool {
    for (id, meter) in &running.meters {
        let Some(dataset) = deployment.datasets.all.get(id) else { continue };
        if dataset.spec.source.is_none() || ruam_connectors::is_sent(&dataset.spec) {
            continue;
        }
        if !meter.fed.load(Ordering::Acquire) {
            return false;
        }
        let Ok(Some(layout)) = log.log.topic(&dataset.spec.topic()).await else { return false };
        let Ok(held) = log.log.held(&layout).await else { return false };
        let offsets = meter.offsets();
        if !held.iter().zip(0..).all(|(held, index)| offsets.get(&index) == Some(&held.end)) {
            return false;
        }
        meter.lag.store(0, Ordering::Relaxed);
    }
    true
}

/// Events a second, over the last few draws.
#[derive(Default)]
struct Rate {
    last: Option<(Instant, u64)>,
    events_a_second: f64,
}

fn describe(meter: &Meter, rate: &mut Rate) -> String {
    let records = meter.records.load(Ordering::Relaxed);
    let now = Instant::now();
    if let Some((at, before)) = rate.last {
        let seconds = now.duration_since(at).as_secs_f64();
        if seconds >= 1.0 {
            rate.events_a_second = (records - before) as f64 / seconds;
            rate.last = Some((now, records));
        }
    } else {
        rate.last = Some((now, records));
    }
    let lag = match meter.lag.load(Ordering::Relaxed) {
        -1 => "?".to_owned(),
        lag => number(lag),
    };
    let mut text = format!("{:>9} events {:>7}/s  lag {lag:>6}", number(records), number(rate.events_a_second as u64));
    let _ = write!(text, "  {:>5} rejects", number(meter.rejected.load(Ordering::Relaxed)));
    if let Some(trouble) = meter.trouble() {
        let _ = write!(text, "  {trouble}");
    }
    text
}

async fn summarise(
    deployment: &Deployment,
    log: &OpenLog,
    engine: &Engine,
    meters: &[Arc<Meter>],
    elapsed: Duration,
) -> Result<()> {
    let mut rows = Vec::new();
    for meter in meters {
        let dataset = deployment.datasets.all.get(meter.id()).context("a dataset without a file")?;
        let accounts = accounts(dataset, Some(&log.log), &deployment.lake, engine).await?;
        for account in &accounts {
            ensure!(account.balances(), "{} [{}] does not balance: run `ruam verify`", meter.id(), account.partition);
        }
        let (p50, p99) =
            meter.freshness().map_or(("-".to_owned(), "-".to_owned()), |(p50, p99)| (millis(p50), millis(p99)));
        rows.push(vec![
            meter.id().to_string(),
            number(accounts.iter().map(|account| account.published()).sum::<u64>()),
            number(accounts.iter().map(|account| account.rows).sum::<u64>()),
            number(accounts.iter().map(|account| account.rejected).sum::<u64>()),
            p50,
            p99,
            bytes(meter.bytes.load(Ordering::Relaxed)),
        ]);
    }
    say("")?;
    say(table(&["dataset", "events in", "rows now", "rejects", "p50", "p99", "written"], rows, &[1, 2, 3, 4, 5, 6]))?;
    say("p50, p99: freshness, from an event's publication to its row being visible, in this run\n")?;
    let rejects = "select concat(dataset, '  ', reason, coalesce(concat(' (', column_name, ')'), '')) as what, count(*) as n \
                   from ruam.rejects group by what order by split_part(what, '  ', 1), n desc, what";
    let reasons = text_counts(engine, rejects).await?;
    if !reasons.is_empty() {
        let rows = reasons.into_iter().map(|(what, count)| {
            let (dataset, reason) = what.split_once("  ").unwrap_or((&what, ""));
            vec![dataset.to_owned(), reason.to_owned(), number(count)]
        });
        say(table(&["rejects of", "reason (column)", "count"], rows.collect(), &[2]))?;
    }
    say(format!("elapsed: {}", millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))))?;
    Ok(())
}

async fn ask(engine: &Engine, question: &Question) -> Result<()> {
    say(format!("\n{}\n", question.asks))?;
    say(indented(question.sql))?;
    show(engine, question.sql).await?;
    if !question.note.is_empty() {
        say(question.note)?;
    }
    Ok(())
}

fn indented(sql: &str) -> String {
    sql.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

async fn show(engine: &Engine, sql: &str) -> Result<()> {
    let mut out = Vec::new();
    format::write(engine.query(sql).await?, Format::Table, console::width(), &mut out).await?;
    say(String::from_utf8_lossy(&out).trim_end())?;
    Ok(())
}

async fn publish(deployment: &Deployment, engine: &Engine) -> Result<()> {
    for dataset in deployment.datasets.all.values() {
        for declared in &dataset.spec.extracts {
            let release = extract::publish(engine, &dataset.spec, declared, &deployment.data_dir.extracts()).await?;
            say(format!(
                "\nPublished {} ({} rows) as open data in\n  {}",
                dataset.spec.id(),
                number(release.manifest.rows),
                release.folder.display()
            ))?;
            for file in &release.manifest.files {
                say(format!("  {}  {}\n    sha256 {}", file.name, bytes(file.bytes), file.sha256))?;
            }
            let versions: Vec<_> = release
                .manifest
                .tables
                .iter()
                .map(|table| format!("{} version {}", table.table, table.version))
                .collect();
            say(format!("  manifest.json  from {}", versions.join(", ")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_fit_the_narrowest_terminal() {
        for question in &QUESTIONS {
            let lines = question.sql.lines().chain([question.asks, question.note]);
            for line in lines {
                assert!(line.len() + 2 <= 80, "{line}");
            }
        }
    }
}
