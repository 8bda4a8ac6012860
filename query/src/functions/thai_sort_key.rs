//! `thai_sort_key(text)`: bytes that sort as a Thai dictionary does.
//!
//! By the Unicode collation algorithm with CLDR's order for Thai, which is that of พจนานุกรม
//! ฉบับราชบัณฑิตยสถาน: a vowel that is written before its consonant counts after it, and tone marks count only
//! where nothing else differs.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};
use icu_collator::Collator;
use icu_collator::options::CollatorOptions;
use icu_locale_core::locale;

use super::function as of_column;

/// The function's name.
pub(crate) const THAI_SORT_KEY: &str = "thai_sort_key";

pub(super) fn function() -> ScalarUDF {
    let keys = |texts: &ArrayRef| -> Result<ArrayRef> {
        let thai = Collator::try_new(locale!("th").into(), CollatorOptions::default());
        let thai = thai.map_err(|error| exec_datafusion_err!("the order of Thai is not known: {error}"))?;
        let mut keys = BinaryBuilder::new();
        let mut key = Vec::new();
        for text in texts.as_string::<i32>() {
            key.clear();
            keys.append_option(text.map(|text| {
                let Ok(()) = thai.write_sort_key_to(text, &mut key);
                &key
            }));
        }
        Ok(Arc::new(keys.finish()))
    };
    let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
    of_column(THAI_SORT_KEY, signature, DataType::Binary, keys)
}
