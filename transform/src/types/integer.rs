//! Whole numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Builder, StringArray};
use arrow::datatypes::{DataType, Field};

use super::decimal::parse_exact;
use super::{OptionError, SemanticType, options};
use crate::reject::Reason;

const NOT_AN_INTEGER: Reason = Reason::new("not_an_integer", "the value is not a whole number of at most 18 digits");
const OUT_OF_RANGE: Reason = Reason::new("out_of_range", "the number is not within the bounds that the dataset declares");

/// A whole number of 64 bits, in Arabic or Thai digits, with or without thousands separators.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Integer {
    /// The least value.
    min: Option<i64>,
    /// The greatest value.
    max: Option<i64>,
}

impl Integer {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        options(table)
    }

    fn parse(&self, text: &str) -> Result<i64, Reason> {
        let number = match text.parse::<i64>() {
            Ok(number) => number,
            Err(_) => parse_exact(text, 18, 0).ok().and_then(|exact| i64::try_from(exact).ok()).ok_or(NOT_AN_INTEGER)?,
        };
        let within = self.min.is_none_or(|min| number >= min) && self.max.is_none_or(|max| number <= max);
        if within { Ok(number) } else { Err(OUT_OF_RANGE) }
    }
}

impl SemanticType for Integer {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![Field::new(column, DataType::Int64, true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        let mut numbers = Int64Builder::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            numbers.append_option(text.and_then(|text| self.parse(text).map_err(|reason| fault(row, reason)).ok()));
        }
        vec![Arc::new(numbers.finish())]
    }

    fn describe(&self) -> String {
        let bound = |word: &str, bound: Option<i64>| bound.map_or(String::new(), |bound| format!(", {word} {bound}"));
        format!("a whole number{}{}", bound("at least", self.min), bound("at most", self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{run, texts};
    use super::*;

    #[test]
    fn numbers_as_people_write_them() {
        let integer = Integer::new(&toml::from_str("min = -5\nmax = 9223372036854775807").unwrap()).unwrap();
        let (arrays, faults) = run(&integer, &["7", "-5", "๒,๕๖๗", "9223372036854775807", "-6", "1.5", "1,5", "", "x"]);
        let values: Vec<_> = texts(&arrays).into_iter().flatten().collect();
        assert_eq!(values, ["7", "-5", "2567", "9223372036854775807"]);
        let codes: Vec<_> = faults.iter().map(|(_, code)| *code).collect();
        assert_eq!(codes, ["out_of_range", "not_an_integer", "not_an_integer", "not_an_integer", "not_an_integer"]);
    }
}
