//! The number of a juristic person (เลขทะเบียนนิติบุคคล): companies, and agencies themselves.

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field};

use super::thai_citizen_id::parse_column;
use super::{NoOptions, OptionError, SemanticType, options};
use crate::reject::Reason;

/// The number of a juristic person: 13 digits, the first 0, the last a check digit.
#[derive(Debug)]
pub struct JuristicId;

impl JuristicId {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        options::<NoOptions>(table).map(|_| Self)
    }
}

impl SemanticType for JuristicId {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![Field::new(column, DataType::Utf8, true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        parse_column(texts, 0..=0, fault)
    }

    fn describe(&self) -> String {
        "a juristic person's ID: 13 digits, the first 0, the last a check digit".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::*;

    #[test]
    fn begins_with_zero() {
        assert_eq!(run(&JuristicId, &["0105536112014", "0994000617721", "0-9930-00133-97-8"]).1, []);
        assert_eq!(run(&JuristicId, &["1112034563562", "0105536112015"]).1, [(0, "wrong_first_digit"), (1, "wrong_check_digit")]);
    }
}
