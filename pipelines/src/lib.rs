//! The binary `ruam`: it wires connectors, log, transform, lake and query into an installation, and is
//! the only crate that sees them all.
//!
//! What passes through: a source's events by [`feed`], and what agencies send by [`intake`], into the log, a topic's records by [`worker`]
//! into tables. [`fault`] decides what is tried again and what waits for a person.

mod account;
mod cli;
mod commands;
mod config;
mod console;
mod data_dir;
mod deployment;
mod fault;
mod feed;
mod gateway;
mod guard;
mod intake;
mod made_once;
mod memory;
mod meter;
mod policies;
mod port;
mod run;
mod specs;
mod worker;

pub use cli::main;
