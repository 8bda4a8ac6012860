//! Exact decimal numbers; never through a float.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, Decimal128Builder, StringArray};
use arrow::datatypes::{DataType, Field};

use super::digits::to_arabic;
use super::{OptionError, SemanticType, options};
use crate::reject::Reason;

const NOT_A_NUMBER: Reason = Reason::new("not_a_number", "the value is not a number");
const TOO_PRECISE: Reason = Reason::new("too_precise", "the number has more decimal places than the dataset keeps");
const TOO_LARGE: Reason = Reason::new("too_large", "the number has more digits than the dataset keeps");

/// A decimal number with a fixed number of places.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decimal {
    /// How many digits in all, 1 to 38.
    precision: u8,
    /// How many of them after the point.
    #[serde(default)]
    scale: u8,
}

impl Decimal {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        let decimal: Self = options(table)?;
        check_size(decimal.precision, decimal.scale)?;
        Ok(decimal)
    }
}

pub(super) fn check_size(precision: u8, scale: u8) -> Result<(), OptionError> {
    if (1..=38).contains(&precision) && scale <= precision {
        return Ok(());
    }
    Err(OptionError::new(
        format!("precision {precision} with scale {scale} is not possible"),
        "Use a precision from 1 to 38, and a scale that is not larger",
    ))
}

/// One array of decimals from texts, by a parser that yields the number times ten to the scale.
pub(super) fn parse_column(
    texts: &StringArray,
    precision: u8,
    scale: u8,
    parse: impl Fn(&str) -> Result<i128, Reason>,
    fault: &mut dyn FnMut(usize, Reason),
) -> Vec<ArrayRef> {
    let mut numbers = Decimal128Builder::with_capacity(texts.len());
    for (row, text) in texts.iter().enumerate() {
        numbers.append_option(text.and_then(|text| parse(text).map_err(|reason| fault(row, reason)).ok()));
    }
    let numbers: Decimal128Array = numbers.finish();
    vec![Arc::new(numbers.with_data_type(DataType::Decimal128(precision, scale as i8)))]
}

/// Reads a number exactly, as the number times ten to the `scale`.
///
/// Accepts a sign, Arabic or Thai digits, thousands separators where they belong, a fraction, and
/// an exponent (JSON writes large numbers with one).
pub(super) fn parse_exact(text: &str, precision: u8, scale: u8) -> Result<i128, Reason> {
    let text = to_arabic(text.trim());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().map_err(|_| NOT_A_NUMBER)?),
        None => (&*text, 0),
    };
    let (negative, unsigned) = match mantissa.as_bytes() {
        [b'-', ..] => (true, &mantissa[1..]),
        [b'+', ..] => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    check_separators(whole)?;
    if whole.is_empty() && fraction.is_empty() {
        return Err(NOT_A_NUMBER);
    }
    // The point moves to the right by the scale and the exponent. Digits that are still behind it
    // then would be lost, so they have to be zero.
    let wanted = digit_count(whole) + i64::from(scale) + i64::from(exponent);
    let mut number: i128 = 0;
    let mut digits = 0_u16;
    let mut dropped_value = false;
    let mut seen = 0_i64;
    for digit in whole.bytes().filter(|byte| *byte != b',').chain(fraction.bytes()) {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10).ok_or(NOT_A_NUMBER)?;
        if seen < wanted {
            number = number.checked_mul(10).and_then(|number| number.checked_add(i128::from(digit))).ok_or(TOO_LARGE)?;
            digits += u16::from(digits > 0 || digit > 0);
        } else {
            dropped_value |= digit != 0;
        }
        seen += 1;
    }
    if dropped_value {
        return Err(TOO_PRECISE);
    }
    for _ in seen..wanted {
        if number == 0 {
            break;
        }
        number = number.checked_mul(10).ok_or(TOO_LARGE)?;
        digits += 1;
    }
    if digits > u16::from(precision) {
        return Err(TOO_LARGE);
    }
    Ok(if negative { -number } else { number })
}

fn digit_count(whole: &str) -> i64 {
    whole.bytes().filter(|byte| *byte != b',').map(|_| 1).sum()
}

/// `1,234,567` is a number; `1,5` is somebody's decimal comma, and not to be guessed at.
fn check_separators(whole: &str) -> Result<(), Reason> {
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let mut grouped = false;
    for group in groups {
        grouped = true;
        if group.len() != 3 {
            return Err(NOT_A_NUMBER);
        }
    }
    if grouped && !(1..=3).contains(&first.len()) { Err(NOT_A_NUMBER) } else { Ok(()) }
}

impl SemanticType for Decimal {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![Field::new(column, DataType::Decimal128(self.precision, self.scale as i8), true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        parse_column(texts, self.precision, self.scale, |text| parse_exact(text, self.precision, self.scale), fault)
    }

    fn describe(&self) -> String {
        format!("a decimal number of at most {} digits, {} of them after the point", self.precision, self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exact_or_refused() {
        let parse = |text| parse_exact(text, 10, 2).map_err(|reason| reason.code);
        for (text, expected) in [
            ("0", Ok(0)),
            ("12", Ok(1200)),
            ("-1.5", Ok(-150)),
            ("+1.50", Ok(150)),
            (".5", Ok(50)),
            ("1.500", Ok(150)),
            ("1,234,567.89", Ok(123_456_789)),
            ("๑,๒๓๔.๕๐", Ok(123_450)),
            ("1.2e3", Ok(120_000)),
            ("125e-2", Ok(125)),
            ("0e30", Ok(0)),
            ("12345678.99", Ok(1_234_567_899)),
            ("123456789", Err("too_large")),
            ("1e300", Err("too_large")),
            ("1e99999", Err("not_a_number")),
            ("1.005", Err("too_precise")),
            ("1e-3", Err("too_precise")),
            ("1,5", Err("not_a_number")),
            ("1234,567", Err("not_a_number")),
            ("", Err("not_a_number")),
            ("-", Err("not_a_number")),
            (".", Err("not_a_number")),
            ("1.2.3", Err("not_a_number")),
            ("12 34", Err("not_a_number")),
            ("NaN", Err("not_a_number")),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn written_and_read_again(number in -10_i128.pow(37)..10_i128.pow(37), scale in 0_u8..=20) {
            let sign = if number < 0 { "-" } else { "" };
            let digits = format!("{:0width$}", number.unsigned_abs(), width = usize::from(scale) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
            prop_assert_eq!(parse_exact(&format!("{sign}{whole}.{fraction}"), 38, scale), Ok(number));
        }

        #[test]
        fn no_text_breaks_it(text: String) {
            let _ = parse_exact(&text, 38, 10);
        }
    }
}
