//! The vocabulary that every other crate of Ruam speaks.
//!
//! What passes through here: a change that happened in an agency's system of record, as a
//! [`ChangeEvent`]; the declaration of the dataset that it belongs to, as a [`DatasetSpec`]; and
//! the place where either stands, as a [`Position`] in its source or an offset in a [`Partition`].
//!
//! Guaranteed: this crate is pure. It opens no file, no socket and no clock, and it knows neither
//! Kafka nor Arrow, so that everything in it can be tested by calling it.

pub mod change;
pub mod dataset;
pub mod envelope;
pub mod fault;
pub mod position;
pub mod record;
pub mod secret;
pub mod spec;
pub mod spec_file;

pub use change::{Change, ChangeEvent, Columns, Occurrence, OldRow, Row, Value};
pub use dataset::{DatasetId, InvalidDatasetId};
pub use fault::{Classify, Fault};
pub use position::{OffsetRange, Partition, Position, Topic, TopicId};
pub use record::Records;
pub use secret::Secret;
pub use spec::{ColumnSpec, DatasetSpec, Mode};
pub use spec_file::{SpecError, SpecFile};
