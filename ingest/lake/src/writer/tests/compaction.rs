//! Compaction and vacuum beside a writer: rows move, and stay what and how many they are.

use super::*;
use crate::maintain::TURN;

/// What was committed so far.
#[derive(Default)]
struct Told {
    model: Model,
    next: i64,
}

impl Told {
    /// Commits further records; says what the table is to hold now.
    async fn commit(&mut self, writer: &mut DatasetWriter, records: &[Record]) -> Model {
        writer.write(batch(0, self.next, records)).await.unwrap();
        writer.commit().await.unwrap();
        self.model.apply(0, self.next, records);
        self.next += records.len() as i64;
        self.model.clone()
    }
}

/// By which columns rows are sorted in tests of how they move.
const ORDERS: [&[&str]; 3] = [&[], &["value"], &["value", "key"]];

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_deleted_while_they_are_moved_stay_deleted() {
    for cluster_by in ORDERS {
        deleted_while_they_are_moved(cluster_by).await;
    }
}

async fn deleted_while_they_are_moved(cluster_by: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open_clustered(&lake, Mode::Upsert, cluster_by, &[0]).await;
    let mut told = Told::default();
    told.commit(&mut writer, &[put(1, 1), put(2, 2), put(3, 3)]).await;
    told.commit(&mut writer, &[put(4, 4), put(5, 5), Record::Delete(2)]).await;
    told.commit(&mut writer, &[Record::Delete(5)]).await;
    let mut table = writer.rows.clone();
    let mut cache = VectorCache::default();
    let files = cache.files(table.delta()).await.unwrap();
    let first = files.iter().find(|file| file.view.num_records() == Some(3)).unwrap().view.size().unsigned_abs();
    let rewritten = compact::rewrite(&table, files, &AtomicBool::new(false)).await.unwrap().unwrap();
    // A stale look at the table is what doubles it: these two rows move, and are replaced meanwhile.
    let expected = told.commit(&mut writer, &[put(1, 10), Record::Delete(4)]).await;
    let done = compact::install(&mut table, &mut cache, &rewritten).await.unwrap().unwrap();
    let counted = (done.files_before, done.files_after, done.bytes_before, done.purged);
    assert_eq!(counted, (1, 1, first, 1), "the other file had lost all its rows, and counts no more");
    assert_eq!(found(&lake, 0).await, expected);
    // A second install of the same would double the table, too.
    assert_eq!(compact::install(&mut table, &mut cache, &rewritten).await.unwrap(), None);
    let expected = told.commit(&mut writer, &[put(3, 30), put(5, 5)]).await;
    assert_eq!(found(&lake, 0).await, expected);
    assert!(writer.index.index().await.is_some(), "the index went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_merges_files_and_old_versions_stay_until_the_retention_is_over() {
    for mode in [Mode::Append, Mode::Upsert] {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake(&dir);
        let (mut writer, _) = open(&lake, mode, &[0]).await;
        let mut model = Model::default();
        for round in 0..20_i64 {
            let records = [put(round as u8, round), put(round as u8 + 1, round), Record::Bad];
            writer.write(batch(0, round * 3, &records)).await.unwrap();
            writer.commit().await.unwrap();
            model.apply(0, round * 3, &records);
        }
        let count = "select count(*) as n from t";
        let before = query(&lake, TableKind::Rows, count).await;
        let hour = Duration::from_secs(3600);
        let done = writer.maintain(hour).await.unwrap();
        let kinds: Vec<_> = done.iter().map(|(name, _)| name.kind).collect();
        assert_eq!(kinds, [TableKind::Rows, TableKind::Rejects, TableKind::Changes]);
        for (name, Maintained { compacted, vacuumed, .. }) in &done {
            assert!(compacted.files_before >= 20 && compacted.files_after < 8, "{name}: {compacted:?}");
            assert!(vacuumed.files == 0 && vacuumed.waiting >= 20, "{name}: {vacuumed:?}");
        }
        assert_eq!(query(&lake, TableKind::Rows, count).await, before);
        // A version from before can be read until the files have waited long enough.
        let name = TableName::new(&"a.b".parse().unwrap(), TableKind::Rows);
        let mut old = lake.table(&name).await.unwrap();
        old.load_version(10).await.unwrap();
        let files: Vec<_> = old.get_file_uris().unwrap().collect();
        let is_there = |uri: &String| Path::new(uri.trim_start_matches("file://")).exists();
        assert!(files.iter().all(is_there), "{files:?}");
        let later = vacuum(writer.rows.delta(), hour, SystemTime::now() + hour).await.unwrap();
        assert!(later.files >= 20 && later.waiting == 0, "{later:?}");
        assert!(!files.iter().any(is_there), "{files:?}");
        assert_eq!(query(&lake, TableKind::Rows, count).await, before);
        // The writer goes on, and an upsert finds its rows where they are now.
        let records = [put(1, 99), put(40, 40)];
        writer.write(batch(0, 60, &records)).await.unwrap();
        writer.commit().await.unwrap();
        model.apply(0, 60, &records);
        if mode == Mode::Upsert {
            assert_eq!(found(&lake, 0).await.rows, model.rows);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_follows_rows_that_moved_without_reading_them() {
    for cluster_by in ORDERS {
        follows_rows_that_moved(cluster_by).await;
    }
}

async fn follows_rows_that_moved(cluster_by: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open_clustered(&lake, Mode::Upsert, cluster_by, &[0]).await;
    let mut told = Told::default();
    let merge = async |writer: &DatasetWriter| {
        let mut table = writer.rows.clone();
        let mut cache = VectorCache::default();
        table.refresh().await.unwrap();
        let files = cache.files(table.delta()).await.unwrap();
        let rewritten = compact::rewrite(&table, files, &AtomicBool::new(false)).await.unwrap().unwrap();
        compact::install(&mut table, &mut cache, &rewritten).await.unwrap().unwrap()
    };
    let prepare = async |writer: &mut DatasetWriter| {
        let mut read = 0;
        writer.prepare(&mut |rows, _| read = rows).await.unwrap();
        read
    };
    // The later a key, the less its value: sorted, they are the other way round.
    let puts = |keys: std::ops::Range<u8>, value: i64| {
        keys.map(|key| put(key, value * 100 - i64::from(key))).collect::<Vec<_>>()
    };
    told.commit(&mut writer, &puts(0..6, 1)).await;
    told.commit(&mut writer, &puts(6..12, 2)).await;
    assert_eq!(merge(&writer).await.files_before, 2);
    assert_eq!(prepare(&mut writer).await, 0, "each file moved as a whole");
    let expected = told.commit(&mut writer, &[put(1, 10), Record::Delete(7), Record::Touch(8)]).await;
    assert_eq!(found(&lake, 0).await, expected);
    let files = VectorCache::default().files(writer.rows.delta()).await.unwrap();
    assert!(files.iter().all(|file| compact::origin(file).is_none()), "the index knows");
    // Moved once more, together with what was replaced in the meantime.
    assert_eq!(merge(&writer).await.files_before, 2);
    assert!(prepare(&mut writer).await > 0, "few rows are entered anew");
    let expected = told.commit(&mut writer, &[put(2, 20), put(9, 90), put(1, 11), Record::Touch(10)]).await;
    assert_eq!(found(&lake, 0).await, expected);
    // The moves outlive the process.
    merge(&writer).await;
    prepare(&mut writer).await;
    drop(writer);
    let (mut writer, _) = open_clustered(&lake, Mode::Upsert, cluster_by, &[0]).await;
    assert_eq!(prepare(&mut writer).await, 0);
    let expected = told.commit(&mut writer, &[put(6, 60), Record::Delete(0), Record::Touch(11)]).await;
    assert_eq!(found(&lake, 0).await, expected);
    let expected = told.commit(&mut writer, &puts(0..12, 5)).await;
    assert_eq!(found(&lake, 0).await, expected);
    // A compaction that the index did not see in time is read.
    merge(&writer).await;
    merge(&writer).await;
    assert!(prepare(&mut writer).await > 0);
    let expected = told.commit(&mut writer, &[put(3, 6), Record::Delete(4)]).await;
    assert_eq!(found(&lake, 0).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn few_rows_that_moved_twice_are_entered_once() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    let mut told = Told::default();
    for records in [vec![put(2, 1), put(0, 2), put(1, 3)], vec![put(3, 4), put(0, 5)], vec![put(1, 6), put(4, 7)]] {
        let expected = told.commit(&mut writer, &records).await;
        assert_eq!(found(&lake, 0).await, expected);
        let mut table = writer.rows.clone();
        let mut cache = VectorCache::default();
        table.refresh().await.unwrap();
        let files = cache.files(table.delta()).await.unwrap();
        let rewritten = compact::rewrite(&table, files, &AtomicBool::new(false)).await.unwrap().unwrap();
        compact::install(&mut table, &mut cache, &rewritten).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_anew_does_not_take_another_writers_commit_for_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let ((mut first, _), (mut second, _)) =
        (open(&lake, Mode::Upsert, &[0]).await, open(&lake, Mode::Upsert, &[0]).await);
    for writer in [&mut first, &mut second] {
        writer.write(batch(0, 0, &[put(1, 1), put(2, 2)])).await.unwrap();
    }
    second.commit().await.unwrap();
    let error = first.prepare(&mut |_, _| {}).await.unwrap_err();
    assert!(matches!(error, LakeError::Superseded { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_writes_checkpoints_and_keeps_the_log_short() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    let hour = Duration::from_secs(3600);
    let mut writer = writer.with_upkeep(24 * hour);
    let mut told = Told::default();
    let mut expected = Model::default();
    for round in 0..40_i64 {
        expected = told.commit(&mut writer, &[put(round as u8 % 7, round)]).await;
        writer.tend(false).await.unwrap();
        // What it has begun has ended when it gives its turn back.
        drop(TURN.acquire().await.unwrap());
    }
    let folder = dir.path().join("a/b/_delta_log");
    let named = |end: &str| {
        let names = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(end)).count()
    };
    let (commits, checkpoints) = (named(".json"), named(".checkpoint.parquet"));
    assert!(commits >= 41, "{commits} versions, those of compactions among them");
    assert!((commits / 8..=commits / 2).contains(&checkpoints), "{checkpoints} checkpoints of {commits} versions");
    assert_eq!(found(&lake, 0).await, expected);
    // Nothing is of a time that has passed.
    let table = writer.rows.delta();
    let kept = BTreeSet::from([20]);
    assert_eq!(log::clear(table, &kept, SystemTime::now()).await.unwrap(), Cleared::default());
    // Three hours later all that is left is of what comes after the newest checkpoint, and what is kept.
    let cleared = log::clear(table, &kept, SystemTime::now() + 3 * hour).await.unwrap();
    assert!(cleared.files as usize >= commits / 2, "{cleared:?} of {commits}");
    assert!(folder.join(format!("{:020}.json", 20)).exists() && !folder.join(format!("{:020}.json", 19)).exists());
    assert_eq!(found(&lake, 0).await, expected, "the table opens");
    let expected = told.commit(&mut writer, &[put(1, 100), Record::Delete(2)]).await;
    assert_eq!(found(&lake, 0).await, expected, "and is written to as before");
    drop(writer);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    let expected = told.commit(&mut writer, &[put(3, 101)]).await;
    assert_eq!(found(&lake, 0).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_a_vacuum_looked_at_stay_for_the_retention_and_others_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    let mut told = Told::default();
    let (hour, begun) = (Duration::from_secs(3600), SystemTime::now());
    let day = 24 * hour;
    let mut looked = Vec::new();
    let mut between = Vec::new();
    for round in 0..3 {
        let expected = told.commit(&mut writer, &[put(1, round), put(2, round)]).await;
        looked.push((writer.rows.version(), expected.rows));
        let done = vacuum(writer.rows.delta(), day, begun + round as u32 * hour).await.unwrap();
        assert_eq!((done.files, kept(writer.rows.delta()).await.unwrap().len() as i64), (0, round + 1));
        told.commit(&mut writer, &[put(1, -round), put(2, -round)]).await;
        between.push(writer.rows.version());
    }
    told.commit(&mut writer, &[put(1, 100), put(2, 100)]).await;
    let read = async |version: u64| {
        let mut table = lake.table(&writer.rows.name).await.unwrap();
        table.load_version(version).await.unwrap();
        let session = SessionContext::new();
        session.register_table("t", table.table_provider().await.unwrap()).unwrap();
        let batches = session.sql("select key, value from t").await.unwrap().collect().await;
        batches.map(|batches| batches.iter().map(RecordBatch::num_rows).sum::<usize>())
    };
    // The files of the last round are seen unused only now.
    vacuum(writer.rows.delta(), day, begun + 3 * hour).await.unwrap();
    for version in looked.iter().map(|(version, _)| version).chain(&between) {
        assert!(read(*version).await.is_ok(), "{version}");
    }
    let later = vacuum(writer.rows.delta(), day, begun + 10 * hour).await.unwrap();
    assert!(later.files > 0, "{later:?}");
    for (version, rows) in &looked {
        assert_eq!(read(*version).await.unwrap(), rows.len(), "{version} is kept");
    }
    for version in between {
        assert!(read(version).await.is_err(), "{version} is not");
    }
    let last = vacuum(writer.rows.delta(), day, begun + 40 * hour).await.unwrap();
    assert!(last.files > 0 && last.waiting == 0, "{last:?}");
    assert!(read(looked[0].0).await.is_err());
    assert_eq!(kept(writer.rows.delta()).await.unwrap(), BTreeSet::from([writer.rows.version()]));
    assert_eq!(found(&lake, 0).await, told.model);
}

/// The tombstones of a version: what it takes away and says when.
fn tombstones(dir: &tempfile::TempDir, version: u64) -> usize {
    let log = std::fs::read_to_string(dir.path().join(format!("a/b/_delta_log/{version:020}.json"))).unwrap();
    let actions = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    actions.filter(|action| action["remove"]["deletionTimestamp"].is_number()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_only_just_now_goes_without_a_tombstone() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    let mut told = Told::default();
    told.commit(&mut writer, &[put(1, 1), put(2, 2), put(3, 3), put(4, 4)]).await;
    let first = writer.rows.version();
    drop(writer);
    // As if it had been written long ago.
    let path = dir.path().join(format!("a/b/_delta_log/{first:020}.json"));
    let log = std::fs::read_to_string(&path).unwrap();
    let old = log.split("\"modificationTime\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
    std::fs::write(&path, log.replace(&old, "1000")).unwrap();
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    for (key, what) in [(1, "the file stays"), (2, "so does it, and its vector was young")] {
        told.commit(&mut writer, &[put(key, 10)]).await;
        assert_eq!(tombstones(&dir, writer.rows.version()), 0, "{what}");
    }
    drop(writer);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    told.commit(&mut writer, &[put(3, 10)]).await;
    assert_eq!(tombstones(&dir, writer.rows.version()), 1, "how old its vector is is not known");
    told.commit(&mut writer, &[put(4, 10)]).await;
    assert_eq!(tombstones(&dir, writer.rows.version()), 1, "the old file is gone");
    writer.maintain(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(found(&lake, 0).await, told.model);
}
