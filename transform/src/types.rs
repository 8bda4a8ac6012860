//! Semantic types: what a column means, which is more than how it is stored.
//!
//! A column of type `thai_citizen_id` is parsed, checked, normalised and described as one,
//! wherever it appears. Each type is one file in this folder and one line in the list below.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, new_null_array};
use arrow::datatypes::Field;
use ruam_event::spec::Classification;
use ruam_event::spec_file::suggest;
use ruam_event::{ColumnSpec, DatasetSpec, SpecError};
use serde::de::DeserializeOwned;

use crate::reject::Reason;

mod digits;

/// What a column means: how its text becomes values, and what is wrong with it where it cannot.
pub trait SemanticType: Debug + Send + Sync {
    /// The columns that a column of this type becomes: itself first, under its own name, then what
    /// is kept beside it (the text before a repair, say).
    fn fields(&self, column: &str) -> Vec<Field>;

    /// Parses a whole column: one array per field of [`fields`](Self::fields), one entry per text.
    /// Where a text is refused its entry is null and `fault` is told the place and the reason.
    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef>;

    /// What the type accepts and makes of it, in one sentence of plain English.
    fn describe(&self) -> String;

    /// Whether a value tells who a person is.
    fn is_personal(&self) -> bool {
        false
    }

    /// What of a column's values may be seen by somebody who may not see them: values of the same type that
    /// tell less. Nothing, where nothing that a value tells is harmless.
    fn mask(&self, values: &ArrayRef) -> ArrayRef {
        new_null_array(values.data_type(), values.len())
    }
}

/// Each text made into one that tells less; null stays null, and so does what is no text.
fn mask_texts(values: &ArrayRef, mask: impl Fn(&str) -> String) -> ArrayRef {
    match values.as_string_opt::<i32>() {
        Some(texts) => Arc::new(texts.iter().map(|text| text.map(&mask)).collect::<StringArray>()),
        None => new_null_array(values.data_type(), values.len()),
    }
}

/// Declares the types: a module, and the constructor that reads its `with` table.
macro_rules! types {
    ($($name:ident => $type:ident,)*) => {
        $(pub mod $name;)*

        /// The names of all types.
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];

        fn construct(name: &str, options: &toml::Table) -> Option<Result<Arc<dyn SemanticType>, OptionError>> {
            Some(match name {
                $(stringify!($name) => $name::$type::new(options).map(|semantic| Arc::new(semantic) as Arc<dyn SemanticType>),)*
                _ => return None,
            })
        }
    };
}

types! {
    text => Text,
    integer => Integer,
    decimal => Decimal,
    money => Money,
    boolean => Boolean,
    timestamp => Timestamp,
    date => Date,
    be_date => BeDate,
    thai_text => ThaiText,
    thai_citizen_id => ThaiCitizenId,
    juristic_id => JuristicId,
    person_name => PersonName,
    area_code => AreaCode,
}

/// The type of a declared column.
///
/// # Errors
/// Where the type or its options are not known, or an open dataset has a column that tells who a
/// person is.
pub fn of_column(spec: &DatasetSpec, column: &ColumnSpec) -> Result<Arc<dyn SemanticType>, SpecError> {
    let (name, span) = (column.semantic_type.get_ref().as_str(), column.semantic_type.span());
    let Some(constructed) = construct(name, column.with.get_ref()) else {
        let problem = format!("`{name}` is not a semantic type");
        return Err(spec.error_at(span, "columns.type", problem, suggest(name, NAMES)));
    };
    let semantic = constructed.map_err(|OptionError { problem, remedy }| {
        let place = if column.with.get_ref().is_empty() { span.clone() } else { column.with.span() };
        spec.error_at(place, "columns.with", format!("column `{}`, type `{name}`: {problem}", column.name()), remedy)
    })?;
    if semantic.is_personal() && spec.classification == Classification::Open {
        return Err(spec.error_at(
            span,
            "columns.type",
            format!("column `{}` tells who a person is, and the dataset is classified as open", column.name()),
            "Classify the dataset as internal or higher, or leave the column out",
        ));
    }
    Ok(semantic)
}

/// A type as it is without options; none where there is no such type, or it cannot be without.
pub fn of_name(name: &str) -> Option<Arc<dyn SemanticType>> {
    construct(name, &toml::Table::new())?.ok()
}

/// What is wrong with a `with` table.
#[derive(Debug)]
pub struct OptionError {
    problem: String,
    remedy: String,
}

impl OptionError {
    fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// Reads a `with` table.
fn options<T: DeserializeOwned>(table: &toml::Table) -> Result<T, OptionError> {
    table.clone().try_into().map_err(|error: toml::de::Error| {
        let message = error.message().to_owned();
        let mut quoted = message.split('`').skip(1).step_by(2);
        match quoted.next() {
            Some(unknown) if message.starts_with("unknown field") => {
                let known: Vec<_> = quoted.collect();
                let remedy = if known.is_empty() {
                    "This type has no options: remove `with`".to_owned()
                } else {
                    suggest(unknown, &known)
                };
                OptionError::new(format!("there is no option `{unknown}`"), remedy)
            }
            _ => OptionError::new(message, "Correct the value"),
        }
    })
}

/// The options of a type that has none.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

#[cfg(test)]
mod testing {
    use super::*;

    /// What a type makes of texts: the first array, and the codes of the faults by place.
    pub(super) fn run(semantic: &dyn SemanticType, texts: &[&str]) -> (Vec<ArrayRef>, Vec<(usize, &'static str)>) {
        let mut faults = Vec::new();
        let arrays =
            semantic.normalise(&StringArray::from(texts.to_vec()), &mut |at, reason| faults.push((at, reason.code)));
        assert_eq!(arrays.len(), semantic.fields("c").len());
        for (array, field) in arrays.iter().zip(semantic.fields("c")) {
            assert_eq!((array.len(), array.data_type()), (texts.len(), field.data_type()));
        }
        (arrays, faults)
    }

    /// The first array as text.
    pub(super) fn texts(arrays: &[ArrayRef]) -> Vec<Option<String>> {
        column(&arrays[0])
    }

    pub(super) fn column(array: &ArrayRef) -> Vec<Option<String>> {
        (0..array.len())
            .map(|row| array.is_valid(row).then(|| arrow::util::display::array_value_to_string(array, row).unwrap()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Decimal128Array;

    #[test]
    fn what_is_masked_tells_less_and_is_of_the_same_type() {
        for (name, text, expected) in [
            ("thai_citizen_id", "3100600445635", Some("3xxxxxxxxxxxx")),
            ("person_name", "เอกชัย ใจดี", Some("อ. จ.")),
            ("area_code", "100205", Some("10")),
            ("be_date", "15 มีนาคม 2530", Some("1987-01-01")),
            ("thai_text", "99 หมู่ 1", None),
            ("money", "1,000.00", None),
        ] {
            let semantic = of_name(name).unwrap();
            let values = semantic.normalise(&StringArray::from(vec![Some(text), None]), &mut |_, _| {}).remove(0);
            assert!(values.is_valid(0), "{name}");
            let masked = semantic.mask(&values);
            assert_eq!(masked.data_type(), values.data_type());
            assert_eq!(testing::texts(&[masked]), [expected.map(ToOwned::to_owned), None], "{name}");
        }
    }

    #[test]
    fn values_of_another_type_are_not_let_through() {
        let numbers: ArrayRef = Arc::new(Decimal128Array::from(vec![1]));
        for name in NAMES {
            let masked = of_name(name).map(|semantic| semantic.mask(&numbers));
            assert!(masked.is_none_or(|masked| masked.null_count() == 1), "{name}");
        }
    }
}
