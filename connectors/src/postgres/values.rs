//! From PostgreSQL's texts to values: one table of types, for the snapshot and the stream alike.
//!
//! Both bring values as the server's own texts, under settings that make those texts the same everywhere
//! ([`SETTINGS`]). What is not a number or a truth value stays that text: numeric's `NaN`, `infinity` of a date,
//! an interval, `json`, arrays (`{a,b}`), ranges, enums, `bytea` (`\x…`), `inet`. What it means is the semantic
//! type's business.

use std::borrow::Cow;

use ruam_event::Value;
use serde::{Deserialize, Serialize};

/// What every connection sets, so that a value has one text wherever it comes from.
pub(super) const SETTINGS: [(&str, &str); 6] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "iso_8601"),
    ("timezone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
];

/// The same as the `options` of a connection's start.
pub(super) fn options() -> String {
    SETTINGS.iter().map(|(name, value)| format!("-c {name}={value}")).collect::<Vec<_>>().join(" ")
}

/// How a type's texts are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Kind {
    /// `t` or `f`.
    Bool,
    /// Digits, or a word like `NaN`.
    Number,
    /// Anything else.
    Text,
}

/// How a type's texts are read, by the number of the type; of a domain, by that of the type below it.
pub(super) fn kind_of(oid: u32) -> Kind {
    match oid {
        16 => Kind::Bool,
        // int2, int4, int8, oid, float4, float8, numeric.
        21 | 23 | 20 | 26 | 700 | 701 | 1700 => Kind::Number,
        _ => Kind::Text,
    }
}

/// A text as a value.
pub(super) fn value(kind: Kind, text: Cow<'_, str>) -> Value {
    match (kind, &*text) {
        (Kind::Bool, "t") => Value::Bool(true),
        (Kind::Bool, "f") => Value::Bool(false),
        // Letters other than an exponent's are those of NaN and Infinity.
        (Kind::Number, digits)
            if digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e')) =>
        {
            Value::Number(text.into_owned())
        }
        _ => Value::Text(text.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_values() {
        for (oid, text, expected) in [
            (16, "t", Value::Bool(true)),
            (16, "f", Value::Bool(false)),
            (20, "-42", Value::Number("-42".into())),
            (1700, "1.50", Value::Number("1.50".into())),
            (1700, "NaN", Value::Text("NaN".into())),
            (701, "1e+20", Value::Number("1e+20".into())),
            (701, "-Infinity", Value::Text("-Infinity".into())),
            (1082, "infinity", Value::Text("infinity".into())),
            (25, "1", Value::Text("1".into())),
        ] {
            assert_eq!(value(kind_of(oid), text.into()), expected, "{oid} {text}");
        }
    }
}
