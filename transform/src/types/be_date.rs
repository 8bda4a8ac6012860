//! Dates of the Buddhist era (พ.ศ.), in the many ways in which Thai offices write them.
//!
//! The year of the Buddhist era is 543 more than that of the common era since 1 January 1941
//! (BE 2484). Until then a year began on 1 April, so that its January to March fell into the next
//! common year; and BE 2483 ended with December, so that it has no January, February or March
//! (ประกาศให้ใช้วันขึ้นปีใหม่ พ.ศ. 2483, and พระราชบัญญัติปีประดิทิน พ.ศ. 2483). The solar
//! calendar itself began on 1 April BE 2432 (1889); dates before that are refused.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Builder, StringArray, new_null_array};
use arrow::datatypes::{DataType, Date32Type, Field};
use chrono::{Datelike, NaiveDate};

use super::digits::to_arabic;
use super::{OptionError, SemanticType, options};
use crate::reject::Reason;

const NOT_A_DATE: Reason = Reason::new("not_a_date", "the value is not a date with day, month and year");
const INCOMPLETE_DATE: Reason = Reason::new("incomplete_date", "the day or the month is zero, that is, unknown");
const IMPOSSIBLE_DATE: Reason = Reason::new("impossible_date", "there is no such day in the calendar");
const AMBIGUOUS_YEAR: Reason = Reason::new("ambiguous_year", "the year has two digits, and the dataset does not say of which century");
const YEAR_NOT_BE: Reason = Reason::new("year_not_be", "the year looks like one of the common era, and the dataset expects the Buddhist era");
const OUT_OF_RANGE: Reason = Reason::new("out_of_range", "the date is before 1 April BE 2432 or after the last year that the dataset allows");

/// 1889-04-01, in days since 1970-01-01.
const FIRST_DAY: i32 = -29_494;
const UNIX_EPOCH_FROM_CE: i32 = 719_163;

/// A day, written with a year of the Buddhist era and stored as a day of the common calendar.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeDate {
    /// The first two digits of a year that is written with two: "25" of the Buddhist era, "19" or
    /// "20" of the common era. Without it such a date is refused.
    century: Option<Century>,
    /// Whether a year such as 1987 or 2024 is taken for one of the common era. Without it such a
    /// date is refused.
    #[serde(default)]
    allow_ce: bool,
    /// The last year of the Buddhist era that is allowed.
    #[serde(default = "default_last_year")]
    last_year: i32,
}

fn default_last_year() -> i32 {
    2700
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
enum Century {
    #[serde(rename = "25")]
    Be25,
    #[serde(rename = "19")]
    Ce19,
    #[serde(rename = "20")]
    Ce20,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Era {
    Buddhist,
    Common,
}

/// The parts of a written date, in the order in which they stand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Number { value: u32, digits: usize },
    Month(u32),
    Era(Era),
}

/// Month names and their abbreviations, each also without its last or all of its points.
const MONTHS: [(&str, &str, &str); 12] = [
    ("มกราคม", "ม.ค", "มค"),
    ("กุมภาพันธ์", "ก.พ", "กพ"),
    ("มีนาคม", "มี.ค", "มีค"),
    ("เมษายน", "เม.ย", "เมย"),
    ("พฤษภาคม", "พ.ค", "พค"),
    ("มิถุนายน", "มิ.ย", "มิย"),
    ("กรกฎาคม", "ก.ค", "กค"),
    ("สิงหาคม", "ส.ค", "สค"),
    ("กันยายน", "ก.ย", "กย"),
    ("ตุลาคม", "ต.ค", "ตค"),
    ("พฤศจิกายน", "พ.ย", "พย"),
    ("ธันวาคม", "ธ.ค", "ธค"),
];

/// Words that stand in dates and say nothing, the longer ones first.
const FILLERS: [&str; 11] = [
    "วันพฤหัสบดีที่", "วันอาทิตย์ที่", "วันจันทร์ที่", "วันอังคารที่", "วันเสาร์ที่", "วันศุกร์ที่", "วันพุธที่", "วันที่", "เดือน", "ปี", "ที่",
];

impl BeDate {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        options(table)
    }

    /// Days since 1970-01-01.
    fn parse(&self, text: &str) -> Result<i32, Reason> {
        let text = to_arabic(text.trim());
        let (day, month, year, digits, era) = arrange(&text)?;
        let date = self.date(day, month, year, digits, era)?;
        let days = date.num_days_from_ce() - UNIX_EPOCH_FROM_CE;
        if days < FIRST_DAY || be_to_ce(self.last_year, 12, 31).is_some_and(|last| date > last) {
            return Err(OUT_OF_RANGE);
        }
        Ok(days)
    }

    fn date(&self, day: u32, month: u32, year: u32, digits: usize, era: Option<Era>) -> Result<NaiveDate, Reason> {
        if day == 0 || month == 0 {
            return Err(INCOMPLETE_DATE);
        }
        let year = year as i32;
        let (year, era) = match (digits, era, self.century) {
            (4, Some(era), _) => (year, era),
            (4, None, _) if year >= 2400 => (year, Era::Buddhist),
            (4, None, _) if !(1800..2300).contains(&year) => return Err(OUT_OF_RANGE),
            (4, None, _) if self.allow_ce => (year, Era::Common),
            (4, None, _) => return Err(YEAR_NOT_BE),
            (2, Some(Era::Buddhist), _) | (2, None, Some(Century::Be25)) => (2500 + year, Era::Buddhist),
            (2, None, Some(Century::Ce19)) => (1900 + year, Era::Common),
            (2, None, Some(Century::Ce20)) => (2000 + year, Era::Common),
            (2, _, _) => return Err(AMBIGUOUS_YEAR),
            _ => return Err(NOT_A_DATE),
        };
        match era {
            Era::Buddhist => be_to_ce(year, month, day),
            Era::Common => NaiveDate::from_ymd_opt(year, month, day),
        }
        .ok_or(IMPOSSIBLE_DATE)
    }
}

/// The day of the common calendar; none where the Buddhist era has no such day.
fn be_to_ce(year: i32, month: u32, day: u32) -> Option<NaiveDate> {
    let in_first_quarter = month < 4;
    let ce = match year {
        2484.. => year - 543,
        2483 if in_first_quarter => return None,
        _ if in_first_quarter => year - 542,
        _ => year - 543,
    };
    NaiveDate::from_ymd_opt(ce, month, day)
}

/// The year of the Buddhist era that a day is in.
pub fn be_year(date: NaiveDate) -> i32 {
    let is_before_1941 = date.year() < 1941;
    date.year() + if is_before_1941 && date.month() < 4 { 542 } else { 543 }
}

/// A day as it is written in full, such as `15 มีนาคม 2530`.
pub fn write(date: NaiveDate) -> String {
    let (month, _, _) = MONTHS[date.month0() as usize];
    format!("{} {month} {}", date.day(), be_year(date))
}

/// Day, month, year, the digits of the year, and the era where it is named.
fn arrange(text: &str) -> Result<(u32, u32, u32, usize, Option<Era>), Reason> {
    use Token::{Era as E, Month, Number};
    let mut tokens = [Month(0); 5];
    let count = tokenise(text, &mut tokens)?;
    match &tokens[..count] {
        [Number { value: compact, digits: 8 }] => Ok((compact % 100, compact / 100 % 100, compact / 10_000, 4, None)),
        [Number { value: year, digits: 4 }, Number { value: month, .. }, Number { value: day, .. }] => {
            Ok((*day, *month, *year, 4, None))
        }
        [Number { value: day, digits: 1 | 2 }, Number { value: month, digits: 1 | 2 }, Number { value: year, digits }]
        | [Number { value: day, digits: 1 | 2 }, Month(month), Number { value: year, digits }] => Ok((*day, *month, *year, *digits, None)),
        [Number { value: day, digits: 1 | 2 }, Number { value: month, digits: 1 | 2 }, E(era), Number { value: year, digits }]
        | [Number { value: day, digits: 1 | 2 }, Month(month), E(era), Number { value: year, digits }] => {
            Ok((*day, *month, *year, *digits, Some(*era)))
        }
        _ => Err(NOT_A_DATE),
    }
}

fn tokenise(text: &str, tokens: &mut [Token; 5]) -> Result<usize, Reason> {
    let mut rest = text;
    let mut count = 0;
    while let Some(first) = rest.chars().next() {
        let token = if first.is_ascii_digit() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let value = rest[..digits].parse().ok().filter(|_| digits <= 8).ok_or(NOT_A_DATE)?;
            rest = &rest[digits..];
            Token::Number { value, digits }
        } else if matches!(first, ' ' | '/' | '-' | '.' | ',' | '\u{a0}') {
            rest = &rest[first.len_utf8()..];
            continue;
        } else if let Some((word, after)) = take_word(rest) {
            rest = after;
            match word {
                Some(token) => token,
                None => continue,
            }
        } else {
            return Err(NOT_A_DATE);
        };
        *tokens.get_mut(count).ok_or(NOT_A_DATE)? = token;
        count += 1;
    }
    Ok(count)
}

/// Takes a known word off the front: what it means, if anything, and what follows it.
fn take_word(text: &str) -> Option<(Option<Token>, &str)> {
    let eras = [("พ.ศ", Era::Buddhist), ("พศ", Era::Buddhist), ("ค.ศ", Era::Common), ("คศ", Era::Common)];
    for (word, era) in eras {
        if let Some(after) = text.strip_prefix(word) {
            return Some((Some(Token::Era(era)), after));
        }
    }
    for (index, (name, short, bare)) in MONTHS.iter().enumerate() {
        let month = Token::Month(index as u32 + 1);
        if let Some(after) = [name, short, bare].iter().find_map(|word| text.strip_prefix(**word)) {
            return Some((Some(month), after));
        }
    }
    FILLERS.iter().find_map(|word| text.strip_prefix(word)).map(|after| (None, after))
}

impl SemanticType for BeDate {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![Field::new(column, DataType::Date32, true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        let mut days = Date32Builder::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            days.append_option(text.and_then(|text| self.parse(text).map_err(|reason| fault(row, reason)).ok()));
        }
        vec![Arc::new(days.finish())]
    }

    fn describe(&self) -> String {
        let century = match self.century {
            Some(Century::Be25) => "; a year of two digits is BE 25yy",
            Some(Century::Ce19) => "; a year of two digits is CE 19yy",
            Some(Century::Ce20) => "; a year of two digits is CE 20yy",
            None => "",
        };
        let ce = if self.allow_ce { "; a year before 2300 is of the common era" } else { "" };
        format!("a date of the Buddhist era, in figures or with the month's name, in Arabic or Thai digits{century}{ce}")
    }

    /// The first day of the year.
    fn mask(&self, values: &ArrayRef) -> ArrayRef {
        let Some(days) = values.as_primitive_opt::<Date32Type>() else {
            return new_null_array(values.data_type(), values.len());
        };
        let first = |days| NaiveDate::from_ymd_opt(Date32Type::to_naive_date_opt(days)?.year(), 1, 1);
        Arc::new(days.unary_opt::<_, Date32Type>(|days| first(days).map(Date32Type::from_naive_date)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn be_date(table: &str) -> BeDate {
        BeDate::new(&toml::from_str(table).unwrap()).unwrap()
    }

    fn parse(date: &BeDate, text: &str) -> Result<NaiveDate, &'static str> {
        let days = date.parse(text).map_err(|reason| reason.code)?;
        Ok(NaiveDate::from_num_days_from_ce_opt(days + UNIX_EPOCH_FROM_CE).unwrap())
    }

    #[test]
    fn spellings() {
        let date = be_date("");
        let expected = NaiveDate::from_ymd_opt(1987, 3, 15).unwrap();
        for text in [
            "15/03/2530",
            "15/3/2530",
            "15-03-2530",
            "15.03.2530",
            "2530-03-15",
            "25300315",
            "๑๕/๐๓/๒๕๓๐",
            "15 มีนาคม 2530",
            "๑๕ มีนาคม ๒๕๓๐",
            "15 มี.ค. 2530",
            "15 มี.ค 2530",
            "15มีค2530",
            "วันที่ 15 มีนาคม พ.ศ. 2530",
            "วันที่ ๑๕ เดือนมีนาคม พ.ศ.๒๕๓๐",
            "วันอาทิตย์ที่ 15 มีนาคม 2530",
            "15 มีนาคม ค.ศ. 1987",
            " 15 มี.ค. พ.ศ. 30 ",
        ] {
            assert_eq!(parse(&date, text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_date_is_refused_with_its_reason() {
        let date = be_date("last_year = 2570");
        for (text, code) in [
            ("", "not_a_date"),
            ("2530", "not_a_date"),
            ("มีนาคม 2530", "not_a_date"),
            ("15 Foo 2530", "not_a_date"),
            ("15/03/530", "not_a_date"),
            ("1/2/3/2530", "not_a_date"),
            ("1 2 3 4 5 6", "not_a_date"),
            ("999999999", "not_a_date"),
            ("00/00/2480", "incomplete_date"),
            ("31/02/2530", "impossible_date"),
            ("29 กุมภาพันธ์ 2566", "impossible_date"),
            ("15/13/2530", "impossible_date"),
            ("1 มกราคม 2483", "impossible_date"),
            ("15/03/30", "ambiguous_year"),
            ("15/03/1987", "year_not_be"),
            ("15/03/2571", "out_of_range"),
            ("15/03/2310", "out_of_range"),
            ("31 มีนาคม 2431", "out_of_range"),
        ] {
            assert_eq!(parse(&date, text), Err(code), "{text}");
        }
    }

    #[test]
    fn years_as_the_source_means_them() {
        let day = |year| Ok(NaiveDate::from_ymd_opt(year, 3, 15).unwrap());
        assert_eq!(parse(&be_date("century = '25'"), "15/03/30"), day(1987));
        assert_eq!(parse(&be_date("century = '19'"), "15/03/30"), day(1930));
        assert_eq!(parse(&be_date("century = '20'"), "15/03/30"), day(2030));
        assert_eq!(parse(&be_date("allow_ce = true"), "1987-03-15"), day(1987));
        assert_eq!(parse(&be_date("allow_ce = true"), "2530-03-15"), day(1987));
        assert_eq!(parse(&be_date(""), "29 ก.พ. 2567"), Ok(NaiveDate::from_ymd_opt(2024, 2, 29).unwrap()));
    }

    #[test]
    fn the_year_began_in_april_until_2483() {
        for (text, ce) in [
            ("1 เมษายน 2432", (1889, 4, 1)),
            ("31 มีนาคม 2482", (1940, 3, 31)),
            ("1 เมษายน 2482", (1939, 4, 1)),
            ("1 เมษายน 2483", (1940, 4, 1)),
            ("31 ธันวาคม 2483", (1940, 12, 31)),
            ("1 มกราคม 2484", (1941, 1, 1)),
        ] {
            assert_eq!(parse(&be_date(""), text), Ok(NaiveDate::from_ymd_opt(ce.0, ce.1, ce.2).unwrap()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_day_in_every_spelling(days in FIRST_DAY..68_666, style in 0..5) {
            let day = NaiveDate::from_num_days_from_ce_opt(days + UNIX_EPOCH_FROM_CE).unwrap();
            let (d, m, y) = (day.day(), day.month(), be_year(day));
            let month = MONTHS[m as usize - 1];
            let text = match style {
                0 => format!("{d:02}/{m:02}/{y}"),
                1 => format!("{d} {} {y}", month.0),
                2 => format!("วันที่ {d} {}. พ.ศ. {y}", month.1),
                3 => format!("{y}{m:02}{d:02}"),
                _ => format!("{y}-{m}-{d}").chars().map(|c| c.to_digit(10).map_or(c, |digit| char::from_u32('๐' as u32 + digit).unwrap())).collect(),
            };
            prop_assert_eq!(be_date("").parse(&text), Ok(days), "{}", text);
            prop_assert_eq!(be_date("").parse(&write(day)), Ok(days), "{}", write(day));
        }

        #[test]
        fn no_text_breaks_it(text: String) {
            let _ = be_date("").parse(&text);
        }

        #[test]
        fn no_thai_text_breaks_it(text in "[0-9๐-๙ก-ฮ./ ]{0,30}") {
            let _ = be_date("").parse(&text);
        }
    }
}
