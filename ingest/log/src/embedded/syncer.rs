//! Makes appended batches safe on disk, many producers' at a time.
//!
//! One thread asks the disk to confirm; while it waits, further batches arrive, and the next
//! confirmation covers them all. So the cost of safety does not grow with the number of producers.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::partition::Partition;

/// How long a failing disk is left alone before the next attempt.
const RETRY: Duration = Duration::from_millis(500);

/// The thread that confirms.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
    /// Counts confirmations, for those who wait for records of any partition.
    confirmed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Work {
    waiting: Vec<Arc<Partition>>,
    stopped: bool,
}

impl Syncer {
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new().name("ruam-log-sync".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Tells of every confirmation.
    pub(super) fn confirmed(&self) -> watch::Receiver<u64> {
        self.shared.confirmed.subscribe()
    }

    /// Asks for a partition to be made safe; its `safe` offset tells when it is.
    pub(super) fn request(&self, partition: &Arc<Partition>) {
        let mut work = self.shared.lock();
        if !work.waiting.iter().any(|waiting| Arc::ptr_eq(waiting, partition)) {
            work.waiting.push(partition.clone());
            self.shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let mut work = self.lock();
            while work.waiting.is_empty() {
                if work.stopped {
                    return;
                }
                work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
            }
            let waiting = std::mem::take(&mut work.waiting);
            drop(work);
            for partition in waiting {
                let result = partition.sync();
                self.confirmed.send_modify(|count| *count += 1);
                if let Err(error) = result {
                    tracing::error!(%error, partition = %partition.dir().display(), "the disk does not confirm; producers wait");
                    let mut work = self.lock();
                    if work.stopped {
                        return;
                    }
                    work.waiting.push(partition);
                    let _ = self.changed.wait_timeout(work, RETRY).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
