//! SQL over the whole lake, for people, programs and publications.
//!
//! What passes through: a statement, by the [`Engine`], over the tables as they are at that moment;
//! out as a stream of Arrow batches, over PostgreSQL's protocol ([`pg`]) and Arrow's ([`flight`]), by HTTP ([`http`]), as text or file
//! ([`format`]), or as a published [`extract`].
//!
//! Guaranteed: nothing here writes to the lake; statements that could are refused. Memory is
//! bounded, and what does not fit goes to disk, of which no more is taken than a setting allows.

mod answer;
pub mod audit;
mod bloom_filters;
pub mod caller;
mod catalog;
mod describe_table;
mod dialect;
pub mod engine;
mod error;
pub mod extract;
mod file_statistics;
#[cfg(test)]
mod fixture;
pub mod flight;
pub mod format;
mod functions;
mod guard;
mod history;
pub mod http;
mod kept;
mod like_escape;
mod live_rows;
mod memory;
pub mod pg;
mod planner;
pub mod policy;
mod reading;
mod reads;
mod result_cache;
mod scan;
mod scope;
pub mod session;
mod settings;
mod shorthand;
pub mod sign_in;
mod spill;
mod statement;
mod table_changes;
mod tables;
mod time_travel;
mod versions;

pub use audit::{AuditError, AuditLog};
pub use caller::Caller;
pub use engine::{Engine, EngineSettings, Pinned, QueryDataset};
pub use error::QueryError;
pub use policy::{Policies, PseudonymKey};
pub use result_cache::CacheFigures;
pub use session::Session;
pub use sign_in::{Refused, SignIn, SignedIn};
pub use spill::SpillSettings;
pub use statement::{Question, Statement};
