//! The lake: Delta tables on a file system or an object store, and the only code that writes them.
//!
//! What passes through: normalised [`Batch`]es of one dataset, by a [`DatasetWriter`], into its
//! tables: rows, rejects, and changes where it keeps history.
//!
//! Guaranteed: each record of a topic takes effect exactly once, however often writers crash, race or
//! lose an answer; [`writer`] says how. Any Delta reader reads the result.

mod as_of;
mod changes;
mod checkpoint_cache;
mod choice;
mod cluster;
mod compact;
mod durable;
mod error;
mod feed;
mod fold;
mod index;
mod keys;
mod location;
mod log;
mod maintain;
mod places;
mod progress;
mod reader;
mod resume;
mod search;
mod side;
mod table;
mod upsert;
mod vacuum;
mod vectors;
pub mod writer;

pub use as_of::AsOf;
pub use changes::changes_schema;
pub use compact::Compacted;
pub use error::LakeError;
pub use feed::{ChangedFile, RowChange, Version, changed_files, versions};
pub use index::{IndexSettings, Reading};
pub use location::{Lake, TableKind, TableName};
pub use log::Cleared;
pub use maintain::Maintained;
pub use progress::Progress;
pub use reader::{LiveFile, LiveFiles};
pub use table::key;
pub use vacuum::Vacuumed;
pub use writer::{Batch, Committed, Contract, DatasetWriter};
