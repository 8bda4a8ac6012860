use super::*;
use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::util::display::array_value_to_string;
use deltalake::DeltaTable;
use futures::TryStreamExt;
use ruam_lake::Lake;

use crate::audit::{self, AuditLog, Event};
use crate::engine::{Engine, EngineSettings};
use crate::fixture::dataset;
use crate::policy::{Policies, PseudonymKey};
use crate::session::Session;
use crate::{Caller, QueryError};

const ROLES: [(&str, &str); 5] = [
    ("clear", "purpose = \"any\"\nparts = [\"rows\", \"rejects\"]"),
    ("few", "purpose = \"any\"\nrows = \"number > 1\""),
    ("masked", "purpose = \"any\"\nmasks = [{ column = \"note\", with = \"null\" }]"),
    ("named", "purpose = \"any\"\nmasks = [{ column = \"note\", with = \"pseudonym\" }]"),
    ("bound", "purpose = \"stated\""),
];
const LIMITED: &str = "role = \"limited\"\n[[grant]]\ndatasets = [\"a.b\"]\npurpose = \"any\"\n[limits]\nrows = 2";
const ALL: &str = "select number, note from a.b order by number";

/// Adds a row for each of some numbers, as a version of the table.
async fn add(dir: &Path, numbers: &[i64]) {
    std::fs::create_dir_all(dir.join("lake/a/b")).unwrap();
    let url = deltalake::ensure_table_uri(dir.join("lake/a/b").to_string_lossy()).unwrap();
    let notes: StringArray = numbers.iter().map(|number| Some(format!("note {number}"))).collect();
    let number: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
    let rows = RecordBatch::try_from_iter([("number", number), ("note", Arc::new(notes) as ArrayRef)]).unwrap();
    DeltaTable::try_from_url(url).await.unwrap().write([rows]).await.unwrap();
}

fn engine(dir: &Path, settings: EngineSettings) -> Engine {
    let dataset = dataset("note");
    let file = |(role, grant): (&str, &str)| {
        let audit = role == "clear";
        let text = format!("role = \"{role}\"\naudit = {audit}\n[[grant]]\ndatasets = [\"a.b\"]\n{grant}");
        (format!("p/{role}.toml"), text)
    };
    let mut files = ROLES.map(file).to_vec();
    files.push(("p/limited.toml".to_owned(), LIMITED.to_owned()));
    let policies = Policies::read(&files, std::slice::from_ref(&dataset), &PseudonymKey::new(vec![1; 32])).unwrap();
    let lake = Lake::open(&dir.join("lake").to_string_lossy(), &BTreeMap::new()).unwrap();
    let audit = AuditLog::open(&dir.join("audit"), PseudonymKey::new(vec![1; 32])).unwrap();
    Engine::new(lake, vec![dataset], policies, settings).unwrap().with_audit(Arc::new(audit))
}

fn session(engine: &Engine, roles: &[&str]) -> Session {
    engine.session(Caller::new("somebody", roles.iter().map(|role| (*role).to_owned()), "test")).unwrap()
}

async fn ask(session: &Session, sql: &str) -> std::result::Result<Vec<String>, QueryError> {
    let batches: Vec<_> = session.query(sql).await?.try_collect().await?;
    let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
    let text = |(batch, row): (&RecordBatch, usize)| {
        let values = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
        values.collect::<Vec<_>>().join(" ")
    };
    Ok(rows.map(text).collect())
}

/// Whether a question is answered by what was kept: none where it could not be.
async fn hits(engine: &Engine, session: &Session, sql: &str) -> Option<bool> {
    let before = engine.cache_figures();
    ask(session, sql).await.unwrap();
    let after = engine.cache_figures();
    match (after.hits - before.hits, after.misses - before.misses) {
        (1, 0) => Some(true),
        (0, 1) => Some(false),
        (0, 0) => None,
        other => panic!("{sql}: {other:?}"),
    }
}

#[tokio::test]
async fn nobody_gets_what_another_sees() {
    let dir = tempfile::tempdir().unwrap();
    add(dir.path(), &[1, 2]).await;
    let engine = engine(dir.path(), EngineSettings::default());
    let callers = [&["clear"][..], &["few"], &["masked"], &["named"], &["few", "masked"], &["few", "named"]];
    let mut answers = Vec::new();
    for roles in callers {
        // Whoever asks first is told what nobody else was.
        let before = engine.cache_figures().misses;
        answers.push(ask(&session(&engine, roles), ALL).await.unwrap());
        assert_eq!(engine.cache_figures().misses, before + 1, "{roles:?}");
    }
    assert_eq!(answers[..3], [vec!["1 note 1", "2 note 2"], vec!["2 note 2"], vec!["1 ", "2 "]]);
    assert_eq!(answers[4], ["1 ", "2 note 2"]);
    let differ: BTreeSet<_> = answers.iter().collect();
    assert_eq!(differ.len(), callers.len(), "{answers:?}");
    for (roles, expected) in callers.iter().zip(&answers).rev() {
        assert_eq!(hits(&engine, &session(&engine, roles), ALL).await, Some(true), "{roles:?}");
        assert_eq!(&ask(&session(&engine, roles), ALL).await.unwrap(), expected, "{roles:?}");
    }
    // All of several roles is what the one that shows most shows alone.
    assert_eq!(hits(&engine, &session(&engine, &["masked", "clear", "few"]), ALL).await, Some(true));
    let nobody = ask(&session(&engine, &["nobody"]), ALL).await.unwrap_err().to_string();
    assert!(nobody.contains("there is no table"), "{nobody}");
    // Fewer rows may be had of what was kept, too.
    add(dir.path(), &[3]).await;
    assert_eq!(ask(&session(&engine, &["clear"]), ALL).await.unwrap().len(), 3);
    let told = ask(&session(&engine, &["limited"]), ALL).await.unwrap_err().to_string();
    assert!(told.contains("more than the 2 rows"), "{told}");
}

#[tokio::test]
async fn a_purpose_is_a_part_of_the_question() {
    let dir = tempfile::tempdir().unwrap();
    add(dir.path(), &[1]).await;
    let engine = engine(dir.path(), EngineSettings::default());
    let bound = session(&engine, &["bound"]);
    for purpose in ["training", "planning"] {
        bound.state_purpose(Some(purpose.to_owned()));
        assert_eq!(hits(&engine, &bound, ALL).await, Some(false), "{purpose}");
        assert_eq!(hits(&engine, &bound, ALL).await, Some(true), "{purpose}");
    }
    let prepared = crate::Statement::read(&bound, ALL).await.unwrap();
    bound.state_purpose(None);
    let told = prepared.with(Vec::new()).await.err().unwrap().to_string();
    assert!(told.contains("the purpose has changed"), "{told}");
    assert!(ask(&bound, ALL).await.is_err());
}

#[tokio::test]
async fn what_has_changed_is_asked_anew() {
    let dir = tempfile::tempdir().unwrap();
    add(dir.path(), &[1]).await;
    let engine = engine(dir.path(), EngineSettings::default());
    let clear = session(&engine, &["clear"]);
    for rows in 1..4 {
        assert_eq!(hits(&engine, &clear, ALL).await, Some(false));
        assert_eq!(hits(&engine, &clear, ALL).await, Some(true));
        assert_eq!(ask(&clear, ALL).await.unwrap().len(), rows);
        add(dir.path(), &[10 + rows as i64]).await;
    }
    // It has to be the same question, but not written in the same way.
    assert_eq!(hits(&engine, &clear, "select * from a.b where number > 1").await, Some(false));
    assert_eq!(hits(&engine, &clear, "SELECT number, note FROM a.b WHERE number>1").await, Some(true));
    assert_eq!(hits(&engine, &clear, "select * from a.b where number > 2").await, Some(false));
    assert_eq!(hits(&engine, &clear, "select * from a.b where note > '1'").await, Some(false));
    // What nobody could find again.
    for sql in ["select now(), number from a.b", "select * from a.b where number < extract(epoch from now())"] {
        assert_ne!(hits(&engine, &clear, sql).await, Some(true), "{sql}");
        assert_ne!(hits(&engine, &clear, sql).await, Some(true), "{sql}");
    }
    // What may be another without a commit.
    for sql in [
        "select random() from a.b",
        "select uuid() from a.b",
        "select number from a.b where number > random()",
        "select * from a.b order by random()",
        "select 1",
        "select * from ruam.versions",
        "select * from ruam.audit",
        "select count(*) from ruam.audit, a.b",
        "select * from ruam.datasets, a.b",
        "select * from a.b__rejects",
        "select * from a.b version as of 1",
        "select * from table_changes('a.b', 0)",
        "select * from information_schema.tables, a.b",
        "explain analyze select * from a.b",
    ] {
        assert_eq!(hits(&engine, &clear, sql).await, None, "{sql}");
    }
}

#[tokio::test]
async fn only_whole_and_small_answers_are_kept_and_all_are_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let many: Vec<_> = (0..5000).collect();
    add(dir.path(), &many).await;
    let result_cache = 512 << 10;
    let engine = engine(dir.path(), EngineSettings { result_cache, ..EngineSettings::default() });
    let clear = session(&engine, &["clear"]);
    let some = "select * from a.b where number < 100";
    let mut broken_off = clear.query(&format!("{some} order by number")).await.unwrap();
    broken_off.try_next().await.unwrap();
    drop(broken_off);
    assert_eq!(engine.cache_figures().answers, 0);
    for expected in [false, true] {
        assert_eq!(hits(&engine, &clear, some).await, Some(expected));
        assert_eq!(hits(&engine, &clear, "select * from a.b").await, Some(false), "it is too large");
    }
    let figures = engine.cache_figures();
    assert_eq!(figures.answers, 1);
    assert!((1..(QUESTION + (16 << 10)) as u64).contains(&figures.bytes), "{figures:?}");
    for number in 0..400 {
        ask(&clear, &format!("select * from a.b where number = {number}")).await.unwrap();
    }
    let figures = engine.cache_figures();
    assert!(figures.bytes <= result_cache as u64 && figures.answers > 50, "{figures:?}");
    let folder = dir.path().join("audit");
    let log = AuditLog::open(&folder, PseudonymKey::new(vec![1; 32])).unwrap();
    let cached: Vec<_> = log.records().unwrap().map(Result::unwrap).filter(|record| record.cached).collect();
    let told: Vec<_> = cached.iter().map(|record| (record.event, record.rows, record.tables.len())).collect();
    assert_eq!(told, [(Event::Begun, None, 1), (Event::Answered, Some(100), 1)]);
    assert_eq!(audit::verify(&folder, None).unwrap().records(), 2 * (1 + 4 + 400));
    assert!(ResultCache::of_bytes(0).is_none());
}
