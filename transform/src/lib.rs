//! Change events to normalised Arrow batches.
//!
//! What passes through: the raw [`Records`](ruam_event::Records) of one partition, into columns of
//! text by the [`Decoder`](decoder), and from there column by column through the semantic
//! [`types`] into a [`Normalised`] batch: rows as the table wants them, each with its origin, and
//! rejects, each with its reason.
//!
//! Guaranteed: every record comes out as exactly one of row, reject or filtered. The outcome
//! depends on the record, its schema and the dataset's declaration alone, so that reading a record
//! again gives the same again. Nothing here does I/O or reads a clock, and no reason repeats a value.

pub mod decoder;
mod json_schema;
pub mod normaliser;
pub mod origin;
pub mod reject;
pub mod types;

pub use json_schema::json_schema;
pub use normaliser::{Normalised, Transform, TransformError};
pub use reject::Reason;
pub use types::SemanticType;
