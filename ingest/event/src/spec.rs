//! The declaration of a dataset: one TOML file says everything about it.
//!
//! What passes through: the text of `specs/<agency>/<dataset>.toml`, by [`DatasetSpec::parse`],
//! into a [`DatasetSpec`] that holds together: names are names, the key exists, nothing is declared
//! twice. What a semantic type or a source makes of its `with` table is its own crate's to say;
//! [`DatasetSpec::error_at`] lets it say so in the same form.
//!
//! Guaranteed: an unknown key is an error, and every error names file, line, key and remedy.

mod check;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::dataset::DatasetId;
use crate::envelope::ConnectType;
use crate::spec_file::{SpecError, SpecFile};

/// Everything about one dataset.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetSpec {
    /// The dataset's name, which is also where its file lies: `bora.person` in `bora/person.toml`.
    dataset: Spanned<DatasetId>,
    /// What people call it.
    pub title: Bilingual,
    /// What it holds, since when, and what it does not hold.
    pub description: Bilingual,
    /// The agency that answers for it.
    pub owner: Bilingual,
    /// Whom to ask.
    pub contact: Contact,
    /// Who may see it.
    pub classification: Classification,
    /// What it may be used for.
    pub purposes: Vec<String>,
    /// Words to find it by.
    #[serde(default)]
    pub keywords: Vec<String>,
    /// Under which licence it is published.
    pub license: Option<String>,
    /// Whether its rows are made up from a seed. Then everything that shows it says so.
    #[serde(default)]
    pub generated: bool,
    /// Whether a change replaces its row or is added as a row.
    pub mode: Mode,
    /// The columns that tell one row from another. Needed for `upsert`; for `append` they only
    /// decide which partition a row goes to.
    #[serde(default)]
    key: Vec<Spanned<String>>,
    /// The columns by which its rows lie together, so that a question about some of their values
    /// reads little else. Of several each counts about as much.
    #[serde(default)]
    cluster_by: Vec<Spanned<String>>,
    /// Whether every accepted change is kept beside the current rows.
    #[serde(default)]
    pub history: bool,
    /// The column that says from when on a row holds, where the source knows that apart from when it
    /// was written.
    effective: Option<Spanned<String>>,
    /// What to do with a column that the source sends and `columns` does not declare.
    #[serde(default)]
    pub unknown_columns: UnknownColumns,
    /// Where its events lie in the log.
    #[serde(default)]
    topic: TopicSpec,
    /// What brings its events into the log; nothing where somebody else fills the topic.
    pub source: Option<SourceSpec>,
    /// Whether its agency signs its events.
    signatures: Option<Spanned<Signatures>>,
    /// Its columns, in the order in which tables show them.
    pub columns: Vec<ColumnSpec>,
    /// What is published from it.
    #[serde(default)]
    pub extracts: Vec<ExtractSpec>,
    #[serde(skip)]
    file: SpecFile,
}

/// A text in Thai and in English.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Bilingual {
    /// Thai.
    pub th: String,
    /// English.
    pub en: String,
}

/// Whom to ask about a dataset.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// The person or desk.
    pub name: String,
    /// Where they read mail.
    pub email: String,
}

/// Who may see a dataset (ระดับชั้นข้อมูล of the Thai data governance framework).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Classification {
    /// เปิดเผย: everybody. Only this may be published.
    Open,
    /// เผยแพร่ภายในองค์กร: inside the organisation.
    Internal,
    /// ลับ.
    Confidential,
    /// ลับมาก.
    Secret,
    /// ลับที่สุด.
    TopSecret,
}

impl fmt::Display for Classification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Open => "open",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Secret => "secret",
            Self::TopSecret => "top_secret",
        })
    }
}

/// What a change does to a table.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each event is a row, for ever.
    Append,
    /// Each key has one row: that of its latest event.
    Upsert,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Append => "append",
            Self::Upsert => "upsert",
        })
    }
}

/// What to do with a column that is not declared.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum UnknownColumns {
    /// Reject the record: the source has changed and somebody should look.
    #[default]
    Reject,
    /// Leave the column out.
    Ignore,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicSpec {
    name: Option<String>,
    partitions: Option<Spanned<i32>>,
    format: Option<Spanned<TopicFormat>>,
    encoding: Option<Spanned<TopicEncoding>>,
    /// Of which types columns are that Kafka Connect has beside the primitive ones, in records in JSON that come
    /// without their schema.
    #[serde(default)]
    schema: BTreeMap<Spanned<String>, ConnectType>,
}

/// How the records of a topic are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TopicEncoding {
    /// As JSON.
    #[default]
    Json,
    /// In Avro, each with the id of its schema before it, as Confluent's serializers do; the schemas are in the
    /// registry of `ruam.toml`. A key may be in JSON all the same.
    Avro,
}

/// What the records of a topic are.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TopicFormat {
    /// Debezium's envelopes, in JSON with or without their schema. This is what Ruam writes, too.
    #[default]
    Envelope,
    /// JSON objects, or records of Avro, that are rows: each a new one, or another in the place of the one of its key. A record without
    /// a value deletes the row of its key.
    Rows,
    /// CloudEvents in structured mode, each with a row in it.
    CloudEvents,
}

/// Whether an agency signs the events of a dataset. Signatures are checked and kept with the rows.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Signatures {
    /// It may.
    Optional,
    /// It has to: an event without a signature is refused.
    Required,
}

/// What brings a dataset's events into the log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// Which connector.
    pub kind: Spanned<String>,
    /// What that connector wants to know.
    #[serde(default = "empty_options")]
    pub with: Spanned<toml::Table>,
}

/// One column of a dataset.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Its name, at the source and in SQL.
    pub name: Spanned<String>,
    /// Its semantic type, which decides how it is parsed, checked, normalised and described.
    #[serde(rename = "type")]
    pub semantic_type: Spanned<String>,
    /// What that type wants to know.
    #[serde(default = "empty_options")]
    pub with: Spanned<toml::Table>,
    /// Whether a record without it is rejected. Key columns always are.
    #[serde(default)]
    pub required: bool,
    /// Who may see it, where that is fewer than may see the dataset.
    pub classification: Option<Classification>,
    /// What people call it.
    pub title: Bilingual,
    /// What else there is to know about it.
    pub description: Option<Bilingual>,
}

fn empty_options() -> Spanned<toml::Table> {
    Spanned::new(0..0, toml::Table::new())
}

impl ColumnSpec {
    /// The column's name.
    pub fn name(&self) -> &str {
        self.name.get_ref()
    }
}

/// What is published from a dataset.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtractSpec {
    /// The extract's name: part of its files' names.
    pub name: Spanned<String>,
    /// The query that makes it.
    pub sql: String,
    /// The files that it is written to.
    pub formats: Vec<ExtractFormat>,
}

/// A kind of file that an extract is written to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ExtractFormat {
    /// CSV in UTF-8 with a byte order mark, so that Excel shows Thai.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl DatasetSpec {
    /// Reads the text of a dataset's file. `path` is only named in errors, and its last two parts
    /// have to agree with the dataset's name.
    ///
    /// # Errors
    /// The first mistake, with its place and its remedy.
    pub fn parse(path: &str, text: &str) -> Result<Self, SpecError> {
        let file = SpecFile::new(path, text);
        let mut spec: Self = file.read()?;
        spec.file = file;
        spec.check()?;
        Ok(spec)
    }

    /// The dataset's name.
    pub fn id(&self) -> &DatasetId {
        self.dataset.get_ref()
    }

    /// The file that declares it.
    pub fn path(&self) -> &str {
        self.file.path()
    }

    /// The names of the key columns.
    pub fn key(&self) -> Vec<String> {
        self.key.iter().map(|name| name.get_ref().clone()).collect()
    }

    /// Whether a column is part of the key.
    pub fn is_key(&self, column: &str) -> bool {
        self.key.iter().any(|name| name.get_ref() == column)
    }

    /// The column that says from when on a row holds, if one is declared.
    pub fn effective(&self) -> Option<&str> {
        self.effective.as_ref().map(|name| name.get_ref().as_str())
    }

    /// The names of the columns by which its rows lie together.
    pub fn cluster_by(&self) -> Vec<String> {
        self.cluster_by.iter().map(|name| name.get_ref().clone()).collect()
    }

    /// The names of the columns, as a source's rows name them.
    pub fn column_names(&self) -> crate::Columns {
        self.columns.iter().map(|column| column.name().to_owned()).collect()
    }

    /// The topic that holds its events.
    pub fn topic(&self) -> String {
        self.topic.name.clone().unwrap_or_else(|| format!("ruam.{}", self.id()))
    }

    /// What the records of its topic are.
    pub fn topic_format(&self) -> TopicFormat {
        self.topic.format.as_ref().map(|format| *format.get_ref()).unwrap_or_default()
    }

    /// Whether its agency signs its events; none where it does not.
    pub fn signatures(&self) -> Option<Signatures> {
        self.signatures.as_ref().map(|signatures| *signatures.get_ref())
    }

    /// Where its file says that, for errors.
    pub fn signatures_span(&self) -> Option<Range<usize>> {
        self.signatures.as_ref().map(Spanned::span)
    }

    /// How the records of its topic are written.
    pub fn topic_encoding(&self) -> TopicEncoding {
        self.topic.encoding.as_ref().map(|encoding| *encoding.get_ref()).unwrap_or_default()
    }

    /// The columns that mean more than they are in records without a schema.
    pub fn topic_schema(&self) -> impl Iterator<Item = (&str, ConnectType)> {
        self.topic.schema.iter().map(|(column, of)| (column.get_ref().as_str(), *of))
    }

    /// That its records are in Avro, and the registry with their schemas is not known.
    pub fn without_registry(&self) -> SpecError {
        self.error_at(
            self.topic.encoding.as_ref().map_or(0..0, Spanned::span),
            "topic.encoding",
            "the schemas of records in Avro are in a registry, and ruam.toml has no [registry]",
            "Add [registry] with its `url` there",
        )
    }

    /// Into how many partitions its topic is created.
    pub fn partitions(&self) -> i32 {
        self.topic.partitions.as_ref().map_or(1, |partitions| *partitions.get_ref())
    }

    /// A mistake at a place of this file, for crates that check what only they understand.
    pub fn error_at(
        &self,
        span: Range<usize>,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> SpecError {
        self.file.error_at(&span, key, problem, remedy)
    }
}
