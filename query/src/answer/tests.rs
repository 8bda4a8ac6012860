use super::*;
use std::collections::BTreeMap;

use futures::TryStreamExt;
use ruam_lake::Lake;

use crate::engine::{Engine, EngineSettings};
use crate::policy::{Policies, PseudonymKey};
use crate::session::Session;
use crate::spill::SpillSettings;
use crate::{Caller, QueryError};

/// An engine over an empty lake, and what it puts on disk, with a role `small` of some limits.
fn engine(dir: &tempfile::TempDir, limits: &str) -> Engine {
    engine_on(dir, limits, 1 << 30)
}

fn engine_on(dir: &tempfile::TempDir, limits: &str, bytes: u64) -> Engine {
    let lake = Lake::open(&dir.path().join("lake").to_string_lossy(), &BTreeMap::new()).unwrap();
    let policy = ("p/small.toml".to_owned(), format!("role = \"small\"\n[limits]\n{limits}"));
    let policies = Policies::read(&[policy], &[], &PseudonymKey::default()).unwrap();
    let spill = Some(SpillSettings { folder: dir.path().join("spill"), bytes });
    Engine::new(lake, Vec::new(), policies, EngineSettings { spill, ..EngineSettings::default() }).unwrap()
}

fn session(engine: &Engine) -> Session {
    engine.session(Caller::new("somebody", ["small".to_owned()], "test")).unwrap()
}

/// How many rows the answer has, or why it has none.
async fn ask(session: &Session, sql: &str) -> std::result::Result<usize, QueryError> {
    let batches: Vec<_> = session.query(sql).await?.try_collect().await?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

const SORT: &str = "select repeat(value::text, 30) as text from generate_series(1, 500000) order by text";

#[tokio::test(flavor = "multi_thread")]
async fn no_more_lies_on_disk_than_may() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_on(&dir, "memory_mb = 64", 1 << 20);
    let small = session(&engine);
    let told = ask(&small, SORT).await.unwrap_err().to_string();
    assert!(told.contains("takes more than there may be of it (spill_mb)"), "{told}");
    assert_eq!(small.context.runtime_env().disk_manager.used_disk_space(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_by_way_of_the_disk_before_it_ends_for_want_of_memory() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, "memory_mb = 128");
    let (one, other) = (session(&engine), session(&engine));
    let mut sorted = one.query(SORT).await.unwrap();
    let first = sorted.try_next().await.unwrap().unwrap();
    let disk = &one.context.runtime_env().disk_manager;
    assert!(disk.used_disk_space() > 0, "all of it was sorted in memory");
    let own: Vec<_> = std::fs::read_dir(dir.path().join("spill")).unwrap().collect();
    assert_eq!(own.len(), 2, "its lock, and the folder of this engine");
    // Both sides of a join that cannot go by way of the disk are larger; while that ends, others go on.
    let join =
        "select a.value from generate_series(1, 8000000) a join generate_series(1, 8000000) b on a.value = b.value";
    let told = ask(&other, join).await.unwrap_err().to_string();
    assert!(told.starts_with("the answer takes more than the 128 MB of memory that yours may"), "{told}");
    let rest: Vec<_> = sorted.try_collect().await.unwrap();
    assert_eq!(first.num_rows() + rest.iter().map(RecordBatch::num_rows).sum::<usize>(), 500_000);
    assert_eq!((disk.used_disk_space(), ask(&other, "select 1").await.unwrap()), (0, 1));
    let folder = disk.temp_dir_paths().remove(0);
    drop((one, other, engine));
    // Tasks of the answer that was ended let go of it where they pause.
    let gone = async {
        while folder.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("what was on disk outlives the engine");
}

#[tokio::test]
async fn whoever_waits_for_their_turn_does_so_in_time_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir, "concurrent = 1");
    let sessions: Vec<_> = (0..4).map(|_| session(&engine)).collect();
    let mut first = sessions[0].query("select 1").await.unwrap();
    first.try_next().await.unwrap();
    sessions[3].asking.allow(Some(Duration::from_millis(1)));
    let told = ask(&sessions[3], "select 1").await.unwrap_err().to_string();
    assert!(told.starts_with("the answer took longer than the 1ms"), "{told}");
    let order = Mutex::new(Vec::new());
    let wait = async |place: usize| {
        ask(&sessions[place], "select 1").await.unwrap();
        order.lock().unwrap().push(place);
    };
    let (mut second, mut third) = (Box::pin(wait(2)), Box::pin(wait(1)));
    assert!(futures::poll!(&mut second).is_pending() && futures::poll!(&mut third).is_pending());
    drop(first);
    futures::join!(third, second);
    assert_eq!(*order.lock().unwrap(), [2, 1]);
}
