//! Thai digits (U+0E50 to U+0E59) and Arabic ones.

use std::borrow::Cow;

/// The text with Thai digits written as Arabic ones.
pub(super) fn to_arabic(text: &str) -> Cow<'_, str> {
    // All Thai digits begin with the bytes E0 B9 in UTF-8.
    if !text.as_bytes().windows(3).any(|bytes| matches!(bytes, [0xE0, 0xB9, 0x90..=0x99])) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| value(c).map_or(c, |digit| char::from(b'0' + digit))).collect())
}

/// The value of a Thai digit.
fn value(c: char) -> Option<u8> {
    ('๐'..='๙').contains(&c).then(|| (c as u32 - '๐' as u32) as u8)
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_kinds_of_digits() {
        assert_eq!(super::to_arabic("๑๕ มี.ค. ๒๕๓๐"), "15 มี.ค. 2530");
        assert!(matches!(super::to_arabic("15 มี.ค."), std::borrow::Cow::Borrowed(_)));
    }
}
