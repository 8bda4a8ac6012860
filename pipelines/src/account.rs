//! The books of a dataset: what the log holds, and what became of it, per partition.
//!
//! published = rows + rejected + filtered + folded, of what has been read; what has not is the lag.
//! Rows and rejects are counted in the tables themselves; filtered, folded and absent come from the
//! counts in the tables' commits.

use std::collections::BTreeMap;

use anyhow::Result;
use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use ruam_event::{Mode, OffsetRange, Partition};
use ruam_lake::{Lake, Progress, TableKind, TableName};
use ruam_log::Log;
use ruam_query::{Engine, Pinned};

use crate::specs::Dataset;

/// The books of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// The partition's number.
    pub(crate) partition: i32,
    /// What the log holds; none where the log was not asked or has no such topic.
    pub(crate) held: Option<OffsetRange>,
    /// How far the table is.
    pub(crate) progress: Option<Progress>,
    /// Rows that came from this partition.
    pub(crate) rows: u64,
    /// How many of them share their record with another, which would be a row counted twice.
    pub(crate) doubled: u64,
    /// Records of this partition that were rejected.
    pub(crate) rejected: u64,
}

impl Account {
    /// Records that were read.
    pub(crate) fn published(&self) -> u64 {
        self.progress.map_or(0, |progress| progress.records())
    }

    /// Records that were not read yet, as far as is known.
    pub(crate) fn lag(&self) -> Option<i64> {
        let held = self.held?;
        Some(held.end - self.progress.map_or(held.start, |progress| progress.next))
    }

    /// What the books are out by; zero where they balance.
    pub(crate) fn difference(&self) -> i64 {
        let progress = self.progress.unwrap_or_default();
        let sum = self.rows + self.rejected + progress.filtered + progress.folded;
        self.published() as i64 - sum as i64
    }

    /// Whether nothing is missing and nothing is there twice.
    pub(crate) fn balances(&self) -> bool {
        self.difference() == 0 && self.doubled == 0
    }
}

/// Draws up the books of a dataset.
///
/// # Errors
/// Where the log or the lake does not answer.
pub(crate) async fn accounts(
    dataset: &Dataset,
    log: Option<&Log>,
    lake: &Lake,
    engine: &Engine,
) -> Result<Vec<Account>> {
    let spec = &dataset.spec;
    let layout = match log {
        Some(log) => log.topic(&spec.topic()).await?,
        None => None,
    };
    // Everything is looked at in one version of the rows, so that the books of a dataset that is being
    // written to balance, too.
    let tables = engine.pinned()?;
    let topic = spec.topic().replace('\'', "''");
    let table = |kind: TableKind| format!("\"{}\".\"{}\"", spec.id().agency(), TableName::new(spec.id(), kind).table());
    let count = |kind, condition: &str| {
        let table = table(kind);
        format!(
            "select _partition, count(*), count(distinct _offset) from {table} where _topic = '{topic}' {condition} group by _partition"
        )
    };
    let mut accounts: BTreeMap<i32, Account> = BTreeMap::new();
    for (partition, [rows, distinct]) in counts(&tables, &count(TableKind::Rows, "")).await? {
        let doubled = rows - distinct;
        accounts.insert(partition, Account { partition, rows, doubled, ..Account::default() });
    }
    let mut not_ahead = String::new();
    if let (Some(log), Some(layout)) = (log, &layout) {
        let partitions: Vec<_> =
            (0..layout.partitions).map(|index| Partition { topic: layout.topic.clone(), index }).collect();
        let name = TableName::new(spec.id(), TableKind::Rows);
        let progress = lake.progress(&name, tables.versions().get(&name).copied(), &partitions).await?;
        let held = log.held(layout).await?;
        for ((partition, held), progress) in partitions.iter().zip(held).zip(progress) {
            let partition = partition.index;
            let account = of(&mut accounts, partition);
            (account.held, account.progress) = (Some(held), progress);
            // Rejects are committed before the rows of the same records: those of records that the
            // rows have not come to yet belong to what waits.
            let next = progress.map_or(held.start, |progress| progress.next);
            not_ahead += &format!("and not (_partition = {partition} and _offset >= {next}) ");
        }
    }
    for (partition, [rejected, distinct]) in counts(&tables, &count(TableKind::Rejects, &not_ahead)).await? {
        let account = of(&mut accounts, partition);
        account.rejected = rejected;
        account.doubled += rejected - distinct;
    }
    if spec.mode == Mode::Upsert {
        // A key with two rows is wrong even where each has a record of its own.
        let key = spec.key().iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let table = table(TableKind::Rows);
        let doubled = format!(
            "select min(_partition), sum(n - 1) as extra, 0 as nothing from \
             (select min(_partition) as _partition, count(*) as n from {table} where _topic = '{topic}' group by {key} having count(*) > 1)"
        );
        for (partition, [extra, _]) in counts(&tables, &doubled).await? {
            of(&mut accounts, partition).doubled += extra;
        }
    }
    Ok(accounts.into_values().collect())
}

/// The books of a partition, begun where there are none yet.
fn of(accounts: &mut BTreeMap<i32, Account>, partition: i32) -> &mut Account {
    accounts.entry(partition).or_insert_with(|| Account { partition, ..Account::default() })
}

/// A partition and two counts, from each row of a query.
async fn counts(engine: &Pinned, sql: &str) -> Result<Vec<(i32, [u64; 2])>> {
    let batches: Vec<RecordBatch> = engine.query(sql).await?.try_collect().await?;
    let mut found = Vec::new();
    for batch in batches {
        let columns = (0..3).map(|index| cast(batch.column(index), &DataType::Int64)).collect::<Result<Vec<_>, _>>()?;
        let number = |column: usize, row: usize| {
            let column = columns[column].as_any().downcast_ref::<Int64Array>();
            column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
        };
        for row in 0..batch.num_rows() {
            if let (Some(partition), Some(first), Some(second)) = (number(0, row), number(1, row), number(2, row)) {
                found.push((i32::try_from(partition)?, [first.unsigned_abs(), second.unsigned_abs()]));
            }
        }
    }
    Ok(found)
}

/// A text and a count, from each row of a query.
///
/// # Errors
/// Where the query fails.
pub(crate) async fn text_counts(engine: &Engine, sql: &str) -> Result<Vec<(String, u64)>> {
    let batches: Vec<RecordBatch> = engine.query(sql).await?.try_collect().await?;
    let mut found = Vec::new();
    for batch in batches {
        let (texts, counts) = (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Int64)?);
        let (texts, counts) =
            (texts.as_any().downcast_ref::<StringArray>(), counts.as_any().downcast_ref::<Int64Array>());
        if let (Some(texts), Some(counts)) = (texts, counts) {
            found.extend(
                (0..batch.num_rows()).map(|row| (texts.value(row).to_owned(), counts.value(row).unsigned_abs())),
            );
        }
    }
    Ok(found)
}
