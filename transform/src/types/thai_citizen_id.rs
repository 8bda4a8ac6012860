//! The number of a Thai citizen or resident (เลขประจำตัวประชาชน), and the rule of its check digit,
//! which the number of a juristic person shares.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field};

use super::digits::to_arabic;
use super::{NoOptions, OptionError, SemanticType, mask_texts, options};
use crate::reject::Reason;

const NOT_13_DIGITS: Reason = Reason::new("not_13_digits", "the number does not have 13 digits");
const WRONG_FIRST_DIGIT: Reason = Reason::new("wrong_first_digit", "the first digit is not one that this kind of number begins with");
const WRONG_CHECK_DIGIT: Reason = Reason::new("wrong_check_digit", "the last digit does not fit the other twelve");

/// The number of a natural person: 13 digits, the first from 1 to 8, the last a check digit.
#[derive(Debug)]
pub struct ThaiCitizenId;

impl ThaiCitizenId {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        options::<NoOptions>(table).map(|_| Self)
    }
}

/// The check digit of twelve digits:
/// d13 = (11 - (sum over i = 1..12 of d_i * (14 - i)) mod 11) mod 10.
pub fn check_digit(digits: &[u8; 12]) -> u8 {
    let sum: u32 = digits.iter().zip((2..=13).rev()).map(|(digit, weight)| u32::from(*digit) * weight).sum();
    ((11 - sum % 11) % 10) as u8
}

/// The 13 digits of a number, in Arabic or Thai digits, with or without dashes and spaces, whose
/// first digit is allowed and whose last is right.
pub(super) fn parse(text: &str, first: std::ops::RangeInclusive<u8>) -> Result<[u8; 13], Reason> {
    let text = to_arabic(text);
    let mut digits = [0_u8; 13];
    let mut count = 0;
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => {
                *digits.get_mut(count).ok_or(NOT_13_DIGITS)? = byte - b'0';
                count += 1;
            }
            b'-' | b' ' => {}
            _ => return Err(NOT_13_DIGITS),
        }
    }
    let [leading @ .., last] = digits;
    if count != 13 {
        Err(NOT_13_DIGITS)
    } else if !first.contains(&digits[0]) {
        Err(WRONG_FIRST_DIGIT)
    } else if check_digit(&leading) != last {
        Err(WRONG_CHECK_DIGIT)
    } else {
        Ok(digits.map(|digit| digit + b'0'))
    }
}

/// A column of 13-digit numbers.
pub(super) fn parse_column(texts: &StringArray, first: std::ops::RangeInclusive<u8>, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
    let mut numbers = StringBuilder::with_capacity(texts.len(), texts.len() * 13);
    for (row, text) in texts.iter().enumerate() {
        match text.map(|text| parse(text, first.clone())) {
            Some(Ok(digits)) => numbers.append_value(std::str::from_utf8(&digits).unwrap_or_default()),
            Some(Err(reason)) => {
                fault(row, reason);
                numbers.append_null();
            }
            None => numbers.append_null(),
        }
    }
    vec![Arc::new(numbers.finish())]
}

impl SemanticType for ThaiCitizenId {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![Field::new(column, DataType::Utf8, true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        parse_column(texts, 1..=8, fault)
    }

    fn describe(&self) -> String {
        "a Thai citizen ID: 13 digits, the first from 1 to 8, the last a check digit".to_owned()
    }

    /// The first digit, which tells how somebody came to have a number, and not who they are.
    fn mask(&self, values: &ArrayRef) -> ArrayRef {
        mask_texts(values, |number| {
            number.chars().enumerate().map(|(at, digit)| if at == 0 { digit } else { 'x' }).collect()
        })
    }

    fn is_personal(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{run, texts};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_as_people_write_them() {
        let good = ["1112034563562", "3100600445635", "1-1120-34563-56-2", "๑๑๑๒๐๓๔๕๖๓๕๖๒", "1 1120 34563 56 2"];
        let (arrays, faults) = run(&ThaiCitizenId, &good);
        assert_eq!(faults, []);
        let values: Vec<_> = texts(&arrays).into_iter().flatten().collect();
        assert_eq!(values, ["1112034563562", "3100600445635", "1112034563562", "1112034563562", "1112034563562"]);
        let bad = ["1101700230703", "0105536112014", "9112034563562", "111203456356", "11120345635622", "", "1.11203E+12"];
        let codes: Vec<_> = run(&ThaiCitizenId, &bad).1.into_iter().map(|(_, code)| code).collect();
        assert_eq!(
            codes,
            ["wrong_check_digit", "wrong_first_digit", "wrong_first_digit", "not_13_digits", "not_13_digits", "not_13_digits", "not_13_digits"]
        );
    }

    proptest! {
        /// The weights are 13 to 2 and the modulus is 11, so a wrong digit always changes the
        /// remainder, but for the third digit, whose weight is 11. Then only the last step hides
        /// it, which takes the remainders 0 and 10 for one.
        #[test]
        fn a_wrong_digit_is_noticed_where_the_rule_can(leading in prop::array::uniform12(0_u8..10), at in 0_usize..12, by in 1_u8..10) {
            let mut other = leading;
            other[at] = (leading[at] + by) % 10;
            let same = check_digit(&leading) == check_digit(&other);
            prop_assert!(!same || at == 2 || check_digit(&leading) == 1);
        }

        #[test]
        fn no_text_breaks_it(text: String) {
            let _ = parse(&text, 1..=8);
        }
    }
}
