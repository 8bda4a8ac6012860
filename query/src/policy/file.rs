//! A policy file: what one role may see.
//!
//! ```toml
//! role = "analyst"
//!
//! [[grant]]
//! datasets = ["bora.person", "dopa.*"]
//! parts = ["rows", "history"]           # of rows, history, changes, rejects; the first three if not said
//! rows = "area_code like '10%'"         # all of them if not said
//! purpose = "stated"                    # or "any"; any is enough for open data if not said
//! masks = [
//!   { type = "thai_citizen_id", with = "pseudonym" },
//!   { classification = "confidential" },  # with = "partial" if not said: what the type leaves
//!   { column = "address", with = "null" },
//! ]
//!
//! [limits]                              # none where not said
//! seconds = 300                         # of an answer, from its beginning to its end
//! rows = 1_000_000                      # of an answer
//! concurrent = 4                        # answers at a time of one person; others wait their turn
//! memory_mb = 512                       # of an answer; what does not fit goes to disk, where it can
//! read_mb = 10_000                      # of the tables' files, by an answer
//! ```
//!
//! `audit = true` lets a role see `ruam.audit`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::prelude::SessionContext;
use ruam_event::spec::{Classification, ColumnSpec};
use ruam_event::spec_file::suggest;
use ruam_event::{SpecError, SpecFile};
use ruam_transform::{origin, types};
use serde::Deserialize;
use toml::Spanned;

use super::mask::{Mask, PseudonymKey};
use super::{Grant, Limits, Part, Role};
use crate::engine::{QueryDataset, config};
use crate::error::QueryError;
use crate::functions;

/// The least memory of an answer, in MB: a sort on disk keeps 10 MB for each core to merge with.
const LEAST_MEMORY_MB: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    role: Spanned<String>,
    #[serde(default)]
    grant: Vec<GrantSpec>,
    limits: Option<Spanned<Limits>>,
    /// Whether the role may see who asked what.
    #[serde(default)]
    audit: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantSpec {
    datasets: Vec<Spanned<String>>,
    #[serde(default = "usual_parts")]
    parts: Spanned<Vec<Part>>,
    rows: Option<Spanned<String>>,
    purpose: Option<PurposeSpec>,
    #[serde(default)]
    masks: Vec<Spanned<MaskSpec>>,
}

/// Whether a purpose has to be stated.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum PurposeSpec {
    Stated,
    Any,
}

/// Which columns are masked, by one of three things, and how.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct MaskSpec {
    #[serde(rename = "type")]
    semantic_type: Option<String>,
    classification: Option<Classification>,
    column: Option<String>,
    #[serde(default)]
    with: MaskKind,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MaskKind {
    #[default]
    Partial,
    Pseudonym,
    Null,
}

fn usual_parts() -> Spanned<Vec<Part>> {
    Spanned::new(0..0, vec![Part::Rows, Part::History, Part::Changes])
}

/// Reads one file: the role, and what it may see.
pub(super) fn read(
    path: &str,
    text: &str,
    datasets: &[Arc<QueryDataset>],
    key: &PseudonymKey,
) -> Result<(String, Role), Vec<SpecError>> {
    let file = SpecFile::new(path, text);
    let declared: PolicyFile = file.read().map_err(|mistake| vec![mistake])?;
    let mut mistakes = declared.limits.as_ref().map_or_else(Vec::new, |limits| check_limits(&file, limits));
    let limits = declared.limits.map_or_else(Limits::default, Spanned::into_inner);
    let mut role = Role { limits, may_audit: declared.audit, ..Role::default() };
    let name = declared.role.get_ref();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c)) {
        let problem = format!("`{name}` cannot name a role");
        mistakes.push(file.error_at(&declared.role.span(), "role", problem, "Use letters, digits and _ - . :"));
    }
    let reader = Reader { file: &file, datasets, key, session: session() };
    for grant in &declared.grant {
        for pattern in &grant.datasets {
            match reader.meant(pattern) {
                Ok(meant) => {
                    for dataset in meant {
                        match reader.grant(grant, dataset) {
                            Ok(read) => role.grants.entry(dataset.spec.id().clone()).or_default().push(read),
                            Err(mistake) => mistakes.push(mistake),
                        }
                    }
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        mistakes.extend(grant.masks.iter().filter_map(|mask| reader.check_mask(grant, mask)));
    }
    mistakes.dedup();
    if mistakes.is_empty() { Ok((declared.role.into_inner(), role)) } else { Err(mistakes) }
}

/// What is wrong with some limits: those that nothing could be answered within.
fn check_limits(file: &SpecFile, limits: &Spanned<Limits>) -> Vec<SpecError> {
    let Limits { seconds, rows, concurrent, memory_mb, read_mb } = *limits.get_ref();
    let zero = [
        ("limits.seconds", seconds == Some(0)),
        ("limits.rows", rows == Some(0)),
        ("limits.concurrent", concurrent == Some(0)),
        ("limits.read_mb", read_mb == Some(0)),
    ];
    let zero = zero.into_iter().filter(|(_, is_zero)| *is_zero).map(|(key, _)| {
        let remedy = "Write how much there may be, or leave it out for as much as there is";
        file.error_at(&limits.span(), key, "with 0 of it nothing is answered", remedy)
    });
    let little = memory_mb.filter(|memory| *memory < LEAST_MEMORY_MB).map(|memory| {
        let problem = format!("with {memory} MB nothing can be sorted, not even on disk");
        file.error_at(&limits.span(), "limits.memory_mb", problem, format!("Write {LEAST_MEMORY_MB} or more"))
    });
    zero.chain(little).collect()
}

/// Where the conditions of rows are read: no table is known to it, so that they speak of the row alone.
fn session() -> SessionContext {
    let session = SessionContext::new_with_config(config());
    functions::register(&session);
    session
}

struct Reader<'a> {
    file: &'a SpecFile,
    datasets: &'a [Arc<QueryDataset>],
    key: &'a PseudonymKey,
    session: SessionContext,
}

impl Reader<'_> {
    /// The datasets that a pattern names.
    fn meant(&self, pattern: &Spanned<String>) -> Result<Vec<&QueryDataset>, SpecError> {
        let wanted = pattern.get_ref();
        let is_meant = |dataset: &&QueryDataset| match wanted.strip_suffix('*') {
            Some("") => true,
            Some(agency) => agency.strip_suffix('.') == Some(dataset.spec.id().agency()),
            None => dataset.spec.id().to_string() == *wanted,
        };
        let meant: Vec<_> = self.datasets.iter().map(AsRef::as_ref).filter(is_meant).collect();
        if meant.is_empty() {
            let known: Vec<_> = self.datasets.iter().map(|dataset| dataset.spec.id().to_string()).collect();
            let known: Vec<_> = known.iter().map(String::as_str).collect();
            let problem = format!("there is no dataset `{wanted}`");
            return Err(self.file.error_at(&pattern.span(), "grant.datasets", problem, suggest(wanted, &known)));
        }
        Ok(meant)
    }

    fn grant(&self, grant: &GrantSpec, dataset: &QueryDataset) -> Result<Grant, SpecError> {
        let rows = grant.rows.as_ref().map(|rows| self.condition(rows, dataset)).transpose()?;
        let mut masks = BTreeMap::new();
        for mask in &grant.masks {
            for column in dataset.spec.columns.iter().filter(|column| mask.get_ref().is_of(column, dataset)) {
                masks.extend(self.masks(mask, column, dataset)?);
            }
        }
        // What was signed is in the signature, as it came in.
        if !masks.is_empty() && dataset.spec.signatures().is_some() {
            masks.insert(origin::SIGNATURE.to_owned(), Mask::Null(DataType::Utf8));
        }
        let parts = grant.parts.get_ref();
        if parts.contains(&Part::Rejects) && (rows.is_some() || !masks.is_empty()) {
            let problem = format!(
                "what `{}` refused is kept as it came in: nothing of it can be masked, nor told apart by rows",
                dataset.spec.id()
            );
            let remedy = "Grant `rejects` apart, without `rows` and `masks`, to those who may see all of it";
            return Err(self.file.error_at(&grant.parts.span(), "grant.parts", problem, remedy));
        }
        let is_open = dataset.spec.classification == Classification::Open;
        let purpose = grant.purpose.unwrap_or(if is_open { PurposeSpec::Any } else { PurposeSpec::Stated });
        let needs_purpose = purpose == PurposeSpec::Stated;
        if needs_purpose && dataset.spec.purposes.is_empty() {
            let problem = format!("`{}` declares no purpose that could be stated", dataset.spec.id());
            let remedy = "Declare its `purposes` in its own file, or write purpose = \"any\"";
            return Err(self.file.error_at(&grant.parts.span(), "grant.purpose", problem, remedy));
        }
        Ok(Grant { parts: parts.iter().copied().collect(), needs_purpose, rows, masks })
    }

    /// A condition on a dataset's rows.
    fn condition(&self, condition: &Spanned<String>, dataset: &QueryDataset) -> Result<Expr, SpecError> {
        let mistake = |problem: String, remedy: &str| {
            self.file.error_at(
                &condition.span(),
                "grant.rows",
                format!("for `{}`: {problem}", dataset.spec.id()),
                remedy,
            )
        };
        let remedy = "Write a condition on the dataset's columns, such as rows = \"area_code like '10%'\"";
        let schema = DFSchema::try_from(dataset.rows.as_ref().clone())
            .and_then(|schema| Ok((self.session.state().create_logical_expr(condition.get_ref(), &schema)?, schema)));
        let (read, schema) = schema.map_err(|error| mistake(QueryError::from(error).to_string(), remedy))?;
        // With the casts that it needs; what it cannot be cast to is no condition.
        let planned = self.session.state().create_physical_expr(read.clone(), &schema);
        let planned = planned.and_then(|planned| planned.data_type(schema.as_arrow()));
        match planned.map_err(|error| mistake(QueryError::from(error).to_string(), remedy))? {
            DataType::Boolean if !is_volatile(&read) => Ok(read),
            DataType::Boolean => Err(mistake("it is not the same each time it is asked".to_owned(), remedy)),
            other => Err(mistake(format!("it is of type {other}, and neither true nor false"), remedy)),
        }
    }

    /// The masks of a column, and of what is kept beside it.
    fn masks(
        &self,
        mask: &Spanned<MaskSpec>,
        column: &ColumnSpec,
        dataset: &QueryDataset,
    ) -> Result<Vec<(String, Mask)>, SpecError> {
        let semantic = types::of_column(&dataset.spec, column)?;
        let fields = semantic.fields(column.name());
        let mut masks: Vec<_> =
            fields.iter().map(|field| (field.name().clone(), Mask::Null(field.data_type().clone()))).collect();
        let Some(((_, own), field)) = masks.first_mut().zip(fields.first()) else { return Ok(masks) };
        match mask.get_ref().with {
            MaskKind::Null => {}
            MaskKind::Partial => {
                *own = Mask::partial(column.semantic_type.get_ref(), semantic.clone(), field.data_type());
            }
            MaskKind::Pseudonym if field.data_type() == &DataType::Utf8 => *own = Mask::pseudonym(self.key.clone()),
            MaskKind::Pseudonym => {
                let problem = format!("column `{}` of `{}` is no text", column.name(), dataset.spec.id());
                let remedy = "Only a text can have a pseudonym: write with = \"partial\" or \"null\"";
                return Err(self.file.error_at(&mask.span(), "grant.masks", problem, remedy));
            }
        }
        Ok(masks)
    }

    /// What is wrong with a mask whichever dataset it is for.
    fn check_mask(&self, grant: &GrantSpec, mask: &Spanned<MaskSpec>) -> Option<SpecError> {
        let spec = mask.get_ref();
        let ways = [spec.semantic_type.is_some(), spec.classification.is_some(), spec.column.is_some()];
        if ways.iter().filter(|way| **way).count() != 1 {
            let remedy = "Write one of type = \"...\", classification = \"...\" and column = \"...\"";
            return Some(self.file.error_at(&mask.span(), "grant.masks", "it does not say what it masks", remedy));
        }
        if let Some(name) = spec.semantic_type.as_ref().filter(|name| !types::NAMES.contains(&name.as_str())) {
            let problem = format!("`{name}` is not a semantic type");
            return Some(self.file.error_at(&mask.span(), "grant.masks", problem, suggest(name, types::NAMES)));
        }
        // A column that no dataset has is a slip of the pen, and what it was to hide would be seen.
        let column = spec.column.as_ref()?;
        let meant: Vec<_> = grant.datasets.iter().filter_map(|pattern| self.meant(pattern).ok()).flatten().collect();
        let known: Vec<_> =
            meant.iter().flat_map(|dataset| dataset.spec.columns.iter().map(ColumnSpec::name)).collect();
        (!known.contains(&column.as_str())).then(|| {
            let problem = format!("there is no column `{column}` in what is granted");
            self.file.error_at(&mask.span(), "grant.masks", problem, suggest(column, &known))
        })
    }
}

impl MaskSpec {
    fn is_of(&self, column: &ColumnSpec, dataset: &QueryDataset) -> bool {
        let classification = column.classification.unwrap_or(dataset.spec.classification);
        self.semantic_type.as_ref().is_some_and(|name| name == column.semantic_type.get_ref())
            || self.classification.is_some_and(|from| classification >= from)
            || self.column.as_ref().is_some_and(|name| name == column.name())
    }
}

fn is_volatile(condition: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    let is_volatile = |part: &Expr| match part {
        Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::Placeholder(_) => true,
        _ => false,
    };
    condition.exists(|part| Ok(is_volatile(part))).unwrap_or(true)
}
