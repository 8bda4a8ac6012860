//! What goes wrong in a flow, and how often it is tried again.

use std::time::{Duration, Instant};

use ruam_connectors::SourceError;
use ruam_event::{Classify, Fault, SpecError};
use ruam_lake::LakeError;
use ruam_log::LogError;
use ruam_transform::TransformError;
use tokio_util::sync::CancellationToken;

use crate::meter::Meter;

/// The shortest and the longest wait before a flow is tried again.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(15);
/// How long a flow waits for a person to act before it looks again.
const FOR_A_PERSON: Duration = Duration::from_secs(30);
/// A flow that has run so long has recovered.
const RECOVERED: Duration = Duration::from_secs(20);

/// An error that ends a flow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowError {
    /// Of the log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Of the lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Of a dataset's file against its table.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What does not fit.
        source: LakeError,
    },
    /// Of a source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Of a dataset's file.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Of a batch: not of a record, which would be a reject.
    #[error(transparent)]
    Batch(#[from] TransformError),
    /// A thread could not be started, or ended by a bug.
    #[error("the {0} thread ended: please report this with the log")]
    Thread(&'static str),
}

impl Classify for FlowError {
    fn fault(&self) -> Fault {
        match self {
            Self::Log(error) => error.fault(),
            Self::Lake(source) | Self::File { source, .. } => source.fault(),
            Self::Source(error) => error.fault(),
            Self::Spec(_) | Self::Batch(_) => Fault::Operator,
            Self::Thread(_) => Fault::Transient,
        }
    }
}

/// What to do when a person has to act.
#[derive(Clone, Debug)]
pub(crate) enum Patience {
    /// Say so, and look again now and then: the person may act while this runs.
    Wait,
    /// Stop everything.
    GiveUp(CancellationToken),
}

/// Runs a flow until it ends by itself or is stopped; tries again after an error, later each time.
/// The meter says what is the trouble as long as there is any.
pub(crate) fn supervise(
    part: &'static str,
    meter: &Meter,
    stop: &CancellationToken,
    patience: &Patience,
    mut run: impl FnMut() -> Result<(), FlowError>,
) {
    let mut wait = SHORTEST;
    loop {
        let since = Instant::now();
        let error = match run() {
            Ok(()) => {
                meter.set_trouble(part, None);
                return;
            }
            Err(_) if stop.is_cancelled() => return,
            Err(error) => error,
        };
        if since.elapsed() > RECOVERED {
            wait = SHORTEST;
        }
        let dataset = meter.id();
        let pause = match (error.fault(), patience) {
            (Fault::Operator, Patience::GiveUp(all)) => {
                meter.set_trouble(part, Some(error.to_string()));
                all.cancel();
                return;
            }
            (Fault::Operator, Patience::Wait) => {
                tracing::error!(%dataset, part, "{error}");
                FOR_A_PERSON
            }
            (Fault::Transient | Fault::Record, _) => {
                if matches!(error, FlowError::Lake(LakeError::Superseded { .. })) {
                    tracing::debug!(%dataset, part, "{error}");
                } else {
                    tracing::warn!(%dataset, part, "{error} (trying again)");
                }
                let pause = wait;
                wait = (wait * 2).min(LONGEST);
                pause
            }
        };
        meter.set_trouble(part, Some(error.to_string()));
        if rest(stop, pause) {
            return;
        }
    }
}

/// Waits for a while, or until it is stopped; says which.
pub(crate) fn rest(stop: &CancellationToken, time: Duration) -> bool {
    let until = Instant::now() + time;
    while !stop.is_cancelled() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    true
}
