//! How a question is carried out: the last step before an answer begins, which all ways in pass.
//!
//! What passes through: the plan of a question, into one that can be carried out, accounted for and within the
//! limits of whoever asks (see [`answer`](crate::answer)).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session as Planning;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use crate::answer::{Answer, AnswerExec, Terms, Turns};
use crate::audit::{self, AuditLog, MOST_SQL, Record};
use crate::error::{QueryError, external};
use crate::guard;
use crate::policy::Limits;
use crate::reading::Reading;
use crate::session::Asking;

/// Plans how the questions of a session are carried out.
pub(crate) struct Planner {
    pub asking: Arc<Asking>,
    pub limits: Limits,
    pub audit: Option<Arc<AuditLog>>,
    pub turns: Arc<Turns>,
}

impl Planner {
    /// What the audit tells of a question before it is answered.
    fn record(&self, plan: &LogicalPlan) -> Result<Record> {
        let Some(log) = &self.audit else {
            return Ok(Record { who: self.asking.caller.name().to_owned(), ..Record::default() });
        };
        let (mut tables, mut policies) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::new());
        let mut shows_persons = false;
        guard::each_scan(plan, |scan, table| {
            let filtered = scan.filters.iter().flat_map(Expr::column_refs).map(|column| column.name().to_owned());
            let shown = scan.projected_schema.fields().iter().map(|field| field.name().clone());
            let columns: Vec<_> = shown.chain(filtered).collect();
            shows_persons |= columns.iter().any(|column| table.shows_persons_in(column));
            tables.entry(table.about().name.clone()).or_default().extend(columns);
            if table.hides() {
                policies.insert(table.about().name.clone(), table.hidden());
            }
        })?;
        let caller = &self.asking.caller;
        let mut sql = audit::without_numbers(&self.asking.sql(), |number| log.pseudonym(number));
        if sql.len() > MOST_SQL {
            sql.truncate(sql.floor_char_boundary(MOST_SQL));
        }
        Ok(Record {
            who: caller.name().to_owned(),
            roles: caller.roles().into_iter().flatten().cloned().collect(),
            client: caller.client().to_owned(),
            purpose: self.asking.purpose.stated(),
            sql,
            tables: tables.into_iter().map(|(table, columns)| (table, columns.into_iter().collect())).collect(),
            policies: policies.into_iter().collect(),
            subjects: persons_of(plan)?.iter().map(|number| log.pseudonym(number)).collect(),
            shows_persons,
            ..Record::default()
        })
    }
}

impl Planner {
    /// What the answer reads of files is taken down where that has a limit.
    fn reading(&self, plan: &LogicalPlan) -> Result<Option<Arc<Reading>>> {
        let Some(most) = self.limits.read_mb else { return Ok(None) };
        let mut sorted = BTreeMap::new();
        guard::each_scan(plan, |_, table| {
            sorted.insert(table.about().name.clone(), table.about().sorted_by.clone());
        })?;
        Ok(Some(Arc::new(Reading::at_most(most, sorted))))
    }
}

/// A plan that can be broken off wherever it makes much of little: DataFusion looks where rows come from whether
/// somebody has given up or time has run out, and two tables of a million rows each make a million million pairs
/// in between.
fn interruptible(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let pausing = plan.transform_up(|node| match node.name() {
        "CrossJoinExec" | "NestedLoopJoinExec" => {
            Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>))
        }
        _ => Ok(Transformed::no(node)),
    })?;
    Ok(pausing.data)
}

/// The numbers of citizens that a plan compares with.
fn persons_of(plan: &LogicalPlan) -> Result<BTreeSet<String>> {
    let mut numbers = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        for expression in node.expressions() {
            expression.apply(|part| {
                if let Expr::Literal(value, _) = part
                    && let Some(Some(text)) = value.try_as_str()
                {
                    numbers.extend(audit::numbers(text));
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(numbers)
}

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Planning) -> Result<Arc<dyn ExecutionPlan>> {
        // How much was read, and from which files, tells of rows that are hidden.
        if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) && guard::hides(plan)? {
            let problem = "how a table is read that is not open to you as a whole cannot be explained: it would tell of \
                           what is hidden";
            return Err(external(QueryError::Hidden(problem)));
        }
        let record = self.record(plan)?;
        let reading = self.reading(plan)?;
        let planner = DefaultPhysicalPlanner::default();
        let planned = match (&reading, session.as_any().downcast_ref::<SessionState>()) {
            (Some(reading), Some(session)) => {
                let mut session = session.clone();
                session.config_mut().set_extension(reading.clone());
                planner.create_physical_plan(plan, &session).await?
            }
            _ => planner.create_physical_plan(plan, session).await?,
        };
        let planned = interruptible(planned)?;
        let parts = planned.output_partitioning().partition_count();
        let terms = Terms { limits: self.limits, timeout: self.asking.timeout(), reading };
        let answer = Answer::begin(self.audit.clone(), record, terms, &self.turns, parts)?;
        Ok(Arc::new(AnswerExec::new(answer, planned)))
    }
}

impl fmt::Debug for Planner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planner").field("caller", &self.asking.caller).finish_non_exhaustive()
    }
}
