//! The key of a row as one number, whatever columns it is of.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use xxhash_rust::xxh3::xxh3_128;

/// A hash of the key columns. Two keys with one hash among a billion are less likely (10⁻²⁰) than a
/// disk that errs.
pub(crate) type Key = u128;

/// Something of each key.
pub(crate) type KeyMap<V> = HashMap<Key, V, BuildHasherDefault<AsItIs>>;

/// The keys of the rows of a batch.
pub(crate) fn keys(rows: &RecordBatch, key: &[String]) -> Result<Vec<Key>, ArrowError> {
    let column = |name: &String| {
        rows.column_by_name(name).cloned().ok_or_else(|| ArrowError::SchemaError(format!("no key column `{name}`")))
    };
    let columns = key.iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    // Only the row format tells ("a", "bc") and ("ab", "c") apart, and null and an empty text.
    let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
    Ok(rows.iter().map(|row| xxh3_128(row.data())).collect())
}

/// Takes a key for its hash: it is one.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::collections::HashSet;
    use std::sync::Arc;

    #[test]
    fn tells_rows_apart_by_all_columns_of_the_key() {
        let first: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("ab"), Some("a"), None, Some("")]));
        let second: ArrayRef = Arc::new(StringArray::from(vec!["bc", "c", "bc", "", ""]));
        let other: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]));
        let rows = RecordBatch::try_from_iter_with_nullable([
            ("first", first, true),
            ("second", second, true),
            ("other", other, true),
        ]);
        let keys = keys(&rows.unwrap(), &["first".to_owned(), "second".to_owned()]).unwrap();
        assert_eq!(keys[0], keys[2]);
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 4);
    }
}
