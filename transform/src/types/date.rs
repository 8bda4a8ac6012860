//! Dates of the common era, as systems write them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Builder, StringArray};
use arrow::datatypes::{DataType, Date32Type, Field};
use chrono::NaiveDate;

use super::{NoOptions, OptionError, SemanticType, options};
use crate::reject::Reason;

const NOT_A_DATE: Reason = Reason::new("not_a_date", "the value is not a day of the calendar written as YYYY-MM-DD");
const YEAR_NOT_CE: Reason = Reason::new("year_not_ce", "the year looks like one of the Buddhist era, and the dataset expects the common era");

/// Whoever writes such a year means the Buddhist era.
const FIRST_YEAR_BE: u32 = 2400;

/// A day of the common era in ISO 8601's extended form. What people write by hand is a
/// [`be_date`](super::be_date).
#[derive(Debug)]
pub struct Date;

impl Date {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        options::<NoOptions>(table).map(|_| Self)
    }
}

/// Days since 1970-01-01.
fn parse(text: &str) -> Result<i32, Reason> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = text.trim().as_bytes() else { return Err(NOT_A_DATE) };
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0, |number, digit| Some(number * 10 + char::from(*digit).to_digit(10)?)).ok_or(NOT_A_DATE)
    };
    let (year, month, day) = (number(&[*y0, *y1, *y2, *y3])?, number(&[*m0, *m1])?, number(&[*d0, *d1])?);
    if year >= FIRST_YEAR_BE {
        return Err(YEAR_NOT_CE);
    }
    NaiveDate::from_ymd_opt(year as i32, month, day).map(Date32Type::from_naive_date).ok_or(NOT_A_DATE)
}

impl SemanticType for Date {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![Field::new(column, DataType::Date32, true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        let mut days = Date32Builder::new();
        for (row, text) in texts.iter().enumerate() {
            days.append_option(text.and_then(|text| parse(text).map_err(|reason| fault(row, reason)).ok()));
        }
        vec![Arc::new(days.finish())]
    }

    fn describe(&self) -> String {
        "a day of the common era in ISO 8601: 2024-03-15".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{run, texts};
    use super::*;

    #[test]
    fn days_of_the_common_era() {
        let date = Date::new(&toml::Table::new()).unwrap();
        let (arrays, faults) = run(&date, &["2024-02-29", " 1899-12-31 ", "1970-01-01"]);
        assert_eq!((texts(&arrays).into_iter().flatten().collect::<Vec<_>>(), faults), (vec!["2024-02-29".to_owned(), "1899-12-31".to_owned(), "1970-01-01".to_owned()], Vec::new()));
        let wrong = ["2023-02-29", "2024-1-5", "2024-13-01", "15/03/2024", "", "2024-03-15T00:00", "+024-03-15", "2567-03-15"];
        let codes: Vec<_> = run(&date, &wrong).1.into_iter().map(|(_, code)| code).collect();
        assert_eq!(codes, [vec!["not_a_date"; 7], vec!["year_not_ce"]].concat());
        assert!(Date::new(&toml::from_str("last_year = 2030").unwrap()).is_err());
    }
}
