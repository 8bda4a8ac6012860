//! What a dataset's file says in one place against what it says in another.

use std::collections::BTreeSet;

use super::*;
use crate::dataset::is_name;

/// By how many columns rows may lie together: with more, they lie together by none.
const MOST_CLUSTERED: usize = 4;
/// The columns that a history has beside the dataset's own.
const HISTORY_COLUMNS: [&str; 5] = ["valid_from", "valid_to", "known_from", "known_to", "is_current"];
/// The types of columns that can say from when on a row holds.
const EFFECTIVE_TYPES: [&str; 2] = ["be_date", "timestamp"];

impl DatasetSpec {
    /// Whether the file holds together.
    ///
    /// # Errors
    /// The first mistake.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        self.check_name()?;
        self.check_columns()?;
        self.check_key()?;
        self.check_history()?;
        self.check_cluster()?;
        self.check_topic()?;
        self.check_extracts()
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
