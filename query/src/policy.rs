//! Who may see what: for each role a file beside the datasets' says it.
//!
//! What passes through: policy files, into [`Policies`]; and for somebody who asks, a table and the purpose
//! that they state, a [`Sight`]: the rows that they see of it, and what they see in its columns. The sight is
//! put before the table where it is scanned, whichever way it came to be asked for (see
//! [`guard`](crate::guard)).
//!
//! Guaranteed: what no grant of a role gives, it does not see. Of several grants each adds: a row that one of
//! them shows is seen, and a value is seen as it is where a grant that shows its row does not mask it. A
//! grant that needs a purpose counts where one of the dataset's is stated (PDPA, sections 24 and 26).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::logical_expr::{Expr, ident, when};
use ruam_event::{DatasetId, DatasetSpec, SpecError};

use crate::caller::Caller;
use crate::engine::QueryDataset;
use crate::error::QueryError;

mod file;
mod mask;

use mask::Mask;
pub use mask::PseudonymKey;

/// What all roles may see.
#[derive(Debug, Default)]
pub struct Policies {
    /// None where there are no policies: whoever gets in sees everything.
    roles: Option<BTreeMap<String, Role>>,
}

/// What one role may see, and how much of the engine it may use.
#[derive(Debug, Default)]
struct Role {
    grants: BTreeMap<DatasetId, Vec<Grant>>,
    limits: Limits,
    may_audit: bool,
}

/// How much of the engine somebody may use; none is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The most seconds that an answer may take, from its beginning to its end.
    pub seconds: Option<u64>,
    /// The most rows of an answer.
    pub rows: Option<u64>,
    /// The most answers at a time; others wait their turn.
    pub concurrent: Option<usize>,
    /// The most memory of an answer, in MB. What does not fit goes to disk, as far as the operation allows.
    pub memory_mb: Option<usize>,
    /// The most that an answer may read of the tables' files, in MB.
    pub read_mb: Option<u64>,
}

impl Limits {
    /// What somebody may use who has both: the more of each.
    fn or(self, other: Self) -> Self {
        Self {
            seconds: self.seconds.zip(other.seconds).map(|(one, other)| one.max(other)),
            rows: self.rows.zip(other.rows).map(|(one, other)| one.max(other)),
            concurrent: self.concurrent.zip(other.concurrent).map(|(one, other)| one.max(other)),
            memory_mb: self.memory_mb.zip(other.memory_mb).map(|(one, other)| one.max(other)),
            read_mb: self.read_mb.zip(other.read_mb).map(|(one, other)| one.max(other)),
        }
    }
}

/// A part of a dataset that a role may see.
#[derive(Debug)]
struct Grant {
    parts: BTreeSet<Part>,
    needs_purpose: bool,
    /// The rows; none for all.
    rows: Option<Expr>,
    /// The columns whose values are not seen as they are.
    masks: BTreeMap<String, Mask>,
}

/// What there is to see of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Its rows, as they are or were.
    Rows,
    /// What each of its rows was, by either clock.
    History,
    /// Its changes, one by one.
    Changes,
    /// What could not become a row, as it came in: nothing in it can be masked.
    Rejects,
}

/// What somebody sees of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Sight {
    /// The rows; none for all.
    pub rows: Option<Expr>,
    /// What is seen in a column instead of its values.
    pub columns: BTreeMap<String, Expr>,
    /// Whether it is so for the purpose that was stated.
    pub is_for_purpose: bool,
}

impl Sight {
    /// Whether all is seen as it is.
    pub(crate) fn is_clear(&self) -> bool {
        self.rows.is_none() && self.columns.is_empty()
    }

    /// What is hidden, in words; empty where nothing is.
    pub(crate) fn hidden(&self) -> String {
        let rows = self.rows.as_ref().map(|rows| format!("rows but {rows}"));
        let columns = self.columns.keys().map(ToString::to_string);
        rows.into_iter().chain(columns).collect::<Vec<_>>().join(", ")
    }
}

impl Policies {
    /// Reads policy files, each a path (only named in errors) and its text, and checks them against the
    /// datasets.
    ///
    /// # Errors
    /// All mistakes, each with its place and remedy.
    pub fn read(
        files: &[(String, String)],
        datasets: &[Arc<QueryDataset>],
        key: &PseudonymKey,
    ) -> Result<Self, Vec<SpecError>> {
        let (mut roles, mut mistakes) = (BTreeMap::new(), Vec::new());
        for (path, text) in files {
            match file::read(path, text, datasets, key) {
                Ok((name, role)) => match roles.entry(name) {
                    std::collections::btree_map::Entry::Vacant(free) => drop(free.insert(role)),
                    std::collections::btree_map::Entry::Occupied(taken) => mistakes.push(SpecError {
                        path: path.clone(),
                        line: 1,
                        key: "role".to_owned(),
                        problem: format!("role `{}` has a file already", taken.key()),
                        remedy: "Put all that a role may see into one file".to_owned(),
                    }),
                },
                Err(found) => mistakes.extend(found),
            }
        }
        if mistakes.is_empty() { Ok(Self { roles: Some(roles) }) } else { Err(mistakes) }
    }

    /// The grants of somebody for a part of a dataset; none where nothing is hidden from them.
    fn grants<'a>(
        &'a self,
        caller: &'a Caller,
        dataset: &'a DatasetId,
        part: Part,
    ) -> Option<impl Iterator<Item = &'a Grant>> {
        let of_dataset = self.roles(caller)?.filter_map(|role| role.grants.get(dataset)).flatten();
        Some(of_dataset.filter(move |grant| grant.parts.contains(&part)))
    }

    /// The roles of somebody that a policy speaks of; none where nothing is hidden from them.
    fn roles<'a>(&'a self, caller: &'a Caller) -> Option<impl Iterator<Item = &'a Role>> {
        let (all, roles) = (self.roles.as_ref()?, caller.roles()?);
        Some(roles.iter().filter_map(|role| all.get(role)))
    }

    /// How much somebody may use.
    pub(crate) fn limits(&self, caller: &Caller) -> Limits {
        self.roles(caller).and_then(|roles| roles.map(|role| role.limits).reduce(Limits::or)).unwrap_or_default()
    }

    /// Whether somebody may see who asked what.
    pub(crate) fn may_audit(&self, caller: &Caller) -> bool {
        self.roles(caller).is_none_or(|mut roles| roles.any(|role| role.may_audit))
    }

    /// Whether somebody may see a part of a dataset at all, be it for a purpose.
    pub(crate) fn may_see(&self, caller: &Caller, dataset: &DatasetId, part: Part) -> bool {
        self.grants(caller, dataset, part).is_none_or(|mut grants| grants.next().is_some())
    }

    /// What somebody sees of a part of a dataset for a purpose; none where there is no such thing for them.
    ///
    /// # Errors
    /// Where they may see it, and not for this purpose.
    pub(crate) fn sight(
        &self,
        caller: &Caller,
        spec: &DatasetSpec,
        part: Part,
        purpose: Option<&str>,
    ) -> Result<Option<Sight>, QueryError> {
        let Some(grants) = self.grants(caller, spec.id(), part) else { return Ok(Some(Sight::default())) };
        let grants: Vec<_> = grants.collect();
        if grants.is_empty() {
            return Ok(None);
        }
        let serves = purpose.is_some_and(|purpose| spec.purposes.iter().any(|known| known == purpose));
        let grants: Vec<_> = grants.into_iter().filter(|grant| serves || !grant.needs_purpose).collect();
        if grants.is_empty() {
            return Err(QueryError::Purpose {
                dataset: spec.id().clone(),
                stated: purpose.map(ToOwned::to_owned),
                purposes: spec.purposes.clone(),
            });
        }
        let is_for_purpose = grants.iter().any(|grant| grant.needs_purpose);
        Ok(Some(Sight { rows: any_of(&grants), columns: masked(&grants)?, is_for_purpose }))
    }
}

/// The rows that one of some grants shows; none for all.
fn any_of(grants: &[&Grant]) -> Option<Expr> {
    let rows: Option<Vec<_>> = grants.iter().map(|grant| grant.rows.clone()).collect();
    rows?.into_iter().reduce(Expr::or)
}

/// What is seen in columns that not every grant shows as they are.
fn masked(grants: &[&Grant]) -> Result<BTreeMap<String, Expr>> {
    let columns: BTreeSet<_> = grants.iter().flat_map(|grant| grant.masks.keys()).collect();
    let mut masked = BTreeMap::new();
    for column in columns {
        let (masking, clear): (Vec<&Grant>, Vec<&Grant>) =
            grants.iter().copied().partition(|grant| grant.masks.contains_key(column));
        let Some(mask) = masking.iter().find_map(|grant| grant.masks.get(column)) else { continue };
        let mask = mask.of(column);
        let seen = match (clear.is_empty(), any_of(&clear)) {
            (true, _) => mask,
            (false, Some(rows)) => when(rows, ident(column)).otherwise(mask)?,
            (false, None) => continue,
        };
        masked.insert(column.clone(), seen);
    }
    Ok(masked)
}

#[cfg(test)]
mod tests;
