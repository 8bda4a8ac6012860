//! What the functions of areas are told: every area there is, and has been.

use datafusion::error::Result;
use datafusion::sql::sqlparser::ast::Expr;

use crate::dialect;

/// All areas as one value for one of a statement's calls, as far as whoever asks may see them. It is a query of
/// its own, which does not depend on any row, so that it is answered once.
///
/// What is known now counts. Each call is told by a query of another name: what is alike is made a column that
/// all share, and would then be a list of all areas for each row.
pub(super) fn all(call: usize) -> Result<Expr> {
    dialect::expression(&format!(
        "(select array_agg(named_struct('code', code, 'name', name_th, 'valid_from', valid_from, 'valid_to', valid_to, \
         'abolished_on', abolished_on, 'successors', successors)) as areas_{call} \
         from dopa.administrative_area__history where known_to is null)"
    ))
}
