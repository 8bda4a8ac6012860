//! The questions of TPC-H on tables that came in as change events, held against DuckDB's answers.

use anyhow::{Context, Result};
use ruam_query::EngineSettings;
use ruam_tests::tpch::{self, DuckDb, QUESTIONS, Tpch};

/// Of 1, the largest table has 6 million rows.
const SCALE: f64 = 0.01;

pub fn the_answers_are_those_of_duckdb() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tables = Tpch::fill(folder.path(), SCALE)?;
    let settings = EngineSettings::default();
    let memory = settings.memory;
    tokio::runtime::Runtime::new()?.block_on(async {
        let sessions = [tables.session(settings.clone())?, tables.guarded(settings)?];
        let mut duckdb = DuckDb::start(&tables, 1, memory).await?;
        for number in 1..=QUESTIONS {
            let question = tpch::question(number)?;
            duckdb.ask(&question)?;
            let expected = duckdb.answer()?;
            for session in &sessions {
                let answer = tpch::ask(session, &question).await?;
                tpch::check_same(&answer, &expected)
                    .with_context(|| format!("question {number} of {}", session.caller().name()))?;
            }
        }
        Ok(())
    })
}
