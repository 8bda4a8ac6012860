//! Yes or no.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBuilder, StringArray};
use arrow::datatypes::{DataType, Field};

use super::{NoOptions, OptionError, SemanticType, options};
use crate::reject::Reason;

const NOT_A_BOOLEAN: Reason = Reason::new("not_a_boolean", "the value says neither yes nor no");

/// True or false, in the words of several systems and of two languages.
#[derive(Debug)]
pub struct Boolean;

impl Boolean {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        options::<NoOptions>(table).map(|_| Self)
    }
}

fn parse(text: &str) -> Result<bool, Reason> {
    match text.trim() {
        "true" | "1" | "๑" | "ใช่" | "จริง" | "มี" => return Ok(true),
        "false" | "0" | "๐" | "ไม่ใช่" | "ไม่" | "เท็จ" | "ไม่มี" => return Ok(false),
        _ => {}
    }
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" => Ok(true),
        "false" | "f" | "no" | "n" => Ok(false),
        _ => Err(NOT_A_BOOLEAN),
    }
}

impl SemanticType for Boolean {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![Field::new(column, DataType::Boolean, true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        let mut values = BooleanBuilder::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            values.append_option(text.and_then(|text| parse(text).map_err(|reason| fault(row, reason)).ok()));
        }
        vec![Arc::new(values.finish())]
    }

    fn describe(&self) -> String {
        "yes or no: true/false, 1/0, t/f, y/n, yes/no, ใช่/ไม่ใช่, จริง/เท็จ, มี/ไม่มี".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{run, texts};
    use super::*;

    #[test]
    fn yes_and_no() {
        let (arrays, faults) = run(&Boolean, &["true", "F", "ไม่ใช่", "Yes", "0", "", "maybe"]);
        let values: Vec<_> = texts(&arrays).into_iter().flatten().collect();
        assert_eq!(values, ["true", "false", "false", "true", "false"]);
        assert_eq!(faults, [(5, "not_a_boolean"), (6, "not_a_boolean")]);
    }
}
