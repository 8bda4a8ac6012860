//! What a plan reads, found in one walk: for the audit, for limits, and for whether its answer can be kept.
//!
//! What passes through: the plan of a question, as it is optimized, into the tables and columns that it reads, what
//! is hidden of them, and the numbers of citizens that it compares with. Views of which nothing is hidden are a
//! part of the plan by then.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::{ViewTable, source_as_provider};
use datafusion::logical_expr::expr::WindowFunctionDefinition;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, Volatility};

use crate::audit;
use crate::guard::Guarded;
use crate::policy::Sight;
use crate::scan::{LakeTable, Version};

/// What a plan reads.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The tables, each with its columns.
    pub tables: BTreeMap<String, BTreeSet<String>>,
    /// The tables of which something is hidden from whoever asks, and what.
    pub hidden: BTreeMap<String, String>,
    /// The tables, each with the columns that its files are sorted by.
    pub sorted_by: BTreeMap<String, Vec<String>>,
    /// The numbers of citizens that the plan compares with.
    pub persons: BTreeSet<String>,
    /// Whether numbers of citizens are read as they are.
    pub shows_persons: bool,
    /// What its answer depends on beside the plan itself; none where it may be another each time.
    pub depends_on: Option<DependsOn>,
}

/// Tables as they are, and as they are seen, in the order in which a plan has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct DependsOn {
    versions: Vec<Version>,
    sights: Vec<Sight>,
}

impl DependsOn {
    /// Whether it is a table at all.
    pub(crate) fn is_table(&self) -> bool {
        !self.versions.is_empty()
    }
}

impl Reads {
    /// What a plan reads.
    ///
    /// # Errors
    /// Where DataFusion cannot walk it.
    pub(crate) fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut walk = Walk::default();
        walk.reads.depends_on = Some(DependsOn::default());
        walk.through(plan)?;
        let Walk { mut reads, numbers, reads_persons } = walk;
        if reads_persons {
            reads.persons.extend(numbers);
        }
        Ok(reads)
    }
}

#[derive(Default)]
struct Walk {
    reads: Reads,
    /// The numbers of thirteen digits that are no texts. Where no number of a citizen is read they are something
    /// else, such as times.
    numbers: BTreeSet<String>,
    reads_persons: bool,
}

impl Walk {
    fn through(&mut self, plan: &LogicalPlan) -> Result<()> {
        plan.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::TableScan(scan) => self.scan(scan),
                LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => self.reads.depends_on = None,
                _ => {}
            }
            for expression in node.expressions() {
                expression.apply(|part| {
                    if let Expr::Literal(value, _) = part {
                        self.literal(value);
                    } else if is_volatile(part) {
                        self.reads.depends_on = None;
                    }
                    Ok(TreeNodeRecursion::Continue)
                })?;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }

    fn scan(&mut self, scan: &TableScan) {
        let Ok(table) = source_as_provider(&scan.source) else {
            self.reads.depends_on = None;
            return;
        };
        if let Some(depends_on) = &mut self.reads.depends_on
            && !depends_on.add(table.as_ref())
        {
            self.reads.depends_on = None;
        }
        let table: &dyn Any = table.as_ref();
        let Some(table) = table.downcast_ref::<Guarded>() else { return };
        let about = table.about();
        let filtered = scan.filters.iter().flat_map(Expr::column_refs).map(|column| column.name().to_owned());
        let shown = scan.projected_schema.fields().iter().map(|field| field.name().clone());
        let columns: Vec<_> = shown.chain(filtered).collect();
        self.reads_persons |= columns.iter().any(|column| about.persons.contains(column));
        self.reads.shows_persons |= columns.iter().any(|column| table.shows_persons_in(column));
        self.reads.tables.entry(about.name.clone()).or_default().extend(columns);
        self.reads.sorted_by.insert(about.name.clone(), about.sorted_by.clone());
        if table.hides() {
            self.reads.hidden.insert(about.name.clone(), table.sight().hidden());
        }
    }

    fn literal(&mut self, value: &ScalarValue) {
        if let Some(Some(text)) = value.try_as_str() {
            self.reads.persons.extend(audit::numbers(text));
        } else if value.data_type().is_numeric()
            && let Ok(ScalarValue::Utf8(Some(text))) = value.cast_to(&DataType::Utf8)
        {
            self.numbers.extend(audit::numbers(&text));
        }
    }
}

impl DependsOn {
    /// Adds a table; says whether it is one that stays the same while its version does.
    fn add(&mut self, table: &dyn TableProvider) -> bool {
        let any: &dyn Any = table;
        if let Some(guarded) = any.downcast_ref::<Guarded>() {
            self.sights.push(guarded.sight().clone());
            return guarded.is_given() && self.add(guarded.table_behind());
        }
        if let Some(table) = any.downcast_ref::<LakeTable>() {
            let version = table.version();
            let is_known = version.is_some();
            self.versions.extend(version);
            return is_known;
        }
        let Some(view) = any.downcast_ref::<ViewTable>() else { return false };
        match Reads::of(view.logical_plan()).map(|reads| reads.depends_on) {
            Ok(Some(depends_on)) => {
                self.versions.extend(depends_on.versions);
                self.sights.extend(depends_on.sights);
                true
            }
            _ => false,
        }
    }
}

/// Whether a call may give something else the next time, or to somebody else. What is the same all through one
/// question, such as `now()`, is a value by the time that a plan is optimized.
fn is_volatile(part: &Expr) -> bool {
    let volatility = match part {
        Expr::ScalarFunction(call) => call.func.signature().volatility,
        Expr::HigherOrderFunction(call) => call.func.signature().volatility,
        Expr::AggregateFunction(call) => call.func.signature().volatility,
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => function.signature().volatility,
            WindowFunctionDefinition::WindowUDF(function) => function.signature().volatility,
        },
        Expr::ScalarVariable(..) | Expr::Placeholder(_) => return true,
        _ => return false,
    };
    volatility != Volatility::Immutable
}
