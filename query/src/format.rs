//! Results as people and programs want them: a table in a terminal, CSV, JSON, Arrow or Parquet.

use std::io::{self, Write};
use std::str::FromStr;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_ipc::writer::StreamWriter;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use unicode_width::UnicodeWidthStr;

use crate::error::QueryError;

/// The most rows that a table shows; more than anybody reads, and a bound on memory.
const TABLE_ROWS: usize = 10_000;
/// The most bytes of a Parquet row group, as far as a batch goes.
const ROW_GROUP: usize = 128 << 20;
/// Longer words than this may be broken; Thai, which writes no spaces, is broken in any case.
const LONG_WORD: usize = 24;

/// What a result is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table for reading.
    Table,
    /// CSV with a header, in UTF-8.
    Csv,
    /// A JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// Arrow's IPC stream.
    Arrow,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// The names, as they are written on the command line.
    pub const NAMES: [&str; 6] = ["table", "csv", "json", "ndjson", "arrow", "parquet"];
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            "ndjson" => Ok(Self::Ndjson),
            "arrow" => Ok(Self::Arrow),
            "parquet" => Ok(Self::Parquet),
            other => Err(format!("`{other}` is none of {}", Self::NAMES.join(", "))),
        }
    }
}

/// Writes a whole result; `width` is that of the terminal, in columns. Returns the number of rows.
///
/// # Errors
/// Where the query fails on the way, or the result cannot be written.
pub async fn write(
    mut results: SendableRecordBatchStream,
    format: Format,
    width: Option<u16>,
    out: &mut (dyn Write + Send),
) -> Result<u64, QueryError> {
    let mut sink = sink(format, results.schema(), width, out)?;
    let mut rows = 0;
    while let Some(batch) = results.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        sink.write(&batch)?;
    }
    sink.finish()?;
    Ok(rows)
}

/// What takes a result of some columns and writes it; `width` is that of the terminal, in columns.
///
/// # Errors
/// Where the columns cannot be written in this format.
pub(crate) fn sink<'a, W: Write + Send + 'a>(
    format: Format,
    schema: SchemaRef,
    width: Option<u16>,
    out: W,
) -> Result<Box<dyn Sink + Send + 'a>, QueryError> {
    Ok(match format {
        Format::Table => Box::new(TableSink { schema, width, out, shown: Vec::new(), rows: 0 }),
        Format::Csv => Box::new(CsvSink {
            writer: arrow_csv::WriterBuilder::new().with_header(true).build(out),
            empty: Some(schema),
        }),
        Format::Json => Box::new(JsonSink { writer: arrow_json::ArrayWriter::new(out) }),
        Format::Ndjson => Box::new(NdjsonSink { writer: arrow_json::LineDelimitedWriter::new(out) }),
        Format::Arrow => Box::new(ArrowSink { writer: StreamWriter::try_new(out, &schema).map_err(arrow)? }),
        Format::Parquet => Box::new(ParquetSink { writer: ArrowWriter::try_new(out, schema, None).map_err(parquet)? }),
    })
}

/// Takes a result batch by batch.
pub(crate) trait Sink {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), QueryError>;
    fn finish(self: Box<Self>) -> Result<(), QueryError>;
}

fn csv(error: ArrowError) -> QueryError {
    format_error("CSV", error)
}

fn arrow(error: ArrowError) -> QueryError {
    format_error("an Arrow stream", error)
}

fn parquet(error: ParquetError) -> QueryError {
    format_error("Parquet", error)
}

fn format_error(format: &'static str, error: impl std::fmt::Display) -> QueryError {
    QueryError::Format { format, problem: error.to_string() }
}

fn output(source: io::Error) -> QueryError {
    QueryError::Output { place: "the terminal".to_owned(), source }
}

pub(crate) struct CsvSink<W: Write> {
    pub writer: arrow_csv::Writer<W>,
    /// The columns, as long as no batch has come whose header would say them.
    pub empty: Option<SchemaRef>,
}

impl<W: Write> Sink for CsvSink<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        self.empty = None;
        self.writer.write(batch).map_err(csv)
    }

    fn finish(mut self: Box<Self>) -> Result<(), QueryError> {
        if let Some(schema) = self.empty.take() {
            self.writer.write(&RecordBatch::new_empty(schema)).map_err(csv)?;
        }
        Ok(())
    }
}

struct JsonSink<W: Write> {
    writer: arrow_json::ArrayWriter<W>,
}

impl<W: Write> Sink for JsonSink<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        self.writer.write(batch).map_err(|error| format_error("JSON", error))
    }

    fn finish(mut self: Box<Self>) -> Result<(), QueryError> {
        self.writer.finish().map_err(|error| format_error("JSON", error))?;
        self.writer.into_inner().write_all(b"\n").map_err(output)
    }
}

struct NdjsonSink<W: Write> {
    writer: arrow_json::LineDelimitedWriter<W>,
}

impl<W: Write> Sink for NdjsonSink<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        self.writer.write(batch).map_err(|error| format_error("JSON", error))
    }

    fn finish(mut self: Box<Self>) -> Result<(), QueryError> {
        self.writer.finish().map_err(|error| format_error("JSON", error))
    }
}

struct ArrowSink<W: Write> {
    writer: StreamWriter<W>,
}

impl<W: Write> Sink for ArrowSink<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        self.writer.write(batch).map_err(arrow)
    }

    fn finish(mut self: Box<Self>) -> Result<(), QueryError> {
        self.writer.finish().map_err(arrow)
    }
}

pub(crate) struct ParquetSink<W: Write + Send> {
    pub writer: ArrowWriter<W>,
}

impl<W: Write + Send> Sink for ParquetSink<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        self.writer.write(batch).map_err(parquet)?;
        // What has been written leaves memory with its row group.
        if self.writer.in_progress_size() > ROW_GROUP { self.writer.flush().map_err(parquet) } else { Ok(()) }
    }

    fn finish(self: Box<Self>) -> Result<(), QueryError> {
        self.writer.close().map(drop).map_err(parquet)
    }
}

struct TableSink<W: Write> {
    schema: SchemaRef,
    width: Option<u16>,
    out: W,
    shown: Vec<RecordBatch>,
    rows: usize,
}

impl<W: Write> Sink for TableSink<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        let room = TABLE_ROWS.saturating_sub(self.rows).min(batch.num_rows());
        if room > 0 {
            self.shown.push(batch.slice(0, room));
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), QueryError> {
        let text = table(&self.schema, &self.shown, self.width).map_err(|error| format_error("a table", error))?;
        writeln!(self.out, "{text}").map_err(output)?;
        let rows = if self.rows == 1 { "1 row".to_owned() } else { format!("{} rows", self.rows) };
        if self.rows > TABLE_ROWS {
            return writeln!(self.out, "{rows}, of which the first {TABLE_ROWS} are shown; --format csv writes all")
                .map_err(output);
        }
        writeln!(self.out, "{rows}").map_err(output)
    }
}

/// Batches as a table that fits a terminal; where there are too many columns for that, one value a
/// line.
///
/// # Errors
/// Where a value has no text.
pub fn table(schema: &SchemaRef, batches: &[RecordBatch], width: Option<u16>) -> Result<String, ArrowError> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(schema.fields().iter().map(|field| Cell::new(field.name())));
    let figures: Vec<_> =
        (0..schema.fields().len()).filter(|index| schema.field(*index).data_type().is_numeric()).collect();
    for index in &figures {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    each_row(batches, |values| {
        table.add_row(values);
    })?;
    if fit(&mut table, width, &figures, 3) || table.row_count() == 0 {
        Ok(table.to_string())
    } else {
        expanded(schema, batches, width)
    }
}

/// Makes a table as wide as a terminal at most, without breaking words or figures; says whether
/// there is room enough. `figures` are the columns of figures, `spacing` is what each column takes
/// beside its contents.
pub fn fit(table: &mut Table, width: Option<u16>, figures: &[usize], spacing: usize) -> bool {
    let Some(width) = width else { return true };
    table.set_width(width);
    let mut needed = 0;
    for index in 0..table.column_count() {
        let is_figure = figures.contains(&index);
        let cells = table.header().into_iter().chain(table.row_iter()).filter_map(|row| row.cell_iter().nth(index));
        let longest = cells.map(|cell| if is_figure { cell.content().width() } else { longest_word(&cell.content()) });
        let least = longest.max().unwrap_or(0).clamp(1, LONG_WORD);
        needed += least + spacing;
        if let Some(column) = table.column_mut(index) {
            let least = u16::try_from(least).unwrap_or(u16::MAX) + column.padding_width();
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
        }
    }
    needed < usize::from(width)
}

fn longest_word(text: &str) -> usize {
    let words = text.split_whitespace().filter(|word| word.is_ascii());
    words.map(str::len).max().unwrap_or(0)
}

fn expanded(schema: &SchemaRef, batches: &[RecordBatch], width: Option<u16>) -> Result<String, ArrowError> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    let (mut text, mut row) = (String::new(), 0);
    each_row(batches, |values| {
        row += 1;
        text.push_str(&format!("─ row {row} ─\n"));
        let mut table = table.clone();
        for (field, value) in schema.fields().iter().zip(values) {
            table.add_row([field.name().clone(), value]);
        }
        text.push_str(&table.trim_fmt());
        text.push('\n');
    })?;
    Ok(text.trim_end().to_owned())
}

fn each_row(batches: &[RecordBatch], mut row: impl FnMut(Vec<String>)) -> Result<(), ArrowError> {
    let options = FormatOptions::default().with_null("").with_display_error(false);
    for batch in batches {
        let formatters = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
        for index in 0..batch.num_rows() {
            row(formatters.iter().map(|formatter| formatter.value(index).to_string()).collect());
        }
    }
    Ok(())
}

/// A column as text, for those who print by themselves.
///
/// # Errors
/// Where a value has no text.
pub fn texts(column: &dyn Array) -> Result<Vec<String>, ArrowError> {
    let options = FormatOptions::default().with_null("");
    let formatter = ArrayFormatter::try_new(column, &options)?;
    Ok((0..column.len()).map(|index| formatter.value(index).to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn batch(columns: usize) -> RecordBatch {
        let fields: Vec<_> =
            (0..columns).map(|index| Field::new(format!("column_{index}"), DataType::Utf8, true)).collect();
        let mut fields = fields;
        fields.push(Field::new("count", DataType::Int64, true));
        let text = Arc::new(StringArray::from(vec![Some("น้ำใจ"), None, Some("กรุงเทพมหานคร")])) as ArrayRef;
        let mut arrays = vec![text; columns];
        arrays.push(Arc::new(Int64Array::from(vec![1, 20, 300])));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    }

    #[test]
    fn thai_columns_are_aligned_and_numbers_stand_right() {
        let batch = batch(1);
        let text = table(&batch.schema(), std::slice::from_ref(&batch), Some(80)).unwrap();
        // The marks above and below take no column of their own: กรุงเทพมหานคร has 13 characters and
        // is 12 columns wide.
        let expected = "\
┌──────────────┬───────┐
│ column_0     ┆ count │
╞══════════════╪═══════╡
│ น้ำใจ         ┆     1 │
│              ┆    20 │
│ กรุงเทพมหานคร ┆   300 │
└──────────────┴───────┘";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn many_columns_go_below_each_other() {
        let batch = batch(12);
        let text = table(&batch.schema(), std::slice::from_ref(&batch), Some(80)).unwrap();
        assert!(text.starts_with("─ row 1 ─\n") && text.lines().count() == 3 * 14, "\n{text}");
        let wide = table(&batch.schema(), std::slice::from_ref(&batch), Some(200)).unwrap();
        assert!(wide.starts_with('┌'), "\n{wide}");
    }
}
