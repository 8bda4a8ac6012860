//! Extracts: what is published from a dataset, as files that say where they come from.
//!
//! What passes through: the rows of a query, as they were in one version of each table, into one file
//! per format, with a manifest that names the versions, the query, and the SHA-256 of each file.
//!
//! Guaranteed: a release appears as a whole or not at all. In CSV a text that a spreadsheet would run
//! as a formula is written with an apostrophe before it, and the manifest says in how many cells.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use ruam_event::DatasetSpec;
use ruam_event::spec::{ExtractFormat, ExtractSpec};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::engine::Engine;
use crate::error::QueryError;
use crate::format::{CsvSink, ParquetSink, Sink};

/// So that Excel takes a CSV file for UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A published extract.
#[derive(Clone, Debug)]
pub struct Release {
    /// The folder that holds it.
    pub folder: PathBuf,
    /// What it says about itself.
    pub manifest: Manifest,
}

/// What a release says about itself: `manifest.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    /// The dataset.
    pub dataset: String,
    /// The extract's name.
    pub extract: String,
    /// What the dataset is called.
    pub title: Both,
    /// What it holds.
    pub description: Both,
    /// Who answers for it.
    pub owner: Both,
    /// Under which licence it is published.
    pub license: Option<String>,
    /// Whether its rows are made up.
    pub generated: bool,
    /// When it was made, in UTC.
    pub created_at: String,
    /// The query that made it.
    pub sql: String,
    /// The tables that it was made from.
    pub tables: Vec<TableVersion>,
    /// How many rows it has.
    pub rows: u64,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its files.
    pub files: Vec<ReleaseFile>,
    /// The program that made it.
    pub made_by: String,
}

/// A text in Thai and in English.
#[derive(Clone, Debug, Serialize)]
pub struct Both {
    /// Thai.
    pub th: String,
    /// English.
    pub en: String,
}

/// A table and the version that was read.
#[derive(Clone, Debug, Serialize)]
pub struct TableVersion {
    /// The table.
    pub table: String,
    /// Its version.
    pub version: u64,
}

/// A column of a release.
#[derive(Clone, Debug, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as Arrow names it.
    #[serde(rename = "type")]
    pub data_type: String,
    /// What people call it, where the dataset says.
    pub title: Option<Both>,
}

/// A file of a release.
#[derive(Clone, Debug, Serialize)]
pub struct ReleaseFile {
    /// Its name.
    pub name: String,
    /// What it is.
    pub media_type: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// How many cells have an apostrophe before a text that would be a formula.
    pub escaped_cells: u64,
}

impl From<&ruam_event::spec::Bilingual> for Both {
    fn from(text: &ruam_event::spec::Bilingual) -> Self {
        Self { th: text.th.trim().to_owned(), en: text.en.trim().to_owned() }
    }
}

/// Makes an extract, under `<out>/<agency>/<dataset>/<extract>/v<version>`. One that is there already
/// is made anew.
///
/// # Errors
/// Where the query fails, or the files cannot be written.
pub async fn publish(
    engine: &Engine,
    spec: &DatasetSpec,
    extract: &ExtractSpec,
    out: &Path,
) -> Result<Release, QueryError> {
    let pinned = engine.pinned()?;
    let mut rows = pinned.query(&extract.sql).await?;
    let tables: Vec<_> = pinned
        .versions()
        .into_iter()
        .map(|(table, version)| TableVersion { table: table.to_string(), version })
        .collect();
    let own = spec.id().to_string();
    let version = tables.iter().find(|table| table.table == own).or(tables.first()).map_or(0, |table| table.version);

    let name = extract.name.get_ref();
    let folder = out.join(spec.id().agency()).join(spec.id().name()).join(name).join(format!("v{version}"));
    let staging = Staging::create(&folder)?;
    let schema = rows.schema();
    let mut files = extract
        .formats
        .iter()
        .map(|format| {
            OpenFile::create(
                &staging.path,
                &format!("{}-{}-{name}-v{version}", spec.id().agency(), spec.id().name()),
                *format,
                &schema,
            )
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        count += batch.num_rows() as u64;
        for file in &mut files {
            file.write(&batch)?;
        }
    }
    let files = files.into_iter().map(OpenFile::finish).collect::<Result<Vec<_>, _>>()?;
    let manifest = Manifest {
        dataset: own,
        extract: name.clone(),
        title: (&spec.title).into(),
        description: (&spec.description).into(),
        owner: (&spec.owner).into(),
        license: spec.license.clone(),
        generated: spec.generated,
        created_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        sql: extract.sql.trim().to_owned(),
        tables,
        rows: count,
        columns: schema.fields().iter().map(|field| column(field, spec)).collect(),
        files,
        made_by: format!("ruam {}", env!("CARGO_PKG_VERSION")),
    };
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|error| QueryError::Format { format: "JSON", problem: error.to_string() })?;
    let path = staging.path.join("manifest.json");
    fs::write(&path, text + "\n").map_err(|source| failed(&path, source))?;
    staging.publish(&folder)?;
    Ok(Release { folder, manifest })
}

fn column(field: &Field, spec: &DatasetSpec) -> Column {
    let declared = spec.columns.iter().find(|column| column.name() == field.name());
    Column {
        name: field.name().clone(),
        data_type: field.data_type().to_string(),
        title: declared.map(|column| (&column.title).into()),
    }
}

fn failed(path: &Path, source: io::Error) -> QueryError {
    QueryError::Output { place: path.display().to_string(), source }
}

/// A folder that is not visible as a release yet.
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn create(folder: &Path) -> Result<Self, QueryError> {
        let path = folder.with_extension(format!("part-{}", std::process::id()));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path, error)),
            _ => {}
        }
        fs::create_dir_all(&path).map_err(|source| failed(&path, source))?;
        Ok(Self { path })
    }

    fn publish(self, folder: &Path) -> Result<(), QueryError> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(folder, error)),
            _ => {}
        }
        fs::rename(&self.path, folder).map_err(|source| failed(folder, source))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nothing is there any more once it has been published.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A file of a release that is being written.
struct OpenFile {
    path: PathBuf,
    media_type: &'static str,
    sink: Box<dyn Sink + Send>,
    is_csv: bool,
    escaped_cells: u64,
    hash: Arc<std::sync::Mutex<Hash>>,
}

#[derive(Default)]
struct Hash {
    sha256: Sha256,
    bytes: u64,
}

/// Hashes what passes through it.
struct Hashing<W> {
    inner: W,
    hash: Arc<std::sync::Mutex<Hash>>,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        let mut hash = self.hash.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        hash.sha256.update(&bytes[..written]);
        hash.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl OpenFile {
    fn create(folder: &Path, stem: &str, format: ExtractFormat, schema: &SchemaRef) -> Result<Self, QueryError> {
        let (extension, media_type) = match format {
            ExtractFormat::Csv => ("csv", "text/csv; charset=utf-8"),
            ExtractFormat::Parquet => ("parquet", "application/vnd.apache.parquet"),
        };
        let path = folder.join(format!("{stem}.{extension}"));
        let file = File::create(&path).map_err(|source| failed(&path, source))?;
        let hash = Arc::new(std::sync::Mutex::<Hash>::default());
        let mut out = Hashing { inner: BufWriter::new(file), hash: hash.clone() };
        let sink: Box<dyn Sink + Send> = match format {
            ExtractFormat::Csv => {
                out.write_all(BYTE_ORDER_MARK).map_err(|source| failed(&path, source))?;
                let writer = arrow_csv::WriterBuilder::new().with_header(true).build(out);
                Box::new(CsvSink { writer, empty: Some(schema.clone()) })
            }
            ExtractFormat::Parquet => {
                let level = ZstdLevel::try_new(3).map_or(Compression::UNCOMPRESSED, Compression::ZSTD);
                let properties = WriterProperties::builder().set_compression(level).build();
                let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties));
                let writer =
                    writer.map_err(|error| QueryError::Format { format: "Parquet", problem: error.to_string() })?;
                Box::new(ParquetSink { writer })
            }
        };
        Ok(Self { path, media_type, sink, is_csv: format == ExtractFormat::Csv, escaped_cells: 0, hash })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        if !self.is_csv {
            return self.sink.write(batch);
        }
        let (safe, escaped) = without_formulas(batch)
            .map_err(|error| QueryError::Format { format: "CSV", problem: error.to_string() })?;
        self.escaped_cells += escaped;
        self.sink.write(&safe)
    }

    fn finish(self) -> Result<ReleaseFile, QueryError> {
        self.sink.finish()?;
        let file = File::open(&self.path).map_err(|source| failed(&self.path, source))?;
        file.sync_all().map_err(|source| failed(&self.path, source))?;
        let hash = self.hash.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(ReleaseFile {
            name: self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            media_type: self.media_type,
            bytes: hash.bytes,
            sha256: hex::encode(hash.sha256.clone().finalize()),
            escaped_cells: self.escaped_cells,
        })
    }
}

/// The batch with an apostrophe before every text that a spreadsheet would take for a formula, and
/// how many there were (<https://owasp.org/www-community/attacks/CSV_Injection>).
fn without_formulas(batch: &RecordBatch) -> Result<(RecordBatch, u64), arrow::error::ArrowError> {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_formula = |text: &str| text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let (mut columns, mut fields, mut escaped) = (Vec::new(), Vec::new(), 0);
    for (column, field) in batch.columns().iter().zip(batch.schema().fields()) {
        if !is_text(field.data_type()) {
            columns.push(column.clone());
            fields.push(field.as_ref().clone());
            continue;
        }
        let texts = cast(column, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let formulas = texts.iter().flatten().filter(|text| is_formula(text)).count() as u64;
        let safe: ArrayRef = if formulas == 0 {
            Arc::new(texts.clone())
        } else {
            let escape = |text: &str| if is_formula(text) { format!("'{text}") } else { text.to_owned() };
            Arc::new(texts.iter().map(|text| text.map(escape)).collect::<StringArray>())
        };
        escaped += formulas;
        fields.push(Field::new(field.name(), DataType::Utf8, true));
        columns.push(safe);
    }
    Ok((RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?, escaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_disarmed() {
        let text =
            Arc::new(StringArray::from(vec![Some("=1+1"), Some("ก"), None, Some("-5"), Some("a=b")])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("t", text)]).unwrap();
        let (safe, escaped) = without_formulas(&batch).unwrap();
        let texts: Vec<_> = safe.column(0).as_string::<i32>().iter().collect();
        assert_eq!((texts, escaped), (vec![Some("'=1+1"), Some("ก"), None, Some("'-5"), Some("a=b")], 2));
    }
}
