//! What is seen instead of a value that may not be seen.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, new_null_array};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{Expr, ScalarUDF, Volatility, create_udf, ident, lit};
use hmac::{Hmac, Mac};
use ruam_transform::types::SemanticType;
use sha2::Sha256;

/// How many bytes of a pseudonym are told: enough that no two of a country's people share one.
const PSEUDONYM_BYTES: usize = 16;

/// The secret that pseudonyms are made with. Without it nobody can tell by trying which number stands behind
/// one, of which there are few enough to try all.
#[derive(Clone, Default)]
pub struct PseudonymKey(Vec<u8>);

impl PseudonymKey {
    /// A key of random bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The pseudonym of a value: the same for the same value, in whichever table it is.
    pub(crate) fn pseudonym(&self, value: &str) -> String {
        // A key of any length is one.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(value.as_bytes());
        hex::encode(&mac.finalize().into_bytes()[..PSEUDONYM_BYTES])
    }
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PseudonymKey")
    }
}

/// What is seen instead of a column's values.
#[derive(Clone, Debug)]
pub(super) enum Mask {
    /// Nothing, of the column's type.
    Null(DataType),
    /// What the column's semantic type leaves of them, or a pseudonym.
    Function(Arc<ScalarUDF>),
}

impl Mask {
    /// What a semantic type leaves of its values.
    pub(super) fn partial(name: &str, semantic: Arc<dyn SemanticType>, data_type: &DataType) -> Self {
        let mask = move |columns: &[ArrayRef]| Ok(semantic.mask(&columns[0]));
        Self::function(&format!("masked_{name}"), data_type, mask)
    }

    /// A pseudonym of each text.
    pub(super) fn pseudonym(key: PseudonymKey) -> Self {
        let mask = move |columns: &[ArrayRef]| -> datafusion::common::Result<ArrayRef> {
            Ok(match columns[0].as_string_opt::<i32>() {
                Some(texts) => {
                    Arc::new(texts.iter().map(|text| text.map(|text| key.pseudonym(text))).collect::<StringArray>())
                }
                None => new_null_array(columns[0].data_type(), columns[0].len()),
            })
        };
        Self::function("pseudonym", &DataType::Utf8, mask)
    }

    fn function(
        name: &str,
        data_type: &DataType,
        mask: impl Fn(&[ArrayRef]) -> datafusion::common::Result<ArrayRef> + Send + Sync + 'static,
    ) -> Self {
        let mask = make_scalar_function(mask, Vec::new());
        let types = vec![data_type.clone()];
        Self::Function(Arc::new(create_udf(name, types, data_type.clone(), Volatility::Immutable, Arc::new(mask))))
    }

    /// What is seen of a column.
    pub(super) fn of(&self, column: &str) -> Expr {
        match self {
            Self::Null(data_type) => lit(ScalarValue::try_new_null(data_type).unwrap_or(ScalarValue::Null)),
            Self::Function(function) => function.call(vec![ident(column)]),
        }
    }
}
