//! How a question is carried out: the last step before an answer begins, which all ways in pass.
//!
//! What passes through: the plan of a question, into one that can be carried out, accounted for and within the
//! limits of whoever asks (see [`answer`](crate::answer)); or into what gives the answer that was given before (see
//! [`result_cache`](crate::result_cache)), which is accounted for and has its limits as well.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session as Planning;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use crate::answer::{Answer, AnswerExec, Terms, Turns};
use crate::audit::{self, AuditLog, MOST_SQL, Record};
use crate::error::{QueryError, external};
use crate::policy::Limits;
use crate::reading::Reading;
use crate::reads::Reads;
use crate::result_cache::{Key, Recording, ResultCache};
use crate::session::Asking;

/// Plans how the questions of a session are carried out.
pub(crate) struct Planner {
    pub asking: Arc<Asking>,
    pub limits: Limits,
    pub audit: Option<Arc<AuditLog>>,
    pub turns: Arc<Turns>,
    /// The answers that are kept, if there are any.
    pub kept: Option<Arc<ResultCache>>,
}

impl Planner {
    /// What the audit tells of a question before it is answered.
    fn record(&self, reads: Reads) -> Record {
        let caller = &self.asking.caller;
        let Some(log) = &self.audit else { return Record { who: caller.name().to_owned(), ..Record::default() } };
        let mut sql = audit::without_numbers(&self.asking.sql(), |number| log.pseudonym(number));
        if sql.len() > MOST_SQL {
            sql.truncate(sql.floor_char_boundary(MOST_SQL));
        }
        let tables = reads.tables.into_iter();
        Record {
            who: caller.name().to_owned(),
            roles: caller.roles().into_iter().flatten().cloned().collect(),
            client: caller.client().to_owned(),
            purpose: self.asking.purpose.stated(),
            sql,
            tables: tables.map(|(table, columns)| (table, columns.into_iter().collect())).collect(),
            policies: reads.hidden.into_iter().collect(),
            subjects: reads.persons.iter().map(|number| log.pseudonym(number)).collect(),
            shows_persons: reads.shows_persons,
            ..Record::default()
        }
    }

    /// How a question is carried out that nobody has asked before.
    async fn plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Planning,
        reading: Option<&Arc<Reading>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::default();
        let planned = match (reading, session.as_any().downcast_ref::<SessionState>()) {
            (Some(reading), Some(session)) => {
                let mut session = session.clone();
                session.config_mut().set_extension(reading.clone());
                planner.create_physical_plan(plan, &session).await?
            }
            _ => planner.create_physical_plan(plan, session).await?,
        };
        interruptible(planned)
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

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Planning) -> Result<Arc<dyn ExecutionPlan>> {
        let reads = Reads::of(plan)?;
        // How much was read, and from which files, tells of rows that are hidden.
        if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) && !reads.hidden.is_empty() {
            let problem = "how a table is read that is not open to you as a whole cannot be explained: it would tell of \
                           what is hidden";
            return Err(external(QueryError::Hidden(problem)));
        }
        let key = match &self.kept {
            Some(kept) => {
                Key::of(plan, reads.depends_on.as_ref(), self.asking.purpose.stated())?.map(|key| (kept, key))
            }
            None => None,
        };
        let found = key.as_ref().and_then(|(kept, key)| kept.get(key));
        let most = self.limits.read_mb.filter(|_| found.is_none());
        let reading = most.map(|most| Arc::new(Reading::at_most(most, reads.sorted_by.clone())));
        let record = Record { cached: found.is_some(), ..self.record(reads) };
        let planned = match &found {
            Some(found) => found.plan()?,
            None => self.plan(plan, session, reading.as_ref()).await?,
        };
        let recording = key.filter(|_| found.is_none());
        let recording = recording.map(|(kept, key)| Recording::new(kept.clone(), key, planned.schema()));
        let parts = planned.output_partitioning().partition_count();
        let terms = Terms { limits: self.limits, timeout: self.asking.timeout(), reading, recording };
        let answer = Answer::begin(self.audit.clone(), record, terms, &self.turns, parts)?;
        Ok(Arc::new(AnswerExec::new(answer, planned)))
    }
}

impl fmt::Debug for Planner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planner").field("caller", &self.asking.caller).finish_non_exhaustive()
    }
}
