//! JSON in the one form that it has when it is signed: the JSON Canonicalization Scheme (RFC 8785).
//!
//! What passes through: a JSON text, into the bytes that whoever else does the same comes to: without spaces, the
//! members of each object in the order of their names, texts and numbers as JavaScript writes them. Guaranteed: what
//! two texts differ in that say something different, their forms differ in, too. So what other readers may take for
//! the one or the other is refused: a name that an object has twice, and a number that a double does not hold as it
//! is written.

use jiter::{Jiter, Peek};

use super::row::{check_nesting, not_json};

/// Writes the form of a JSON text.
///
/// # Errors
/// Where it is no JSON text, or has no form; what is told names no value.
pub(super) fn write_value(text: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    check_nesting(text)?;
    let mut json = Jiter::new(text);
    let peek = json.peek().map_err(not_json)?;
    value(&mut json, peek, out)?;
    json.finish().map_err(not_json)
}

/// Writes the form of an object, but for members that are left out.
///
/// # Errors
/// As [`write_value`], and where it is no object.
pub(super) fn write_object(text: &[u8], is_left_out: &dyn Fn(&str) -> bool, out: &mut Vec<u8>) -> Result<(), String> {
    check_nesting(text)?;
    let mut json = Jiter::new(text);
    match json.peek().map_err(not_json)? {
        Peek::Object => object(&mut json, is_left_out, out)?,
        _ => return Err("a row is not an object".to_owned()),
    }
    json.finish().map_err(not_json)
}

/// Writes the form of a text.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    // Writing a str to a Vec does not fail; serde_json escapes what RFC 8785, section 3.2.2.2, does, and as it does.
    let _ = serde_json::to_writer(out, text);
}

/// Writes the form of an object of texts; none of them is null. No two have the same name.
pub(super) fn write_texts(mut members: Vec<(&str, Option<&str>)>, out: &mut Vec<u8>) {
    members.sort_unstable_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
    out.push(b'{');
    for (index, (name, text)) in members.into_iter().enumerate() {
        out.extend((index > 0).then_some(b','));
        write_text(name, out);
        out.push(b':');
        match text {
            Some(text) => write_text(text, out),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}

fn value(json: &mut Jiter<'_>, peek: Peek, out: &mut Vec<u8>) -> Result<(), String> {
    match peek {
        Peek::Null => {
            json.known_null().map_err(not_json)?;
            out.extend_from_slice(b"null");
        }
        Peek::True | Peek::False => {
            let text: &[u8] = if json.known_bool(peek).map_err(not_json)? { b"true" } else { b"false" };
            out.extend_from_slice(text);
        }
        Peek::String => write_text(json.known_str().map_err(not_json)?, out),
        Peek::Array => array(json, out)?,
        Peek::Object => object(json, &|_| false, out)?,
        _ => {
            let digits = json.known_number_bytes(peek).map_err(not_json)?;
            let text = std::str::from_utf8(digits).ok().and_then(number);
            out.extend_from_slice(
                text.ok_or("a number has more digits than a double holds: write it as a text")?.as_bytes(),
            );
        }
    }
    Ok(())
}

fn array(json: &mut Jiter<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    out.push(b'[');
    let mut next = json.known_array().map_err(not_json)?;
    while let Some(peek) = next {
        value(json, peek, out)?;
        next = json.array_step().map_err(not_json)?;
        out.extend(next.map(|_| b','));
    }
    out.push(b']');
    Ok(())
}

fn object(json: &mut Jiter<'_>, is_left_out: &dyn Fn(&str) -> bool, out: &mut Vec<u8>) -> Result<(), String> {
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    let mut next = json.known_object().map_err(not_json)?.map(str::to_owned);
    while let Some(name) = next {
        let peek = json.peek().map_err(not_json)?;
        let mut text = Vec::new();
        value(json, peek, &mut text)?;
        members.push((name, text));
        next = json.next_key().map_err(not_json)?.map(str::to_owned);
    }
    members.sort_unstable_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
    if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err("an object has two members of the same name".to_owned());
    }
    out.push(b'{');
    for (index, (name, text)) in members.iter().filter(|(name, _)| !is_left_out(name)).enumerate() {
        out.extend((index > 0).then_some(b','));
        write_text(name, out);
        out.push(b':');
        out.extend_from_slice(text);
    }
    out.push(b'}');
    Ok(())
}

/// The form of a number (ECMA-262, Number::toString); none where a double does not hold it as it is written.
fn number(text: &str) -> Option<String> {
    let number: f64 = text.parse().ok()?;
    if !number.is_finite() {
        return None;
    }
    // The shortest digits from which the same double is read, and the nearest of those; Rust's own may be others.
    let (digits, point) = parts(ryu::Buffer::new().format_finite(number.abs()))?;
    if parts(text.trim_start_matches('-'))? != (digits.clone(), point) {
        return None;
    }
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    let sign = if number.is_sign_negative() { "-" } else { "" };
    let count = i64::try_from(digits.len()).ok()?;
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
    Some(match point {
        1..=21 if count <= point => format!("{sign}{digits}{}", zeros(point - count)),
        1..=21 => {
            let (whole, rest) = digits.split_at(usize::try_from(point).ok()?);
            format!("{sign}{whole}.{rest}")
        }
        -5..=0 => format!("{sign}0.{}{digits}", zeros(-point)),
        _ => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            format!("{sign}{first}{dot}{rest}e{:+}", point - 1)
        }
    })
}

/// The digits of a number without zeros at either end, and how many of them stand before the point (fewer than none
/// where zeros stand behind it). Of zero there are none.
fn parts(text: &str) -> Option<(String, i64)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Some((String::new(), 0));
    }
    let leading = i64::try_from(digits.len() - significant.len()).ok()?;
    let point = i64::try_from(whole.len()).ok()?.checked_sub(leading)?.checked_add(exponent.parse().ok()?)?;
    Some((significant.trim_end_matches('0').to_owned(), point))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn form(text: &str) -> Result<String, String> {
        let mut out = Vec::new();
        write_value(text.as_bytes(), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_examples_of_the_standard_hold() {
        // RFC 8785, section 3.2.2; its 333333333.33333329 has a digit more than a double holds.
        let text = r#"{ "numbers": [333333333.3333333, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false] }"#;
        let expected = r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
        assert_eq!(form(text).unwrap(), expected);
        // Section 3.2.3: names are ordered by their code units of UTF-16.
        let text = r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#;
        let found: Vec<_> = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"]
            .map(|name| form(text).unwrap().find(name).unwrap())
            .into();
        assert!(found.is_sorted(), "{found:?}");
        // Appendix B.
        for (bits, expected) in [
            (0x0000_0000_0000_0000, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0xc340_0000_0000_0000, "-9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5556, "333333333.3333334"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            let number = number(ryu::Buffer::new().format_finite(f64::from_bits(bits)));
            assert_eq!(number.as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_may_be_read_in_two_ways_has_no_form() {
        for (text, expected) in [
            ("9007199254740993", "a number has more digits than a double holds"),
            ("[1e999]", "a number has more digits than a double holds"),
            ("1e-999", "a number has more digits than a double holds"),
            ("1e99999999999999999999", "a number has more digits than a double holds"),
            ("0.10000000000000000001", "a number has more digits than a double holds"),
            (r#"{"a":{"b":1,"\u0062":2}}"#, "an object has two members of the same name"),
            (r#""\ud800""#, "not JSON: "),
            ("NaN", "not JSON: "),
            ("01", "not JSON: "),
            ("{} x", "not JSON: "),
            (&"[".repeat(40), "more than 32 brackets stand within each other"),
        ] {
            let error = form(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let mut out = Vec::new();
        assert_eq!(write_object(b"[]", &|_| false, &mut out).unwrap_err(), "a row is not an object");
        write_object(br#"{"b":1,"_id":2,"a":{"_id":3}}"#, &|name| name == "_id", &mut out).unwrap();
        assert_eq!(out, br#"{"a":{"_id":3},"b":1}"#);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            // serde_json reads so few digits exactly.
            any::<i32>().prop_map(|number| Value::from(f64::from(number) / 64.0)),
            "\\PC{0,8}|[\\x00-\\x1f\"\\\\]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("\\PC{0,3}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_form_says_the_same_and_is_its_own(value in json()) {
            let text = form(&serde_json::to_string_pretty(&value).unwrap()).unwrap();
            prop_assert_eq!(&form(&text).unwrap(), &text);
            let read: Value = serde_json::from_str(&text).unwrap();
            // -0 has become 0, and what is whole may have become an integer.
            prop_assert_eq!(form(&read.to_string()).unwrap(), text);
        }

        #[test]
        fn a_double_is_written_as_it_is_read(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            let text = super::number(ryu::Buffer::new().format_finite(number)).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap(), number);
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[\\[\\]{},:\"\\\\a1.eE+_\n-]{0,60}") {
            let _ = write_value(&bytes, &mut Vec::new());
            let is_json = serde_json::from_str::<Value>(&text).is_ok();
            prop_assert!(form(&text).is_err() || is_json, "{}", text);
        }
    }
}
