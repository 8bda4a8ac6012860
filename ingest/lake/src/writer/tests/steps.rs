//! Whatever is done to a writer and beside it, the tables are what the events say.

use proptest::prelude::*;

use super::*;
use crate::upsert;
use crate::writer::commit::new_file;

pub(super) fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        8 => (0_u8..6, any::<i64>()).prop_map(|(key, value)| Record::Put(key, value)),
        3 => (0_u8..6).prop_map(Record::Touch),
        3 => (0_u8..6).prop_map(Record::Delete),
        1 => Just(Record::Truncate),
        2 => Just(Record::Bad),
        1 => Just(Record::Tombstone),
    ]
}

/// How far a commit gets.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Committed,
    /// The process dies before anything is committed.
    Lost,
    /// The process dies after the side tables and before the rows.
    Torn,
    /// Everything is committed, and the process dies before it knows.
    Unanswered,
    /// The index has the rows already, and they are never committed: the writer ends in order, or it dies.
    Ahead {
        is_killed: bool,
    },
}

/// What becomes of the index while no writer has it.
#[derive(Clone, Copy, Debug)]
enum Index {
    Kept,
    Lost,
    /// It is as it was some time ago.
    Old,
    Damaged,
}

fn index() -> impl Strategy<Value = Index> {
    prop_oneof![3 => Just(Index::Kept), 1 => Just(Index::Lost), 2 => Just(Index::Old), 1 => Just(Index::Damaged)]
}

impl Index {
    fn befall(self, lake: &Lake) {
        let (now, old) = (indexes(lake), indexes(lake).with_file_name("_old"));
        match self {
            Self::Kept if !old.exists() && now.exists() => copy(&now, &old),
            Self::Kept => {}
            Self::Lost => drop(std::fs::remove_dir_all(&now)),
            Self::Old if old.exists() => {
                let _ = std::fs::remove_dir_all(&now);
                copy(&old, &now);
            }
            Self::Old => {}
            Self::Damaged => files(&now).iter().for_each(|file| std::fs::write(file, b"damaged").unwrap()),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => Just(Fate::Committed),
        1 => Just(Fate::Lost),
        2 => Just(Fate::Torn),
        1 => Just(Fate::Unanswered),
        2 => any::<bool>().prop_map(|is_killed| Fate::Ahead { is_killed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_are_what_the_events_say(
        streams in prop::collection::vec(prop::collection::vec(record(), 0..60), 2),
        steps in prop::collection::vec((1_usize..20, 1_usize..20, fate(), index(), compaction()), 1..9),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(run_steps(&streams, &steps));
    }
}

/// What another process does to the files while this one writes.
#[derive(Clone, Debug)]
enum Compaction {
    Nothing,
    /// It begins to rewrite all of them, sorted by some columns or in their order.
    Begun(Vec<&'static str>),
    /// It rewrites them at once.
    Merged(Vec<&'static str>),
    /// It puts what it has rewritten in force.
    Installed,
    /// Files that nobody needs are deleted.
    Vacuumed,
}

fn cluster_by() -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(vec!["value", "key"], 0..=2)
}

fn compaction() -> impl Strategy<Value = Compaction> {
    prop_oneof![
        1 => Just(Compaction::Nothing),
        2 => cluster_by().prop_map(Compaction::Begun),
        2 => cluster_by().prop_map(Compaction::Merged),
        2 => Just(Compaction::Installed),
        1 => Just(Compaction::Vacuumed),
    ]
}

/// The table of rows as it is now, for one who compacts it.
async fn clustered(lake: &Lake, writer: &DatasetWriter, cluster_by: &[&str]) -> Table {
    let definition = Definition { cluster_by: names(cluster_by), ..writer.rows.definition().clone() };
    Table::open(lake, writer.rows.name.clone(), definition).await.unwrap()
}

/// Goes as far with what waits as a commit does before it is in force, and no further.
async fn end_ahead(lake: &Lake, mut writer: DatasetWriter, is_killed: bool) {
    let (changes, key) = (Arc::new(std::mem::take(&mut writer.waiting.changes)), writer.contract.key.clone());
    let (vectors, index) = (&mut writer.vectors, writer.index.index().await);
    // Its files may have been vacuumed.
    let Ok(mut plan) = upsert::plan(&writer.rows, vectors, index, &changes, &key).await else { return };
    let (actions, _) = upsert::write(&writer.rows, &changes, &mut plan).await.unwrap();
    if let Some(path) = actions.iter().find_map(new_file) {
        writer.index.enter(path, changes, plan.rows).await;
        writer.index.entered().await;
    }
    let (now, killed) = (indexes(lake), indexes(lake).with_file_name("_killed"));
    copy(&now, &killed);
    drop(writer);
    if is_killed {
        std::fs::remove_dir_all(&now).unwrap();
        copy(&killed, &now);
    }
    std::fs::remove_dir_all(&killed).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_entered_and_never_committed_hide_no_others() {
    for is_killed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake(&dir);
        let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
        writer.write(batch(0, 0, &[put(1, 1), put(2, 2)])).await.unwrap();
        writer.commit().await.unwrap();
        writer.write(batch(0, 2, &[put(1, 3), put(3, 3)])).await.unwrap();
        end_ahead(&lake, writer, is_killed).await;
        let (mut writer, at) = open(&lake, Mode::Upsert, &[0]).await;
        assert_eq!(at, [2]);
        writer.write(batch(0, 2, &[put(1, 4), put(3, 4)])).await.unwrap();
        writer.commit().await.unwrap();
        let rows = [("p0k1", 4), ("p0k2", 2), ("p0k3", 4)];
        assert_eq!(found(&lake, 0).await.rows, rows.map(|(key, value)| (key.to_owned(), value)).into());
    }
}

async fn run_steps(streams: &[Vec<Record>], steps: &[(usize, usize, Fate, Index, Compaction)]) {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, mut at) = open(&lake, Mode::Upsert, &[0, 1]).await;
    let mut table = writer.rows.clone();
    let (mut cache, mut rewritten) = (VectorCache::default(), None);
    for (first, second, fate, index, compaction) in steps {
        let before = at.clone();
        match compaction {
            Compaction::Nothing => {}
            Compaction::Begun(cluster_by) => {
                table = clustered(&lake, &writer, cluster_by).await;
                let files = cache.files(table.delta()).await.unwrap();
                rewritten = compact::rewrite(&table, files, &AtomicBool::new(false)).await.unwrap();
            }
            Compaction::Merged(cluster_by) => {
                table = clustered(&lake, &writer, cluster_by).await;
                let files = cache.files(table.delta()).await.unwrap();
                let at_once = compact::rewrite(&table, files, &AtomicBool::new(false)).await.unwrap().unwrap();
                compact::install(&mut table, &mut cache, &at_once).await.unwrap();
            }
            Compaction::Installed => {
                if let Some(rewritten) = rewritten.take() {
                    compact::install(&mut table, &mut cache, &rewritten).await.unwrap();
                }
            }
            Compaction::Vacuumed => {
                rewritten = None;
                vacuum(table.delta(), Duration::ZERO, SystemTime::now()).await.unwrap();
            }
        }
        for (stream, count) in [(0, *first), (1, *second)] {
            let start = at[stream] as usize;
            let end = (start + count).min(streams[stream].len());
            writer.write(batch(stream as i32, start as i64, &streams[stream][start..end])).await.unwrap();
            at[stream] = end as i64;
        }
        match fate {
            Fate::Committed => drop(writer.commit().await.unwrap()),
            Fate::Ahead { is_killed } => {
                end_ahead(&lake, writer, *is_killed).await;
                (writer, at) = open(&lake, Mode::Upsert, &[0, 1]).await;
                assert_eq!(at, before);
            }
            Fate::Unanswered => {
                writer.commit().await.unwrap();
                drop(writer);
                index.befall(&lake);
                (writer, at) = open(&lake, Mode::Upsert, &[0, 1]).await;
            }
            Fate::Lost => {
                drop(writer);
                index.befall(&lake);
                (writer, at) = open(&lake, Mode::Upsert, &[0, 1]).await;
                assert_eq!(at, before);
            }
            Fate::Torn => {
                let partitions: Vec<_> = writer.partitions.keys().cloned().collect();
                writer.commit_sides(&partitions).await.unwrap();
                drop(writer);
                index.befall(&lake);
                (writer, at) = open(&lake, Mode::Upsert, &[0, 1]).await;
                assert_eq!(at, before);
            }
        }
        assert!(writer.index.index().await.is_some(), "an index is used");
    }
    for index in 0..2 {
        let start = at[index] as usize;
        writer.write(batch(index as i32, at[index], &streams[index][start..])).await.unwrap();
    }
    writer.commit().await.unwrap();
    for (index, stream) in streams.iter().enumerate() {
        let mut model = Model::default();
        model.apply(index as i32, 0, stream);
        let found = found(&lake, index as i32).await;
        assert_eq!((&found.rows, found.changes), (&model.rows, model.changes));
        assert!(found.rejects.is_superset(&model.rejects));
        assert!(found.rejects.difference(&model.rejects).all(|offset| model.lost.contains(offset)));
        let filtered = stream.iter().filter(|record| matches!(record, Record::Tombstone)).count() as u64;
        if !stream.is_empty() {
            check_counts(&lake, index as i32, stream.len() as i64, &found, filtered).await;
        }
    }
}
