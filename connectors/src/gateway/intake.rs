//! Where the gateway's events go: what is asked of whoever stores them.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ruam_event::DatasetId;
use ruam_event::envelope::WrittenChange;

/// An event as an agency has sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct SentEvent {
    /// Who or what made it: CloudEvents' `source`.
    pub source: Arc<str>,
    /// Its name there: CloudEvents' `id`. The two together tell it from every other event of its dataset.
    pub id: Arc<str>,
    /// When it happened, in microseconds since 1970-01-01 UTC, if the agency says.
    pub time: Option<i64>,
    /// What happened.
    pub change: WrittenChange,
    /// Its number among the events of its source, if these are numbered.
    pub sequence: Option<u64>,
    /// The agency's signature with what it has signed, if it has: a compact JWS, which has been verified.
    pub signature: Option<String>,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored.
    Accepted,
    /// It was stored already.
    Duplicate,
    /// It cannot be stored, and why. It will not be by sending it again as it is.
    Rejected(String),
}

/// Stores events.
#[async_trait]
pub trait Intake: Debug + Send + Sync {
    /// Stores events of a dataset, in their order, and says what became of each, in that order as well. It
    /// resolves when all that is accepted is stored for good, and what is a duplicate is, too.
    ///
    /// # Errors
    /// Where that cannot be done at present. Any of the events may have been stored then; sent again, that is told.
    async fn take(&self, dataset: &DatasetId, events: Vec<SentEvent>) -> Result<Vec<Outcome>, Unavailable>;
}

/// Events cannot be stored at present.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}. Send the same events again, with the same ids, in {} s", .wait.as_secs().max(1))]
pub struct Unavailable {
    /// What is the matter.
    pub what: &'static str,
    /// When it may be worth another try.
    pub wait: Duration,
}
