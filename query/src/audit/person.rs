//! Numbers of citizens in statements.

use std::collections::BTreeSet;

/// How many digits a number has.
const DIGITS: usize = 13;

/// A text in which each number of thirteen digits, however it is grouped, is replaced.
pub(crate) fn without_numbers(text: &str, instead: impl Fn(&str) -> String) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_digit) {
        replaced.push_str(&rest[..at]);
        let (number, length) = number_at(&rest[at..]);
        match number {
            Some(number) => replaced.push_str(&instead(&number)),
            None => replaced.push_str(&rest[at..at + length]),
        }
        rest = &rest[at + length..];
    }
    replaced.push_str(rest);
    replaced
}

/// The numbers of thirteen digits in a text, in Arabic digits.
pub(crate) fn numbers(text: &str) -> BTreeSet<String> {
    let found = std::cell::RefCell::new(BTreeSet::new());
    without_numbers(text, |number| {
        found.borrow_mut().insert(number.to_owned());
        String::new()
    });
    found.into_inner()
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || ('๐'..='๙').contains(&c)
}

/// The number that a text begins with, if it has thirteen digits, and how many bytes of the text its digits and
/// what groups them take.
fn number_at(text: &str) -> (Option<String>, usize) {
    let (mut digits, mut length) = (String::new(), 0);
    for (at, c) in text.char_indices() {
        if is_digit(c) {
            let value = c.to_digit(10).or_else(|| u32::from(c).checked_sub(u32::from('๐')));
            digits.extend(value.and_then(|value| char::from_digit(value, 10)));
            length = at + c.len_utf8();
        } else if !(c == '-' || c == ' ') || at > length {
            break;
        }
    }
    ((digits.len() == DIGITS).then_some(digits), length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_as_people_write_them() {
        let replaced = |text: &str| without_numbers(text, |_| "?".to_owned());
        for (text, expected) in [
            ("select '3100600445635'", "select '?'"),
            ("id = '3-1006-00445-63-5' or id = 3100600445635", "id = '?' or id = ?"),
            ("in ('๓๑๐๐๖๐๐๔๔๕๖๓๕','3 1006 00445 63 5')", "in ('?','?')"),
            ("limit 31006004456350 offset 12", "limit 31006004456350 offset 12"),
            ("date '2026-01-31'", "date '2026-01-31'"),
            ("ก5", "ก5"),
        ] {
            assert_eq!(replaced(text), expected);
        }
        assert_eq!(numbers("'๓๑๐๐๖๐๐๔๔๕๖๓๕' '3-1006-00445-63-5'").len(), 1);
    }

    proptest! {
        #[test]
        fn all_else_stays(text in "[^0-9๐-๙]{0,40}") {
            prop_assert_eq!(without_numbers(&text, |_| String::new()), text);
        }

        #[test]
        fn no_number_stays(before in "[a-z '=ก]{0,9}", number in "[0-9]{13}", after in "[a-z '=ก;]{0,9}") {
            let written = format!("{before}{number}{after}");
            prop_assert!(!without_numbers(&written, |_| "?".to_owned()).contains(&number));
        }
    }
}
