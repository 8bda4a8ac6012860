//! What end-to-end tests and benches share: the program as a user runs it, real servers to run it
//! against, and a model to hold its tables against.
//!
//! A test binary is the program, too: run with [`AS_RUAM`] in its environment it does what `ruam`
//! does. So what is tested is always what was just built, and nothing has to be built beside it.

pub mod apicurio;
pub mod backlog;
pub mod broker;
mod curl;
pub mod datasets;
pub mod fetched;
pub mod installation;
pub mod kafka;
pub mod keycloak;
pub mod model;
pub mod postgres;
pub mod process;
pub mod registry;
pub mod s3;
pub mod server;
pub mod signer;
pub mod strangers;
pub mod tables;
pub mod tpch;

pub use broker::Broker;
pub use installation::Installation;
pub use process::Process;
pub use registry::Registry;

/// Says that this process is to be `ruam`.
pub const AS_RUAM: &str = "RUAM_TEST_AS_RUAM";

/// Whether this process is to be `ruam`; its `main` has to begin with that.
pub fn is_ruam() -> bool {
    std::env::var_os(AS_RUAM).is_some()
}
