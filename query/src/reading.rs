//! How much of the tables' files an answer reads.
//!
//! What passes through: the bytes that a scan has read, footers that are in memory and what statistics and bloom
//! filters rule out left aside, to a bound that ends the answer where it is passed. It comes to the scans as an
//! extension of the session that an answer is planned with.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

/// What one answer reads, and may.
#[derive(Debug)]
pub(crate) struct Reading {
    /// In bytes.
    most: u64,
    read: AtomicU64,
    /// The files that could not be ruled out, in bytes.
    files: AtomicU64,
    /// The tables that lie sorted, each with the columns that they are sorted by.
    sorted: BTreeMap<String, Vec<String>>,
}

impl Reading {
    /// At most so many MB.
    pub(crate) fn at_most(megabytes: u64, sorted: BTreeMap<String, Vec<String>>) -> Self {
        Self { most: megabytes.saturating_mul(1 << 20), read: AtomicU64::new(0), files: AtomicU64::new(0), sorted }
    }

    /// Takes down that a scan goes through files of so many bytes.
    pub(crate) fn plan(&self, bytes: u64) {
        self.files.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes down that so many bytes are read; says whether they may be.
    pub(crate) fn read(&self, bytes: u64) -> bool {
        self.read.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.most
    }

    /// Why the answer ends, if it has read too much.
    pub(crate) fn reached(&self) -> Option<String> {
        if self.read.load(Ordering::Relaxed) <= self.most {
            return None;
        }
        let mut told = format!(
            "the answer reads more than the {} MB of files that yours may: what it asks for lies in files of {} MB. Ask \
             for fewer columns, or narrow it",
            self.most >> 20,
            self.files.load(Ordering::Relaxed).div_ceil(1 << 20)
        );
        for (table, columns) in self.sorted.iter().filter(|(_, columns)| !columns.is_empty()) {
            let _ = write!(told, "; `{table}` lies sorted by {}", columns.join(", "));
        }
        Some(told)
    }
}

/// Opens files so that what is read of them is taken down.
#[derive(Debug)]
pub(crate) struct CountedFiles {
    files: CachedParquetFileReaderFactory,
    reading: Arc<Reading>,
}

impl CountedFiles {
    pub(crate) fn new(files: CachedParquetFileReaderFactory, reading: Arc<Reading>) -> Self {
        Self { files, reading }
    }
}

impl ParquetFileReaderFactory for CountedFiles {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let file = self.files.create_reader(partition, file, metadata_size_hint, metrics)?;
        Ok(Box::new(CountedFile { file, reading: self.reading.clone() }))
    }
}

struct CountedFile {
    file: Box<dyn AsyncFileReader + Send>,
    reading: Arc<Reading>,
}

impl CountedFile {
    /// Takes down what is about to be read. Where it is too much, the answer says so in its own words.
    fn count(&self, ranges: &[Range<u64>]) -> parquet::errors::Result<()> {
        match self.reading.read(ranges.iter().map(|range| range.end - range.start).sum()) {
            true => Ok(()),
            false => Err(ParquetError::General("too much is read".to_owned())),
        }
    }
}

impl AsyncFileReader for CountedFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        match self.count(std::slice::from_ref(&range)) {
            Ok(()) => self.file.get_bytes(range),
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        match self.count(&ranges) {
            Ok(()) => self.file.get_byte_ranges(ranges),
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        self.file.get_metadata(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_much_there_is_and_what_to_narrow_it_by() {
        let sorted = BTreeMap::from([("a.b".to_owned(), vec!["code".to_owned()]), ("a.c".to_owned(), Vec::new())]);
        let reading = Reading::at_most(2, sorted);
        reading.plan(9 << 20);
        assert!(reading.read(2 << 20) && reading.reached().is_none());
        assert!(!reading.read(1));
        let told = reading.reached().unwrap_or_default();
        assert!(told.contains("more than the 2 MB") && told.contains("files of 9 MB"), "{told}");
        assert!(told.ends_with("narrow it; `a.b` lies sorted by code"), "{told}");
    }
}
