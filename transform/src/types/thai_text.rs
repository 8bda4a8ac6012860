//! Thai text, with its frequent typing faults repaired and the text before the repair kept.
//!
//! Keyboards and converters leave marks in an order that looks right and compares wrong. Unicode
//! normalisation does not help (NFC leaves misordered vowels and tones alone, and does not compose
//! nikhahit and aa into sara am; NFKC breaks sara am apart), so the repair is done here, in an
//! order that is known to be safe: zero-width characters go; spaces collapse, and none stays before
//! a combining mark; เเ becomes แ; a tone that stands before its vowel changes places with it;
//! ๅ becomes า unless it follows ฤ or ฦ; nikhahit + tone + aa becomes tone + sara am; a repeated
//! mark goes.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field};

use super::{NoOptions, OptionError, SemanticType, options};
use crate::reject::Reason;

pub(super) const MOJIBAKE: Reason =
    Reason::new("mojibake", "the text is UTF-8 that was read in another encoding (à¸...); the source has to send it anew");

const NIKHAHIT: char = '\u{0E4D}';
const SARA_AA: char = '\u{0E32}';
const SARA_AM: char = '\u{0E33}';
const LAKKHANGYAO: char = '\u{0E45}';

/// Thai text.
#[derive(Debug)]
pub struct ThaiText;

impl ThaiText {
    pub(super) fn new(table: &toml::Table) -> Result<Self, OptionError> {
        options::<NoOptions>(table).map(|_| Self)
    }
}

/// Vowels above and below, and the mark that shortens: they stand before a tone.
fn is_vowel_mark(c: char) -> bool {
    matches!(c, '\u{0E31}' | '\u{0E34}'..='\u{0E3A}' | '\u{0E47}')
}

/// Tones, and the mark that silences.
fn is_tone(c: char) -> bool {
    matches!(c, '\u{0E48}'..='\u{0E4C}')
}

fn is_mark(c: char) -> bool {
    is_vowel_mark(c) || is_tone(c) || c == NIKHAHIT || c == '\u{0E4E}'
}

/// The repaired text; borrowed where there was nothing to repair.
pub(super) fn repair(text: &str) -> Cow<'_, str> {
    if !needs_repair(text) {
        return Cow::Borrowed(text);
    }
    let mut chars: Vec<char> = Vec::with_capacity(text.len() / 2);
    for c in text.chars() {
        match c {
            '\u{200B}' | '\u{200C}' | '\u{FEFF}' => {}
            c if c.is_whitespace() => {
                if chars.last().is_some_and(|last| *last != ' ') {
                    chars.push(' ');
                }
            }
            c => {
                if is_mark(c) || c == SARA_AM {
                    while chars.last() == Some(&' ') && chars.len() > 1 {
                        chars.pop();
                    }
                }
                chars.push(c);
            }
        }
    }
    while chars.last() == Some(&' ') {
        chars.pop();
    }
    merge_sara_ae(&mut chars);
    order_marks(&mut chars);
    replace_lakkhangyao(&mut chars);
    // A repeated tone would keep nikhahit and aa apart, and where they meet a tone may come to stand
    // beside its like.
    drop_repeated_marks(&mut chars);
    compose_sara_am(&mut chars);
    drop_repeated_marks(&mut chars);
    let repaired: String = chars.into_iter().collect();
    if repaired == text { Cow::Borrowed(text) } else { Cow::Owned(repaired) }
}

/// A quick look that most texts pass: no space at an end, before a mark or after another, and none
/// of the characters that a repair begins at.
fn needs_repair(text: &str) -> bool {
    let mut last = ' ';
    for c in text.chars() {
        let suspicious = match c {
            ' ' => last == ' ',
            '\u{200B}' | '\u{200C}' | '\u{FEFF}' | NIKHAHIT | LAKKHANGYAO => true,
            'เ' => last == 'เ',
            SARA_AM => last == ' ',
            c if is_vowel_mark(c) => is_tone(last) || last == ' ' || last == c,
            c if is_mark(c) => last == ' ' || last == c,
            c => c != ' ' && c.is_whitespace(),
        };
        if suspicious {
            return true;
        }
        last = c;
    }
    last == ' ' && !text.is_empty()
}

fn merge_sara_ae(chars: &mut Vec<char>) {
    let mut merged = Vec::with_capacity(chars.len());
    for c in chars.drain(..) {
        if c == 'เ' && merged.last() == Some(&'เ') {
            merged.pop();
            merged.push('แ');
        } else {
            merged.push(c);
        }
    }
    *chars = merged;
}

/// Within each run of marks, vowels come before nikhahit, and that before tones.
fn order_marks(chars: &mut [char]) {
    let rank = |c: &char| if is_vowel_mark(*c) { 0 } else { 1 };
    for run in chars.chunk_by_mut(|a, b| is_mark(*a) && is_mark(*b)) {
        if run.len() > 1 {
            run.sort_by_key(rank);
        }
    }
}

fn drop_repeated_marks(chars: &mut Vec<char>) {
    chars.dedup_by(|next, last| next == last && is_mark(*next));
}

/// Nikhahit and aa are one vowel, with or without a tone between or before them.
fn compose_sara_am(chars: &mut Vec<char>) {
    let mut composed: Vec<char> = Vec::with_capacity(chars.len());
    for c in chars.drain(..) {
        if c == SARA_AA {
            match composed.as_slice() {
                [.., NIKHAHIT] => {
                    composed.pop();
                    composed.push(SARA_AM);
                    continue;
                }
                [.., NIKHAHIT, tone] if is_tone(*tone) => {
                    let tone = *tone;
                    composed.truncate(composed.len() - 2);
                    composed.extend([tone, SARA_AM]);
                    continue;
                }
                _ => {}
            }
        }
        composed.push(c);
    }
    *chars = composed;
}

fn replace_lakkhangyao(chars: &mut [char]) {
    for index in 0..chars.len() {
        let after_rue = index > 0 && matches!(chars[index - 1], 'ฤ' | 'ฦ');
        if chars[index] == LAKKHANGYAO && !after_rue {
            chars[index] = SARA_AA;
        }
    }
}

/// Whether a text is Thai UTF-8 that somebody read as Windows-1252 or Latin-1.
pub(super) fn is_mojibake(text: &str) -> bool {
    text.contains("à¸") || text.contains("à¹")
}

/// The repaired column, and beside it the text before where it differs.
pub(super) fn repair_column(texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> (StringArray, StringArray) {
    let needs = |text: &str| text.is_empty() || needs_repair(text) || is_mojibake(text);
    if !texts.iter().flatten().any(needs) {
        return (texts.clone(), StringArray::new_null(texts.len()));
    }
    let mut repaired = StringBuilder::with_capacity(texts.len(), texts.values().len());
    let mut raw = StringBuilder::new();
    for (row, text) in texts.iter().enumerate() {
        let value = text.map(repair).filter(|value| !value.is_empty());
        if value.as_ref().is_some_and(|value| is_mojibake(value)) {
            fault(row, MOJIBAKE);
        }
        raw.append_option(text.filter(|text| !text.is_empty() && value.as_deref() != Some(text)));
        repaired.append_option(value);
    }
    (repaired.finish(), raw.finish())
}

impl SemanticType for ThaiText {
    fn fields(&self, column: &str) -> Vec<Field> {
        vec![Field::new(column, DataType::Utf8, true), Field::new(format!("{column}_raw"), DataType::Utf8, true)]
    }

    fn normalise(&self, texts: &StringArray, fault: &mut dyn FnMut(usize, Reason)) -> Vec<ArrayRef> {
        let (repaired, raw) = repair_column(texts, fault);
        vec![Arc::new(repaired), Arc::new(raw)]
    }

    fn describe(&self) -> String {
        "Thai text with misplaced and repeated marks, spaces and invisible characters repaired; \
         where that changed it, the text before is kept beside it"
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{column, run};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repairs() {
        for (broken, right) in [
            ("สมชาย ใจดี", "สมชาย ใจดี"),
            ("  สมชาย   ใจดี ", "สมชาย ใจดี"),
            ("สม\u{200B}ชาย", "สมชาย"),
            ("เเม่", "แม่"),
            ("ก่ิน", "กิ่น"),
            ("น\u{0E4D}\u{0E32}", "นำ"),
            ("น\u{0E4D}\u{0E49}\u{0E32}", "น้ำ"),
            ("น\u{0E49}\u{0E4D}\u{0E32}", "น้ำ"),
            ("มๅ", "มา"),
            ("ฤๅษี", "ฤๅษี"),
            ("ที่่", "ที่"),
            ("น\u{e4d}\u{e4a}\u{e4a}า", "น๊ำ"),
            ("ก ิน", "กิน"),
            ("ABC  def", "ABC def"),
        ] {
            assert_eq!(repair(broken), right, "{broken:?}");
        }
    }

    #[test]
    fn the_text_before_is_kept() {
        let (arrays, faults) = run(&ThaiText, &["เเม่", "แม่", "", "à¸ªà¸¡"]);
        assert_eq!(column(&arrays[0])[..3], [Some("แม่".to_owned()), Some("แม่".to_owned()), None]);
        assert_eq!(column(&arrays[1])[..3], [Some("เเม่".to_owned()), None, None]);
        assert_eq!(faults, [(3, "mojibake")]);
    }

    proptest! {
        #[test]
        fn repaired_text_needs_no_repair(text in "[ก-ฮะ-ฺเ-๎ \u{200B}\u{0E4D}]{0,24}") {
            let once = repair(&text).into_owned();
            prop_assert_eq!(repair(&once), once.as_str());
        }

        #[test]
        fn other_text_is_left_alone(text in "[a-zA-Z0-9ก-ฮ]{0,24}") {
            prop_assert_eq!(repair(&text), text.as_str());
        }
    }
}
