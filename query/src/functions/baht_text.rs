//! `baht_text(amount)`: an amount of baht in Thai words, as cheques and receipts have it.
//!
//! Rounded to the satang, half away from zero. A one that ends a number is `เอ็ด` where anything comes before
//! it, two tens are `ยี่สิบ`, one ten is `สิบ` (พจนานุกรม ฉบับราชบัณฑิตยสถาน พ.ศ. 2554, at `เอ็ด`), and
//! millions are counted in millions.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type};
use datafusion::common::Result;
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};

use super::function as of_column;
use crate::error::{QueryError, external};

const DIGITS: [&str; 10] = ["", "หนึ่ง", "สอง", "สาม", "สี่", "ห้า", "หก", "เจ็ด", "แปด", "เก้า"];
const PLACES: [&str; 6] = ["", "สิบ", "ร้อย", "พัน", "หมื่น", "แสน"];
const MILLION: u128 = 1_000_000;

pub(super) fn function() -> ScalarUDF {
    let texts = |amounts: &ArrayRef| -> Result<ArrayRef> {
        let found = amounts.data_type();
        if !(found.is_numeric() || found.is_null()) {
            let (function, usage) = ("baht_text", "baht_text(amount)");
            return Err(external(QueryError::Call { function, problem: format!("{found} is not an amount"), usage }));
        }
        // What is no amount, or has more than 36 digits, is null.
        let amounts = cast_with_options(amounts, &DataType::Decimal128(38, 2), &CastOptions::default())?;
        let amounts = amounts.as_primitive::<Decimal128Type>();
        Ok(Arc::new(amounts.iter().map(|satang| satang.map(baht_text)).collect::<StringArray>()))
    };
    let signature = Signature::any(1, Volatility::Immutable);
    of_column("baht_text", signature, DataType::Utf8, texts)
}

fn baht_text(satang: i128) -> String {
    let (sign, satang) = (if satang < 0 { "ลบ" } else { "" }, satang.unsigned_abs());
    let mut text = sign.to_owned();
    let (baht, satang) = (satang / 100, satang % 100);
    if baht > 0 || satang == 0 {
        write(&mut text, baht);
        text.push_str("บาท");
    }
    if satang == 0 {
        text.push_str("ถ้วน");
    } else {
        write(&mut text, satang);
        text.push_str("สตางค์");
    }
    text
}

/// Writes a whole number.
fn write(text: &mut String, number: u128) {
    if number == 0 {
        text.push_str("ศูนย์");
    } else {
        write_after(text, number, false);
    }
}

/// Writes a whole number that may follow another; nothing for zero.
fn write_after(text: &mut String, number: u128, follows: bool) {
    let (millions, rest) = (number / MILLION, number % MILLION);
    if millions > 0 {
        write_after(text, millions, follows);
        text.push_str("ล้าน");
    }
    let is_first = !follows && millions == 0;
    for (place, name) in PLACES.iter().enumerate().rev() {
        let above = rest / 10_u128.pow(place as u32);
        let digit = (above % 10) as usize;
        match (place, digit) {
            (_, 0) => continue,
            (0, 1) if !(is_first && above == 1) => text.push_str("เอ็ด"),
            (1, 1) => {}
            (1, 2) => text.push_str("ยี่"),
            _ => text.push_str(DIGITS[digit]),
        }
        text.push_str(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_as_people_say_them() {
        for (number, expected) in [
            (0, "ศูนย์"),
            (1, "หนึ่ง"),
            (10, "สิบ"),
            (11, "สิบเอ็ด"),
            (12, "สิบสอง"),
            (20, "ยี่สิบ"),
            (21, "ยี่สิบเอ็ด"),
            (101, "หนึ่งร้อยเอ็ด"),
            (110, "หนึ่งร้อยสิบ"),
            (1_000, "หนึ่งพัน"),
            (100_000, "หนึ่งแสน"),
            (123_456, "หนึ่งแสนสองหมื่นสามพันสี่ร้อยห้าสิบหก"),
            (1_000_000, "หนึ่งล้าน"),
            (1_000_001, "หนึ่งล้านเอ็ด"),
            (11_000_000, "สิบเอ็ดล้าน"),
            (21_000_021, "ยี่สิบเอ็ดล้านยี่สิบเอ็ด"),
            (1_000_000_000_000, "หนึ่งล้านล้าน"),
            (3_300_000_000_000, "สามล้านสามแสนล้าน"),
        ] {
            let mut text = String::new();
            write(&mut text, number);
            assert_eq!(text, expected, "{number}");
        }
    }

    /// Reads words back, by the words alone.
    fn read(text: &str) -> u128 {
        if let Some((millions, rest)) = text.rsplit_once("ล้าน") {
            return read(millions) * MILLION + if rest.is_empty() { 0 } else { read(rest) };
        }
        let words = [("เอ็ด", 1), ("ยี่", 2)].into_iter().chain(DIGITS.into_iter().zip(0..).skip(1));
        let words: Vec<_> = words.collect();
        let (mut rest, mut sum) = (text, 0);
        while !rest.is_empty() {
            let word = words.iter().find(|(word, _)| rest.starts_with(word));
            let digit = word.map_or(1, |(word, digit)| {
                rest = &rest[word.len()..];
                *digit
            });
            let place = (1..PLACES.len()).find(|place| rest.starts_with(PLACES[*place])).unwrap_or(0);
            rest = &rest[PLACES[place].len()..];
            sum += digit * 10_u128.pow(place as u32);
        }
        sum
    }

    proptest! {
        #[test]
        fn words_say_the_number(number in 1..=u128::from(u64::MAX), short in 1..2_000_000_u128) {
            for number in [number, short] {
                let mut text = String::new();
                write(&mut text, number);
                prop_assert_eq!(read(&text), number, "{}", text);
            }
        }
    }
}
