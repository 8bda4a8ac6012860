//! Bloom filters of Parquet files, kept in memory.
//!
//! What passes through: the reads of a scan. DataFusion asks the filters of each row group whether it may have a
//! value, anew for each query; of a large table they are some hundred reads, of which the answer is one row.
//!
//! Guaranteed: they take no more memory than [`LIMIT`] in a process. Files are never written to again, so that
//! what is kept holds for as long as it is.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

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
use parquet::file::metadata::ParquetMetaData;

/// The bytes of all filters that are kept: those of the keys of about 30 million rows.
const LIMIT: usize = 64 << 20;
/// A filter of more bytes is none that the lake writes.
const LARGEST: u64 = 1 << 20;

static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

/// A file, and the place of a filter in it.
type Place = (Arc<str>, u64);

/// The filters that were read last.
#[derive(Debug, Default)]
struct Kept {
    filters: HashMap<Place, Bytes>,
    /// The oldest first.
    order: VecDeque<Place>,
    bytes: usize,
}

impl Kept {
    fn add(&mut self, place: Place, filter: Bytes) {
        self.bytes += filter.len();
        if let Some(before) = self.filters.insert(place.clone(), filter) {
            self.bytes -= before.len();
            return;
        }
        self.order.push_back(place);
        while self.bytes > LIMIT
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.filters.remove(&oldest).map_or(0, |filter| filter.len());
        }
    }
}

/// Opens files so that their footers and bloom filters are read once.
#[derive(Debug)]
pub(crate) struct KeepingReaders {
    files: CachedParquetFileReaderFactory,
    /// Where the files are.
    url: String,
}

impl KeepingReaders {
    /// Keeps what is read of files below a URL.
    pub(crate) fn new(files: CachedParquetFileReaderFactory, url: String) -> Self {
        Self { files, url }
    }
}

impl ParquetFileReaderFactory for KeepingReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let name = Arc::from(format!("{}{}", self.url, file.object_meta.location));
        let reader = self.files.create_reader(partition, file, metadata_size_hint, metrics)?;
        Ok(Box::new(KeepingReader { name, reader }))
    }
}

struct KeepingReader {
    name: Arc<str>,
    reader: Box<dyn AsyncFileReader + Send>,
}

impl AsyncFileReader for KeepingReader {
    /// Columns are read by several ranges at a time; one alone is a filter.
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        let place = (self.name.clone(), range.start);
        let is_whole = |filter: &Bytes| filter.len() as u64 == range.end - range.start;
        let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = kept().filters.get(&place).filter(|filter| is_whole(filter)) {
            return std::future::ready(Ok(filter.clone())).boxed();
        }
        async move {
            let filter = self.reader.get_bytes(range).await?;
            if filter.len() as u64 <= LARGEST {
                kept().add(place, filter.clone());
            }
            Ok(filter)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        self.reader.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        self.reader.get_metadata(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_where_there_is_no_room() {
        let mut kept = Kept::default();
        let place = |start: u64| (Arc::from("a"), start);
        let filter = Bytes::from(vec![0; LIMIT / 4]);
        for start in 0..6 {
            kept.add(place(start), filter.clone());
        }
        // Read by two scans at the same time.
        kept.add(place(5), filter.clone());
        assert_eq!((kept.bytes, kept.filters.len(), kept.order.len()), (LIMIT, 4, 4));
        assert!(!kept.filters.contains_key(&place(1)) && kept.filters.contains_key(&place(2)));
    }
}
