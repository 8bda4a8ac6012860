//! `thai_words(text)` and `thai_contains(text, words)`: words of Thai, which writes no spaces between them.
//!
//! Where words begin and end is for the dictionary of the Unicode Consortium to say. Texts are repaired before
//! as a column of type `thai_text` is, so that what looks alike is alike.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{ScalarUDF, Signature, SimpleScalarUDF, Volatility};
use icu_segmenter::WordSegmenter;
use icu_segmenter::options::WordBreakInvariantOptions;

use super::{function as of_column, normalise};

/// The words of a text in their order, without what stands between them.
pub(super) fn words() -> ScalarUDF {
    let lists = |texts: &ArrayRef| -> Result<ArrayRef> {
        let texts = normalise("thai_text", texts)?;
        let mut lists = ListBuilder::new(StringBuilder::new());
        for text in texts.as_string::<i32>() {
            lists.append_option(text.map(|text| words_of(text).map(Some)));
        }
        Ok(Arc::new(lists.finish()))
    };
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    of_column("thai_words", Signature::exact(vec![DataType::Utf8], Volatility::Immutable), list, lists)
}

/// Whether a text has all words of another, wherever they stand in it and in whatever case. What has no words is
/// in no text.
pub(super) fn contains() -> ScalarUDF {
    let found = |columns: &[ArrayRef]| -> Result<ArrayRef> {
        let (texts, asked) = (normalise("thai_text", &columns[0])?, normalise("thai_text", &columns[1])?);
        // Most often all rows are asked for the same words.
        let (mut last, mut wanted) = ("", Vec::new());
        let rows = texts.as_string::<i32>().iter().zip(asked.as_string::<i32>());
        let found = rows.map(|(text, asked)| {
            let (text, asked) = (text?, asked?);
            if asked != last {
                (last, wanted) = (asked, words_of(asked).map(str::to_lowercase).collect());
            }
            let has: HashSet<_> = words_of(text).map(str::to_lowercase).collect();
            Some(!wanted.is_empty() && wanted.iter().all(|word| has.contains(word)))
        });
        Ok(Arc::new(found.collect::<BooleanArray>()))
    };
    let signature = Signature::exact(vec![DataType::Utf8, DataType::Utf8], Volatility::Immutable);
    let of = make_scalar_function(found, Vec::new());
    ScalarUDF::from(SimpleScalarUDF::new_with_signature("thai_contains", signature, DataType::Boolean, Arc::new(of)))
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    let segmenter = WordSegmenter::new_dictionary(WordBreakInvariantOptions::default());
    let mut from = 0;
    segmenter.segment_str(text).iter_with_word_type().filter_map(move |(to, kind)| {
        let segment = text.get(from..to);
        from = to;
        segment.filter(|_| kind.is_word_like())
    })
}
