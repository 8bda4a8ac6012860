//! Rows of CSV (RFC 4180), as bytes come. The first row has the names of the columns; an empty field is NULL.

use csv_core::{ReadRecordResult, Reader};
use encoding_rs::{Decoder, Encoding};
use ruam_event::{Columns, Row, Value};

use super::row::{ID, MAX_COLUMNS, OPERATION, SEQUENCE, SIGNATURE, SentRow, TIME, check_columns, is_of_itself};

/// What a row came to; where it is no row, why.
pub(super) type CsvRow = Result<SentRow, String>;

/// Reads CSV.
pub(super) struct CsvReader {
    /// Of the bytes into UTF-8.
    decoder: Decoder,
    text: String,
    reader: Reader,
    /// The fields of the row that is being read, one after another, and where each ends.
    fields: Vec<u8>,
    written: usize,
    ends: Vec<usize>,
    ended: usize,
    /// The most bytes of a row.
    most: usize,
    is_too_long: bool,
    /// The names as they came, and those of them that are columns; none before the first row.
    header: Option<(Vec<String>, Columns)>,
}

impl CsvReader {
    /// `charset`: what the text is written in, as the header `content-type` has it; UTF-8 where it does not say.
    /// `most`: the most bytes of a row.
    ///
    /// # Errors
    /// Where the charset is not known.
    pub(super) fn new(charset: Option<&str>, most: usize) -> Result<Self, String> {
        let encoding = match charset {
            None => encoding_rs::UTF_8,
            Some(label) => Encoding::for_label(label.as_bytes())
                .ok_or_else(|| "the charset is not known. Write utf-8, windows-874 or tis-620".to_owned())?,
        };
        Ok(Self {
            decoder: encoding.new_decoder_with_bom_removal(),
            text: String::new(),
            reader: Reader::new(),
            fields: vec![0; most.clamp(1, 4096)],
            written: 0,
            ends: vec![0; 64],
            ended: 0,
            most,
            is_too_long: false,
            header: None,
        })
    }

    /// Takes more bytes; gives each row that they end, with its size.
    ///
    /// # Errors
    /// Where the text is not in its charset, or the first row names no columns; nothing more can be read then.
    pub(super) fn push(&mut self, bytes: &[u8], each: &mut dyn FnMut(CsvRow, usize)) -> Result<(), String> {
        self.decode(bytes, false, each)
    }

    /// What is left is the last row.
    ///
    /// # Errors
    /// As [`Self::push`], and where there is not even a header.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(CsvRow, usize)) -> Result<(), String> {
        self.decode(&[], true, each)?;
        self.read("", each)?;
        self.header.as_ref().map(|_| ()).ok_or_else(|| "there is no row with the names of the columns".to_owned())
    }

    fn decode(&mut self, mut bytes: &[u8], is_last: bool, each: &mut dyn FnMut(CsvRow, usize)) -> Result<(), String> {
        let mut text = std::mem::take(&mut self.text);
        loop {
            text.clear();
            text.reserve(self.decoder.max_utf8_buffer_length(bytes.len()).unwrap_or(bytes.len() * 3).max(16));
            let (result, read, has_errors) = self.decoder.decode_to_string(bytes, &mut text, is_last);
            if has_errors {
                return Err("the text is not in its charset. Name the one that it is in: content-type: text/csv; charset=windows-874".to_owned());
            }
            bytes = &bytes[read..];
            if !text.is_empty() {
                self.read(&text, each)?;
            }
            if result == encoding_rs::CoderResult::InputEmpty {
                self.text = text;
                return Ok(());
            }
        }
    }

    fn read(&mut self, text: &str, each: &mut dyn FnMut(CsvRow, usize)) -> Result<(), String> {
        let mut input = text.as_bytes();
        // Only no input at all is the end of it.
        let at_end = input.is_empty();
        while at_end || !input.is_empty() {
            let (result, read, written, ended) =
                self.reader.read_record(input, &mut self.fields[self.written..], &mut self.ends[self.ended..]);
            input = &input[read..];
            self.written += written;
            self.ended += ended;
            match result {
                ReadRecordResult::OutputFull if self.fields.len() >= self.most => {
                    // The rest of the row is read over.
                    self.is_too_long = true;
                    self.written = 0;
                }
                ReadRecordResult::OutputFull => self.fields.resize((self.fields.len() * 2).min(self.most.max(1)), 0),
                ReadRecordResult::OutputEndsFull if self.ends.len() > MAX_COLUMNS => {
                    self.is_too_long = true;
                    self.ended = 0;
                }
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => self.row(each)?,
                ReadRecordResult::InputEmpty | ReadRecordResult::End => break,
            }
        }
        Ok(())
    }

    fn row(&mut self, each: &mut dyn FnMut(CsvRow, usize)) -> Result<(), String> {
        let (size, fields) = (std::mem::take(&mut self.written), std::mem::take(&mut self.ended));
        if std::mem::take(&mut self.is_too_long) {
            if self.header.is_none() {
                return Err(format!(
                    "the row with the names of the columns has more than {} bytes or {MAX_COLUMNS} columns",
                    self.most
                ));
            }
            each(Err(format!("the row has more than {} bytes or {MAX_COLUMNS} fields", self.most)), self.most);
            return Ok(());
        }
        let mut start = 0;
        // The input was UTF-8, and fields begin and end at ASCII characters.
        let texts = self.ends[..fields].iter().map(|end| {
            let text = String::from_utf8_lossy(&self.fields[start..*end]).into_owned();
            start = *end;
            text
        });
        let texts: Vec<_> = texts.collect();
        match &self.header {
            None => {
                let names: Vec<_> = texts.into_iter().map(|name| name.trim().to_owned()).collect();
                check_columns(&names)?;
                let columns = names.iter().filter(|name| !is_of_itself(name)).cloned().collect();
                self.header = Some((names, columns));
            }
            Some((names, _)) if names.len() != texts.len() => {
                each(Err(format!("the row has {} fields, and there are {} columns", texts.len(), names.len())), size);
            }
            Some((names, columns)) => {
                let (mut sent, mut values) = (SentRow::default(), Vec::with_capacity(columns.len()));
                for (name, text) in names.iter().zip(texts) {
                    let value = Some(text).filter(|text| !text.is_empty());
                    match name.as_str() {
                        ID => sent.id = value,
                        OPERATION => sent.operation = value,
                        TIME => sent.time = value,
                        SEQUENCE => sent.sequence = value,
                        SIGNATURE => sent.signature = value,
                        _ => values.push(value.map_or(Value::Null, Value::Text)),
                    }
                }
                sent.row = Some(Row::new(columns.clone(), values));
                each(Ok(sent), size);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for CsvReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CsvReader").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(charset: Option<&str>, body: &[u8], piece: usize) -> (Vec<CsvRow>, Result<(), String>) {
        let (mut reader, mut rows) = (CsvReader::new(charset, 100).unwrap(), Vec::new());
        let mut each = |row, _| rows.push(row);
        let done = body.chunks(piece.max(1)).try_for_each(|piece| reader.push(piece, &mut each));
        let done = done.and_then(|()| reader.finish(&mut each));
        (rows, done)
    }

    fn values(rows: &[CsvRow]) -> Vec<Result<Vec<Value>, &str>> {
        let values = |row: &SentRow| row.row.iter().flat_map(Row::iter).map(|(_, value)| value.clone()).collect();
        rows.iter().map(|row| row.as_ref().map(values).map_err(String::as_str)).collect()
    }

    #[test]
    fn rows_are_read_as_they_come() {
        let long = "x".repeat(120);
        let body =
            format!("\u{feff}_id,code, name\r\n1,10,\"กรุง,\"\"เทพ\"\"\n\"\r\n\r\n,11,\n2,12\n3,{long},y\n4,13,z");
        for piece in [1, 2, 3, 7, 1000] {
            let (rows, done) = read(None, body.as_bytes(), piece);
            done.unwrap();
            assert_eq!(rows[0].as_ref().unwrap().id.as_deref(), Some("1"));
            let long = "the row has more than 100 bytes or 2000 fields";
            assert_eq!(
                values(&rows),
                [
                    Ok(vec!["10".into(), "กรุง,\"เทพ\"\n".into()]),
                    Ok(vec!["11".into(), Value::Null]),
                    Err("the row has 2 fields, and there are 3 columns"),
                    Err(long),
                    Ok(vec!["13".into(), "z".into()]),
                ],
                "{piece}"
            );
        }
    }

    #[test]
    fn what_excel_writes_in_thailand_is_read() {
        // กรุง in TIS-620.
        let body = b"name\n\xa1\xc3\xd8\xa7\n";
        for charset in ["tis-620", "windows-874", "iso-8859-11"] {
            let (rows, done) = read(Some(charset), body, 1);
            done.unwrap();
            assert_eq!(values(&rows), [Ok(vec!["กรุง".into()])]);
        }
        assert!(read(None, body, 1).1.unwrap_err().starts_with("the text is not in its charset"));
        assert!(CsvReader::new(Some("klingon"), 10).is_err());
    }

    #[test]
    fn a_header_there_has_to_be() {
        assert_eq!(read(None, b"", 1).1.unwrap_err(), "there is no row with the names of the columns");
        assert_eq!(read(None, b"a,a\n", 1).1.unwrap_err(), "two columns have the same name");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(body in "a,b\n[a,\"\r\nก]{0,60}", piece in 1_usize..9) {
            prop_assert_eq!(read(None, body.as_bytes(), piece), read(None, body.as_bytes(), 1000));
        }

        #[test]
        fn no_bytes_break_the_reader(body in prop::collection::vec(any::<u8>(), 0..80), piece in 1_usize..9) {
            let _ = read(None, &body, piece);
            let _ = read(Some("windows-874"), &body, piece);
        }
    }
}
