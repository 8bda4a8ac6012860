//! Names of persons, with the title set apart.
//!
//! A Thai title is written right before the name, often without a space. A name may begin with the
//! same letters (นายิกา, นางนวล), so a title is only taken off where what remains can begin a word;
//! whether the source writes titles at all is the source's to say.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field};

use super::thai_text::repair_column;
use super::{OptionError, SemanticType, mask_texts, options};
use crate::reject::Reason;

const DIGIT_IN_NAME: Reason = Reason::new("digit_in_name", "a name has a digit in it");
const NOTHING_BUT_TITLE: Reason = Reason::new("nothing_but_title", "there is a title and no name");

/// Titles as they are written, with the form that they are stored in; the longer ones first, so
/// that นางสาว is not taken for นาง.
const TITLES: [(&str, &str); 36] = [
    ("ว่าที่ร้อยตรีหญิง", "ว่าที่ร้อยตรีหญิง"),
    ("ว่าที่ร้อยตรี", "ว่าที่ร้อยตรี"),
    ("ว่าที่ ร.ต.หญิง", "ว่าที่ร้อยตรีหญิง"),
    ("ว่าที่ ร.ต.", "ว่าที่ร้อยตรี"),
    ("ว่าที่ร.ต.", "ว่าที่ร้อยตรี"),
    ("เด็กหญิง", "เด็กหญิง"),
    ("เด็กชาย", "เด็กชาย"),
    ("พล.ต.อ.หญิง", "พล.ต.อ.หญิง"),
    ("ร.ต.อ.หญิง", "ร.ต.อ.หญิง"),
    ("จ.ส.อ.หญิง", "จ.ส.อ.หญิง"),
    ("พล.อ.หญิง", "พล.อ.หญิง"),
    ("พ.อ.หญิง", "พ.อ.หญิง"),
    ("ส.ต.หญิง", "ส.ต.หญิง"),
    ("ร.ต.หญิง", "ร.ต.หญิง"),
    ("พล.ต.อ.", "พล.ต.อ."),
    ("ร.ต.อ.", "ร.ต.อ."),
    ("จ.ส.อ.", "จ.ส.อ."),
    ("พล.อ.", "พล.อ."),
    ("ม.ร.ว.", "ม.ร.ว."),
    ("นางสาว", "นางสาว"),
    ("พ.อ.", "พ.อ."),
    ("ส.ต.", "ส.ต."),
    ("ร.ต.", "ร.ต."),
    ("น.ส.", "นางสาว"),
    ("ด.ช.", "เด็กชาย"),
    ("ด.ญ.", "เด็กหญิง"),
    ("ม.ล.", "ม.ล."),
    ("รศ.", "รศ."),
    ("ผศ.", "ผศ."),
    ("ดร.", "ดร."),
    ("ศ.", "ศ."),
    ("นาย", "นาย"),
    ("นาง", "นาง"),
    ("พระ", "พระ"),
    ("ดช.", "เด็กชาย"),
    ("ดญ.", "เด็กหญิง"),
];

/// A person's name.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonName {
    /// How the source writes titles.
    #[serde(default)]
    titles: Titles,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Titles {
    /// Right before the name, with or without a space.
    #[default]
    Attached,
    /// Before the name, with a space.
    Spaced,
    /// Not at all: the column holds names alone.
    None,
}

impl PersonName {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        options(table)
    }

    /// The titles, one after another as people bear them, and the name.
    fn split<'a>(&self, full: &'a str) -> (Option<String>, &'a str) {
        let (mut titles, mut name) = (Vec::new(), full);
        while let Some((title, after)) = self.take_title(name) {
            titles.push(title);
            name = after;
        }
        ((!titles.is_empty()).then(|| titles.join(" ")), name)
    }

    fn take_title<'a>(&self, text: &'a str) -> Option<(&'static str, &'a str)> {
        if self.titles == Titles::None {
            return None;
        }
        TITLES.iter().find_map(|(written, stored)| Some((*stored, self.after_title(text, written)?)))
    }

    fn after_title<'a>(&self, text: &'a str, title: &str) -> Option<&'a str> {
        let after = text.strip_prefix(title)?;
        let spaced = after.is_empty() || after.starts_with(' ') || title.ends_with('.');
        let begins_word = after.starts_with(|c: char| matches!(c, 'ก'..='ฮ' | 'เ'..='ไ'));
        (spaced || (self.titles == Titles::Attached && begins_word)).then(|| after.trim_start())
    }
}

impl SemanticType for PersonName {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![
            Field::new(column, DataType::Utf8, true),
            Field::new(format!("{column}_title"), DataType::Utf8, true),
            Field::new(format!("{column}_raw"), DataType::Utf8, true),
        ]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        let (repaired, raw) = repair_column(texts, fault);
        let mut names = StringBuilder::with_capacity(texts.len(), repaired.values().len());
        let mut titles = StringBuilder::new();
        for (row, full) in repaired.iter().enumerate() {
            let Some(full) = full else {
                names.append_null();
                titles.append_null();
                continue;
            };
            let (title, name) = self.split(full);
            if name.is_empty() {
                fault(row, NOTHING_BUT_TITLE);
            } else if name.chars().any(char::is_numeric) {
                fault(row, DIGIT_IN_NAME);
            }
            names.append_value(name);
            titles.append_option(title);
        }
        vec![Arc::new(names.finish()), Arc::new(titles.finish()), Arc::new(raw)]
    }

    fn describe(&self) -> String {
        "a person's name, repaired as Thai text is, with the title set apart in a column of its own".to_owned()
    }

    /// The first letter of each name.
    fn mask(&self, values: &ArrayRef) -> ArrayRef {
        mask_texts(values, |name| {
            // A vowel that is written before its consonant does not begin the name that is spoken.
            let initial = |name: &str| name.chars().find(|c| !matches!(c, 'เ'..='ไ')).map(|c| format!("{c}."));
            name.split_whitespace().filter_map(initial).collect::<Vec<_>>().join(" ")
        })
    }

    fn is_personal(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{column, run};
    use super::*;

    fn person_name(table: &str) -> PersonName {
        PersonName::new(&toml::from_str(table).unwrap()).unwrap()
    }

    #[test]
    fn titles_are_set_apart() {
        for (full, title, name) in [
            ("นายสมชาย ใจดี", Some("นาย"), "สมชาย ใจดี"),
            ("นางสาวสมหญิง ใจดี", Some("นางสาว"), "สมหญิง ใจดี"),
            ("น.ส. สมหญิง ใจดี", Some("นางสาว"), "สมหญิง ใจดี"),
            ("ด.ช.เอก ใจดี", Some("เด็กชาย"), "เอก ใจดี"),
            ("รศ.ดร.สมชาย ใจดี", Some("รศ. ดร."), "สมชาย ใจดี"),
            ("พล.ต.อ. สมชาย ใจดี", Some("พล.ต.อ."), "สมชาย ใจดี"),
            ("ว่าที่ ร.ต.หญิง สมหญิง ใจดี", Some("ว่าที่ร้อยตรีหญิง"), "สมหญิง ใจดี"),
            ("นายิกา ใจดี", None, "นายิกา ใจดี"),
            ("สมชาย ใจดี", None, "สมชาย ใจดี"),
        ] {
            assert_eq!(person_name("").split(full), (title.map(str::to_owned), name), "{full}");
        }
        assert_eq!(person_name("titles = 'none'").split("นางนวล ใจดี"), (None, "นางนวล ใจดี"));
        assert_eq!(person_name("titles = 'spaced'").split("นางนวล ใจดี"), (None, "นางนวล ใจดี"));
        assert_eq!(person_name("titles = 'spaced'").split("นาง นวล ใจดี"), (Some("นาง".to_owned()), "นวล ใจดี"));
    }

    #[test]
    fn faults_and_what_is_kept() {
        let (arrays, faults) = run(&person_name(""), &["นาย  สมชาย  ใจดี", "นาย", "สม5ชาย", ""]);
        assert_eq!(faults, [(1, "nothing_but_title"), (2, "digit_in_name")]);
        assert_eq!(column(&arrays[0])[0].as_deref(), Some("สมชาย ใจดี"));
        assert_eq!(column(&arrays[1])[0].as_deref(), Some("นาย"));
        assert_eq!(column(&arrays[2])[0].as_deref(), Some("นาย  สมชาย  ใจดี"));
        assert_eq!(column(&arrays[0])[3], None);
    }
}
