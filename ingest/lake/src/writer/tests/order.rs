//! Events that come late, again, or under another key.

use super::*;

/// The batch with other values in a column of its origin.
fn with(mut batch: Batch, name: &str, values: ArrayRef) -> Batch {
    let index = batch.rows.schema().index_of(name).unwrap();
    let mut columns = batch.rows.columns().to_vec();
    columns[index] = values;
    batch.rows = RecordBatch::try_new(batch.rows.schema(), columns).unwrap();
    batch
}

fn at(positions: &[u64], batch: Batch) -> Batch {
    let positions = positions.iter().map(|position| Position::new(*position).to_string());
    with(batch, "_position", Arc::new(StringArray::from_iter_values(positions)))
}

fn rows(expected: &[(&str, i64)]) -> BTreeMap<String, i64> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_the_row_has_no_effect_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    writer.write(at(&[5, 6], batch(0, 0, &[put(1, 10), put(2, 20)]))).await.unwrap();
    writer.commit().await.unwrap();
    writer.write(at(&[3, 4, 5], batch(0, 2, &[put(1, 99), Record::Delete(2), put(1, 10)]))).await.unwrap();
    let committed = writer.commit().await.unwrap().unwrap();
    assert_eq!((committed.rows, committed.folded), (0, 3));
    // What was deleted comes again: in the same commit, and in one after it.
    writer.write(at(&[8, 9, 7], batch(0, 5, &[Record::Delete(1), put(1, 11), put(1, 98)]))).await.unwrap();
    writer.commit().await.unwrap();
    let now = found(&lake, 0).await;
    assert_eq!(now.rows, rows(&[("p0k1", 11), ("p0k2", 20)]));
    check_counts(&lake, 0, 8, &now, 0).await;
    for (offset, record) in [(8, Record::Delete(1)), (9, put(1, 12))] {
        writer.write(at(&[offset as u64 + 2], batch(0, offset, &[record]))).await.unwrap();
        writer.commit().await.unwrap();
    }
    let now = found(&lake, 0).await;
    assert_eq!(now.rows, rows(&[("p0k1", 12), ("p0k2", 20)]));
    check_counts(&lake, 0, 10, &now, 0).await;
}

/// One record that gives a row another key: a row, and a delete that is no record.
fn moved(offset: i64, from: u8, to: Record) -> Batch {
    let two = batch(0, offset, &[to, Record::Delete(from)]);
    let one = at(&[offset as u64 + 1; 2], with(two, "_offset", Arc::new(Int64Array::from(vec![offset; 2]))));
    Batch { range: OffsetRange { start: offset, end: offset + 1 }, records: 1, left: 1, ..one }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_left_takes_its_row_along_and_the_books_balance() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    writer.write(batch(0, 0, &[put(1, 1), put(2, 2)])).await.unwrap();
    writer.commit().await.unwrap();
    // From a row of the table, and on from there within one commit.
    writer.write(moved(2, 1, put(3, 3))).await.unwrap();
    writer.write(moved(3, 3, put(4, 4))).await.unwrap();
    writer.commit().await.unwrap();
    // The number that was left is given to another; a row that is not there cannot be left.
    writer.write(batch(0, 4, &[put(1, 5)])).await.unwrap();
    writer.write(moved(5, 5, put(5, 6))).await.unwrap();
    writer.commit().await.unwrap();
    let now = found(&lake, 0).await.rows;
    assert_eq!(now, rows(&[("p0k1", 5), ("p0k2", 2), ("p0k4", 4), ("p0k5", 6)]));
    check_counts(&lake, 0, 6, &Model { rows: now, ..Model::default() }, 0).await;
}
