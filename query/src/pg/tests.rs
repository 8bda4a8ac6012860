//! What a session is told of the tables that there are.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use ruam_event::DatasetSpec;
use ruam_lake::Lake;

use super::*;
use crate::engine::{EngineSettings, QueryDataset};
use crate::policy::{Policies, PseudonymKey};

const ROLE: &str = "role = \"r\"\n[[grant]]\ndatasets = [\"a.granted\"]\nparts = [\"rows\"]\npurpose = \"stated\"";

fn dataset(agency: &str, name: &str) -> Arc<QueryDataset> {
    let text = format!(
        "dataset = \"{agency}.{name}\"\ntitle = {{ th = \"ทะเบียน {name}\", en = \"Register\" }}\n\
         description = {{ th = \"ก\", en = \"A\" }}\nowner = {{ th = \"ก\", en = \"A\" }}\n\
         contact = {{ name = \"A\", email = \"a@example.org\" }}\nclassification = \"internal\"\n\
         purposes = [\"training\"]\nmode = \"upsert\"\nkey = [\"code_of_{name}\"]\n\
         [[columns]]\nname = \"code_of_{name}\"\ntype = \"text\"\ntitle = {{ th = \"รหัส\", en = \"Code\" }}\n\
         [[columns]]\nname = \"amount\"\ntype = \"money\"\ntitle = {{ th = \"เงิน\", en = \"Amount\" }}\n"
    );
    let rows = [(format!("code_of_{name}"), DataType::Utf8), ("amount".to_owned(), DataType::Decimal128(18, 2))];
    let rows = rows.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec();
    let rows = Arc::new(Schema::new(rows));
    let spec = Arc::new(DatasetSpec::parse(&format!("{agency}/{name}.toml"), &text).unwrap());
    Arc::new(QueryDataset { spec, rows: rows.clone(), rejects: rows, changes: None })
}

/// A session of somebody who may see one dataset of three, and has stated no purpose.
fn session() -> (tempfile::TempDir, Session) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&folder.path().to_string_lossy(), &Default::default()).unwrap();
    let datasets = vec![dataset("a", "granted"), dataset("a", "withheld"), dataset("hush", "withheld")];
    let policies = [("p/r.toml".to_owned(), ROLE.to_owned())];
    let policies = Policies::read(&policies, &datasets, &PseudonymKey::default()).unwrap();
    let engine = Engine::new(lake, datasets, policies, EngineSettings::default()).unwrap();
    let shared = Shared::new(engine, Admission::default()).unwrap();
    let session = shared.session(Caller::new("somchai", ["r".to_owned()], "a test")).unwrap();
    (folder, session)
}

/// Whether an answer has a word in one of its texts.
async fn speaks(session: &Session, sql: &str, words: &[&str]) -> bool {
    let batches: Vec<_> = session.query(sql).await.unwrap().try_collect().await.unwrap();
    let columns = batches.iter().flat_map(|batch| batch.columns());
    let mut texts = columns.filter_map(|column| column.as_string_opt::<i32>());
    texts.any(|texts| texts.iter().flatten().any(|text| words.iter().any(|word| text.contains(word))))
}

async fn told(session: &Session, sql: &str) -> String {
    let batches: Vec<_> = session.query(sql).await.unwrap().try_collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

#[tokio::test]
async fn what_is_not_granted_is_in_no_table_about_tables() {
    let (_folder, session) = session();
    let catalog = session.context.catalog(CATALOG).unwrap();
    let mut speaking = 0;
    for schema in [PG_CATALOG, information_schema::NAME] {
        for table in catalog.schema(schema).unwrap().table_names() {
            let all = format!("select * from {schema}.{table}");
            assert!(!speaks(&session, &all, &["withheld", "hush"]).await, "{schema}.{table} speaks of what is hidden");
            speaking += usize::from(speaks(&session, &all, &["granted"]).await);
        }
    }
    assert!(speaking >= 8, "{speaking} tables speak of what is granted");
}

#[tokio::test]
async fn a_key_is_told_with_its_index() {
    let (_folder, session) = session();
    let said = told(
        &session,
        "select c.conname, pg_get_constraintdef(c.oid), pg_get_indexdef(c.conindid), i.indisprimary, \
         format_type(a.atttypid, a.atttypmod), a.attnotnull, col_description(c.conrelid, 1) \
         from pg_catalog.pg_constraint c join pg_catalog.pg_index i on i.indexrelid = c.conindid \
         join pg_catalog.pg_class t on t.oid = c.conrelid and t.relhasindex \
         join pg_catalog.pg_attribute a on a.attrelid = c.conrelid",
    )
    .await;
    for part in [
        "granted_pkey",
        "PRIMARY KEY (code_of_granted)",
        "CREATE UNIQUE INDEX granted_pkey ON a.granted USING btree (code_of_granted)",
        "numeric(18,2)",
        "รหัส (Code)",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}

#[tokio::test]
async fn only_reading_is_granted_and_only_of_what_is_seen() {
    let (_folder, session) = session();
    told(&session, "select * from pg_catalog.pg_class").await;
    for (sql, expected) in [
        ("has_table_privilege('a.granted', 'SELECT')", "true"),
        ("has_table_privilege('somchai', 'a.granted', 'INSERT, UPDATE')", "false"),
        ("has_table_privilege('a.withheld', 'SELECT')", "false"),
        ("to_regclass('hush.withheld') is null", "true"),
        ("to_regclass('\"a\".\"granted\"') > 0", "true"),
        ("session_user", "somchai"),
        ("current_schema()", "ruam"),
        ("current_setting('server_version_num')", "160006"),
        ("pg_size_pretty(123456789)", "117 MB"),
        ("format('%I.%I = %L, 100%%', 'a', 'B c', 'it''s')", "a.\"B c\" = 'it''s', 100%"),
    ] {
        let said = told(&session, &format!("select {sql} as said")).await;
        assert!(said.contains(&format!("| {expected} ")), "{sql}:\n{said}");
    }
}
