//! A row as a JSON object: what its columns say, and what it says of itself in names that no column can have.

use jiter::JiterError;
use memchr::memchr2_iter;
use ruam_event::envelope::{RowSink, Scalar, decode_plain_row};
use ruam_event::{Columns, Row, Value};

/// The most columns of a row, and the most brackets within each other.
pub(super) const MAX_COLUMNS: usize = 2_000;
const MAX_NESTING: usize = 32;

/// What a row may say of itself.
pub(super) const ID: &str = "_id";
pub(super) const OPERATION: &str = "_operation";
pub(super) const TIME: &str = "_time";
pub(super) const SEQUENCE: &str = "_sequence";
pub(super) const SIGNATURE: &str = "_signature";

/// Whether a name is of what a row says of itself.
pub(super) fn is_of_itself(name: &str) -> bool {
    [ID, OPERATION, TIME, SEQUENCE, SIGNATURE].contains(&name)
}

/// A row, with what it says of itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct SentRow {
    pub(super) row: Option<Row>,
    pub(super) id: Option<String>,
    pub(super) operation: Option<String>,
    pub(super) time: Option<String>,
    pub(super) sequence: Option<String>,
    pub(super) signature: Option<String>,
}

/// Reads rows, most of which have the same columns.
#[derive(Debug, Default)]
pub(super) struct RowReader {
    /// The columns of the row before.
    columns: Columns,
}

impl RowReader {
    /// Reads a JSON text.
    ///
    /// # Errors
    /// Where it is no row; what is told names no value.
    pub(super) fn read(&mut self, text: &str) -> Result<SentRow, String> {
        check_nesting(text.as_bytes())?;
        let mut sink = Sink::behind(&self.columns);
        decode_plain_row(text, &mut sink).map_err(|error| error.to_string())?;
        let Sink { values, other, mut sent, too_many, .. } = sink;
        if too_many {
            return Err(format!("a row has more than {MAX_COLUMNS} columns"));
        }
        let other = match other {
            None if values.len() < self.columns.len() => Some(self.columns[..values.len()].to_vec()),
            other => other,
        };
        if let Some(names) = other {
            check_columns(&names)?;
            self.columns = names.into();
        }
        sent.row = Some(Row::new(self.columns.clone(), values));
        Ok(sent)
    }
}

/// Whether names of columns can be told apart.
pub(super) fn check_columns<T: AsRef<str>>(names: &[T]) -> Result<(), String> {
    if names.len() > MAX_COLUMNS {
        return Err(format!("a row has more than {MAX_COLUMNS} columns"));
    }
    let mut sorted: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(_) => Err("two columns have the same name".to_owned()),
        None => Ok(()),
    }
}

/// Whether a JSON text is not nested too deeply: the parser goes into what is nested by recursion; this does not.
pub(super) fn check_nesting(text: &[u8]) -> Result<(), String> {
    if memchr2_iter(b'{', b'[', text).count() <= MAX_NESTING {
        return Ok(());
    }
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(format!("more than {MAX_NESTING} brackets stand within each other"));
        }
    }
    Ok(())
}

/// What is told of a text that is not JSON; it names no value.
pub(super) fn not_json(error: JiterError) -> String {
    format!("not JSON: {} at byte {}", error.error_type, error.index)
}

/// Bytes as the text that JSON has to be.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, String> {
    simdutf8::compat::from_utf8(bytes).map_err(|error| format!("not JSON: not UTF-8 at byte {}", error.valid_up_to()))
}

/// Takes the columns of a row, most of which are those of the row before.
struct Sink<'a> {
    before: &'a Columns,
    values: Vec<Value>,
    /// The names of the columns, as soon as one is another than in the row before.
    other: Option<Vec<String>>,
    sent: SentRow,
    too_many: bool,
}

impl<'a> Sink<'a> {
    fn behind(before: &'a Columns) -> Self {
        let values = Vec::with_capacity(before.len());
        Self { before, values, other: None, sent: SentRow::default(), too_many: false }
    }
}

impl RowSink for Sink<'_> {
    fn column(&mut self, name: &str, value: Scalar<'_>) {
        let said = match name {
            ID => Some(&mut self.sent.id),
            OPERATION => Some(&mut self.sent.operation),
            TIME => Some(&mut self.sent.time),
            SEQUENCE => Some(&mut self.sent.sequence),
            SIGNATURE => Some(&mut self.sent.signature),
            _ => None,
        };
        match (said, value) {
            (Some(said), Scalar::Text(text) | Scalar::Number(text)) => *said = Some(text.to_owned()),
            (Some(_), _) => {}
            (None, _) if self.values.len() == MAX_COLUMNS => self.too_many = true,
            (None, value) => {
                let place = self.values.len();
                if self.other.is_none() && self.before.get(place).is_none_or(|known| known != name) {
                    self.other = Some(self.before[..place].to_vec());
                }
                if let Some(names) = &mut self.other {
                    names.push(name.to_owned());
                }
                self.values.push(value.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<SentRow, String> {
        RowReader::default().read(text)
    }

    #[test]
    fn a_row_says_of_itself_what_no_column_can() {
        let sent =
            read(r#"{"code":"10","_id":7,"n":1.50,"_operation":"delete","tags":["a"],"_time":"2026-01-01T00:00:00Z"}"#)
                .unwrap();
        let row = sent.row.unwrap();
        let columns: Vec<_> = row.iter().collect();
        assert_eq!(
            columns,
            [("code", &"10".into()), ("n", &Value::Number("1.50".into())), ("tags", &r#"["a"]"#.into())]
        );
        assert_eq!((sent.id.as_deref(), sent.operation.as_deref()), (Some("7"), Some("delete")));
        assert_eq!(sent.time.as_deref(), Some("2026-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_row_is_told_without_its_values() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(40), "]".repeat(40));
        let wide: Vec<_> = (0..=MAX_COLUMNS).map(|n| format!("\"c{n}\":1")).collect();
        for (text, expected) in [
            ("", "not JSON: EOF while parsing a value at byte 0"),
            ("7", "not a change event: a row is not an object"),
            ("{\"a\":1} x", "not JSON: trailing characters at byte 8"),
            ("{\"a\":1,\"b\":2,\"a\":3}", "two columns have the same name"),
            ("{\"a\":NaN}", "not JSON: "),
            (&deep, "more than 32 brackets stand within each other"),
            (&format!("{{{}}}", wide.join(",")), "a row has more than 2000 columns"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn columns_may_change_from_row_to_row() {
        let mut reader = RowReader::default();
        for (text, names) in
            [("{\"a\":1,\"b\":2}", vec!["a", "b"]), ("{\"a\":3}", vec!["a"]), ("{\"b\":1,\"a\":2}", vec!["b", "a"])]
        {
            let row = reader.read(text).unwrap().row.unwrap();
            assert_eq!(row.iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[\\[\\]{},:\"\\\\a1.e_\n-]{0,60}|.{0,40}") {
            let is_object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).is_ok();
            prop_assert!(read(&text).is_err() || is_object, "{}", text);
        }
    }
}
