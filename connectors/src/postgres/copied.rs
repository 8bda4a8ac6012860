//! The rows that `COPY … TO STDOUT` writes in its text format.
//!
//! What passes through: a line into its values. Guaranteed: no line makes it panic; where the number of values
//! is not the expected one, there is no row.
//!
//! <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2>

use std::borrow::Cow;

use memchr::memchr2;

use super::pgoutput::Datum;

/// A value, or null. Borrowed where nothing is escaped.
pub(super) type Copied<'a> = Option<Cow<'a, str>>;

/// The values of a line without its end.
pub(super) fn values(line: &str) -> Values<'_> {
    Values { rest: Some(line) }
}

/// The value at a place of a row.
pub(super) fn at<'a>(values: &'a [Copied<'a>], place: usize) -> Datum<'a> {
    values.get(place).and_then(Option::as_deref).map_or(Datum::Null, Datum::Text)
}

/// What [`values`] gives.
pub(super) struct Values<'a> {
    rest: Option<&'a str>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Copied<'a>;

    fn next(&mut self) -> Option<Copied<'a>> {
        let rest = self.rest.take()?;
        match memchr2(b'\t', b'\\', rest.as_bytes()) {
            None => Some(Some(Cow::Borrowed(rest))),
            Some(end) if rest.as_bytes()[end] == b'\t' => {
                self.rest = Some(&rest[end + 1..]);
                Some(Some(Cow::Borrowed(&rest[..end])))
            }
            Some(_) => {
                let (field, rest) = rest.split_once('\t').map_or((rest, None), |(field, rest)| (field, Some(rest)));
                self.rest = rest;
                Some((field != "\\N").then(|| Cow::Owned(unescaped(field))))
            }
        }
    }
}

fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            text.push(char);
            continue;
        }
        // The server writes these; any other character stands for itself.
        text.extend(chars.next().map(|escaped| match escaped {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            other => other,
        }));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the server escapes.
    fn escaped(value: Option<&str>) -> String {
        let Some(text) = value else { return "\\N".to_owned() };
        let mut field = String::new();
        for char in text.chars() {
            match char {
                '\u{8}' => field.push_str("\\b"),
                '\u{c}' => field.push_str("\\f"),
                '\n' => field.push_str("\\n"),
                '\r' => field.push_str("\\r"),
                '\t' => field.push_str("\\t"),
                '\u{b}' => field.push_str("\\v"),
                '\\' => field.push_str("\\\\"),
                other => field.push(other),
            }
        }
        field
    }

    proptest! {
        #[test]
        fn what_is_escaped_comes_back(row in prop::collection::vec(prop::option::of("[a-z\\\\\t\n\r\u{8}\u{b}\u{c}ก-๙N]{0,12}"), 1..6)) {
            let line = row.iter().map(|value| escaped(value.as_deref())).collect::<Vec<_>>().join("\t");
            let read: Vec<_> = values(&line).map(|value| value.map(Cow::into_owned)).collect();
            prop_assert_eq!(read, row);
        }
    }
}
