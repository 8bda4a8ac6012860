//! The binary `ruam`: it wires connectors, log, transform, lake and query into an installation, and is
//! the only crate that sees them all.
//!
//! What passes through: a source's events by [`feed`] into the log, a topic's records by [`worker`]
//! into tables. [`fault`] decides what is tried again and what waits for a person.

pub mod account;
pub mod cli;
mod commands;
pub mod config;
pub mod console;
pub mod data_dir;
pub mod deployment;
pub mod fault;
pub mod feed;
pub mod meter;
pub mod port;
pub mod run;
pub mod specs;
pub mod worker;
