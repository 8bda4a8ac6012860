//! Text as it is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field};

use super::{OptionError, SemanticType, options};
use crate::reject::Reason;

const NOT_ALLOWED: Reason = Reason::new("not_allowed", "the value is none of those that the dataset allows");
const TOO_LONG: Reason = Reason::new("too_long", "the value is longer than the dataset allows");

/// Text that is stored as it came.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The only values that are allowed.
    #[serde(default)]
    one_of: Vec<String>,
    /// The most characters that a value may have.
    max_length: Option<usize>,
}

impl Text {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        options(table)
    }

    fn fault(&self, text: &str) -> Option<Reason> {
        if !self.one_of.is_empty() && !self.one_of.iter().any(|allowed| allowed == text) {
            return Some(NOT_ALLOWED);
        }
        self.max_length.filter(|max| text.len() > *max && text.chars().count() > *max).map(|_| TOO_LONG)
    }
}

impl SemanticType for Text {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![Field::new(column, DataType::Utf8, true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        if self.one_of.is_empty() && self.max_length.is_none() {
            return vec![Arc::new(texts.clone())];
        }
        for row in (0..texts.len()).filter(|row| texts.is_valid(*row)) {
            if let Some(reason) = self.fault(texts.value(row)) {
                fault(row, reason);
            }
        }
        vec![Arc::new(texts.clone())]
    }

    fn describe(&self) -> String {
        match (self.one_of.as_slice(), self.max_length) {
            ([], None) => "text as it came".to_owned(),
            ([], Some(max)) => format!("text of at most {max} characters"),
            (allowed, _) => format!("one of: {}", allowed.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::*;

    #[test]
    fn only_what_is_allowed() {
        let table = toml::from_str("one_of = ['ก', 'b']").unwrap();
        assert_eq!(run(&Text::new(&table).unwrap(), &["ก", "x", "b"]).1, [(1, "not_allowed")]);
        let table = toml::from_str("max_length = 2").unwrap();
        assert_eq!(run(&Text::new(&table).unwrap(), &["กก", "กกก", ""]).1, [(1, "too_long")]);
    }
}
