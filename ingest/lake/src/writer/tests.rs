//! The writer against a model: whatever is done to it, the tables are what the events say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use arrow::array::{Array, ArrayRef, BinaryArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use deltalake::datafusion::prelude::SessionContext;
use ruam_event::{Position, Topic, TopicId};

use super::*;
use crate::choice;
use crate::compact;
use crate::fold::column;
use crate::log::{self, Cleared};
use crate::vacuum::{kept, vacuum};
use crate::vectors::DataFile;

mod clustering;
mod compaction;
mod feed;
mod order;
mod steps;

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn origin() -> Vec<Field> {
    vec![
        Field::new("_topic", DataType::Utf8, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_position", DataType::Utf8, false),
        Field::new("_arrived_at", timestamp(), false),
    ]
}

fn rows_schema(more: &[Field]) -> SchemaRef {
    let mut fields = vec![Field::new("key", DataType::Utf8, true), Field::new("value", DataType::Int64, true)];
    fields.extend(more.iter().cloned());
    fields.extend(origin());
    Arc::new(Schema::new(fields))
}

fn rejects_schema() -> SchemaRef {
    let mut fields = vec![Field::new("reason", DataType::Utf8, false), Field::new("raw_value", DataType::Binary, true)];
    fields.extend(origin());
    Arc::new(Schema::new(fields))
}

fn origin_columns(places: &[(i32, i64, u64)]) -> Vec<ArrayRef> {
    vec![
        Arc::new(StringArray::from_iter_values(places.iter().map(|_| "t"))),
        Arc::new(Int32Array::from_iter_values(places.iter().map(|place| place.0))),
        Arc::new(Int64Array::from_iter_values(places.iter().map(|place| place.1))),
        Arc::new(StringArray::from_iter_values(places.iter().map(|place| Position::new(place.2).to_string()))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(places.iter().map(|_| 0)).with_timezone("UTC")),
    ]
}

fn reject_rows(reason: &str, places: &[(i32, i64, u64)]) -> RecordBatch {
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(places.iter().map(|_| reason))),
        Arc::new(BinaryArray::from_iter(places.iter().map(|_| Some(b"raw")))),
    ];
    columns.extend(origin_columns(places));
    RecordBatch::try_new(rejects_schema(), columns).unwrap()
}

fn contract(mode: Mode) -> Contract {
    Contract {
        dataset: "a.b".parse().unwrap(),
        description: "test".into(),
        mode,
        key: if mode == Mode::Upsert { vec!["key".into()] } else { Vec::new() },
        cluster_by: Vec::new(),
        history: true,
        rows: rows_schema(&[]),
        rejects: rejects_schema(),
        refuse: Arc::new(|rows| {
            let (partitions, offsets): (&Int32Array, &Int64Array) =
                (column(rows, "_partition")?, column(rows, "_offset")?);
            let places: Vec<_> =
                (0..rows.num_rows()).map(|row| (partitions.value(row), offsets.value(row), 0)).collect();
            Ok(reject_rows("unknown", &places))
        }),
    }
}

fn partition(index: i32) -> Partition {
    Partition { topic: Arc::new(Topic { name: "t".into(), id: TopicId(7) }), index }
}

/// What a record of the test's topic says.
#[derive(Clone, Debug)]
enum Record {
    Put(u8, i64),
    /// An update that leaves the value as it was.
    Touch(u8),
    Delete(u8),
    Truncate,
    Bad,
    Tombstone,
}

/// The records of one partition, from an offset on, as the normaliser would hand them over.
fn batch(index: i32, start: i64, records: &[Record]) -> Batch {
    batch_at(index, start, records, |offset| start as u64 + offset as u64 + 1)
}

/// The same, with the position in its source of each.
fn batch_at(index: i32, start: i64, records: &[Record], position: impl Fn(usize) -> u64) -> Batch {
    let end = start + records.len() as i64;
    let place = |offset: usize| (index, start + offset as i64, position(offset));
    let (mut keys, mut values, mut ops, mut touched, mut places) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut bad, mut filtered) = (vec![], 0);
    for (at, record) in records.iter().enumerate() {
        let key = |key: &u8| Some(format!("p{index}k{key}"));
        let (key, value, op) = match record {
            Record::Put(k, value) => (key(k), Some(*value), Op::Insert),
            Record::Touch(k) => (key(k), None, Op::Update),
            Record::Delete(k) => (key(k), None, Op::Delete),
            Record::Truncate => (None, None, Op::Truncate),
            Record::Bad => {
                bad.push(place(at));
                continue;
            }
            Record::Tombstone => {
                filtered += 1;
                continue;
            }
        };
        keys.push(key);
        values.push(value);
        ops.push(op);
        touched.push(matches!(record, Record::Touch(_)));
        places.push(place(at));
    }
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(keys)), Arc::new(Int64Array::from(values))];
    columns.extend(origin_columns(&places));
    let schema = rows_schema(&[]);
    let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let mut unchanged = vec![None; schema.fields().len()];
    unchanged[1] = Some(touched.into_iter().collect());
    Batch {
        partition: partition(index),
        range: OffsetRange { start, end },
        records: records.len() as u64,
        rows: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap(),
        ops,
        unchanged,
        rejects: reject_rows("bad", &bad),
        filtered,
        left: 0,
    }
}

/// What the tables should hold of one partition: its rows, the offsets of its rejects, and how many
/// accepted changes there were.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    rows: BTreeMap<String, i64>,
    rejects: BTreeSet<i64>,
    /// Updates of rows that are not there: rejected, unless a later change makes them irrelevant
    /// before they are committed.
    lost: BTreeSet<i64>,
    changes: usize,
}

impl Model {
    fn apply(&mut self, index: i32, start: i64, records: &[Record]) {
        for (at, record) in records.iter().enumerate() {
            let key = |key: &u8| format!("p{index}k{key}");
            let offset = start + at as i64;
            self.changes += usize::from(!matches!(record, Record::Bad | Record::Tombstone));
            match record {
                Record::Put(k, value) => drop(self.rows.insert(key(k), *value)),
                Record::Touch(k) if !self.rows.contains_key(&key(k)) => drop(self.lost.insert(offset)),
                Record::Touch(_) | Record::Tombstone => {}
                Record::Delete(k) => drop(self.rows.remove(&key(k))),
                Record::Truncate => self.rows.clear(),
                Record::Bad => drop(self.rejects.insert(offset)),
            }
        }
    }
}

async fn query(lake: &Lake, kind: TableKind, sql: &str) -> Vec<RecordBatch> {
    let table = lake.table(&TableName::new(&"a.b".parse().unwrap(), kind)).await.unwrap();
    let session = SessionContext::new();
    session.register_table("t", table.table_provider().await.unwrap()).unwrap();
    session.sql(sql).await.unwrap().collect().await.unwrap()
}

/// What the tables do hold of one partition.
async fn found(lake: &Lake, index: i32) -> Model {
    let mut model = Model::default();
    let text =
        |batch: &RecordBatch, row: usize| arrow::util::display::array_value_to_string(batch.column(0), row).unwrap();
    for batch in query(lake, TableKind::Rows, &format!("select key, value from t where _partition = {index}")).await {
        let values: &Int64Array = column(&batch, "value").unwrap();
        for row in 0..batch.num_rows() {
            assert!(model.rows.insert(text(&batch, row), values.value(row)).is_none(), "a key has two rows");
        }
    }
    for batch in query(lake, TableKind::Rejects, &format!("select _offset from t where _partition = {index}")).await {
        for offset in column::<Int64Array>(&batch, "_offset").unwrap().values() {
            assert!(model.rejects.insert(*offset), "a record is rejected twice");
        }
    }
    for batch in query(
        lake,
        TableKind::Changes,
        &format!("select count(*), count(distinct concat(_offset, key, _op)) from t where _partition = {index}"),
    )
    .await
    {
        let count = |column: usize| batch.column(column).as_any().downcast_ref::<Int64Array>().unwrap().value(0);
        assert_eq!(count(0), count(1), "a change is kept twice");
        model.changes = count(0) as usize;
    }
    model
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_have_no_effect_and_are_counted() {
    for indexed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake(&dir);
        let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
        if !indexed {
            writer.index = Seat::of(None);
        }
        let mut commit = async |start: i64, records: &[(u64, Record)]| {
            let (positions, records): (Vec<_>, Vec<_>) = records.iter().cloned().unzip();
            writer.write(batch_at(0, start, &records, |offset| positions[offset])).await.unwrap();
            let committed = writer.commit().await.unwrap().unwrap();
            (committed.rows, committed.folded, committed.late)
        };
        assert_eq!(commit(0, &[(10, put(1, 10)), (11, put(2, 20))]).await, (2, 0, 0));
        let late = [
            // Both are older than the row, and the second is the row itself once more.
            (5, put(1, 5)),
            (10, put(1, 10)),
            // So are these, a deletion among them.
            (3, put(2, 1)),
            (4, Record::Delete(2)),
            // Late within the batch.
            (13, put(3, 30)),
            (12, put(3, 29)),
            // Overtaken, and not late.
            (14, put(4, 1)),
            (15, put(4, 40)),
        ];
        assert_eq!(commit(2, &late).await, (2, 6, 5));
        let rows = [("p0k1", 10), ("p0k2", 20), ("p0k3", 30), ("p0k4", 40)];
        assert_eq!(found(&lake, 0).await.rows, rows.map(|(key, value)| (key.to_owned(), value)).into());
        let name = TableName::new(&"a.b".parse().unwrap(), TableKind::Rows);
        let progress = lake.progress(&name, None, &[partition(0)]).await.unwrap()[0].unwrap();
        assert_eq!((progress.folded, progress.late, progress.next), (6, 5, 10));
    }
}

/// Published = rows + rejected + filtered + folded.
async fn check_counts(lake: &Lake, index: i32, published: i64, model: &Model, filtered: u64) {
    let name = TableName::new(&"a.b".parse().unwrap(), TableKind::Rows);
    let progress = lake.progress(&name, None, &[partition(index)]).await.unwrap()[0].unwrap_or_default();
    assert_eq!((progress.next, progress.filtered), (published, filtered));
    let sum = model.rows.len() as u64 + model.rejects.len() as u64 + progress.filtered + progress.folded;
    assert_eq!(progress.records(), sum, "{progress:?} {model:?}");
}

fn lake(dir: &tempfile::TempDir) -> Lake {
    Lake::open(dir.path().to_str().unwrap(), &BTreeMap::new()).unwrap()
}

fn names(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|name| (*name).to_owned()).collect()
}

/// The folder of indexes, beside the tables.
fn indexes(lake: &Lake) -> PathBuf {
    PathBuf::from(lake.url().trim_start_matches("file://")).join("_indexes")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A writer that begins where the tables are.
async fn open(lake: &Lake, mode: Mode, partitions: &[i32]) -> (DatasetWriter, Vec<i64>) {
    open_clustered(lake, mode, &[], partitions).await
}

/// The same with rows that are to lie together by some columns.
async fn open_clustered(lake: &Lake, mode: Mode, cluster_by: &[&str], partitions: &[i32]) -> (DatasetWriter, Vec<i64>) {
    let settings = IndexSettings { folder: indexes(lake), memory: 1 << 20 };
    let contract = Contract { cluster_by: names(cluster_by), ..contract(mode) };
    let mut writer = DatasetWriter::open(lake, contract, Some(&settings)).await.unwrap();
    let partitions: Vec<_> = partitions.iter().map(|index| partition(*index)).collect();
    let name = TableName::new(&"a.b".parse().unwrap(), TableKind::Rows);
    let progress = lake.progress(&name, None, &partitions).await.unwrap();
    let starts: Vec<_> = progress.iter().map(|progress| progress.map_or(0, |progress| progress.next)).collect();
    let assignment: Vec<_> = partitions.into_iter().zip(starts.iter().copied()).collect();
    writer.assign(&assignment).await.unwrap();
    (writer, starts)
}

fn put(key: u8, value: i64) -> Record {
    Record::Put(key, value)
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_go_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Append, &[0]).await;
    writer.write(batch(0, 0, &[put(1, 1), put(1, 2), Record::Bad])).await.unwrap();
    let committed = writer.commit().await.unwrap().unwrap();
    assert_eq!((committed.rows, committed.rejected, committed.offsets[0].1), (2, 1, 3));
    assert!(writer.commit().await.unwrap().is_none(), "nothing waits");
    let (mut writer, at) = open(&lake, Mode::Append, &[0]).await;
    assert_eq!(at, [3]);
    writer.write(batch(0, 3, &[Record::Bad, Record::Tombstone])).await.unwrap();
    assert_eq!(writer.commit().await.unwrap().unwrap().rows, 0, "rejects alone move the offset, too");
    assert_eq!(open(&lake, Mode::Append, &[0]).await.1, [5]);
    let rows = query(&lake, TableKind::Rows, "select key, value from t order by _offset").await;
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_one_wins() {
    for mode in [Mode::Append, Mode::Upsert] {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake(&dir);
        let ((mut first, _), (mut second, _)) = (open(&lake, mode, &[0]).await, open(&lake, mode, &[0]).await);
        first.write(batch(0, 0, &[put(1, 1), put(2, 2)])).await.unwrap();
        second.write(batch(0, 0, &[put(1, 1), put(2, 2), put(3, 3)])).await.unwrap();
        first.commit().await.unwrap();
        let error = second.commit().await.unwrap_err();
        assert!(matches!(error, LakeError::Superseded { .. }), "{error}");
        let (mut second, at) = open(&lake, mode, &[0]).await;
        assert_eq!(at, [2]);
        second.write(batch(0, 2, &[put(3, 3)])).await.unwrap();
        second.commit().await.unwrap();
        let error = first.write(batch(0, 3, &[put(4, 4)])).await.unwrap_err();
        assert!(matches!(error, LakeError::Superseded { .. }), "a gap is never written");
        assert_eq!(found(&lake, 0).await.rows.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_found() {
    for mode in [Mode::Append, Mode::Upsert] {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake(&dir);
        let mut no_history = contract(mode);
        no_history.history = false;
        let mut writers = Vec::new();
        for _ in 0..2 {
            let mut writer = DatasetWriter::open(&lake, no_history.clone(), None).await.unwrap();
            writer.assign(&[(partition(0), 0)]).await.unwrap();
            writer.write(batch(0, 0, &[put(1, 1), put(2, 2)])).await.unwrap();
            writers.push(writer);
        }
        // To the second, the first's commit is just what its own would look like had it arrived.
        for mut writer in writers {
            let committed = writer.commit().await.unwrap().unwrap();
            assert_eq!(committed.offsets, [(partition(0), 2)]);
        }
        let rows = query(&lake, TableKind::Rows, "select key from t").await;
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_others_rewrite_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    let mut model = Model::default();
    for round in 0..4_i64 {
        let records: Vec<_> =
            (0..5).map(|key| put(key, round * 10 + i64::from(key))).chain([Record::Delete(round as u8)]).collect();
        let start = round * 6;
        writer.write(batch(0, start, &records)).await.unwrap();
        // Between look and commit, another engine compacts: every row moves to another file.
        let table = lake.table(&TableName::new(&"a.b".parse().unwrap(), TableKind::Rows)).await.unwrap();
        table.optimize().await.unwrap();
        writer.commit().await.unwrap();
        model.apply(0, start, &records);
        assert_eq!(found(&lake, 0).await, model, "after round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_of_its_own_are_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    let folder = dir.path().join("a/b");
    for (start, records) in [vec![put(1, 1), put(2, 2), put(3, 3)], vec![put(1, 4)], vec![put(2, 5)]].iter().enumerate()
    {
        let start = if start == 0 { 0 } else { start as i64 + 2 };
        writer.write(batch(0, start, records)).await.unwrap();
        writer.commit().await.unwrap();
        let vectors: Vec<_> =
            files(&folder).into_iter().filter(|file| file.to_string_lossy().ends_with(".bin")).collect();
        assert_eq!(vectors.len(), usize::from(start > 0), "{start}");
        vectors.into_iter().for_each(|file| std::fs::remove_file(file).unwrap());
    }
    assert!(DatasetWriter::maintain(&writer, Duration::ZERO).await.is_err(), "others have to read them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_grows_and_does_not_break() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    writer.write(batch(0, 0, &[put(1, 1)])).await.unwrap();
    writer.commit().await.unwrap();

    let mut grown = contract(Mode::Upsert);
    grown.rows = rows_schema(&[Field::new("more", DataType::Int64, true)]);
    DatasetWriter::open(&lake, grown.clone(), None).await.unwrap();
    let rows = query(&lake, TableKind::Rows, "select key, more from t").await;
    assert_eq!(rows[0].column(1).null_count(), 1);

    let refused = [
        (contract(Mode::Upsert), "column `more` is in the table and not declared any more"),
        (Contract { mode: Mode::Append, key: Vec::new(), ..grown.clone() }, "`mode` is now `append` and was `upsert`"),
        (Contract { key: vec!["value".into()], ..grown.clone() }, "`key` is now `value` and was `key`"),
        (
            Contract { rows: rows_schema(&[Field::new("more", DataType::Utf8, true)]), ..grown },
            "column `more` is now stored as Utf8 and was stored as Int64",
        ),
    ];
    for (contract, expected) in refused {
        let error = DatasetWriter::open(&lake, contract, None).await.unwrap_err().to_string();
        assert!(
            error.starts_with("what `a.b` declares does not fit its table any more: ") && error.contains(expected),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_recreated_stops_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Append, &[0]).await;
    writer.write(batch(0, 0, &[put(1, 1)])).await.unwrap();
    writer.commit().await.unwrap();
    let recreated = Partition { topic: Arc::new(Topic { name: "t".into(), id: TopicId(8) }), index: 0 };
    let error = writer.assign(&[(recreated, 0)]).await.unwrap_err().to_string();
    assert!(
        error.contains("it was deleted and created anew") && error.contains("ruam resume a.b --from beginning"),
        "{error}"
    );
}
