//! Sources of change events: what an agency's system of record looks like to the rest of Ruam.
//!
//! What passes through: changes, as [`ChangeEvent`](ruam_event::ChangeEvent)s in the order of their
//! positions, out of a [`Source`]; or, where an agency sends them itself, through the [`gateway`] into an
//! [`Intake`](gateway::Intake). Where they go is not a source's concern: it sees neither the log nor the lake.
//!
//! Guaranteed: opened after any position, a source yields what follows it, the same each time; the
//! [`conformance`] suite holds every source to that.
//!
//! A new source is one file, and one line in [`KINDS`].

mod areas;
pub mod conformance;
pub mod gateway;
mod generated;
mod postgres;
mod source;

pub use generated::{DEFAULT_TOTAL, PlantedPayment, planted_payments};
pub use postgres::Connection;
pub use source::{Feed, Source, SourceError};

use std::collections::BTreeMap;
use std::path::PathBuf;

use ruam_event::{DatasetSpec, SpecError};
use serde::de::DeserializeOwned;

/// What an installation has for its sources.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// How many events the generated sources come to, all together.
    pub generated_total: Option<u64>,
    /// The databases that can be read, by name: `[connections]` of `ruam.toml`.
    pub connections: BTreeMap<String, Connection>,
    /// The folder where sources keep what they have to remember, each in one of its own.
    pub state: PathBuf,
}

type Constructor = fn(&DatasetSpec, &toml::Table, &Surroundings) -> Result<Box<dyn Source>, String>;

/// The kinds of sources, by the name that `source.kind` has.
const KINDS: &[(&str, Constructor)] = &[
    ("administrative_areas", areas::open),
    ("postgres", postgres::open),
    ("generated_persons", generated::persons::open),
    ("generated_disbursements", generated::disbursements::open),
    ("generated_welfare_payments", generated::welfare_payments::open),
];

/// The kind of source that is none to read: the agency sends the dataset's events to the gateway.
const SENT: &str = "gateway";

/// Whether a dataset's events come by the gateway.
pub fn is_sent(spec: &DatasetSpec) -> bool {
    spec.source.as_ref().is_some_and(|source| source.kind.get_ref() == SENT)
}

/// The source that a dataset declares; none where its agency sends its events, or somebody else fills its topic.
///
/// # Errors
/// Where the kind or its options are not known, with the place in the file.
pub fn open(spec: &DatasetSpec, surroundings: &Surroundings) -> Result<Option<Box<dyn Source>>, SpecError> {
    if let Some(place) = spec.signatures_span().filter(|_| !is_sent(spec)) {
        let problem = "only what an agency sends to the gateway is signed";
        let remedy = "Remove the line, or write source = { kind = \"gateway\" }";
        return Err(spec.error_at(place, "signatures", problem, remedy));
    }
    let Some(declared) = &spec.source else { return Ok(None) };
    let kind = declared.kind.get_ref().as_str();
    if kind == SENT {
        return match declared.with.get_ref().is_empty() {
            true => Ok(None),
            false => {
                Err(spec.error_at(declared.with.span(), "source.with", "the gateway has no options", "Remove `with`"))
            }
        };
    }
    let Some((_, constructor)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        let known: Vec<_> = KINDS.iter().map(|(name, _)| *name).chain([SENT]).collect();
        let problem = format!("`{kind}` is not a kind of source");
        return Err(spec.error_at(
            declared.kind.span(),
            "source.kind",
            problem,
            ruam_event::spec_file::suggest(kind, &known),
        ));
    };
    let source = constructor(spec, declared.with.get_ref(), surroundings).map_err(|problem| {
        let place = if declared.with.get_ref().is_empty() { declared.kind.span() } else { declared.with.span() };
        spec.error_at(place, "source.with", problem, format!("See the documentation of the source `{kind}`"))
    })?;
    Ok(Some(source))
}

/// Whether a dataset's source can be looked for: that it names a connection which there is, with an address.
///
/// # Errors
/// Where there is none, with the place in the dataset's file.
pub fn check_connection(spec: &DatasetSpec, connections: &BTreeMap<String, Connection>) -> Result<(), SpecError> {
    let Some(declared) = &spec.source else { return Ok(()) };
    let Some(name) = declared.with.get_ref().get("connection").and_then(toml::Value::as_str) else { return Ok(()) };
    let wrong = |problem: String, remedy: String| {
        Err(spec.error_at(declared.with.span(), "source.with.connection", problem, remedy))
    };
    let checked = match connections.get(name) {
        Some(connection) => connection.check(name),
        None => Err(postgres::missing(name)),
    };
    match checked {
        Ok(()) => Ok(()),
        Err(SourceError::Refused { problem, remedy, .. }) => wrong(problem, remedy),
        Err(error) => wrong(error.to_string(), "Correct it".to_owned()),
    }
}

/// Reads a source's `with` table.
fn options<T: DeserializeOwned>(table: &toml::Table) -> Result<T, String> {
    table.clone().try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_sent_is_signed() {
        let text = include_str!("../../pipelines/specs/bora/person.toml");
        let spec = DatasetSpec::parse("bora/person.toml", &format!("signatures = \"required\"\n{text}")).unwrap();
        let error = open(&spec, &Surroundings::default()).err().unwrap().to_string();
        assert!(error.starts_with("bora/person.toml:1: signatures: only what an agency sends"), "{error}");
    }
}
