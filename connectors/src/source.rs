//! What every source can do.

use ruam_event::{ChangeEvent, Classify, Fault, Position};

/// A source of change events. Its calls may block, and are made from a thread of their own.
pub trait Source: Send {
    /// Begins with what follows a position; everything up to it is in the log. None: from the
    /// beginning.
    ///
    /// # Errors
    /// Where the source cannot be reached, or does not know the position any more.
    fn open(&mut self, after: Option<Position>) -> Result<(), SourceError>;

    /// The next events, in the order of their positions; at most `limit`.
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
}

/// What a source has to give.
#[derive(Clone, Debug, PartialEq)]
pub enum Feed {
    /// Events; at least one.
    Events(Vec<ChangeEvent>),
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
}

impl Classify for SourceError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreadable { .. } => Fault::Operator,
        }
    }
}
