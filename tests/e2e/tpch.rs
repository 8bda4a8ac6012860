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
    tokio::runtime::Runtime::new()?.block_on(async {
        let engine = tables.engine(settings)?;
        let mut duckdb = DuckDb::start(&tables, 1, settings.memory).await?;
        for number in 1..=QUESTIONS {
            let question = tpch::question(number)?;
            let answer = tpch::ask(&engine, &question).await?;
            duckdb.ask(&question)?;
            tpch::check_same(&answer, &duckdb.answer()?).with_context(|| format!("question {number}"))?;
        }
        Ok(())
    })
}
