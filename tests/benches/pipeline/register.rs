//! A register of people as a writer gets it: batches of its rows, by the number of each person.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{
    ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use ruam_event::change::Op;
use ruam_event::{Mode, OffsetRange, Partition, Position, Topic, TopicId};
use ruam_lake::{Batch, Contract, DatasetWriter, IndexSettings, Lake};
use ruam_transform::{origin, reject};

/// The records that the worker hands over at a time.
const BATCH_ROWS: usize = 16 * 1024;
/// As the worker has it where nothing else is set.
const INDEX_BYTES: usize = 8 << 20;
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where the key index lies, in the register's folder.
const INDEX: &str = "index";

/// The columns that tell one person from another.
pub const KEY: &str = "citizen_id";
/// Where in the log a row came.
pub const OFFSET: &str = "_offset";

/// A dataset of the register, written to by one writer.
pub struct Register {
    writer: DatasetWriter,
    partition: Partition,
    next: i64,
}

impl Register {
    /// Opens the register in a folder, which is empty.
    pub async fn open(dir: &Path, mode: Mode) -> Result<Self> {
        let partition = Partition { topic: Arc::new(Topic { name: "people".to_owned(), id: TopicId(1) }), index: 0 };
        let mut writer = writer(dir, mode).await?.with_upkeep(RETENTION);
        writer.assign(&[(partition.clone(), 0)]).await?;
        Ok(Self { writer, partition, next: 0 })
    }

    /// Commits the present state of some people; says how long that took. Making the batches does not
    /// count.
    pub async fn commit(&mut self, people: &[u64], is_behind: bool) -> Result<Duration> {
        let batches = self.batches(people)?;
        self.commit_batches(batches, is_behind).await
    }

    /// The present state of some people, as the worker hands it over.
    pub fn batches(&mut self, people: &[u64]) -> Result<Vec<Batch>> {
        let batch = |people: &[u64]| Ok(self.batch(rows(people, self.next)?, self.next + people.len() as i64));
        people.chunks(BATCH_ROWS).map(batch).collect()
    }

    /// Commits batches; says how long that took.
    pub async fn commit_batches(&mut self, batches: Vec<Batch>, is_behind: bool) -> Result<Duration> {
        let begun = Instant::now();
        for batch in batches {
            self.writer.write(batch).await?;
        }
        self.writer.commit().await?.context("nothing was committed")?;
        self.writer.tend(is_behind).await?;
        Ok(begun.elapsed())
    }

    /// Has maintenance end what it has to do, as it would be some time after a table was filled.
    pub async fn settle(&mut self) -> Result<()> {
        self.writer.maintain(RETENTION).await?;
        Ok(self.writer.prepare(&mut |_, _| {}).await?)
    }

    /// Commits rows as another register has them, in the order of their offsets; of the rows between
    /// them there is nothing.
    pub async fn copy(&mut self, rows: &RecordBatch) -> Result<()> {
        let schema = schema();
        let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
        let columns = columns.collect::<Result<_, _>>()?;
        let rows = RecordBatch::try_new(schema, columns)?;
        for first in (0..rows.num_rows()).step_by(BATCH_ROWS) {
            let rows = rows.slice(first, BATCH_ROWS.min(rows.num_rows() - first));
            let offsets = rows.column_by_name(OFFSET).context("offsets")?.as_primitive::<Int64Type>();
            let batch = self.batch(rows.clone(), offsets.value(rows.num_rows() - 1) + 1);
            self.writer.write(batch).await?;
        }
        self.writer.commit().await?.context("nothing was committed")?;
        Ok(self.writer.tend(true).await?)
    }

    /// Rows as records up to an offset.
    fn batch(&mut self, rows: RecordBatch, end: i64) -> Batch {
        let range = OffsetRange { start: self.next, end };
        self.next = end;
        Batch {
            partition: self.partition.clone(),
            range,
            records: rows.num_rows() as u64,
            ops: vec![Op::Update; rows.num_rows()],
            unchanged: vec![None; rows.num_columns()],
            rows,
            rejects: RecordBatch::new_empty(reject::SCHEMA.clone()),
            filtered: 0,
            left: 0,
        }
    }
}

/// A writer of the register in a folder.
async fn writer(dir: &Path, mode: Mode) -> Result<DatasetWriter> {
    let contract = Contract {
        dataset: "bench.people".parse()?,
        description: "A register of people".to_owned(),
        mode,
        key: vec![KEY.to_owned()],
        cluster_by: Vec::new(),
        history: false,
        rows: schema(),
        rejects: reject::SCHEMA.clone(),
        refuse: Arc::new(reject::unresolved),
    };
    let index = IndexSettings { folder: dir.join(INDEX), memory: INDEX_BYTES };
    Ok(DatasetWriter::open(&lake(dir)?, contract, Some(&index)).await?)
}

/// Makes the key index of the register in a folder anew, whose writer is gone; says how long that took.
pub async fn rebuild(dir: &Path) -> Result<Duration> {
    fs::remove_dir_all(dir.join(INDEX))?;
    let mut writer = writer(dir, Mode::Upsert).await?;
    let begun = Instant::now();
    let mut read = 0;
    writer.prepare(&mut |rows, _| read = rows).await?;
    ensure!(read > 0, "the index was made anew");
    Ok(begun.elapsed())
}

/// The lake of the register in a folder.
pub fn lake(dir: &Path) -> Result<Lake> {
    Ok(Lake::open(&dir.join("lake").to_string_lossy(), &BTreeMap::new())?)
}

/// The columns of the register.
pub fn schema() -> SchemaRef {
    let mut fields = vec![
        Field::new(KEY, DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("born", DataType::Date32, true),
        Field::new("area_code", DataType::Utf8, true),
        Field::new("income", DataType::Int64, true),
    ];
    fields.extend(origin::fields(false).into_iter().map(|field| field.with_nullable(true)));
    Arc::new(Schema::new(fields))
}

/// The rows of some people, as records from an offset on.
pub fn rows(people: &[u64], start: i64) -> Result<RecordBatch> {
    const NAMES: [&str; 8] = ["สมชาย", "สมหญิง", "ประเสริฐ", "วิไล", "อนันต์", "กานดา", "ธีระ", "มาลี"];
    let text = |of: &dyn Fn(u64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(people.iter().map(|person| of(*person))))
    };
    let offsets = || (0_i64..).take(people.len()).map(|offset| start + offset);
    let places =
        |of: &dyn Fn(i64) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(offsets().map(of))) };
    let times = || -> ArrayRef {
        let times = offsets().map(|offset| 1_700_000_000_000_000 + offset * 1_000);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        text(&citizen_id),
        text(&|person| {
            let [first, last] = [person % 8, person / 8 % 8].map(|name| NAMES[name as usize]);
            format!("{first} {last}{}", person % 9_973)
        }),
        Arc::new(Date32Array::from_iter_values(people.iter().map(|person| (person % 30_000) as i32 - 15_000))),
        text(&|person| format!("{:06}", 100_000 + person % 7_400)),
        Arc::new(Int64Array::from_iter_values(
            people.iter().zip(offsets()).map(|(person, offset)| (person % 100_000) as i64 * 7 + offset % 1_000),
        )),
        places(&|offset| format!("people/0/{offset}")),
        places(&|_| "people".to_owned()),
        Arc::new(Int32Array::from_value(0, people.len())),
        Arc::new(Int64Array::from_iter_values(offsets())),
        places(&|offset| Position::new(offset.unsigned_abs() + 1).to_string()),
        times(),
        times(),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// Every number has one of its own; neighbours lie far apart, as those of people who register together
/// do not follow each other either.
pub fn citizen_id(person: u64) -> String {
    // Odd and no multiple of 5, so that it has no factor in common with the count of all IDs.
    const STRIDE: u128 = 6_180_339_887_499;
    format!("{:013}", u128::from(person) * STRIDE % 10_000_000_000_000)
}
