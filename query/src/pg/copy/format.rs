//! How a copy is written, as the options of `COPY` say it.

use datafusion::sql::sqlparser::ast::{CopyLegacyCsvOption, CopyLegacyOption, CopyOption, Ident};

/// What text may not have as its delimiter, since it says something else after a backslash, or in a number.
const NO_DELIMITER: &str = "\\.abcdefghijklmnopqrstuvwxyz0123456789";

/// How a copy is written.
#[derive(Debug, PartialEq)]
pub(super) enum Format {
    /// A line for each row; what would be taken for something else has a backslash before it.
    Text(Line),
    /// A line for each row, with quotation marks where they are needed.
    Csv(Line, Quotes),
    /// Each value by its length and its bytes.
    Binary,
}

/// What a line has.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub delimiter: u8,
    /// What stands for a value that is not there.
    pub null: String,
    /// Whether the first line names the columns.
    pub header: bool,
}

/// What CSV has beside.
#[derive(Debug, PartialEq)]
pub(super) struct Quotes {
    pub quote: u8,
    /// What stands before a quotation mark that is part of a value.
    pub escape: u8,
    /// The columns whose values always have them.
    pub forced: Vec<String>,
}

/// What was asked for, before it is known whether it fits together.
#[derive(Default)]
struct Asked {
    format: Option<String>,
    delimiter: Option<char>,
    null: Option<String>,
    header: bool,
    quote: Option<char>,
    escape: Option<char>,
    forced: Vec<Ident>,
}

impl Format {
    /// The format that options ask for, whether they are written as today or as before PostgreSQL 9.
    ///
    /// # Errors
    /// Where one is not known, or they do not fit together; says what to write.
    pub(super) fn of(options: Vec<CopyOption>, legacy: Vec<CopyLegacyOption>) -> Result<Self, String> {
        let mut asked = Asked::default();
        for option in options {
            asked.take(option)?;
        }
        for option in legacy {
            asked.take_legacy(option)?;
        }
        asked.format()
    }

    pub(super) fn is_binary(&self) -> bool {
        *self == Self::Binary
    }
}

impl Asked {
    fn take(&mut self, option: CopyOption) -> Result<(), String> {
        match option {
            CopyOption::Format(name) => self.format = Some(name.value.to_ascii_lowercase()),
            CopyOption::Delimiter(delimiter) => self.delimiter = Some(delimiter),
            CopyOption::Null(null) => self.null = Some(null),
            CopyOption::Header(header) => self.header = header,
            CopyOption::Quote(quote) => self.quote = Some(quote),
            CopyOption::Escape(escape) => self.escape = Some(escape),
            CopyOption::ForceQuote(columns) => self.forced = columns,
            CopyOption::Encoding(name) if ["utf8", "utf-8"].contains(&name.to_ascii_lowercase().as_str()) => {}
            CopyOption::Encoding(name) => return Err(format!("`{name}`: a copy is in UTF8. Leave ENCODING out")),
            other => return Err(format!("{other} is for a copy that comes in. Leave it out")),
        }
        Ok(())
    }

    fn take_legacy(&mut self, option: CopyLegacyOption) -> Result<(), String> {
        match option {
            CopyLegacyOption::Binary => self.format = Some("binary".to_owned()),
            CopyLegacyOption::Delimiter(delimiter) => self.delimiter = Some(delimiter),
            CopyLegacyOption::Null(null) => self.null = Some(null),
            CopyLegacyOption::Header => self.header = true,
            CopyLegacyOption::Csv(options) => {
                self.format = Some("csv".to_owned());
                for option in options {
                    match option {
                        CopyLegacyCsvOption::Header => self.header = true,
                        CopyLegacyCsvOption::Quote(quote) => self.quote = Some(quote),
                        CopyLegacyCsvOption::Escape(escape) => self.escape = Some(escape),
                        CopyLegacyCsvOption::ForceQuote(columns) => self.forced = columns,
                        other => return Err(format!("{other} is for a copy that comes in. Leave it out")),
                    }
                }
            }
            other => return Err(format!("{other} is no option of COPY … TO STDOUT. Leave it out")),
        }
        Ok(())
    }

    fn format(self) -> Result<Format, String> {
        let has_quotes = self.quote.is_some() || self.escape.is_some() || !self.forced.is_empty();
        match self.format.as_deref().unwrap_or("text") {
            "binary" if self.header || self.delimiter.is_some() || self.null.is_some() || has_quotes => {
                Err("the binary format has no options. Leave them out".to_owned())
            }
            "binary" => Ok(Format::Binary),
            "text" if has_quotes => {
                Err("QUOTE, ESCAPE and FORCE_QUOTE are for the format csv. Write FORMAT csv".to_owned())
            }
            "text" => {
                let line =
                    Line::new(self.delimiter.unwrap_or('\t'), self.null.unwrap_or("\\N".to_owned()), self.header)?;
                if NO_DELIMITER.contains(char::from(line.delimiter)) {
                    return Err(format!("the delimiter of text cannot be one of {NO_DELIMITER}. Write another"));
                }
                Ok(Format::Text(line))
            }
            "csv" => {
                let line = Line::new(self.delimiter.unwrap_or(','), self.null.unwrap_or_default(), self.header)?;
                let quote = byte(self.quote.unwrap_or('"'))?;
                let escape = self.escape.map_or(Ok(quote), byte)?;
                if quote == line.delimiter || line.null.as_bytes().contains(&quote) {
                    return Err("a quotation mark cannot be the delimiter, or part of NULL. Write another".to_owned());
                }
                let forced = self.forced.into_iter().map(name).collect();
                Ok(Format::Csv(line, Quotes { quote, escape, forced }))
            }
            other => Err(format!("`{other}` is no format: it is text, csv or binary")),
        }
    }
}

impl Line {
    fn new(delimiter: char, null: String, header: bool) -> Result<Self, String> {
        let delimiter = byte(delimiter)?;
        if null.as_bytes().contains(&delimiter) || null.contains(['\n', '\r']) {
            return Err("NULL cannot have the delimiter in it, or the end of a line. Write another".to_owned());
        }
        Ok(Self { delimiter, null, header })
    }
}

/// A character that separates or quotes: one byte, and not the end of a line.
fn byte(written: char) -> Result<u8, String> {
    match u8::try_from(written) {
        Ok(byte) if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Ok(byte),
        _ => Err(format!("{written:?} cannot separate or quote: that takes one character of ASCII")),
    }
}

/// The name of a column: what is not quoted is in small letters.
fn name(column: Ident) -> String {
    if column.quote_style.is_some() { column.value } else { column.value.to_lowercase() }
}
