//! Rows that lie together by some columns: what a reader can leave out, and what maintenance does for it.

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::*;
use crate::choice::Effort;
use crate::compact::Compacted;

/// Keys and values that come in no order.
fn records(count: u8) -> Vec<Record> {
    (0..count).map(|number| put(number.wrapping_mul(97), i64::from(number.wrapping_mul(39)))).collect()
}

async fn fill(writer: &mut DatasetWriter, records: &[Record], commits: usize) {
    let mut start = 0;
    for records in records.chunks(records.len().div_ceil(commits)) {
        writer.write(batch(0, start, records)).await.unwrap();
        writer.commit().await.unwrap();
        start += records.len() as i64;
    }
}

/// Maintains the tables; says what became of the rows.
async fn maintain(writer: &DatasetWriter) -> Compacted {
    writer.maintain(Duration::from_secs(3600)).await.unwrap()[0].1.compacted
}

async fn live_files(writer: &DatasetWriter) -> Vec<DataFile> {
    let mut table = writer.rows.clone();
    table.refresh().await.unwrap();
    VectorCache::default().files(table.delta()).await.unwrap()
}

/// The only file of a table.
async fn only_file(dir: &tempfile::TempDir, writer: &DatasetWriter) -> ParquetMetaData {
    let [file] = &live_files(writer).await[..] else { panic!("a table of one file") };
    let file = std::fs::File::open(dir.path().join("a/b").join(file.view.path().as_ref())).unwrap();
    ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).unwrap().metadata().as_ref().clone()
}

/// Of each row group the least and greatest value of a column.
fn bounds(file: &ParquetMetaData, column: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let bounds = |statistics: &Statistics| match statistics {
        // As bytes whose order is that of the numbers.
        Statistics::Int64(values) => {
            [values.min_opt(), values.max_opt()].map(|value| value.unwrap().to_be_bytes().to_vec())
        }
        values => [values.min_bytes_opt(), values.max_bytes_opt()].map(|bytes| bytes.unwrap().to_vec()),
    };
    let of_groups = file.row_groups().iter().map(|group| bounds(group.column(column).statistics().unwrap()));
    of_groups.map(|[least, greatest]| (least, greatest)).collect()
}

/// How many row groups a reader looks at who wants one value of a column, on average over all rows'.
fn looked_at(file: &ParquetMetaData, column: usize, wanted: &[Vec<u8>]) -> f64 {
    let bounds = bounds(file, column);
    let of = |value: &Vec<u8>| bounds.iter().filter(|(least, greatest)| (least..=greatest).contains(&value)).count();
    wanted.iter().map(of).sum::<usize>() as f64 / wanted.len() as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn row_groups_are_left_out_by_each_of_the_columns() {
    let records = records(250);
    let wanted = |of: fn(u8, i64) -> Vec<u8>| -> Vec<Vec<u8>> {
        records
            .iter()
            .map(|record| if let Record::Put(key, value) = record { of(*key, *value) } else { vec![] })
            .collect()
    };
    let (keys, values) = (wanted(|key, _| format!("p0k{key}").into()), wanted(|_, value| value.to_be_bytes().to_vec()));
    for mode in [Mode::Append, Mode::Upsert] {
        let mut looked = Vec::new();
        for cluster_by in [&[] as &[&str], &["value"], &["value", "key"]] {
            let dir = tempfile::tempdir().unwrap();
            let lake = lake(&dir);
            let (mut writer, _) = open_clustered(&lake, mode, cluster_by, &[0]).await;
            fill(&mut writer, &records, 10).await;
            let done = maintain(&writer).await;
            assert_eq!((done.files_before, done.files_after), (10, 1));
            assert_eq!(done.sorted, u64::from(!cluster_by.is_empty()));
            let file = only_file(&dir, &writer).await;
            assert_eq!(file.num_row_groups(), 16);
            if cluster_by.len() == 1 {
                let values = bounds(&file, 1);
                assert!(values.is_sorted() && values.windows(2).all(|pair| pair[0].1 < pair[1].0), "{values:?}");
            }
            looked.push([looked_at(&file, 0, &keys), looked_at(&file, 1, &values)]);
            assert_eq!(found(&lake, 0).await.rows.len(), 250);
            assert_eq!(maintain(&writer).await, Compacted::default(), "it is in order now");
        }
        let [[key, value], [_, by_value], [key_on_curve, value_on_curve]] = looked[..] else { panic!("{looked:?}") };
        assert!(key > 12.0 && value > 12.0, "nothing is left out: {looked:?}");
        assert!(by_value == 1.0, "{looked:?}");
        assert!(key_on_curve < 7.0 && value_on_curve < 7.0, "each leaves out more than half: {looked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_from_before_is_sorted_once() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open(&lake, Mode::Upsert, &[0]).await;
    fill(&mut writer, &records(100), 1).await;
    assert_eq!(maintain(&writer).await, Compacted::default());
    drop(writer);
    for cluster_by in [&["value"] as &[&str], &["key"], &["key", "value"]] {
        let (mut writer, _) = open_clustered(&lake, Mode::Upsert, cluster_by, &[0]).await;
        let usual = choice::choose(&live_files(&writer).await, &names(cluster_by), Effort::Usual);
        assert!(usual.is_empty(), "in the background it waits until it is merged");
        let done = maintain(&writer).await;
        assert_eq!((done.files_before, done.files_after, done.sorted), (1, 1, 1), "{cluster_by:?}");
        assert_eq!(maintain(&writer).await, Compacted::default());
        let mut read = 0;
        writer.prepare(&mut |rows, _| read = rows).await.unwrap();
        assert_eq!(read, 0, "the index knew its rows");
        let column = if cluster_by[0] == "key" { 0 } else { 1 };
        let bounds = bounds(&only_file(&dir, &writer).await, column);
        assert!(cluster_by.len() > 1 || bounds.is_sorted(), "{bounds:?}");
    }
    assert_eq!(found(&lake, 0).await.rows.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sort_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open_clustered(&lake(&dir), Mode::Upsert, &["value", "key"], &[0]).await;
    fill(&mut writer, &records(100), 2).await;
    let files = live_files(&writer).await;
    let stopped = compact::rewrite(&writer.rows, files, &AtomicBool::new(true)).await.unwrap();
    assert!(stopped.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_not_known_any_more_where_rows_went_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut writer, _) = open_clustered(&lake, Mode::Upsert, &["value"], &[0]).await;
    fill(&mut writer, &records(60), 10).await;
    maintain(&writer).await;
    let places: Vec<_> = files(&dir.path().join("a/b"))
        .into_iter()
        .filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("places_"))
        .collect();
    assert_eq!(places.len(), 1, "one merge wrote one");
    places.into_iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let mut read = 0;
    writer.prepare(&mut |rows, _| read = rows).await.unwrap();
    assert!(read > 0);
    // Each key once more: each finds the row that it replaces.
    let again: Vec<_> = records(60)
        .into_iter()
        .map(|record| if let Record::Put(key, _) = record { put(key, 7) } else { record })
        .collect();
    writer.write(batch(0, 60, &again)).await.unwrap();
    writer.commit().await.unwrap();
    let found = found(&lake, 0).await;
    assert!(found.rows.len() == 60 && found.rows.values().all(|value| *value == 7));
}
