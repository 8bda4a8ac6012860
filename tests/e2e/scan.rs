//! Tables read by the product's own scan, held against what delta-rs reads in them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use deltalake::datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use deltalake::datafusion::prelude::{SessionConfig, SessionContext};
use ruam_tests::tables;

use crate::maintain;

/// What is asked of a table of people, many of whom have moved, been corrected, or died.
const QUESTIONS: &[&str] = &[
    "select * from bora.person",
    "select count(*) from bora.person",
    "select count(*), count(area_code), min(birth_date), max(birth_date), min(_source_time), max(_source_time) from bora.person",
    "select citizen_id, full_name from bora.person where area_code like '10%'",
    "select citizen_id, area_code from bora.person where birth_date between date '1970-01-01' and date '1979-12-31'",
    "select citizen_id from bora.person where address_raw is not null",
    "select citizen_id from bora.person where address_raw is null and sex = 'ชาย'",
    "select sex, count(*), count(distinct area_code) from bora.person group by sex",
    "select citizen_id from bora.person where citizen_id = (select max(citizen_id) from bora.person)",
    "select count(*) from bora.person where area_code = 'none'",
    "select a.citizen_id from bora.person a join bora.person b on a.citizen_id = b.citizen_id where b.full_name < 'ข'",
    "select _event_id from bora.person where _arrived_at > (select min(_arrived_at) from bora.person)",
];

async fn by_delta_rs(folder: &Path, question: &str) -> Result<Vec<Vec<Option<String>>>> {
    let url = deltalake::ensure_table_uri(folder.to_string_lossy())?;
    let table = deltalake::open_table(url).await?;
    let context = SessionContext::new_with_config(SessionConfig::new().with_default_catalog_and_schema("lake", "bora"));
    let (catalog, schema) = (MemoryCatalogProvider::new(), Arc::new(MemorySchemaProvider::new()));
    schema.register_table("person".to_owned(), table.table_provider().await?)?;
    catalog.register_schema("bora", schema)?;
    context.register_catalog("lake", Arc::new(catalog));
    tables::values(&context.sql(question).await?.collect().await?)
}

fn sorted(mut rows: Vec<Vec<Option<String>>>) -> Vec<Vec<Option<String>>> {
    rows.sort_unstable();
    rows
}

pub fn finds_what_delta_rs_finds() -> Result<()> {
    // Of many commits, each of which deletes rows of those before.
    let (installation, _) = maintain::many_small_files()?;
    let folder = installation.data_dir().join("lake/bora/person");
    let vectors = ruam_tests::installation::files_in(&folder)?;
    ensure!(
        vectors.iter().any(|file| file.extension().is_some_and(|extension| extension == "bin")),
        "the table has deletion vectors"
    );
    let runtime = tokio::runtime::Runtime::new()?;
    let compare = |when: &str| -> Result<()> {
        for question in QUESTIONS {
            let found = sorted(installation.ask(question)?);
            let expected = sorted(runtime.block_on(by_delta_rs(&folder, question)).context(*question)?);
            ensure!(found == expected, "{when}: {question}\n{} rows, not {}", found.len(), expected.len());
        }
        // Which rows these are is open; how many, is not.
        for (limit, expected) in [(0, 0), (7, 7)] {
            let found = installation.ask(&format!("select citizen_id from bora.person limit {limit}"))?;
            ensure!(found.len() == expected, "{when}: {} rows of at most {limit}", found.len());
        }
        Ok(())
    };
    compare("before maintenance")?;
    let said = installation.succeed(&["maintain"])?;
    compare(&format!("after maintenance, which said:\n{said}"))
}
