//! Amounts of Thai baht.

use std::borrow::Cow;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field};

use super::decimal::{check_size, parse_column, parse_exact};
use super::digits::to_arabic;
use super::{OptionError, SemanticType, options};
use crate::reject::Reason;

const NOT_AN_AMOUNT: Reason = Reason::new("not_an_amount", "the value is not an amount of money");
const OUT_OF_RANGE: Reason = Reason::new("out_of_range", "the amount is not within the bounds that the dataset declares");
const SCALE: u8 = 2;

/// An amount of money, exact to the satang, in figures and with the words that surround them:
/// `฿1,250.50`, `1,250 บาท 50 สตางค์`, `600 บาทถ้วน`, `1.5 ล้านบาท`, `600.-`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// How many digits in all, two of them satang.
    #[serde(default = "default_precision")]
    precision: u8,
    /// Whether an amount may be less than zero.
    #[serde(default)]
    negative: bool,
}

fn default_precision() -> u8 {
    18
}

impl Money {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        let money: Self = options(table)?;
        check_size(money.precision, SCALE)?;
        Ok(money)
    }

    fn parse(&self, text: &str) -> Result<i128, Reason> {
        // Most amounts are plain figures.
        let amount = match parse_exact(text, self.precision, SCALE) {
            Err(reason) if reason.code == "not_a_number" => self.parse_words(text)?,
            plain => plain?,
        };
        if amount < 0 && !self.negative { Err(OUT_OF_RANGE) } else { Ok(amount) }
    }

    fn parse_words(&self, text: &str) -> Result<i128, Reason> {
        let text = to_arabic(text);
        let text = text.trim().trim_start_matches('฿').trim_start_matches("THB").trim();
        let text = text.strip_suffix(".-").or_else(|| text.strip_suffix("THB")).unwrap_or(text).trim();
        let (baht, rest) = text.split_once("บาท").unwrap_or((text, ""));
        let rest = rest.trim().trim_start_matches("ถ้วน").trim();
        let satang = match rest.strip_suffix("สตางค์") {
            Some(satang) => self.satang(satang.trim())?,
            None if rest.is_empty() => 0,
            None => return Err(NOT_AN_AMOUNT),
        };
        let (figures, scale) = match baht.trim().strip_suffix("ล้าน") {
            Some(millions) => (Cow::Owned(format!("{}e6", millions.trim())), SCALE),
            None => (Cow::Borrowed(baht.trim()), SCALE),
        };
        let baht = parse_exact(&figures, self.precision, scale)
            .map_err(|reason| if reason.code == "not_a_number" { NOT_AN_AMOUNT } else { reason })?;
        Ok(if baht < 0 { baht - satang } else { baht + satang })
    }

    fn satang(&self, text: &str) -> Result<i128, Reason> {
        text.parse::<u8>().ok().filter(|satang| *satang < 100).map(i128::from).ok_or(NOT_AN_AMOUNT)
    }
}

impl SemanticType for Money {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![Field::new(column, DataType::Decimal128(self.precision, SCALE as i8), true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        parse_column(texts, self.precision, SCALE, |text| self.parse(text), fault)
    }

    fn describe(&self) -> String {
        let sign = if self.negative { "" } else { ", not below zero" };
        format!("an amount in baht, exact to the satang{sign}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{run, texts};
    use super::*;

    #[test]
    fn amounts_as_people_write_them() {
        let money = Money::new(&toml::Table::new()).unwrap();
        let good = ["600", "1,250.50", "฿1,250.50", "1,250 บาท 50 สตางค์", "๖๐๐ บาทถ้วน", "1.5 ล้านบาท", "600.-", "THB 20", "2,000 บาท"];
        let (arrays, faults) = run(&money, &good);
        assert_eq!(faults, []);
        let values: Vec<_> = texts(&arrays).into_iter().flatten().collect();
        assert_eq!(values, ["600.00", "1250.50", "1250.50", "1250.50", "600.00", "1500000.00", "600.00", "20.00", "2000.00"]);
        let bad = ["", "บาท", "1,25", "12 บาท 100 สตางค์", "12 บาท x", "-5", "1.005", "หกร้อยบาท", "$5"];
        let codes: Vec<_> = run(&money, &bad).1.into_iter().map(|(_, code)| code).collect();
        assert_eq!(
            codes,
            ["not_an_amount", "not_an_amount", "not_an_amount", "not_an_amount", "not_an_amount", "out_of_range", "too_precise", "not_an_amount", "not_an_amount"]
        );
    }
}
