//! What became of records that were handed to the producer.
//!
//! What passes through: librdkafka's reports, which a thread of its own hears as soon as there are any. It sleeps
//! until librdkafka wakes it: rdkafka's own `poll` waits its whole time out, the last millisecond of it awake, and
//! librdkafka's `flush` keeps a thread of its own awake for as long as something is on its way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};
use ruam_event::DatasetId;

use crate::error::LogError;
use crate::native::Events;
use crate::topics::{Log, log_line};

/// How long the thread sleeps at most, should it not be woken.
const SLEEP: Duration = Duration::from_secs(1);

/// Hears what became of each record.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    failure: Mutex<Option<KafkaError>>,
    /// Tells who waits that something has been heard.
    heard: Condvar,
    waiting: Mutex<()>,
}

impl Deliveries {
    fn tell(&self) {
        let _waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.heard.notify_all();
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AllBrokersDown)) {
            tracing::warn!("no broker can be reached; publishing goes on when one can");
        } else {
            tracing::debug!(%error, reason, "librdkafka");
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Outstanding>;

    fn delivery(&self, result: &DeliveryResult<'_>, outstanding: Arc<Outstanding>) {
        if let Err((error, _)) = result {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| error.clone());
            // Never let go of: its receipt would say that it is stored.
            std::mem::forget(outstanding);
        }
    }
}

/// What each record on its way holds, until it is acknowledged: who else holds it, waits for them. Counting holders
/// is one step for each record, where a counter of its own would be a second one, of a number that two threads want.
#[derive(Debug, Default)]
pub(crate) struct Outstanding;

/// Tells whether the records are in the log that were published before it was asked for, and after the one before was.
#[derive(Debug)]
pub struct Receipt(pub(crate) Arc<Outstanding>);

impl Receipt {
    /// Whether they are, all of them. A record that was refused never is.
    pub fn is_stored(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// A producer whose reports are heard.
pub(crate) struct HeardProducer {
    producer: Arc<BaseProducer<Deliveries>>,
    stop: Arc<AtomicBool>,
    hearing: Option<JoinHandle<()>>,
}

impl HeardProducer {
    /// # Errors
    /// Where the settings are not the client's, or there can be no more threads.
    pub(crate) fn new(log: &Log, config: &ClientConfig, dataset: &DatasetId) -> Result<Self, LogError> {
        let producer: Arc<BaseProducer<Deliveries>> = Arc::new(log.create(config, Deliveries::default())?);
        let stop = Arc::new(AtomicBool::new(false));
        let hear = {
            let (producer, stop) = (producer.clone(), stop.clone());
            move || {
                let events = Events::waking(producer.client(), thread::current());
                while !stop.load(Ordering::Acquire) {
                    while events.are_there() {
                        producer.poll(Duration::ZERO);
                    }
                    producer.context().tell();
                    thread::park_timeout(SLEEP);
                }
            }
        };
        let hearing = thread::Builder::new().name(format!("hear {dataset}")).spawn(hear);
        let hearing = hearing.map_err(|source| LogError::Thread { dataset: dataset.clone(), source })?;
        Ok(Self { producer, stop, hearing: Some(hearing) })
    }

    /// Waits until what became of every record has been heard, but no longer than a time; whether it has.
    pub(crate) fn settle(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let Deliveries { heard, waiting, .. } = &**self.producer.context();
        let mut guard = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while self.producer.in_flight_count() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guard = heard.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Waits until something is heard, but no longer than a time.
    pub(crate) fn hear(&self, time: Duration) {
        let Deliveries { heard, waiting, .. } = &**self.producer.context();
        let guard = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        drop(heard.wait_timeout(guard, time));
    }

    /// What went wrong, if anything did; nothing more is sent then.
    pub(crate) fn failure(&self) -> Option<KafkaError> {
        let failure = self.producer.context().failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure.or_else(|| self.producer.client().fatal_error().map(|(code, _)| KafkaError::MessageProduction(code)))
    }
}

impl std::ops::Deref for HeardProducer {
    type Target = BaseProducer<Deliveries>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

impl Drop for HeardProducer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(hearing) = self.hearing.take() {
            hearing.thread().unpark();
            // It only hears; a panic of its own has been told already.
            let _ = hearing.join();
        }
    }
}
