//! A statement on its way to an answer.
//!
//! What passes through: SQL, into a [`Statement`] that says which parameters it has; with their values, into a
//! [`Question`] that says which columns its answer has; and that, into a stream of Arrow batches. A statement
//! about settings takes effect when its values come, and its answer is empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, Limit, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use datafusion::sql::parser::Statement as Parsed;

use crate::dialect;
use crate::engine::read_only;
use crate::error::QueryError;
use crate::session::{PURPOSE, Session};
use crate::settings::Asked;

/// A statement that has been read.
#[derive(Debug)]
pub struct Statement {
    session: Session,
    sql: String,
    plan: LogicalPlan,
    setting: Option<Asked>,
    /// What each parameter is, by its number from 1, where the statement tells.
    parameters: BTreeMap<usize, Option<DataType>>,
}

impl Statement {
    /// Reads a statement, with the tables as the session's caller sees them.
    ///
    /// # Errors
    /// Where it does not work, or would write, or asks for what the caller may not see.
    pub async fn read(session: &Session, sql: &str) -> Result<Self, QueryError> {
        let parsed = dialect::parse(sql)?;
        let setting = match &parsed {
            Parsed::Statement(statement) => Asked::of(statement),
            _ => None,
        };
        let plan = match &setting {
            Some(Asked::ShowPurpose) => purpose(session),
            Some(_) => LogicalPlanBuilder::empty(false).build(),
            None => plan(session, parsed).await,
        };
        let plan = plan.map_err(|error| session.explain(error))?;
        let parameters = parameters(&plan)?;
        Ok(Self { session: session.clone(), sql: sql.to_owned(), plan, setting, parameters })
    }

    /// Whether it is about settings.
    pub(crate) fn is_setting(&self) -> bool {
        self.setting.is_some()
    }

    /// The columns of the answer, as far as they are known before there are values.
    pub(crate) fn schema(&self) -> &Schema {
        self.plan.schema().as_arrow()
    }

    /// The parameters, each a field `$1` and so on. The type is null where the statement does not tell.
    pub(crate) fn parameters(&self) -> Schema {
        let last = self.parameters.keys().last().copied().unwrap_or(0);
        let known = |number| self.parameters.get(&number).cloned().flatten().unwrap_or(DataType::Null);
        Schema::new((1..=last).map(|number| Field::new(format!("${number}"), known(number), true)).collect::<Vec<_>>())
    }

    /// Puts values in the place of parameters, and plans the answer.
    ///
    /// # Errors
    /// Where there are more or fewer values than parameters, or one does not fit.
    pub async fn with(self, values: Vec<ScalarValue>) -> Result<Question, QueryError> {
        let expected = self.parameters.keys().last().copied().unwrap_or(0);
        if values.len() != expected {
            return Err(QueryError::Parameters { expected, given: values.len() });
        }
        let fitting = values.into_iter().zip(1..).map(|(value, number)| match self.parameters.get(&number) {
            Some(Some(wanted)) => {
                value.cast_to(wanted).map_err(|_| QueryError::Parameter { number, wanted: wanted.to_string() })
            }
            _ => Ok(value),
        });
        let fitting = fitting.collect::<Result<Vec<_>, _>>()?;
        let mut plan = self.plan;
        match self.setting {
            None if fitting.is_empty() => {}
            None => plan = plan.with_param_values(fitting)?,
            Some(Asked::ShowPurpose) => plan = purpose(&self.session)?,
            Some(Asked::Purpose(purpose)) => self.session.state_purpose(purpose),
            Some(Asked::Defaults(_)) => self.session.state_purpose(None),
            Some(Asked::Timeout(timeout)) => self.session.asking.allow(timeout),
            Some(Asked::DefaultZone(_) | Asked::Nothing(_)) => {}
            Some(Asked::Zone(_)) => return Err(QueryError::Zone),
            Some(Asked::Engine(name)) => return Err(QueryError::Setting(name)),
        }
        let planned = async {
            let _planning = self.session.asking.planning.lock().await;
            self.session.asking.ask(&self.sql);
            let frame = self.session.context.execute_logical_plan(plan).await?;
            let task = Arc::new(frame.task_ctx());
            Ok((frame.create_physical_plan().await?, task))
        };
        let (plan, task) = planned.await.map_err(|error| self.session.explain(error))?;
        Ok(Question { plan, task })
    }
}

/// A question that only has to be answered.
#[derive(Debug)]
pub struct Question {
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
}

impl Question {
    /// The columns of the answer.
    pub fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// In how many parts the answer comes, which may be read at the same time. One that is sorted has one.
    pub(crate) fn parts(&self) -> usize {
        self.plan.output_partitioning().partition_count()
    }

    /// Begins a part of the answer. The answer has ended when all of them have, and the question is gone.
    ///
    /// # Errors
    /// Where it cannot begin.
    pub(crate) fn part(&self, part: usize) -> Result<SendableRecordBatchStream, QueryError> {
        Ok(self.plan.execute(part, self.task.clone())?)
    }

    /// Begins to answer. No more is worked out than what is taken from the stream; dropping it ends the work.
    ///
    /// # Errors
    /// Where the answer cannot begin.
    pub fn answer(self) -> Result<SendableRecordBatchStream, QueryError> {
        Ok(execute_stream(self.plan, self.task)?)
    }
}

async fn plan(session: &Session, parsed: Parsed) -> Result<LogicalPlan> {
    let plan = session.context.state().statement_to_plan(parsed).await?;
    read_only().verify_plan(&plan)?;
    with_limits(plan)
}

/// What answers `SHOW ruam.purpose`.
fn purpose(session: &Session) -> Result<LogicalPlan> {
    let stated = session.scope.purpose.stated().unwrap_or_default();
    LogicalPlanBuilder::empty(true).project([lit(stated).alias(PURPOSE)])?.build()
}

fn parameters(plan: &LogicalPlan) -> Result<BTreeMap<usize, Option<DataType>>> {
    let numbered = plan.get_parameter_types()?.into_iter().map(|(name, data_type)| {
        let number = name.strip_prefix('$').and_then(|number| number.parse().ok()).filter(|number| *number > 0);
        let number = number.ok_or_else(|| {
            DataFusionError::Plan(format!("the parameter {name} has no number. Write $1 for the first, and so on"))
        });
        Ok((number?, data_type))
    });
    numbered.collect()
}

/// A plan in which parameters that limit rows are numbers; DataFusion does not say what they are.
pub(crate) fn with_limits(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let number = |limit: Box<Expr>| match *limit {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Field::new("", DataType::Int64, true);
            Box::new(Expr::Placeholder(Placeholder::new_with_field(id, Some(Arc::new(field)))))
        }
        other => Box::new(other),
    };
    let typed = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Limit(Limit { skip, fetch, input }) => {
            Ok(Transformed::yes(LogicalPlan::Limit(Limit { skip: skip.map(number), fetch: fetch.map(number), input })))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(typed?.data)
}
