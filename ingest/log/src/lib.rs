//! The log: where change events wait, in order, until every reader has read them.
//!
//! What passes through: [`ChangeEvent`](ruam_event::ChangeEvent)s from a connector, by a
//! [`Publisher`], into a topic; and runs of raw records out of it, by a [`Subscriber`]. The log is
//! Apache Kafka or anything that speaks its protocol; the [`embedded`] broker is one such thing,
//! and nothing here knows which it talks to.
//!
//! Guaranteed, from source to topic: an event is in its partition exactly once, and in the order of
//! the source among events of its key, however often publisher or broker crash ([`publisher`] says
//! how). One live [`Lease`] per source. From topic on, a reader says itself where it starts
//! ([`subscriber`]); the offsets that count are those in its tables.
//!
//! This is the only crate that knows Kafka.

mod deliveries;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod lease;
mod native;
mod partitioner;
pub mod publisher;
mod recent;
mod registry;
pub mod subscriber;
mod topics;

pub use deliveries::Receipt;
pub use error::LogError;
pub use lease::Lease;
pub use publisher::{EventName, Publisher, WrittenEvent};
pub use recent::recent;
pub use registry::{RegistrySettings, SchemaRegistry};
pub use subscriber::{Delivery, Subscriber};
pub use topics::{Log, LogSettings, TopicLayout};
