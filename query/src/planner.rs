//! How a question is carried out: the last step before an answer begins, which all ways in pass.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use crate::error::{QueryError, external};
use crate::guard;

/// Plans how questions are carried out.
#[derive(Debug)]
pub(crate) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        // How much was read, and from which files, tells of rows that are hidden.
        if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) && guard::hides(plan)? {
            let problem = "how a table is read that is not open to you as a whole cannot be explained: it would tell of \
                           what is hidden";
            return Err(external(QueryError::Hidden(problem)));
        }
        DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await
    }
}
