//! The rows of a copy as bytes.
//!
//! What passes through: a batch, column by column into the values that a `SELECT` would send, and those row by
//! row into lines, or into what the binary format has for them.

use arrow::array::RecordBatch;
use bytes::{BufMut, Bytes, BytesMut};
use datafusion_postgres::arrow_pg::encoder::{Encoder, encode_value};
use datafusion_postgres::pgwire::api::results::{FieldFormat, FieldInfo};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::types::ToSqlText;
use postgres_types::{IsNull, ToSql};

use super::format::{Format, Line, Quotes};

/// So many rows are bytes at a time.
const ROWS: usize = 1024;
/// What the binary format begins with: its name, no flags, and nothing more to say.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In the place of a number of columns, and of a length: nothing comes.
const NONE: i16 = -1;
const NULL: i32 = -1;
/// What stood for the end of a copy, alone on its line.
const END: &[u8] = b"\\.";

/// Makes rows into bytes.
pub(super) struct Rows {
    format: Format,
    fields: Vec<FieldInfo>,
    /// Whether each column has quotation marks in any case.
    forced: Vec<bool>,
    /// What the next message has before its row: clients look for the signature there, and not in one of its own.
    ahead: BytesMut,
}

impl Rows {
    /// # Errors
    /// Where the format speaks of a column that there is not.
    pub(super) fn new(format: Format, fields: Vec<FieldInfo>) -> Result<Self, String> {
        let mut forced = vec![false; fields.len()];
        if let Format::Csv(_, quotes) = &format {
            for name in &quotes.forced {
                let at = fields.iter().position(|field| field.name() == name);
                let at = at.ok_or_else(|| format!("FORCE_QUOTE: the answer has no column `{name}`"))?;
                forced[at] = true;
            }
        }
        let ahead = if format.is_binary() { BytesMut::from(SIGNATURE) } else { BytesMut::new() };
        Ok(Self { format, fields, forced, ahead })
    }

    /// What comes before the rows, in a message of its own.
    pub(super) fn beginning(&self) -> Option<Bytes> {
        let (Format::Text(line) | Format::Csv(line, _)) = &self.format else { return None };
        line.header.then(|| {
            let mut names = BytesMut::new();
            self.put_line(line, &mut names, |at| Some(self.fields[at].name().as_bytes()), |_| false);
            names.freeze()
        })
    }

    /// What comes after them.
    pub(super) fn end(&mut self) -> Option<Bytes> {
        let mut end = std::mem::take(&mut self.ahead);
        self.format.is_binary().then(|| {
            end.put_i16(NONE);
            end.freeze()
        })
    }

    /// A batch in parts that are bytes at a time.
    pub(super) fn parts(&self, batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> + use<> {
        let batch = batch.clone();
        (0..batch.num_rows()).step_by(ROWS).map(move |from| batch.slice(from, ROWS.min(batch.num_rows() - from)))
    }

    /// The rows of a part.
    ///
    /// # Errors
    /// Where PostgreSQL's protocol has no form for a value.
    pub(super) fn of(&mut self, part: &RecordBatch) -> PgWireResult<Vec<Bytes>> {
        let columns = self.fields.iter().enumerate().map(|(at, field)| {
            let mut values = Values::default();
            for row in 0..part.num_rows() {
                encode_value(&mut values, part.column(at), row, part.schema_ref().field(at), field)?;
                values.take_row();
            }
            Ok(values)
        });
        let columns = columns.collect::<PgWireResult<Vec<_>>>()?;
        let mut bytes = std::mem::take(&mut self.ahead);
        bytes.reserve(columns.iter().map(|values| values.bytes.len() + values.ends.len()).sum());
        let rows = (0..part.num_rows()).map(|row| {
            match &self.format {
                Format::Text(line) | Format::Csv(line, _) => {
                    self.put_line(line, &mut bytes, |at| columns[at].get(row), |at| self.forced[at]);
                }
                Format::Binary => {
                    bytes.put_i16(i16::try_from(columns.len()).unwrap_or(i16::MAX));
                    for values in &columns {
                        match values.get(row) {
                            Some(value) => {
                                bytes.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                                bytes.put_slice(value);
                            }
                            None => bytes.put_i32(NULL),
                        }
                    }
                }
            }
            bytes.split().freeze()
        });
        Ok(rows.collect())
    }

    fn put_line<'a>(
        &self,
        line: &Line,
        out: &mut BytesMut,
        value: impl Fn(usize) -> Option<&'a [u8]>,
        is_forced: impl Fn(usize) -> bool,
    ) {
        for at in 0..self.fields.len() {
            if at > 0 {
                out.put_u8(line.delimiter);
            }
            match (value(at), &self.format) {
                (None, _) => out.put_slice(line.null.as_bytes()),
                (Some(value), Format::Csv(line, quotes)) => {
                    let is_end = self.fields.len() == 1 && value == END;
                    put_csv(value, line, quotes, is_forced(at) || is_end, out);
                }
                (Some(value), _) => put_text(value, line.delimiter, out),
            }
        }
        out.put_u8(b'\n');
    }
}

/// A value of text, with a backslash before what says something else.
fn put_text(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    let mut from = 0;
    for (at, &byte) in value.iter().enumerate() {
        let said = match byte {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\\' => b'\\',
            _ if byte == delimiter && byte != b'\t' => byte,
            b'\t' => b't',
            8 => b'b',
            11 => b'v',
            12 => b'f',
            _ => continue,
        };
        out.put_slice(&value[from..at]);
        out.put_slice(&[b'\\', said]);
        from = at + 1;
    }
    out.put_slice(&value[from..]);
}

/// A value of CSV, within quotation marks where it would be taken for something else without.
fn put_csv(value: &[u8], line: &Line, quotes: &Quotes, is_forced: bool, out: &mut BytesMut) {
    let is_special = |byte: &u8| [line.delimiter, quotes.quote, b'\n', b'\r'].contains(byte);
    if !is_forced && value != line.null.as_bytes() && !value.iter().any(is_special) {
        return out.put_slice(value);
    }
    out.put_u8(quotes.quote);
    for &byte in value {
        if [quotes.quote, quotes.escape].contains(&byte) {
            out.put_u8(quotes.escape);
        }
        out.put_u8(byte);
    }
    out.put_u8(quotes.quote);
}

/// The values of one column, each as it is sent.
#[derive(Default)]
struct Values {
    bytes: BytesMut,
    /// Where each ends, and whether it is there at all.
    ends: Vec<(usize, bool)>,
    is_there: bool,
}

impl Values {
    fn get(&self, row: usize) -> Option<&[u8]> {
        let (end, is_there) = self.ends[row];
        let from = row.checked_sub(1).map_or(0, |before| self.ends[before].0);
        is_there.then(|| &self.bytes[from..end])
    }
}

impl Encoder for Values {
    type Item = ();

    fn encode_field<T>(&mut self, value: &T, field: &FieldInfo) -> PgWireResult<()>
    where
        T: ToSql + ToSqlText + Sized,
    {
        let put = match field.format() {
            FieldFormat::Text => value.to_sql_text(field.datatype(), &mut self.bytes, field.format_options()),
            FieldFormat::Binary => value.to_sql(field.datatype(), &mut self.bytes),
        };
        self.is_there = matches!(put.map_err(PgWireError::ApiError)?, IsNull::No);
        Ok(())
    }

    fn take_row(&mut self) {
        self.ends.push((self.bytes.len(), std::mem::take(&mut self.is_there)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Int32Array, StringArray};
    use datafusion_postgres::arrow_pg::datatypes::arrow_schema_to_pg_fields;
    use datafusion_postgres::pgwire::api::portal::Format as Fields;

    use crate::pg::copy::Copy;

    fn copied(options: &str, texts: Vec<Option<&str>>) -> Vec<u8> {
        let numbers: Int32Array = (0..texts.len()).map(|row| (row != 1).then_some(row as i32)).collect();
        let batch = RecordBatch::try_from_iter([
            ("Text, 1", Arc::new(StringArray::from(texts.clone())) as ArrayRef),
            ("n", Arc::new(numbers)),
            ("b", Arc::new(BooleanArray::from(vec![true; texts.len()]))),
        ]);
        let batch = batch.unwrap();
        let copy = Copy::of(&format!("copy t to stdout {options}")).unwrap().unwrap();
        let shape = if copy.format.is_binary() { Fields::UnifiedBinary } else { Fields::UnifiedText };
        let mut rows =
            Rows::new(copy.format, arrow_schema_to_pg_fields(&batch.schema(), &shape, None).unwrap()).unwrap();
        let parts: Vec<_> = rows.parts(&batch).collect();
        let parts: Vec<_> = parts.iter().flat_map(|part| rows.of(part).unwrap()).collect();
        assert_eq!(parts.len(), batch.num_rows(), "a message for each row");
        let beginning: Vec<_> = rows.beginning().into_iter().collect();
        [beginning, parts, rows.end().into_iter().collect()].concat().concat()
    }

    fn text(options: &str, texts: Vec<Option<&str>>) -> String {
        String::from_utf8(copied(options, texts)).unwrap()
    }

    #[test]
    fn as_postgresql_writes_it() {
        let odd = || vec![Some("a\tb\\c\nd"), None, Some(""), Some("\\.")];
        for (options, expected) in [
            ("", "a\\tb\\\\c\\nd\t0\tt\n\\N\t\\N\tt\n\t2\tt\n\\\\.\t3\tt\n"),
            ("(header, delimiter '|', null '-')", "Text, 1|n|b\na\\tb\\\\c\\nd|0|t\n-|-|t\n|2|t\n\\\\.|3|t\n"),
            ("csv", "\"a\tb\\c\nd\",0,t\n,,t\n\"\",2,t\n\\.,3,t\n"),
            (
                "(format csv, header true, force_quote (n))",
                "\"Text, 1\",n,b\n\"a\tb\\c\nd\",\"0\",t\n,,t\n\"\",\"2\",t\n\\.,\"3\",t\n",
            ),
            ("csv null 'NULL'", "\"a\tb\\c\nd\",0,t\nNULL,NULL,t\n,2,t\n\\.,3,t\n"),
        ] {
            assert_eq!(text(options, odd()), expected, "{options}");
        }
        assert_eq!(text("csv quote '''' escape '\\'", vec![Some("it's\\")]), "'it\\'s\\\\',0,t\n");
        assert_eq!(text("(delimiter ',')", vec![Some("a,b")]), "a\\,b,0,t\n");
    }

    #[test]
    fn binary_has_lengths() {
        let mut expected = SIGNATURE.to_vec();
        expected.extend(b"\0\x03\0\0\0\x03\xe0\xb8\x81\0\0\0\x04\0\0\0\0\0\0\0\x01\x01");
        expected.extend(b"\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x01\x01\xff\xff");
        assert_eq!(copied("(format binary)", vec![Some("ก"), None]), expected);
        assert_eq!(copied("(format binary)", Vec::new()), [SIGNATURE, b"\xff\xff"].concat());
    }

    #[test]
    fn many_rows_come_in_parts() {
        let lines = text("", vec![Some("x"); 2 * ROWS + 7]);
        assert_eq!(lines.lines().count(), 2 * ROWS + 7);
        assert!(lines.ends_with(&format!("x\t{}\tt\n", 2 * ROWS + 6)), "the last row is the last");
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        for (options, expected) in [
            ("(format binary, header)", "has no options"),
            ("(quote '*')", "FORMAT csv"),
            ("(delimiter 'a')", "Write another"),
            ("csv delimiter '\"'", "Write another"),
            ("(null 'a\tb')", "Write another"),
            ("(encoding 'latin1')", "UTF8"),
            ("(force_null (a))", "comes in"),
            ("gzip", "no option"),
        ] {
            let error = Copy::of(&format!("copy t to stdout {options}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{options}: {error}");
        }
        let copy = Copy::of("copy t to stdout (format csv, force_quote (nn))").unwrap().unwrap();
        let error = Rows::new(copy.format, Vec::new()).err().unwrap();
        assert!(error.contains("no column `nn`"), "{error}");
    }
}
