//! What a session can ask about: the datasets, as its caller sees them.
//!
//! What passes through: a table on its way to the planner, into the table as the caller sees it. There is no
//! other way from [`Tables`] to a plan.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use ruam_event::ColumnSpec;
use ruam_lake::{TableKind, TableName};

use crate::audit::AuditLog;
use crate::caller::Caller;
use crate::engine::QueryDataset;
use crate::error::external;
use crate::guard::{About, Guarded};
use crate::policy::{Part, Policies, Sight};
use crate::session::Purpose;
use crate::tables::Tables;

/// The semantic type of numbers of citizens.
const PERSON: &str = "thai_citizen_id";

/// The datasets of a session.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub tables: Arc<Tables>,
    pub datasets: Arc<[Arc<QueryDataset>]>,
    pub policies: Arc<Policies>,
    pub caller: Arc<Caller>,
    pub purpose: Arc<Purpose>,
    pub audit: Option<Arc<AuditLog>>,
}

impl Scope {
    /// Whether a part of a dataset is there for the caller.
    pub(crate) fn has(&self, dataset: &QueryDataset, part: Part) -> bool {
        self.policies.may_see(&self.caller, dataset.spec.id(), part)
    }

    /// Whether the caller may see who asked what.
    pub(crate) fn may_audit(&self) -> bool {
        self.policies.may_audit(&self.caller)
    }

    /// The datasets of which the caller sees something.
    pub(crate) fn datasets(&self) -> impl Iterator<Item = &Arc<QueryDataset>> {
        let parts = [Part::Rows, Part::History, Part::Changes, Part::Rejects];
        self.datasets.iter().filter(move |dataset| parts.iter().any(|part| self.has(dataset, *part)))
    }

    /// The tables that are there for the caller, each with its dataset and its columns.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&Arc<QueryDataset>, TableName, &SchemaRef)> {
        self.datasets.iter().flat_map(move |dataset| {
            let seen = dataset.tables().filter(|(name, _)| self.has(dataset, part_of(name.kind)));
            seen.map(move |(name, schema)| (dataset, name, schema))
        })
    }

    /// The table that a name stands for, where it is there for the caller.
    pub(crate) fn table(&self, name: &str) -> Option<(&Arc<QueryDataset>, TableName, &SchemaRef)> {
        self.tables().find(|(_, table, _)| table.to_string() == name)
    }

    /// A table as the caller sees it; none where it is not there for them. `name` is for errors and the audit.
    pub(crate) fn see(
        &self,
        dataset: &QueryDataset,
        part: Part,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let stated = self.purpose.stated();
        let sight = self.policies.sight(&self.caller, &dataset.spec, part, stated.as_deref()).map_err(external)?;
        let Some(sight) = sight else { return Ok(None) };
        Guarded::table(about(dataset, part, name), table, sight, self.purpose.clone()).map(Some)
    }

    /// The changes that a history is made of, before it is seen as the caller may.
    pub(crate) fn whole(
        &self,
        dataset: &QueryDataset,
        name: String,
        changes: Arc<dyn TableProvider>,
    ) -> Result<Arc<dyn TableProvider>> {
        Guarded::table(about(dataset, Part::History, name), changes, Sight::default(), self.purpose.clone())
    }

    /// Whether the caller sees all rows of a part of a dataset, so that their number is no secret.
    pub(crate) fn sees_all_rows(&self, dataset: &QueryDataset, part: Part) -> bool {
        let stated = self.purpose.stated();
        let sight = self.policies.sight(&self.caller, &dataset.spec, part, stated.as_deref());
        sight.is_ok_and(|sight| sight.is_some_and(|sight| sight.rows.is_none()))
    }
}

/// What is declared of a table.
fn about(dataset: &QueryDataset, part: Part, name: String) -> About {
    let is_person = |column: &&ColumnSpec| column.semantic_type.get_ref() == PERSON;
    let persons = dataset.spec.columns.iter().filter(is_person).map(|column| column.name().to_owned()).collect();
    // Changes lie in the order in which they came.
    let sorted_by = if part == Part::Rows { dataset.spec.cluster_by() } else { Vec::new() };
    About { name, persons, sorted_by }
}

/// The part of a dataset that a table is.
pub(crate) fn part_of(kind: TableKind) -> Part {
    match kind {
        TableKind::Rows => Part::Rows,
        TableKind::Changes => Part::Changes,
        TableKind::Rejects => Part::Rejects,
    }
}
