//! A topic into its tables: subscriber, transform and writer, wired as three stages that work at the
//! same time.
//!
//! ```text
//! reader thread      records out of librdkafka, a run of one partition at a time
//!     | at most one run waits in each lane
//! transform threads  records to rows and rejects, in as many lanes as there are cores
//!     | at most one batch waits in each lane
//! writer thread      rows to Parquet, and a commit every so often
//! ```
//!
//! Decoding is most of the work, so it has lanes: the reader deals runs to them in turn and the
//! writer takes from them in the same turn, so that the order of the log is kept with no numbering
//! and no sorting. Nothing else waits anywhere, so that memory does not grow with the backlog. When
//! partitions come or go, what is not committed is dropped and read again from where the tables are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ruam_event::envelope::avro::AvroSchemas;
use ruam_event::spec::TopicEncoding;
use ruam_event::{Classify, Partition, Records, Topic};
use ruam_lake::{Batch, Contract, DatasetWriter, IndexSettings, Lake, LakeError, TableKind, TableName};
use ruam_log::subscriber::{Assignment, Bounds};
use ruam_log::{Delivery, Log, LogError, SchemaRegistry, Subscriber, TopicLayout};
use ruam_transform::{Normalised, TransformError};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::config::WorkerSection;
use crate::fault::{FlowError, rest};
use crate::meter::{Arrivals, Meter, now_ms};
use crate::specs::Dataset;

/// The most records and bytes of a run: so many that a batch's own cost is small, and so few that
/// what the lanes hold stays small, too.
const RUN_RECORDS: usize = 16 * 1024;
const RUN_BYTES: usize = 8 << 20;
/// The most threads that one dataset's records are transformed by.
const MOST_LANES: usize = 4;
/// How long a run waits for more records. Commits wait longer, so this only has to be long enough
/// for a run to be worth its overhead.
const LINGER: Duration = Duration::from_millis(50);
/// A worker whose newest records are older than this, in milliseconds, is behind: others than those of
/// a backlog are in a commit before they are as old.
const BEHIND_MS: i64 = 2_000;
/// How often stages look whether they are to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Works on one dataset.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) dataset: Dataset,
    pub(crate) log: Log,
    pub(crate) lake: Lake,
    /// What has the schemas of records in Avro.
    pub(crate) registry: Option<Arc<SchemaRegistry>>,
    /// The installation's name, by which the broker knows its readers again.
    pub(crate) installation: String,
    pub(crate) settings: WorkerSection,
    /// The folder that indexes of tables are kept in.
    pub(crate) indexes: PathBuf,
    pub(crate) meter: Arc<Meter>,
    pub(crate) stop: CancellationToken,
    pub(crate) runtime: Handle,
}

/// What the transform hands to the writer.
enum Step {
    Assigned(Assignment),
    Batch(Box<Batch>, Arrivals),
}

impl Worker {
    /// Works until it is stopped; what waits is committed then.
    ///
    /// # Errors
    /// Where the flow cannot go on; it may be run again.
    pub(crate) fn run(&self) -> Result<(), FlowError> {
        if self.registry.is_none() && self.dataset.spec.topic_encoding() == TopicEncoding::Avro {
            return Err(self.dataset.spec.without_registry().into());
        }
        let Some(layout) = self.find_topic()? else { return Ok(()) };
        let lake = self.runtime.block_on(self.lake.identity())?.simple().to_string();
        let index = IndexSettings { folder: self.indexes.join(&lake), memory: self.settings.index_mb << 20 };
        let writer = self.runtime.block_on(DatasetWriter::open(&self.lake, contract(&self.dataset), Some(&index)));
        let writer = writer.map_err(|source| match source {
            LakeError::Incompatible { .. } => FlowError::File { path: self.dataset.spec.path().to_owned(), source },
            source => source.into(),
        })?;
        let retention = self.settings.retention();
        let writer = if retention.is_zero() { writer } else { writer.with_upkeep(retention) };
        let topic = layout.topic.clone();
        let subscriber = self.subscribe(layout, &lake)?;
        self.meter.set_trouble("worker", None);
        let done = AtomicBool::new(false);
        let committed = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let (mut to_lanes, mut from_lanes, mut lanes) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_LANES)) {
                let (to_transform, from_reader) = sync_channel(1);
                let (to_writer, from_transform) = sync_channel(1);
                lanes.push(scope.spawn(move || self.transform(&from_reader, &to_writer)));
                to_lanes.push(to_transform);
                from_lanes.push(from_transform);
            }
            let (done, committed) = (&done, &committed);
            let reader = scope.spawn(move || self.read(subscriber, &to_lanes, done, committed));
            let written = self.write(writer, from_lanes, &topic, committed);
            done.store(true, Ordering::Release);
            let read = reader.join().unwrap_or(Err(FlowError::Thread("reader")));
            let transformed = lanes.into_iter().map(|lane| lane.join().unwrap_or(Err(FlowError::Thread("transform"))));
            // When a stage fails, those after it see no more than its end.
            read.and(transformed.fold(Ok(()), Result::and)).and(written)
        })
    }

    /// The dataset's topic: that of a connector is made, that of somebody else is waited for.
    fn find_topic(&self) -> Result<Option<TopicLayout>, FlowError> {
        let spec = &self.dataset.spec;
        if spec.source.is_some() {
            return Ok(Some(self.runtime.block_on(self.log.ensure_topic(&spec.topic(), spec.partitions()))?));
        }
        loop {
            if let Some(layout) = self.runtime.block_on(self.log.topic(&spec.topic()))? {
                return Ok(Some(layout));
            }
            self.meter.set_trouble(
                "worker",
                Some(format!("topic `{}` does not exist yet; waiting for whoever fills it", spec.topic())),
            );
            if rest(&self.stop, Duration::from_secs(5)) {
                return Ok(None);
            }
        }
    }

    fn subscribe(&self, layout: TopicLayout, lake_id: &str) -> Result<Subscriber, FlowError> {
        let id = self.dataset.spec.id().clone();
        let (lake, runtime, name) = (self.lake.clone(), self.runtime.clone(), TableName::new(&id, TableKind::Rows));
        let starts = move |partitions: &[Partition]| {
            let progress = runtime.block_on(lake.progress(&name, None, partitions)).map_err(|error| {
                let fault = error.fault();
                LogError::Start { dataset: name.dataset.clone(), source: Box::new(error), fault }
            })?;
            Ok(progress.into_iter().map(|progress| progress.map(|progress| progress.next)).collect())
        };
        let prefetch_kbytes = self.settings.prefetch_mb.max(1) * 1024;
        let bounds = Bounds { records: RUN_RECORDS, bytes: RUN_BYTES, linger: LINGER, prefetch_kbytes };
        let are_signed = self.dataset.spec.signatures().is_some();
        let subscriber =
            Subscriber::open(&self.log, &id, layout, lake_id, &self.installation, bounds, Box::new(starts))?;
        Ok(subscriber.signed(are_signed))
    }

    fn read(
        &self,
        mut subscriber: Subscriber,
        lanes: &[SyncSender<Delivery>],
        done: &AtomicBool,
        committed: &Mutex<Vec<(i32, i64)>>,
    ) -> Result<(), FlowError> {
        let mut turns = lanes.iter().cycle();
        while !self.stop.is_cancelled() && !done.load(Ordering::Acquire) {
            let offsets = std::mem::take(&mut *committed.lock().unwrap_or_else(PoisonError::into_inner));
            if !offsets.is_empty() {
                subscriber.show_progress(&offsets);
            }
            let Some(delivery) = subscriber.next(LOOK)? else { continue };
            if turns.next().is_none_or(|lane| lane.send(delivery).is_err()) {
                break;
            }
        }
        Ok(())
    }

    fn transform(&self, deliveries: &Receiver<Delivery>, out: &SyncSender<Step>) -> Result<(), FlowError> {
        let mut schemas = AvroSchemas::default();
        for delivery in deliveries {
            let step = match delivery {
                Delivery::Assigned(assignment) => Step::Assigned(assignment),
                Delivery::Records(records) => {
                    let normalised = self.normalise(&records, &mut schemas)?;
                    let arrivals = arrivals(&records);
                    let batch = Batch {
                        partition: records.partition.clone(),
                        range: records.range,
                        records: records.len() as u64,
                        rows: normalised.rows,
                        ops: normalised.ops,
                        unchanged: normalised.unchanged,
                        rejects: normalised.rejects,
                        filtered: normalised.filtered,
                        left: normalised.left,
                    };
                    Step::Batch(Box::new(batch), arrivals)
                }
            };
            if out.send(step).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Transforms a run of records, once the registry has been asked for the schemas that they name and that are not
    /// known. A registry that does not answer ends the flow, and is no record's fault.
    fn normalise(&self, records: &Records, schemas: &mut AvroSchemas) -> Result<Normalised, FlowError> {
        schemas.trim();
        loop {
            let (ids, registry) = match (self.dataset.transform.apply(records, schemas), &self.registry) {
                (Err(TransformError::Unasked(ids)), Some(registry)) => (ids, registry),
                (normalised, _) => return Ok(normalised?),
            };
            for id in ids {
                let registered = self.runtime.block_on(self.stop.run_until_cancelled(registry.schema(id)));
                schemas.learn(id, registered.unwrap_or(Err(LogError::Stopped))?);
            }
        }
    }

    fn write(
        &self,
        mut writer: DatasetWriter,
        lanes: Vec<Receiver<Step>>,
        topic: &Arc<Topic>,
        committed: &Mutex<Vec<(i32, i64)>>,
    ) -> Result<(), FlowError> {
        let interval = Duration::from_millis(self.settings.commit_interval_ms);
        let mut waiting = Waiting::default();
        let (mut turn, mut is_behind) = (0, false);
        loop {
            let patience =
                waiting.since.map_or(LOOK, |since| (since + interval).saturating_duration_since(Instant::now()));
            let step = lanes[turn].recv_timeout(patience);
            if step.is_ok() {
                turn = (turn + 1) % lanes.len();
            }
            match step {
                Ok(Step::Assigned(assignment)) => {
                    waiting = Waiting::default();
                    self.runtime.block_on(writer.assign(&assignment))?;
                    self.prepare(&mut writer)?;
                    self.meter.assigned(assignment.iter().map(|(partition, start)| (partition.index, *start)));
                }
                Ok(Step::Batch(batch, arrivals)) => {
                    let newest = arrivals.last().map_or(i64::MAX, |(at, _)| *at);
                    is_behind = newest < now_ms().saturating_sub(BEHIND_MS);
                    waiting.add(batch.records, arrivals);
                    self.runtime.block_on(writer.write(*batch))?;
                }
                // Where nothing waits, either, there is no more to read for now.
                Err(RecvTimeoutError::Timeout) => is_behind &= waiting.since.is_some(),
                Err(RecvTimeoutError::Disconnected) => {
                    // Stopped, or an earlier stage failed: what has come this far is whole. What other
                    // lanes still hold comes after what this one lost, and is read again.
                    return self.commit(&mut writer, &mut waiting, topic, committed);
                }
            }
            let is_full = writer.waiting_records() >= self.settings.commit_records
                || writer.waiting_bytes() >= self.settings.commit_mb << 20;
            let is_due = waiting.since.is_some_and(|since| since.elapsed() >= interval);
            if is_full || is_due {
                self.commit(&mut writer, &mut waiting, topic, committed)?;
            }
            self.runtime.block_on(writer.tend(is_behind))?;
        }
    }

    /// Has the writer know where the table's rows are; says how far that is where it takes long.
    fn prepare(&self, writer: &mut DatasetWriter) -> Result<(), FlowError> {
        let (begun, mut shown) = (Instant::now(), Instant::now());
        let mut reading = |read: u64, rows: u64| {
            if shown.elapsed() >= LOOK {
                shown = Instant::now();
                let percent = read * 100 / rows.max(1);
                let doing =
                    format!("reading the keys of {rows} rows into its index, {percent} % done; this is needed once");
                self.meter.set_trouble("worker", Some(doing));
            }
        };
        self.runtime.block_on(writer.prepare(&mut reading))?;
        if shown > begun {
            self.meter.set_trouble("worker", None);
            tracing::info!(dataset = %self.dataset.spec.id(), seconds = begun.elapsed().as_secs(), "read the table's keys into its index");
        }
        Ok(())
    }

    fn commit(
        &self,
        writer: &mut DatasetWriter,
        waiting: &mut Waiting,
        topic: &Arc<Topic>,
        committed: &Mutex<Vec<(i32, i64)>>,
    ) -> Result<(), FlowError> {
        if waiting.since.is_none() {
            return Ok(());
        }
        // Records of a topic that has been created anew in the meantime must not pass for the old
        // one's. Whatever was read before this look is of the topic that it finds.
        self.runtime.block_on(self.log.check_identity(self.dataset.spec.id(), topic))?;
        let Waiting { records, arrivals, .. } = std::mem::take(waiting);
        if let Some(result) = self.runtime.block_on(writer.commit())? {
            let arrivals = arrivals.into_iter().collect();
            self.meter.committed(records, &result, &arrivals);
            let offsets = result.offsets.iter().map(|(partition, offset)| (partition.index, *offset));
            committed.lock().unwrap_or_else(PoisonError::into_inner).extend(offsets);
        }
        Ok(())
    }
}

/// What waits for the next commit.
#[derive(Default)]
struct Waiting {
    since: Option<Instant>,
    records: u64,
    arrivals: BTreeMap<i64, u64>,
}

impl Waiting {
    fn add(&mut self, records: u64, arrivals: Arrivals) {
        self.since.get_or_insert_with(Instant::now);
        self.records += records;
        for (at, count) in arrivals {
            *self.arrivals.entry(at).or_default() += count;
        }
    }
}

/// When the records of a run reached the log; those of one millisecond together.
fn arrivals(records: &Records) -> Arrivals {
    let mut arrivals: Arrivals = Vec::new();
    for arrived in &records.arrived {
        match arrivals.last_mut() {
            Some((at, count)) if at == arrived => *count += 1,
            _ => arrivals.push((*arrived, 1)),
        }
    }
    arrivals
}

/// What a dataset's tables are to be.
pub(crate) fn contract(dataset: &Dataset) -> Contract {
    let spec = &dataset.spec;
    let generated = if spec.generated { "GENERATED DATA. " } else { "" };
    Contract {
        dataset: spec.id().clone(),
        description: format!("{generated}{} / {}", spec.title.en, spec.title.th),
        mode: spec.mode,
        key: spec.key(),
        cluster_by: spec.cluster_by(),
        history: spec.history,
        rows: dataset.transform.schema().clone(),
        rejects: ruam_transform::reject::SCHEMA.clone(),
        refuse: Arc::new(ruam_transform::reject::unresolved),
    }
}
