//! Statements about settings, as every way in understands them: a session's purpose, and what is not a client's
//! to set.

use std::time::Duration;

use datafusion::sql::sqlparser::ast::{DiscardObject, Expr, ObjectName, Reset, Set, Statement};

use crate::session::PURPOSE;

/// The setting by which a client says how long an answer may take.
const TIMEOUT: &str = "statement_timeout";

/// What a statement about settings asks for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Zone(String),
    Purpose(Option<String>),
    ShowPurpose,
    /// Everything as it was at the beginning.
    Defaults(&'static str),
    DefaultZone(&'static str),
    /// How long the answers from here on may take; none for any time.
    Timeout(Option<Duration>),
    Nothing(&'static str),
    Engine(String),
}

impl Asked {
    /// None where the statement is of another kind.
    pub(crate) fn of(statement: &Statement) -> Option<Self> {
        match statement {
            Statement::Set(Set::SingleAssignment { variable, values, .. }) => match (name(variable), &values[..]) {
                (name, [value]) if is_zone(&name) => Some(Self::zone(value)),
                (name, [value]) if name == PURPOSE => Some(Self::purpose(value)),
                (name, [value]) if name == TIMEOUT => timeout(value).map(Self::Timeout),
                (name, _) => is_engine(&name).then_some(Self::Engine(name)),
            },
            Statement::Set(Set::SetTimeZone { value, .. }) => Some(Self::zone(value)),
            Statement::Set(Set::ParenthesizedAssignments { variables, .. }) => {
                variables.iter().map(name).find(|name| is_engine(name)).map(Self::Engine)
            }
            Statement::Set(Set::MultipleAssignments { assignments }) => {
                assignments.iter().map(|one| name(&one.name)).find(|name| is_engine(name)).map(Self::Engine)
            }
            Statement::ShowVariable { variable } => {
                let parts: Vec<_> = variable.iter().map(|part| part.value.to_lowercase()).collect();
                (parts.join(".") == PURPOSE).then_some(Self::ShowPurpose)
            }
            Statement::Reset(reset) => Some(match &reset.reset {
                Reset::ALL => Self::Defaults("RESET"),
                Reset::ConfigurationParameter(variable) => match name(variable) {
                    name if is_zone(&name) => Self::DefaultZone("RESET"),
                    name if name == PURPOSE => Self::Purpose(None),
                    name if is_engine(&name) => Self::Engine(name),
                    _ => Self::Nothing("RESET"),
                },
            }),
            Statement::Discard { object_type } => Some(match object_type {
                DiscardObject::ALL => Self::Defaults("DISCARD ALL"),
                DiscardObject::PLANS => Self::Nothing("DISCARD PLANS"),
                DiscardObject::SEQUENCES => Self::Nothing("DISCARD SEQUENCES"),
                DiscardObject::TEMP => Self::Nothing("DISCARD TEMP"),
            }),
            _ => None,
        }
    }

    fn zone(value: &Expr) -> Self {
        let text = text(value);
        match text.to_lowercase().as_str() {
            "default" | "local" => Self::DefaultZone("SET"),
            _ => Self::Zone(text),
        }
    }

    fn purpose(value: &Expr) -> Self {
        let text = text(value);
        Self::Purpose(Some(text).filter(|text| !text.is_empty() && !text.eq_ignore_ascii_case("default")))
    }
}

/// A time as PostgreSQL writes it, in milliseconds where nothing else is said; 0 is any time.
fn timeout(value: &Expr) -> Option<Option<Duration>> {
    let text = text(value).to_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let milliseconds = match text[digits..].trim() {
        "" | "ms" => number,
        "s" => number.saturating_mul(1000),
        "min" => number.saturating_mul(60_000),
        _ => return None,
    };
    Some((milliseconds > 0).then(|| Duration::from_millis(milliseconds)))
}

fn text(value: &Expr) -> String {
    match value {
        Expr::Value(value) => value.value.clone().into_string().unwrap_or_default(),
        other => other.to_string().trim_matches('"').to_owned(),
    }
}

fn name(variable: &ObjectName) -> String {
    let parts = variable.0.iter().filter_map(|part| part.as_ident());
    parts.map(|part| part.value.to_lowercase()).collect::<Vec<_>>().join(".")
}

fn is_zone(name: &str) -> bool {
    ["timezone", "time.zone", "datafusion.execution.time_zone"].contains(&name)
}

fn is_engine(name: &str) -> bool {
    is_zone(name) || name.starts_with("datafusion.")
}
