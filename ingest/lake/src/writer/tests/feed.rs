//! What versions changed, against the tables before and after them.

use deltalake::DeltaTable;
use deltalake::logstore::parquet_reader::ParquetObjectReader;
use futures::TryStreamExt;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::RowSelection;

use proptest::prelude::*;

use super::*;
use crate::feed::{ChangedFile, RowChange, changed_files, versions};

/// Rows by their key, value and offset, each so many times.
type Rows = BTreeMap<(String, Option<i64>, i64), i64>;

fn count(rows: &mut Rows, batch: &RecordBatch, times: i64) {
    let (keys, values): (&StringArray, &Int64Array) = (column(batch, "key").unwrap(), column(batch, "value").unwrap());
    let offsets: &Int64Array = column(batch, "_offset").unwrap();
    for row in 0..batch.num_rows() {
        let value = values.is_valid(row).then(|| values.value(row));
        *rows.entry((keys.value(row).to_owned(), value, offsets.value(row))).or_default() += times;
    }
    rows.retain(|_, times| *times != 0);
}

async fn rows_at(lake: &Lake, name: &TableName, version: u64) -> Rows {
    let mut table = lake.table(name).await.unwrap();
    table.load_version(version).await.unwrap();
    let session = SessionContext::new();
    session.register_table("t", table.table_provider().await.unwrap()).unwrap();
    let mut rows = Rows::new();
    let sql = "select arrow_cast(key, 'Utf8') as key, value, _offset from t";
    for batch in session.sql(sql).await.unwrap().collect().await.unwrap() {
        count(&mut rows, &batch, 1);
    }
    rows
}

async fn apply(table: &DeltaTable, changed: &[ChangedFile], rows: &mut Rows) {
    let store = table.log_store().object_store(None);
    for ChangedFile { file, change, .. } in changed {
        let reader = ParquetObjectReader::new(store.clone(), file.meta.location.clone());
        let mut builder = ParquetRecordBatchStreamBuilder::new(reader).await.unwrap();
        if let Some(live) = &file.live {
            builder = builder.with_row_selection(RowSelection::from_boolean_buffer(live.clone()));
        }
        let batches: Vec<_> = builder.build().unwrap().try_collect().await.unwrap();
        let read: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert!(file.rows.is_none_or(|rows| rows == read as u64), "{file:?} has {read} rows");
        let times = if *change == RowChange::Inserted { 1 } else { -1 };
        batches.iter().for_each(|batch| count(rows, batch, times));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn changes_make_of_a_version_the_next(
        mode in prop_oneof![Just(Mode::Append), Just(Mode::Upsert)],
        commits in prop::collection::vec((prop::collection::vec(steps::record(), 1..12), any::<bool>()), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(run(mode, &commits));
    }
}

async fn run(mode: Mode, commits: &[(Vec<Record>, bool)]) {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, mode, &[0]).await;
    let mut start = 0;
    let mut moved = BTreeSet::new();
    for (records, is_compacted) in commits {
        writer.write(batch(0, start, records)).await.unwrap();
        writer.commit().await.unwrap();
        start += records.len() as i64;
        if *is_compacted {
            let mut table = writer.rows.clone();
            table.refresh().await.unwrap();
            let mut cache = VectorCache::default();
            let files = cache.files(table.delta()).await.unwrap();
            let rewritten = compact::rewrite(&table, files, &AtomicBool::new(false)).await.unwrap().unwrap();
            if compact::install(&mut table, &mut cache, &rewritten).await.unwrap().is_some() {
                moved.insert(table.version());
            }
        }
    }
    let name = TableName::new(&"a.b".parse().unwrap(), TableKind::Rows);
    let table = lake.table(&name).await.unwrap();
    let newest = table.version().unwrap();
    let mut states = Vec::new();
    for version in 0..=newest {
        states.push(rows_at(&lake, &name, version).await);
    }
    for from in 1..=newest {
        for to in [from, newest] {
            let changed = changed_files(&name, &table, from, to).await.unwrap();
            assert!(!changed.iter().any(|changed| moved.contains(&changed.version)), "rows that moved are no changes");
            let mut rows = states[from as usize - 1].clone();
            apply(&table, &changed, &mut rows).await;
            assert_eq!(rows, states[to as usize], "{from}..={to}");
        }
    }
    let known = versions(&name, &table).await.unwrap();
    assert_eq!(known.iter().map(|known| known.version).collect::<Vec<_>>(), (0..=newest).collect::<Vec<_>>());
    let of_records: u64 = known.iter().filter_map(|known| known.records).sum();
    assert_eq!(of_records, start as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_no_longer_be_told_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    for (start, records) in [(0, [put(1, 1), put(2, 2)]), (2, [put(1, 3), put(3, 3)])] {
        writer.write(batch(0, start, &records)).await.unwrap();
        writer.commit().await.unwrap();
    }
    let name = TableName::new(&"a.b".parse().unwrap(), TableKind::Rows);
    let table = lake.table(&name).await.unwrap();
    let told = async |from, to| changed_files(&name, &table, from, to).await.map_err(|error| error.to_string());
    assert_eq!(told(1, 2).await.unwrap().len(), 3);
    let error = told(2, 3).await.unwrap_err();
    assert!(error.starts_with("there is no version 3 of table `a.b` yet: the newest is 2."), "{error}");
    // A vector, and the entry of a version, are gone.
    for file in files(&dir.path().join("a/b")) {
        let path = file.to_string_lossy();
        if path.ends_with(".bin") || path.ends_with("00001.json") {
            std::fs::remove_file(&file).unwrap();
        }
    }
    let error = told(2, 2).await.unwrap_err();
    assert!(error.contains("version 2 of table `a.b`") && error.contains("deletion_vector_"), "{error}");
    let error = told(1, 2).await.unwrap_err();
    assert!(error.contains("version 1 of table `a.b`") && error.contains("entry 1 of its log is gone"), "{error}");
}
