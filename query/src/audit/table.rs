//! `ruam.audit`: the account as a table.
//!
//! What passes through: the files of the account, from the first on, into batches, as fast as they are taken. Files
//! that a filter on `at` rules out are not read.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

use super::{AuditLog, Record, files, lines};
use crate::catalog;
use crate::error::external;
use crate::scan::predicate;

/// When it was.
const AT: &str = "at";
/// The rows of a batch.
const BATCH: usize = 1024;
/// So many batches are on their way.
const IN_FLIGHT: usize = 2;
/// By how much a record may be older than the one before it: clocks are set back.
const SET_BACK: TimeDelta = TimeDelta::days(1);

/// The account as it is when it is read, a row for each record.
#[derive(Debug)]
pub(crate) struct Account {
    log: Option<Arc<AuditLog>>,
    schema: SchemaRef,
}

impl Account {
    /// The table of an account; an empty one where none is kept.
    ///
    /// # Errors
    /// Where DataFusion has no such columns.
    pub(crate) fn new(log: Option<Arc<AuditLog>>) -> Result<Self> {
        Ok(Self { log, schema: batch(&[])?.schema() })
    }

    /// The files in which there may be a record for which the filters are true.
    fn kept(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<PathBuf>> {
        let Some(log) = &self.log else { return Ok(Vec::new()) };
        let files = files(&log.folder).map_err(external)?;
        let Some(predicate) = predicate(state, &self.schema, filters)? else { return Ok(files) };
        let builder = PruningPredicateBuilder::new().with_file_schema(self.schema.clone());
        let Ok(pruning) = builder.try_build(predicate) else { return Ok(files) };
        let begun: Vec<_> = files.iter().map(|path| first_at(path)).collect();
        let kept = pruning.prune(&Times { begun })?;
        Ok(files.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(file, _)| file).collect())
    }
}

/// When the first record of a file was, in microseconds.
fn first_at(path: &Path) -> Option<i64> {
    let (_, _, line) = lines(path.to_path_buf()).next()?.ok()?;
    micros(&line.record)
}

fn micros(record: &Record) -> Option<i64> {
    Some(DateTime::parse_from_rfc3339(&record.at).ok()?.timestamp_micros())
}

/// Between which times each file is.
struct Times {
    begun: Vec<Option<i64>>,
}

impl Times {
    fn of(&self, column: &Column, times: impl Iterator<Item = Option<i64>>) -> Option<ArrayRef> {
        let times: TimestampMicrosecondArray = times.collect();
        (column.name() == AT).then(|| Arc::new(times.with_timezone("UTC")) as ArrayRef)
    }
}

impl PruningStatistics for Times {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        let set_back = SET_BACK.num_microseconds()?;
        self.of(column, self.begun.iter().map(|at| Some((*at)?.saturating_sub(set_back))))
    }

    /// What comes in the next file comes later. The last goes on.
    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        let set_back = SET_BACK.num_microseconds()?;
        let next = self.begun.iter().skip(1).map(|at| Some((*at)?.saturating_add(set_back)));
        self.of(column, next.chain([None]).take(self.begun.len()))
    }

    fn num_containers(&self) -> usize {
        self.begun.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[async_trait]
impl TableProvider for Account {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let push_down = |filter: &&Expr| match filter.column_refs().iter().all(|column| column.name() == AT) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(push_down).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let records = Arc::new(Records { files: self.kept(state, filters)?, schema: self.schema.clone() });
        // Those that a filter leaves out are no part of a limit.
        let limit = limit.filter(|_| filters.is_empty());
        let scan = StreamingTableExec::try_new(self.schema.clone(), vec![records], projection, [], false, limit)?;
        Ok(Arc::new(scan))
    }
}

/// The records of some files.
#[derive(Debug)]
struct Records {
    files: Vec<PathBuf>,
    schema: SchemaRef,
}

impl PartitionStream for Records {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(self.schema.clone(), IN_FLIGHT);
        let (files, send) = (self.files.clone(), stream.tx());
        stream.spawn_blocking(move || {
            let mut lines = files.into_iter().flat_map(lines);
            loop {
                let records = lines.by_ref().take(BATCH).map(|line| line.map(|(_, _, line)| line.record));
                let records = records.collect::<std::result::Result<Vec<_>, _>>().map_err(external)?;
                // Nobody wants the rest.
                if records.is_empty() || send.blocking_send(batch(&records)).is_err() {
                    return Ok(());
                }
            }
        });
        stream.build()
    }
}

fn batch(records: &[Record]) -> Result<RecordBatch> {
    let text = |of: &dyn Fn(&Record) -> Option<String>| -> ArrayRef {
        Arc::new(records.iter().map(of).collect::<StringArray>())
    };
    let number =
        |of: &dyn Fn(&Record) -> Option<u64>| -> ArrayRef { Arc::new(records.iter().map(of).collect::<UInt64Array>()) };
    let whether = |of: &dyn Fn(&Record) -> bool| -> ArrayRef {
        Arc::new(BooleanArray::from_iter(records.iter().map(|record| Some(of(record)))))
    };
    let pairs = |pairs: &[(String, String)]| {
        pairs.iter().map(|(table, what)| format!("{table}: {what}")).collect::<Vec<_>>().join("; ")
    };
    let tables = |record: &Record| {
        let tables = record.tables.iter().map(|(table, columns)| (table.clone(), columns.join(", ")));
        pairs(&tables.collect::<Vec<_>>())
    };
    catalog::batch(vec![
        (AT, Arc::new(records.iter().map(micros).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
        ("event", text(&|record| Some(record.event.to_string()))),
        ("query", text(&|record| Some(record.query.clone()))),
        ("who", text(&|record| Some(record.who.clone()))),
        ("roles", text(&|record| Some(record.roles.join(", ")))),
        ("client", text(&|record| Some(record.client.clone()))),
        ("purpose", text(&|record| record.purpose.clone())),
        ("sql", text(&|record| Some(record.sql.clone()))),
        ("tables", text(&|record| Some(tables(record)))),
        ("policies", text(&|record| Some(pairs(&record.policies)))),
        ("subjects", text(&|record| Some(record.subjects.join(", ")))),
        ("shows_persons", whether(&|record| record.shows_persons)),
        ("cached", whether(&|record| record.cached)),
        ("rows", number(&|record| record.rows)),
        ("bytes", number(&|record| record.bytes)),
        ("milliseconds", number(&|record| record.milliseconds)),
    ])
}
