//! The declaration of a dataset: one TOML file says everything about it.
//!
//! What passes through: the text of `specs/<agency>/<dataset>.toml`, by [`DatasetSpec::parse`],
//! into a [`DatasetSpec`] that holds together: names are names, the key exists, nothing is declared
//! twice. What a semantic type or a source makes of its `with` table is its own crate's to say;
//! [`DatasetSpec::error_at`] lets it say so in the same form.
//!
//! Guaranteed: an unknown key is an error, and every error names file, line, key and remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::dataset::{DatasetId, is_name};
use crate::envelope::ConnectType;
use crate::spec_file::{SpecError, SpecFile};

/// By how many columns rows may lie together: with more, they lie together by none.
const MOST_CLUSTERED: usize = 4;

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

/// The columns that a history has beside the dataset's own.
const HISTORY_COLUMNS: [&str; 5] = ["valid_from", "valid_to", "known_from", "known_to", "is_current"];
/// The types of columns that can say from when on a row holds.
const EFFECTIVE_TYPES: [&str; 2] = ["be_date", "timestamp"];

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
        spec.check_name()?;
        spec.check_columns()?;
        spec.check_key()?;
        spec.check_history()?;
        spec.check_cluster()?;
        spec.check_topic()?;
        spec.check_extracts()?;
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

    fn check_name(&self) -> Result<(), SpecError> {
        let expected = format!("{}/{}.toml", self.id().agency(), self.id().name());
        let path = self.file.path().replace('\\', "/");
        if path == expected || path.ends_with(&format!("/{expected}")) {
            return Ok(());
        }
        Err(self.error_at(
            self.dataset.span(),
            "dataset",
            format!("the file of `{}` has to be called `{expected}`", self.id()),
            "Move the file, or correct the name",
        ))
    }

    fn check_columns(&self) -> Result<(), SpecError> {
        if self.columns.is_empty() {
            return Err(self.error_at(
                0..0,
                "columns",
                "the dataset has no column",
                "Add a [[columns]] section for each column",
            ));
        }
        let mut seen = BTreeSet::new();
        for column in &self.columns {
            let (name, span) = (column.name(), column.name.span());
            if !is_name(name) {
                return Err(self.error_at(
                    span,
                    "columns.name",
                    format!("`{name}` cannot name a column"),
                    "Use lower-case letters, digits and single underscores, beginning with a letter",
                ));
            }
            if !seen.insert(name) {
                return Err(self.error_at(
                    span,
                    "columns.name",
                    format!("`{name}` is declared twice"),
                    "Remove one of the two",
                ));
            }
        }
        Ok(())
    }

    fn check_key(&self) -> Result<(), SpecError> {
        if self.mode == Mode::Upsert && self.key.is_empty() {
            return Err(self.error_at(
                0..0,
                "key",
                "mode `upsert` needs to know which columns tell one row from another",
                "Add key = [\"column\", ...], or use mode = \"append\"",
            ));
        }
        self.check_named("key", &self.key)
    }

    fn check_cluster(&self) -> Result<(), SpecError> {
        if let Some(name) = self.cluster_by.get(MOST_CLUSTERED) {
            return Err(self.error_at(
                name.span(),
                "cluster_by",
                format!("rows cannot lie together by more than {MOST_CLUSTERED} columns"),
                "Name those that most questions ask by",
            ));
        }
        self.check_named("cluster_by", &self.cluster_by)
    }

    /// Whether some names are those of columns, once each.
    fn check_named(&self, key: &str, names: &[Spanned<String>]) -> Result<(), SpecError> {
        for (index, name) in names.iter().enumerate() {
            let column = name.get_ref();
            if !self.columns.iter().any(|known| known.name() == column) {
                let known: Vec<_> = self.columns.iter().map(ColumnSpec::name).collect();
                return Err(self.error_at(
                    name.span(),
                    key,
                    format!("there is no column `{column}`"),
                    format!("The columns are: {}", known.join(", ")),
                ));
            }
            if names[..index].iter().any(|before| before.get_ref() == column) {
                return Err(self.error_at(
                    name.span(),
                    key,
                    format!("`{column}` is named twice"),
                    "Remove one of the two",
                ));
            }
        }
        Ok(())
    }

    fn check_history(&self) -> Result<(), SpecError> {
        let added = |column: &&ColumnSpec| HISTORY_COLUMNS.contains(&column.name());
        if let Some(column) = self.columns.iter().find(added).filter(|_| self.history) {
            return Err(self.error_at(
                column.name.span(),
                "columns.name",
                format!("`{}` is also the name of a column that `history` adds", column.name()),
                "Rename the column, or remove `history`",
            ));
        }
        let Some(effective) = &self.effective else { return Ok(()) };
        let name = effective.get_ref();
        let wrong =
            |problem: String, remedy: String| Err(self.error_at(effective.span(), "effective", problem, remedy));
        if !self.history || self.key.is_empty() {
            return wrong(
                "an effective date needs the history of each key".to_owned(),
                "Add history = true and key = [\"column\", ...], or remove `effective`".to_owned(),
            );
        }
        let is_date = |column: &&ColumnSpec| EFFECTIVE_TYPES.contains(&column.semantic_type.get_ref().as_str());
        match self.columns.iter().find(|column| column.name() == name) {
            Some(column) if is_date(&column) => Ok(()),
            Some(column) => wrong(
                format!("column `{name}` is of type `{}`, which is no date", column.semantic_type.get_ref()),
                format!("Name a column of type {}", EFFECTIVE_TYPES.join(" or ")),
            ),
            None => {
                let dates: Vec<_> = self.columns.iter().filter(is_date).map(ColumnSpec::name).collect();
                wrong(
                    format!("there is no column `{name}`"),
                    format!("The columns with dates are: {}", dates.join(", ")),
                )
            }
        }
    }

    fn check_topic(&self) -> Result<(), SpecError> {
        if let (Some(format), Some(_)) = (&self.topic.format, &self.source)
            && *format.get_ref() != TopicFormat::Envelope
        {
            return Err(self.error_at(
                format.span(),
                "topic.format",
                "the topic of a dataset with a source has the envelopes that ruam writes",
                "Remove `format`, or `source` where somebody else fills the topic",
            ));
        }
        if let Some(encoding) = &self.topic.encoding
            && *encoding.get_ref() == TopicEncoding::Avro
        {
            let wrong =
                |problem: &str, remedy: &str| Err(self.error_at(encoding.span(), "topic.encoding", problem, remedy));
            if self.source.is_some() {
                return wrong(
                    "the topic of a dataset with a source is in JSON, as ruam writes it",
                    "Remove `encoding`, or `source` where somebody else fills the topic",
                );
            }
            if self.topic_format() == TopicFormat::CloudEvents {
                return wrong("CloudEvents in structured mode are in JSON", "Remove `encoding`");
            }
        }
        if let Some((column, _)) = self.topic.schema.first_key_value() {
            if self.source.is_some() || self.topic_encoding() == TopicEncoding::Avro {
                return Err(self.error_at(
                    column.span(),
                    "topic.schema",
                    "the records of this topic say themselves what their values mean",
                    "Remove it: it is for JSON that others write without a schema",
                ));
            }
            self.check_named("topic.schema", &self.topic.schema.keys().cloned().collect::<Vec<_>>())?;
        }
        match &self.topic.partitions {
            Some(partitions) if !(1..=1000).contains(partitions.get_ref()) => Err(self.error_at(
                partitions.span(),
                "topic.partitions",
                format!("{} is not a number of partitions", partitions.get_ref()),
                "Use a number from 1 to 1000",
            )),
            _ => Ok(()),
        }
    }

    fn check_extracts(&self) -> Result<(), SpecError> {
        let mut seen = BTreeSet::new();
        for extract in &self.extracts {
            let (name, span) = (extract.name.get_ref(), extract.name.span());
            if !is_name(name) || !seen.insert(name) {
                return Err(self.error_at(
                    span,
                    "extracts.name",
                    format!("`{name}` is not a name, or is used twice"),
                    "Use lower-case letters, digits and single underscores, once each",
                ));
            }
            if self.classification != Classification::Open {
                return Err(self.error_at(
                    span,
                    "extracts",
                    format!("a dataset of classification `{}` cannot be published", self.classification),
                    "Remove the extract; only classification = \"open\" may have one",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"dataset = "bora.person"
title = { th = "บุคคล", en = "Persons" }
description = { th = "ก", en = "a" }
owner = { th = "กรมการปกครอง", en = "DOPA" }
contact = { name = "x", email = "x@example.org" }
classification = "internal"
purposes = ["training"]
mode = "upsert"
key = ["citizen_id"]
cluster_by = ["pay", "citizen_id"]

[topic]
partitions = 2

[[columns]]
name = "citizen_id"
type = "thai_citizen_id"
title = { th = "เลข", en = "ID" }

[[columns]]
name = "pay"
type = "money"
with = { precision = 12 }
title = { th = "เงิน", en = "Pay" }
"#;

    fn parse(text: &str) -> Result<DatasetSpec, SpecError> {
        DatasetSpec::parse("specs/bora/person.toml", text)
    }

    #[test]
    fn reads_a_file() {
        let spec = parse(SPEC).unwrap();
        assert_eq!(spec.id().to_string(), "bora.person");
        assert_eq!((spec.topic(), spec.partitions()), ("ruam.bora.person".to_owned(), 2));
        assert!(spec.is_key("citizen_id") && !spec.is_key("pay"));
        assert_eq!(spec.cluster_by(), ["pay", "citizen_id"]);
        assert_eq!(spec.columns[1].with.get_ref()["precision"].as_integer(), Some(12));
    }

    #[test]
    fn each_mistake_has_its_place_and_remedy() {
        for (from, to, expected) in [
            (
                "mode = ",
                "modus = ",
                "specs/bora/person.toml:8: modus: `modus` is not a key that is known here. Did you mean `mode`?",
            ),
            (
                "\"upsert\"",
                "\"upset\"",
                "specs/bora/person.toml:8: mode: `upset` is not a value that is known here. Did you mean `upsert`?",
            ),
            ("mode = \"upsert\"\n", "", "specs/bora/person.toml:1: mode: it is missing. Add `mode = ...`"),
            (
                "key = [\"citizen_id\"]",
                "key = [\"citizen\"]",
                "specs/bora/person.toml:9: key: there is no column `citizen`. The columns are: citizen_id, pay",
            ),
            ("key = [\"citizen_id\"]\n", "", "specs/bora/person.toml:1: key: mode `upsert` needs to know"),
            (
                "[\"pay\", \"citizen_id\"]",
                "[\"pay\", \"area_code\"]",
                "specs/bora/person.toml:10: cluster_by: there is no column `area_code`. The columns are: citizen_id, pay",
            ),
            (
                "[\"pay\", \"citizen_id\"]",
                "[\n  \"pay\",\n  \"pay\",\n]",
                "specs/bora/person.toml:12: cluster_by: `pay` is named twice. Remove one of the two",
            ),
            (
                "[\"pay\", \"citizen_id\"]",
                "[\"a\", \"b\", \"c\", \"d\", \"e\"]",
                "specs/bora/person.toml:10: cluster_by: rows cannot lie together by more than 4 columns. Name those",
            ),
            (
                "name = \"pay\"",
                "name = \"citizen_id\"",
                "specs/bora/person.toml:21: columns.name: `citizen_id` is declared twice",
            ),
            (
                "name = \"pay\"",
                "name = \"_pay\"",
                "specs/bora/person.toml:21: columns.name: `_pay` cannot name a column",
            ),
            (
                "partitions = 2",
                "partitions = 0",
                "specs/bora/person.toml:13: topic.partitions: 0 is not a number of partitions",
            ),
            (
                "\"bora.person\"",
                "\"bora.people\"",
                "specs/bora/person.toml:1: dataset: the file of `bora.people` has to be called `bora/people.toml`",
            ),
            ("\"bora.person\"", "\"Bora\"", "specs/bora/person.toml:1: dataset: `Bora` does not name a dataset"),
            ("partitions = 2", "partitions 2", "specs/bora/person.toml:13: file:"),
        ] {
            assert!(SPEC.contains(from), "{from}");
            let error = parse(&SPEC.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn an_effective_date_is_a_date_of_a_history() {
        let dated = SPEC.replacen("type = \"money\"\nwith = { precision = 12 }", "type = \"be_date\"", 1);
        let with = |text: &str, lines: &str| parse(&text.replacen("mode =", &format!("{lines}\nmode ="), 1));
        let spec = with(&dated, "history = true\neffective = \"pay\"").unwrap();
        assert_eq!((spec.effective(), parse(&dated).unwrap().effective()), (Some("pay"), None));
        for (text, lines, expected) in [
            (&dated[..], "history = false\neffective = \"pay\"", "9: effective: an effective date needs the history"),
            (
                SPEC,
                "history = true\neffective = \"pay\"",
                "9: effective: column `pay` is of type `money`, which is no date. Name a column of type be_date or timestamp",
            ),
            (
                &dated,
                "history = true\neffective = \"paid\"",
                "9: effective: there is no column `paid`. The columns with dates are: pay",
            ),
        ] {
            let error = with(text, lines).unwrap_err().to_string();
            assert!(error.starts_with(&format!("specs/bora/person.toml:{expected}")), "{error}");
        }
        let clash = dated.replace("\"pay\"", "\"valid_to\"");
        let error = with(&clash, "history = true").unwrap_err().to_string();
        assert!(error.starts_with("specs/bora/person.toml:22: columns.name: `valid_to` is also the name"), "{error}");
        assert!(parse(&clash).is_ok());
    }

    #[test]
    fn a_topic_that_others_fill_says_how() {
        let with = |lines: &str| parse(&SPEC.replacen("partitions = 2", lines, 1));
        let spec = with("encoding = \"avro\"\nformat = \"rows\"").unwrap();
        assert_eq!((spec.topic_encoding(), spec.topic_format()), (TopicEncoding::Avro, TopicFormat::Rows));
        assert_eq!(spec.without_registry().line, 13);
        let spec = with("[topic.schema]\npay = { decimal = 2 }\ncitizen_id = \"micro_timestamp\"").unwrap();
        let schema: Vec<_> = spec.topic_schema().collect();
        assert_eq!(schema, [("citizen_id", ConnectType::MicroTimestamp), ("pay", ConnectType::Decimal(2))]);
        let source = |lines: &str| {
            let text = SPEC.replacen("partitions = 2", lines, 1).replacen("mode =", "source.kind = \"x\"\nmode =", 1);
            parse(&text)
        };
        for (parsed, expected) in [
            (
                with("encoding = \"xml\""),
                "13: encoding: `xml` is not a value that is known here. Known are: json, avro",
            ),
            (
                with("encoding = \"avro\"\nformat = \"cloud_events\""),
                "13: topic.encoding: CloudEvents in structured mode are in JSON. Remove `encoding`",
            ),
            (source("encoding = \"avro\""), "14: topic.encoding: the topic of a dataset with a source is in JSON"),
            (source("schema.pay = \"date\""), "14: topic.schema: the records of this topic say themselves"),
            (with("encoding = \"avro\"\nschema.pay = \"date\""), "14: topic.schema: the records of this topic say"),
            (
                with("schema.paid = \"date\""),
                "13: topic.schema: there is no column `paid`. The columns are: citizen_id, pay",
            ),
            (
                with("schema.pay = \"day\""),
                "13: schema.pay: `day` is not a value that is known here. Did you mean `date`?",
            ),
        ] {
            let error = parsed.unwrap_err().to_string();
            assert!(error.starts_with(&format!("specs/bora/person.toml:{expected}")), "{error}");
        }
    }

    #[test]
    fn only_open_data_is_published() {
        let text = format!("{SPEC}\n[[extracts]]\nname = \"all\"\nsql = \"select 1\"\nformats = [\"csv\"]\n");
        assert_eq!(parse(&text).unwrap_err().key, "extracts");
        assert!(parse(&text.replace("\"internal\"", "\"open\"")).is_ok());
    }
}
