//! Bloom filters of the keys of Parquet files, kept in memory.
//!
//! What passes through: the keys that a query names and the files that may have them, into the row groups of those
//! files that may. DataFusion would read and unpack the filters of all row groups anew for each query; of a
//! large table they are some hundred, and the answer is one row.
//!
//! Guaranteed: no row group that has a key is left out. The filters take no more memory than [`LIMIT`] in a process.
//! Files are never written to again, so that what is kept holds for as long as it is.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::Array;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::{BloomFilterStatistics, ParquetAccessPlan, ParquetRowSelection};
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{Guarantee, LiteralGuarantee};
use deltalake::ObjectMeta;
use deltalake::logstore::ObjectStoreRef;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::ColumnChunkMetaData;

/// The bytes of all filters that are kept: those of the keys of about 30 million rows.
const LIMIT: usize = 64 << 20;

/// The filters of so many files are read at a time.
const FILES_AT_A_TIME: usize = 16;

static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

/// The filters of a file's key: of each row group, what is known of its values.
type Filters = Arc<[BloomFilterStatistics]>;

/// The filters that were read last, by file.
#[derive(Debug, Default)]
struct Kept {
    files: HashMap<String, (Filters, usize)>,
    /// The oldest first.
    order: VecDeque<String>,
    bytes: usize,
}

impl Kept {
    fn add(&mut self, file: String, filters: Filters, bytes: usize) {
        self.bytes += bytes;
        if let Some((_, before)) = self.files.insert(file.clone(), (filters, bytes)) {
            self.bytes -= before;
            return;
        }
        self.order.push_back(file);
        while self.bytes > LIMIT
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.files.remove(&oldest).map_or(0, |(_, bytes)| bytes);
        }
    }
}

/// Values of a table's key that a row has to have.
pub(crate) struct Lookup {
    named: Vec<LiteralGuarantee>,
}

impl Lookup {
    /// What a predicate says of the columns of a key; none where it names no values of them.
    pub(crate) fn of(predicate: &Arc<dyn PhysicalExpr>, key: &[String]) -> Option<Self> {
        let is_of_key = |named: &LiteralGuarantee| {
            named.guarantee == Guarantee::In && key.iter().any(|column| named.column.name() == column)
        };
        let named: Vec<_> = LiteralGuarantee::analyze(predicate).into_iter().filter(is_of_key).collect();
        (!named.is_empty()).then_some(Self { named })
    }

    /// The files, and of each the row groups, that may have such a row.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub(crate) async fn among(&self, all: Vec<PartitionedFile>, files: &Files<'_>) -> Result<Vec<PartitionedFile>> {
        let found = all.into_iter().map(async |file| {
            let plan = self.plan(files, &file.object_meta).await?;
            // Of a file that is read in part already, that stays.
            let is_whole = file.extensions.get::<ParquetRowSelection>().is_none();
            Ok(plan.map(|plan| if is_whole { file.with_extension(plan) } else { file }))
        });
        stream::iter(found).buffered(FILES_AT_A_TIME).try_filter_map(async |file| Ok(file)).try_collect().await
    }

    /// The row groups of a file that may have such a row; none where no row group has.
    async fn plan(&self, files: &Files<'_>, file: &ObjectMeta) -> Result<Option<ParquetAccessPlan>> {
        let filters = files.filters(file).await?;
        let mut plan = ParquetAccessPlan::new_all(filters.len());
        for (group, filters) in filters.iter().enumerate() {
            let is_without = |named: &LiteralGuarantee| {
                let contained = filters.contained(&named.column, &named.literals);
                contained.is_some_and(|contained| contained.is_valid(0) && !contained.value(0))
            };
            if self.named.iter().any(is_without) {
                plan.skip(group);
            }
        }
        Ok((!plan.row_group_indexes().is_empty()).then_some(plan))
    }
}

/// The files of a table.
pub(crate) struct Files<'a> {
    pub store: &'a ObjectStoreRef,
    /// Where the store is.
    pub url: &'a str,
    /// The footers that are kept.
    pub footers: &'a Arc<FileMetadataCache>,
    pub key: &'a [String],
}

impl Files<'_> {
    /// The filters of a file's row groups, read at the first call.
    async fn filters(&self, file: &ObjectMeta) -> Result<Filters> {
        let name = format!("{}{}", self.url, file.location);
        let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((filters, _)) = kept().files.get(&name) {
            return Ok(filters.clone());
        }
        let footer = DFParquetMetadata::new(self.store.as_ref(), file);
        let footer = footer.with_file_metadata_cache(Some(self.footers.clone())).fetch_metadata().await?;
        let is_of_key = |column: &&ColumnChunkMetaData| self.key.contains(&column.column_path().string());
        let columns = footer.row_groups().iter().enumerate().flat_map(|(group, columns)| {
            let with_filter = columns.columns().iter().filter(is_of_key);
            with_filter.filter_map(move |column| Some((group, column, range(column)?)))
        });
        let columns: Vec<_> = columns.collect();
        let ranges: Vec<_> = columns.iter().map(|(.., range)| range.clone()).collect();
        let read = self.store.get_ranges(&file.location, &ranges).await?;
        let mut filters = vec![BloomFilterStatistics::new(); footer.num_row_groups()];
        for ((group, column, _), bytes) in columns.iter().zip(&read) {
            let filter = Sbbf::from_bytes(bytes).map_err(|error| DataFusionError::External(error.into()))?;
            let length = column.column_descr().type_length();
            filters[*group].insert(column.column_path().string(), filter, column.column_type(), length);
        }
        let filters: Filters = filters.into();
        kept().add(name, filters.clone(), read.iter().map(|bytes| bytes.len()).sum());
        Ok(filters)
    }
}

/// Where a column's filter lies; none where it has none.
fn range(column: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let start = u64::try_from(column.bloom_filter_offset()?).ok()?;
    Some(start..start + u64::try_from(column.bloom_filter_length()?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_where_there_is_no_room() {
        let mut kept = Kept::default();
        let filters: Filters = Vec::new().into();
        for file in 0..6 {
            kept.add(file.to_string(), filters.clone(), LIMIT / 4);
        }
        // Read by two queries at the same time.
        kept.add("5".to_owned(), filters.clone(), LIMIT / 4);
        assert_eq!((kept.bytes, kept.files.len(), kept.order.len()), (LIMIT, 4, 4));
        assert!(!kept.files.contains_key("1") && kept.files.contains_key("2"));
    }
}
