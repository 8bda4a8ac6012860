//! What every source can do.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use ruam_event::{ChangeEvent, Classify, Fault, Position};

/// A source of change events. Its calls may block, and are made from a thread of their own.
pub trait Source: Send {
    /// Begins with what follows a position; everything up to it is in the log. None: from the
    /// beginning.
    ///
    /// # Errors
    /// Where the source cannot be reached, or does not know the position any more.
    fn open(&mut self, after: Option<Position>) -> Result<(), SourceError>;

    /// The next events, in the order of their positions; at most `limit`. Waits a moment where there are none.
    ///
    /// # Errors
    /// Where the source cannot be read.
    fn next(&mut self, limit: usize) -> Result<Feed, SourceError>;

    /// Tells the source that everything up to a position is in the log, so that it need not keep it.
    ///
    /// # Errors
    /// Where the source cannot be told.
    fn release(&mut self, _through: Position) -> Result<(), SourceError> {
        Ok(())
    }

    /// What is kept for this source elsewhere until it is released, for people; none where nothing is. It need not
    /// be opened, and may be read by another process meanwhile.
    ///
    /// # Errors
    /// Where it cannot be asked.
    fn retained(&self) -> Result<Option<String>, SourceError> {
        Ok(None)
    }
}

/// What a source has to give.
#[derive(Clone, Debug, PartialEq)]
pub enum Feed {
    /// Events; at least one.
    Events(Vec<ChangeEvent>),
    /// Nothing for now: ask again.
    Idle,
    /// Nothing more will come.
    Ended,
}

/// What can go wrong with a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// What the source reads is not what it should be.
    #[error("{what} cannot be read: {problem}")]
    Unreadable {
        /// What is read.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The source does not answer, or broke off.
    #[error("{what}: {problem}")]
    Unreachable {
        /// Which source.
        what: String,
        /// What it said last.
        problem: String,
    },
    /// The source is not set up for being read, or what it has is not what is to be read.
    #[error("{what}: {problem}. {remedy}")]
    Refused {
        /// Which source.
        what: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// What a source has to remember cannot be kept.
    #[error("cannot keep what the source has to remember in {path}: {source}. {}", room(.source))]
    State {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What to do where something cannot be kept.
fn room(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "Make room on its disk: nothing is lost until then",
        _ => "See that this user can read and write it: nothing is lost until then",
    }
}

impl Classify for SourceError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreadable { .. } | Self::Refused { .. } => Fault::Operator,
            // A full disk is emptied while this waits.
            Self::Unreachable { .. } | Self::State { .. } => Fault::Transient,
        }
    }
}
