//! What somebody sees of a table, put before it where it is scanned.
//!
//! What passes through: a table and a [`Sight`] of it, into a table that has only the rows that are seen, with
//! masked values in the columns that are. All ways to a table's rows pass here: as they are and were, its
//! history, its changes, its rejects.
//!
//! Guaranteed: what is hidden does not show in an answer, nor in an error, nor in a plan. A condition of the
//! question is evaluated below the policy only where it cannot fail on any value and speaks of no masked
//! column; all others see no more than an answer would. The planner is told estimates alone, never a count, a
//! minimum or a maximum that could become an answer.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, TableProviderFilterPushDown, TableType, ident,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions as physical;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use futures::TryStreamExt;

use crate::error::{QueryError, external};
use crate::policy::Sight;
use crate::scan::LakeTable;
use crate::session::Purpose;

/// A table as somebody sees it.
#[derive(Debug)]
pub(crate) struct Guarded {
    about: About,
    table: Arc<dyn TableProvider>,
    sight: Sight,
    /// The purpose that the sight was given for, and the one that is stated now.
    given_for: Option<String>,
    purpose: Arc<Purpose>,
    schema: SchemaRef,
}

/// What is declared of a table.
#[derive(Debug, Default)]
pub(crate) struct About {
    /// Its name with its agency's, for errors and the audit.
    pub name: String,
    /// The columns with numbers of citizens.
    pub persons: Vec<String>,
    /// The columns that its files are sorted by.
    pub sorted_by: Vec<String>,
}

impl Guarded {
    /// A table as a sight of it shows it; one that is given for a purpose, for as long as that is stated.
    ///
    /// # Errors
    /// Where the sight does not fit the table.
    pub(crate) fn table(
        about: About,
        table: Arc<dyn TableProvider>,
        sight: Sight,
        purpose: Arc<Purpose>,
    ) -> Result<Arc<dyn TableProvider>> {
        let given_for = purpose.stated();
        let mut guarded = Self { schema: table.schema(), about, table, sight, given_for, purpose };
        if guarded.hides() {
            let plan = guarded.plan(None, None, &[], None)?;
            guarded.schema = Arc::new(plan.schema().as_arrow().clone());
        }
        Ok(Arc::new(guarded))
    }

    /// What is declared of it.
    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// What is seen of it.
    pub(crate) fn sight(&self) -> &Sight {
        &self.sight
    }

    /// The table as it is when nothing of it is hidden.
    pub(crate) fn table_behind(&self) -> &dyn TableProvider {
        self.table.as_ref()
    }

    /// Whether it is still seen so: a purpose may have been stated for it, and another since.
    pub(crate) fn is_given(&self) -> bool {
        !self.sight.is_for_purpose || self.purpose.stated() == self.given_for
    }

    /// Whether numbers of citizens are seen as they are in a column.
    pub(crate) fn shows_persons_in(&self, column: &str) -> bool {
        self.about.persons.iter().any(|person| person == column) && !self.sight.columns.contains_key(column)
    }

    /// Whether something of the table is hidden.
    pub(crate) fn hides(&self) -> bool {
        !self.sight.is_clear()
    }

    /// The condition of rows that are seen, unless the table's log shows that all of them are.
    fn rows(&self, state: &dyn Session) -> Result<Option<&Expr>> {
        let Some(rows) = &self.sight.rows else { return Ok(None) };
        let table: &dyn std::any::Any = self.table.as_ref();
        match table.downcast_ref::<LakeTable>() {
            Some(table) if cannot_fail(rows) && table.is_true_of_all(state, rows)? => Ok(None),
            _ => Ok(Some(rows)),
        }
    }

    /// The rows that are seen and match, in the columns that are wanted.
    fn plan(
        &self,
        rows: Option<&Expr>,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<LogicalPlan> {
        let mut plan = LogicalPlanBuilder::scan("seen", provider_as_source(self.table.clone()), None)?;
        for condition in conjunction(filters.iter().cloned()).into_iter().chain(rows.cloned()) {
            plan = plan.filter(condition)?;
        }
        let schema = self.table.schema();
        let seen = |place: usize| {
            let name = schema.field(place).name();
            self.sight.columns.get(name).map_or_else(|| ident(name), |seen| seen.clone().alias(name))
        };
        let all = || (0..schema.fields().len()).collect();
        let columns = projection.cloned().unwrap_or_else(all).into_iter().map(seen);
        plan.project(columns)?.limit(0, limit)?.build()
    }

    /// Whether a condition may be evaluated on rows that are not seen.
    fn is_harmless(&self, condition: &Expr) -> bool {
        let masked = |column: &&datafusion::common::Column| self.sight.columns.contains_key(column.name());
        !condition.column_refs().iter().any(masked) && cannot_fail(condition)
    }
}

/// Whether an expression has a value for whatever is in its columns, and does nothing but compare.
fn cannot_fail(expression: &Expr) -> bool {
    let is_safe = |part: &Expr| match part {
        Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Between(_)
        | Expr::InList(_) => true,
        Expr::BinaryExpr(BinaryExpr { op, .. }) => compares(op),
        // A pattern that comes from a row may be none.
        Expr::Like(like) => matches!(*like.pattern, Expr::Literal(..)),
        _ => false,
    };
    !expression.exists(|part| Ok(!is_safe(part))).unwrap_or(true)
}

fn compares(operator: &Operator) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | And | Or | IsDistinctFrom | IsNotDistinctFrom)
}

/// The same of a planned expression: what a join or a limit has learned of the rows that it still wants is
/// one, too.
fn cannot_fail_planned(expression: &Arc<dyn PhysicalExpr>) -> bool {
    let is_safe = |part: &Arc<dyn PhysicalExpr>| {
        let part: &dyn std::any::Any = part.as_ref();
        part.is::<physical::Column>()
            || part.is::<physical::Literal>()
            || part.is::<physical::NotExpr>()
            || part.is::<physical::IsNullExpr>()
            || part.is::<physical::IsNotNullExpr>()
            || part.is::<physical::InListExpr>()
            || part.is::<physical::DynamicFilterPhysicalExpr>()
            || part.downcast_ref::<physical::BinaryExpr>().is_some_and(|binary| compares(binary.op()))
    };
    !expression.exists(|part| Ok(!is_safe(part))).unwrap_or(true)
}

#[async_trait]
impl TableProvider for Guarded {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        self.table.table_type()
    }

    /// A view of which nothing is hidden is planned together with the question.
    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        if self.hides() || self.sight.is_for_purpose { None } else { self.table.get_logical_plan() }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        if !self.hides() {
            return self.table.supports_filters_pushdown(filters);
        }
        let push_down = |filter: &&Expr| match self.is_harmless(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(push_down).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // A statement that was prepared is planned again where it is answered.
        if !self.is_given() {
            let problem = "the purpose has changed since the statement was prepared. Prepare it again";
            return Err(external(QueryError::Hidden(problem)));
        }
        // A view would have itself planned as a question of its own.
        if !self.hides() && self.table.get_logical_plan().is_none() {
            return self.table.scan(state, projection, filters, limit).await;
        }
        let plan = state.optimize(&self.plan(self.rows(state)?, projection, filters, limit)?)?;
        let seen = DefaultPhysicalPlanner::default().create_physical_plan(&plan, state).await?;
        Ok(Arc::new(GuardExec { name: self.about.name.clone(), seen }))
    }
}

/// The rows that are seen, and what keeps the rest of the plan from looking behind them.
#[derive(Debug)]
struct GuardExec {
    name: String,
    seen: Arc<dyn ExecutionPlan>,
}

impl ExecutionPlan for GuardExec {
    fn name(&self) -> &'static str {
        "GuardExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.seen.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.seen]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let [seen] = <[_; 1]>::try_from(children)
            .map_err(|children| DataFusionError::Internal(format!("{} inputs of a guard", children.len())))?;
        Ok(Arc::new(Self { name: self.name.clone(), seen }))
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    /// What is below has been planned for as many cores as there are.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let name = self.name.clone();
        let seen = self.seen.execute(partition, context)?.map_err(move |error| discreet(&name, error));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), seen)))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    /// Estimates, for the order of joins: an answer is never made of what is not exact.
    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let estimated = inputs.first().map(|input| input.as_ref().clone().to_inexact());
        Ok(Arc::new(estimated.unwrap_or_else(|| Statistics::new_unknown(&self.schema()))))
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        match filters.iter().all(cannot_fail_planned) {
            true => FilterDescription::from_children(filters, &self.children()),
            false => Ok(FilterDescription::all_unsupported(&filters, &self.children())),
        }
    }
}

/// An error without the value that it may tell of.
fn discreet(name: &str, error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::ResourcesExhausted(_) | DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => error,
        other => {
            tracing::debug!(table = name, kind = ?std::mem::discriminant(&other), "a guarded scan failed");
            DataFusionError::Execution(format!(
                "`{name}` could not be read as its policy shows it. Tell whoever looks after the policies"
            ))
        }
    }
}

impl DisplayAs for GuardExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuardExec: {}", self.name)
    }
}
