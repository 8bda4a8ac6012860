//! Codes of Thai administrative areas: province, district, subdistrict and village, two digits
//! each (ccaattmm), as the Department of Provincial Administration gives them.
//!
//! Codes are made and abolished over time, so whether one was in force is a question to the dataset
//! `dopa.administrative_area` as of a date; here only the form and the province are judged.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field};

use super::digits::to_arabic;
use super::{OptionError, SemanticType, mask_texts, options};
use crate::reject::Reason;

const NOT_AN_AREA_CODE: Reason = Reason::new("not_an_area_code", "the code does not have 2, 4, 6 or 8 digits");
const WRONG_LEVEL: Reason = Reason::new("wrong_level", "the code is of another level than the dataset declares");
const UNKNOWN_PROVINCE: Reason = Reason::new("unknown_province", "the first two digits are no province's code");

/// The codes of the 77 provinces, which are also those of ISO 3166-2:TH.
const PROVINCES: [u8; 77] = [
    10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45,
    46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 60, 61, 62, 63, 64, 65, 66, 67, 70, 71, 72, 73, 74, 75, 76, 77, 80, 81, 82, 83, 84,
    85, 86, 90, 91, 92, 93, 94, 95, 96,
];

/// The code of an administrative area.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AreaCode {
    /// The only level that is allowed.
    level: Option<Level>,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Province = 2,
    District = 4,
    Subdistrict = 6,
    Village = 8,
}

impl AreaCode {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        options(table)
    }

    fn fault(&self, code: &str) -> Option<Reason> {
        if !matches!(code.len(), 2 | 4 | 6 | 8) || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(NOT_AN_AREA_CODE);
        }
        if self.level.is_some_and(|level| level as usize != code.len()) {
            return Some(WRONG_LEVEL);
        }
        let known = code[..2].parse().is_ok_and(|province| PROVINCES.binary_search(&province).is_ok());
        (!known).then_some(UNKNOWN_PROVINCE)
    }
}

impl SemanticType for AreaCode {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![Field::new(column, DataType::Utf8, true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        let mut codes = StringBuilder::with_capacity(texts.len(), texts.len() * 6);
        for (row, text) in texts.iter().enumerate() {
            let code = text.map(|text| to_arabic(text.trim()));
            if let Some(reason) = code.as_deref().and_then(|code| self.fault(code)) {
                fault(row, reason);
                codes.append_null();
            } else {
                codes.append_option(code);
            }
        }
        vec![Arc::new(codes.finish())]
    }

    fn describe(&self) -> String {
        match self.level {
            Some(Level::Province) => "the code of a province, 2 digits",
            Some(Level::District) => "the code of a district, 4 digits",
            Some(Level::Subdistrict) => "the code of a subdistrict, 6 digits",
            Some(Level::Village) => "the code of a village, 8 digits",
            None => "the code of an administrative area, 2 to 8 digits",
        }
        .to_owned()
    }

    /// The province.
    fn mask(&self, values: &ArrayRef) -> ArrayRef {
        mask_texts(values, |code| code.chars().take(2).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{run, texts};
    use super::*;

    #[test]
    fn form_level_and_province() {
        let any = AreaCode::new(&toml::Table::new()).unwrap();
        let (arrays, faults) = run(&any, &["10", "1002", "100205", "๑๐๐๒๐๕", "10020501", "100", "990101", "A00205", ""]);
        assert_eq!(texts(&arrays)[3].as_deref(), Some("100205"));
        assert_eq!(faults, [(5, "not_an_area_code"), (6, "unknown_province"), (7, "not_an_area_code"), (8, "not_an_area_code")]);
        let subdistrict = AreaCode::new(&toml::from_str("level = 'subdistrict'").unwrap()).unwrap();
        assert_eq!(run(&subdistrict, &["1002", "100205"]).1, [(0, "wrong_level")]);
    }
}
