//! The commands, one file each.

pub(crate) mod agency;
pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod datasets;
pub(crate) mod demo;
pub(crate) mod maintain;
pub(crate) mod rejects;
pub(crate) mod resume;
pub(crate) mod sql;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod user;
pub(crate) mod verify;
