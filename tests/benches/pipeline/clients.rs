//! Many clients of PostgreSQL's protocol at the same time, who ask for much and for little.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::join_all;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ruam_tests::tpch::Tpch;
use tokio_postgres::NoTls;

use crate::tpch;

pub const CLIENTS: usize = 100;
/// How long they ask.
pub const PERIOD: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);
/// The memory of the server, in MB.
const MEMORY_MB: usize = 4096;

/// What is asked, what it is called, and how many of a hundred questions it is. `$1` is a number up to so many.
const QUESTIONS: [(&str, &str, i64, u32); 3] = [
    ("row by key", "select * from tpch.customer where c_custkey = $1", 150_000, 85),
    (
        "aggregate",
        "select c_mktsegment, count(*), avg(c_acctbal) from tpch.customer where c_nationkey = $1 group by c_mktsegment",
        25,
        12,
    ),
    (
        "large scan",
        "select l_returnflag, l_linestatus, count(*), sum(l_extendedprice * (1 - l_discount)) from tpch.lineitem \
         where l_linenumber > $1 group by l_returnflag, l_linestatus",
        3,
        3,
    ),
];

/// What the clients saw.
pub struct Served {
    /// How long the answers to each kind of question took, the shortest first.
    pub times: Vec<(&'static str, Vec<Duration>)>,
    /// What went wrong.
    pub errors: Vec<String>,
    /// How many answers each client got, the fewest first.
    pub answers: Vec<usize>,
}

/// What one client saw: the kinds of its questions with their times, and what went wrong.
type Seen = (Vec<(usize, Duration)>, Vec<String>);

/// Measures it.
pub fn measure() -> Result<Served> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let tpch = Tpch::kept(tpch::scale()?)?;
    let (installation, mut up) = tpch.serve(MEMORY_MB)?;
    let said = up.wait_for("SQL is served at", PATIENCE)?;
    let port = said.rsplit("127.0.0.1:").next().and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let address = format!("host=127.0.0.1 user=ruam dbname=ruam port={}", port.context("a port")?);
    let seen = runtime.block_on(async {
        let until = Instant::now() + PERIOD;
        join_all((0..CLIENTS).map(|client| {
            let address = address.clone();
            tokio::spawn(async move {
                let mut seen = Seen::default();
                if let Err(error) = ask(&address, client as u64, until, &mut seen.0).await {
                    seen.1.push(format!("{error:#}"));
                }
                seen
            })
        }))
        .await
    });
    up.interrupt(PATIENCE)?;
    drop(installation);
    let seen = seen.into_iter().collect::<Result<Vec<Seen>, _>>()?;
    let times = QUESTIONS.iter().enumerate().map(|(kind, (name, ..))| {
        let of_kind = seen.iter().flat_map(|(times, _)| times).filter(|(of, _)| *of == kind).map(|(_, time)| *time);
        let mut times: Vec<_> = of_kind.collect();
        times.sort_unstable();
        (*name, times)
    });
    let mut answers: Vec<_> = seen.iter().map(|(times, _)| times.len()).collect();
    answers.sort_unstable();
    Ok(Served { times: times.collect(), answers, errors: seen.into_iter().flat_map(|(_, errors)| errors).collect() })
}

/// One client: asks one question after the other, each kind as often as it is to be.
async fn ask(address: &str, seed: u64, until: Instant, times: &mut Vec<(usize, Duration)>) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await?;
    tokio::spawn(connection);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut prepared = Vec::new();
    for (_, question, ..) in QUESTIONS {
        prepared.push(client.prepare(question).await?);
    }
    while Instant::now() < until {
        let kind = kind_of(random.random_range(0..100));
        let number = random.random_range(0..QUESTIONS[kind].2);
        let begun = Instant::now();
        client.query(&prepared[kind], &[&number]).await?;
        times.push((kind, begun.elapsed()));
    }
    Ok(())
}

/// The kind of one of a hundred questions.
fn kind_of(place: u32) -> usize {
    let shares = QUESTIONS.iter().scan(0, |sum, (.., share)| {
        *sum += share;
        Some(*sum)
    });
    shares.take_while(|end| *end <= place).count()
}
