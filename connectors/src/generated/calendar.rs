//! Dates as Thai offices write them.

use chrono::{Datelike, NaiveDate};

use super::thai_digits;

pub(super) const MONTHS: [&str; 12] = [
    "มกราคม",
    "กุมภาพันธ์",
    "มีนาคม",
    "เมษายน",
    "พฤษภาคม",
    "มิถุนายน",
    "กรกฎาคม",
    "สิงหาคม",
    "กันยายน",
    "ตุลาคม",
    "พฤศจิกายน",
    "ธันวาคม",
];

pub(super) const SHORT_MONTHS: [&str; 12] =
    ["ม.ค.", "ก.พ.", "มี.ค.", "เม.ย.", "พ.ค.", "มิ.ย.", "ก.ค.", "ส.ค.", "ก.ย.", "ต.ค.", "พ.ย.", "ธ.ค."];

/// The year of the Buddhist era: until 1940 it began on 1 April.
pub(super) fn be_year(day: NaiveDate) -> i32 {
    if day.year() <= 1940 && day.month() < 4 { day.year() + 542 } else { day.year() + 543 }
}

/// A day in one of six spellings.
pub(super) fn spelled(day: NaiveDate, style: u32) -> String {
    let (d, m, y) = (day.day(), day.month(), be_year(day));
    let month = m as usize - 1;
    match style % 6 {
        0 => format!("{d} {} {y}", MONTHS[month]),
        1 => thai_digits(&format!("{d} {} {y}", MONTHS[month])),
        2 => format!("{d} {} {y}", SHORT_MONTHS[month]),
        3 => format!("{d:02}/{m:02}/{y}"),
        4 => format!("วันที่ {d} เดือน{} พ.ศ. {y}", MONTHS[month]),
        _ => format!("{y}-{m:02}-{d:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_spellings() {
        let day = NaiveDate::from_ymd_opt(1987, 3, 15).unwrap();
        let all: Vec<_> = (0..6).map(|style| spelled(day, style)).collect();
        assert_eq!(
            all,
            [
                "15 มีนาคม 2530",
                "๑๕ มีนาคม ๒๕๓๐",
                "15 มี.ค. 2530",
                "15/03/2530",
                "วันที่ 15 เดือนมีนาคม พ.ศ. 2530",
                "2530-03-15"
            ]
        );
        assert_eq!(be_year(NaiveDate::from_ymd_opt(1940, 3, 31).unwrap()), 2482);
        assert_eq!(be_year(NaiveDate::from_ymd_opt(1940, 4, 1).unwrap()), 2483);
    }
}
