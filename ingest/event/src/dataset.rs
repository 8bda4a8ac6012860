//! The name of a dataset.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Names a dataset: the agency that owns it, and its name there (`bora.person`).
///
/// Both parts are lower-case ASCII letters, digits and single underscores, so that one name serves
/// as SQL schema and table, as path in the lake and as part of a topic's name. Two underscores in
/// a row are kept for the tables that stand beside a dataset (`bora.person__rejects`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetId {
    agency: String,
    name: String,
}

impl DatasetId {
    /// The agency's short name: the SQL schema.
    pub fn agency(&self) -> &str {
        &self.agency
    }

    /// The name of the dataset within its agency: the SQL table.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A text that does not name a dataset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` does not name a dataset: write agency.dataset, each part of lower-case letters, digits and single underscores, beginning with a letter"
)]
pub struct InvalidDatasetId(String);

/// Whether a text can be the name of an agency, a dataset or a column.
pub fn is_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !text.contains("__")
        && !text.ends_with('_')
}

impl FromStr for DatasetId {
    type Err = InvalidDatasetId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('.') {
            Some((agency, name)) if is_name(agency) && is_name(name) => {
                Ok(Self { agency: agency.to_owned(), name: name.to_owned() })
            }
            _ => Err(InvalidDatasetId(text.to_owned())),
        }
    }
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.agency, self.name)
    }
}

impl<'de> Deserialize<'de> for DatasetId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let id: DatasetId = "dopa.administrative_area".parse().unwrap();
        assert_eq!((id.agency(), id.name()), ("dopa", "administrative_area"));
        assert_eq!(id.to_string(), "dopa.administrative_area");
        for wrong in ["", "dopa", "dopa.", ".x", "Dopa.x", "dopa.x__y", "dopa.x_", "dopa.1x", "a.b.c", "a/b.c", "กรม.x"]
        {
            assert!(wrong.parse::<DatasetId>().is_err(), "{wrong}");
        }
    }
}
