//! Where clients of HTTP come in.
//!
//! What passes through: connections, encrypted where there is a certificate, into requests for a service, each with
//! its [`Peer`]; and [`Problem`]s on their way out.
//!
//! Guaranteed: never more than a number of connections; one that sends no request, or a head without end, is closed.

mod door;
mod page;
mod problem;

pub use door::{Peer, serve};
pub use page::is_of_a_page;
pub use problem::{Problem, json};
