//! A file in which people declare something: its text, and what is wrong with it.
//!
//! What passes through: the text of a TOML file, into what it declares, or a [`SpecError`] that names file,
//! line, key and remedy.

use std::ops::Range;

use serde::de::DeserializeOwned;

/// A file, for errors to point into.
#[derive(Clone, Debug, Default)]
pub struct SpecFile {
    path: String,
    text: String,
}

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}: {key}: {problem}. {remedy}")]
pub struct SpecError {
    /// The file.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// The key.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl SpecFile {
    /// A file with its text; `path` is only named in errors.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Where it lies.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What it declares.
    ///
    /// # Errors
    /// Where it is no TOML, or declares something else.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, SpecError> {
        toml::from_str(&self.text).map_err(|error| self.explain(&error))
    }

    /// A mistake at a place of it.
    pub fn error_at(
        &self,
        span: &Range<usize>,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> SpecError {
        self.error(span.start, key, problem, remedy)
    }

    fn error(&self, at: usize, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> SpecError {
        let before = self.text.get(..at).unwrap_or_default();
        SpecError {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            key: key.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// Turns what the TOML parser says into what to do.
    fn explain(&self, error: &toml::de::Error) -> SpecError {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message();
        let mut quoted = message.split('`').skip(1).step_by(2);
        if message.starts_with("unknown field") || message.starts_with("unknown variant") {
            let unknown = quoted.next().unwrap_or_default();
            let known: Vec<_> = quoted.collect();
            let what = if message.starts_with("unknown field") { "is not a key" } else { "is not a value" };
            let key = if message.starts_with("unknown field") { unknown } else { self.key_at(at) };
            return self.error(at, key, format!("`{unknown}` {what} that is known here"), suggest(unknown, &known));
        }
        if message.starts_with("missing field") {
            let missing = quoted.next().unwrap_or_default();
            return self.error(at, missing, "it is missing", format!("Add `{missing} = ...`"));
        }
        let problem = message.lines().collect::<Vec<_>>().join(", ");
        self.error(at, self.key_at(at), problem, "Correct the line as TOML wants it: https://toml.io")
    }

    /// The key on the line of a place, or the file as a whole.
    fn key_at(&self, at: usize) -> &str {
        let start = self.text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
        let line = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        match line.split_once('=') {
            Some((key, _)) => key.trim(),
            None => "file",
        }
    }
}

/// A remedy for a name that is not known: the nearest that is, and all of them.
pub fn suggest(unknown: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3);
    match nearest {
        Some((_, name)) => format!("Did you mean `{name}`? Known are: {}", known.join(", ")),
        None => format!("Known are: {}", known.join(", ")),
    }
}
