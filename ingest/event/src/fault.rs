//! What to do about an error: the one decision that every error leads to.

/// What an error asks of whoever meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It may pass by itself: try again, a little later each time.
    Transient,
    /// A person has to act first: stop, and say what to do. Nothing is lost by stopping.
    Operator,
    /// One record is at fault: keep it as a reject and go on.
    Record,
}

/// An error that knows what it asks for.
pub trait Classify: std::error::Error {
    /// What to do about it.
    fn fault(&self) -> Fault;
}
