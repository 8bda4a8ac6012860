//! Questions that take long: asked by one request, looked after by others.
//!
//! What passes through: a question, into a file of Arrow batches on this machine's disk, and from there into
//! answers. Guaranteed: a job is there for who began it, and for no one else; nobody has more than a number of
//! them, and none writes more than a number of bytes. One that nobody looks after is ended. They do not outlive
//! the process.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, SpillFile};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use ruam_door::Problem;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::caller::Caller;
use crate::error::QueryError;
use crate::kept::{Kept, handle};
use crate::session::Session;
use crate::statement::Question;

/// So many jobs there are at once, and so many of them are of one caller.
const MAX_JOBS: usize = 256;
const MAX_OF_ONE: usize = 16;
/// How long a job stays that nobody looks after.
const UNUSED: Duration = Duration::from_secs(3600);
/// The most bytes of a result, as they lie in memory.
const MAX_BYTES: u64 = 4 << 30;
/// So many batches are on their way to or from disk.
const IN_FLIGHT: usize = 2;

/// All jobs.
pub(super) struct Jobs(Kept<Arc<Job>>);

/// A job.
pub(super) struct Job {
    owner: Caller,
    progress: Arc<Progress>,
    begun: DateTime<Utc>,
    /// Ends the work when nobody knows the job any longer.
    _end: DropGuard,
}

/// How far a job is.
#[derive(Default)]
struct Progress {
    rows: AtomicU64,
    bytes: AtomicU64,
    ended: Mutex<Option<Ended>>,
}

/// How a job has ended.
#[derive(Clone)]
struct Ended {
    at: DateTime<Utc>,
    result: Result<Arc<dyn SpillFile>, Problem>,
}

impl Jobs {
    pub(super) fn new() -> Self {
        Self(Kept::new(MAX_JOBS, UNUSED))
    }

    /// Whether there is room for one more.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn may_begin(&self, caller: &Caller) -> Result<(), Problem> {
        let jobs = self.0.values();
        let own = jobs.iter().filter(|job| job.is_of(caller)).count();
        if own >= MAX_OF_ONE || jobs.len() >= MAX_JOBS {
            let told = format!("you have {own} jobs, and all have {}. Delete some, or try again later", jobs.len());
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, told));
        }
        Ok(())
    }

    /// Begins to answer a question.
    ///
    /// # Errors
    /// Where there is no place for its result.
    pub(super) fn begin(
        &self,
        owner: Caller,
        question: Question,
        session: &Session,
    ) -> Result<(String, Arc<Job>), Problem> {
        let file = session.context.runtime_env().disk_manager.create_tmp_file("the result of a job");
        let file = file.map_err(QueryError::from)?;
        let (progress, ended) = (Arc::new(Progress::default()), CancellationToken::new());
        let job = Job { owner, progress: progress.clone(), begun: Utc::now(), _end: ended.clone().drop_guard() };
        tokio::spawn(async move {
            let result = tokio::select! {
                written = write(question, &file, progress.clone()) => written.map(|()| file.clone()),
                () = ended.cancelled() => return,
            };
            let ended = Ended { at: Utc::now(), result: result.map_err(Problem::from) };
            *progress.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        });
        let id = handle();
        Ok((id.clone(), self.0.keep(id, Arc::new(job))))
    }

    /// A job of somebody.
    ///
    /// # Errors
    /// Where there is none, or it is somebody else's.
    pub(super) fn get(&self, id: &str, caller: &Caller) -> Result<Arc<Job>, Problem> {
        self.0.get(id).filter(|job| job.is_of(caller)).ok_or_else(|| {
            Problem::new(StatusCode::NOT_FOUND, "there is no such job of yours. Begin one: POST /v1/jobs")
        })
    }

    /// Ends a job of somebody, and forgets its result.
    ///
    /// # Errors
    /// Where there is none, or it is somebody else's.
    pub(super) fn end(&self, id: &str, caller: &Caller) -> Result<(), Problem> {
        self.get(id, caller)?;
        self.0.remove(id);
        Ok(())
    }
}

impl Job {
    /// What two of one name see is the same where they have the same roles.
    fn is_of(&self, caller: &Caller) -> bool {
        self.owner.name() == caller.name() && self.owner.roles() == caller.roles()
    }

    fn ended(&self) -> Option<Ended> {
        self.progress.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The job, as it is at this moment.
    pub(super) fn told(&self, id: &str) -> Value {
        let mut told = json!({
            "id": id,
            "state": "running",
            "rows": self.progress.rows.load(Ordering::Relaxed),
            "bytes": self.progress.bytes.load(Ordering::Relaxed),
            "begun_at": self.begun,
        });
        if let Some(ended) = self.ended() {
            told["ended_at"] = json!(ended.at);
            match &ended.result {
                Ok(_) => {
                    told["state"] = json!("done");
                    told["result"] = json!(format!("/v1/jobs/{id}/result"));
                }
                Err(problem) => {
                    told["state"] = json!("failed");
                    told["problem"] = problem.told();
                }
            }
        }
        told
    }

    /// The result.
    ///
    /// # Errors
    /// Where there is none yet, or there never will be one.
    pub(super) fn result(&self) -> Result<SendableRecordBatchStream, Problem> {
        let running = || Problem::new(StatusCode::CONFLICT, "the job is still running. Ask again when it is done");
        let file = self.ended().ok_or_else(running)?.result?;
        read(file).map_err(Problem::from)
    }
}

/// Writes an answer to disk.
async fn write(question: Question, file: &Arc<dyn SpillFile>, progress: Arc<Progress>) -> Result<(), QueryError> {
    let schema = question.schema();
    let mut results = question.answer()?;
    // It counts what is written against the disk that the engine may use.
    let file = file.open_writer()?;
    let (send, mut receive) = mpsc::channel::<RecordBatch>(IN_FLIGHT);
    let writing = tokio::task::spawn_blocking(move || {
        let mut writer = StreamWriter::try_new(BufWriter::new(file), &schema)?;
        while let Some(batch) = receive.blocking_recv() {
            writer.write(&batch)?;
        }
        let file = writer.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error);
        file.map_err(DataFusionError::IoError)?.finish()
    });
    while let Some(batch) = results.next().await {
        let batch = batch?;
        progress.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        let size = batch.get_array_memory_size() as u64;
        let bytes = progress.bytes.fetch_add(size, Ordering::Relaxed) + size;
        if bytes > MAX_BYTES {
            let told = format!("the result has more than {MAX_BYTES} bytes. Ask for less, or stream it: POST /v1/sql");
            return Err(DataFusionError::ResourcesExhausted(told).into());
        }
        // Where it is not taken, writing has failed, which is told below.
        if send.send(batch).await.is_err() {
            break;
        }
    }
    drop(send);
    let written = writing.await.map_err(|error| DataFusionError::Execution(error.to_string()))?;
    Ok(written?)
}

/// Reads an answer from disk, as fast as it is taken.
fn read(file: Arc<dyn SpillFile>) -> Result<SendableRecordBatchStream, QueryError> {
    let path = file.path().ok_or_else(|| DataFusionError::Execution("the result is not on this machine".to_owned()))?;
    let opened = File::open(path).map_err(DataFusionError::IoError)?;
    let reader = StreamReader::try_new(BufReader::new(opened), None).map_err(DataFusionError::from)?;
    let schema = reader.schema();
    let (send, receive) = mpsc::channel(IN_FLIGHT);
    tokio::task::spawn_blocking(move || {
        for batch in reader {
            // Nobody wants the rest.
            if send.blocking_send(batch.map_err(DataFusionError::from)).is_err() {
                break;
            }
        }
        drop(file);
    });
    let batches = futures::stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
}
