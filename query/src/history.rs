//! What each row was, by two clocks: since when it holds, and since when that is known.
//!
//! What passes through: the changes of a dataset, into a row for each change and each span of either
//! clock for which it stood: `valid_from`..`valid_to` by the source's clock, `known_from`..`known_to`
//! by that of arrival. Spans hold their beginning and not their end; null is open.
//!
//! The source's clock is the column that the dataset declares as `effective`; without one, and for a
//! change that has nothing in it, `_source_time`. What was deleted has no effective date: it ends on
//! the day of its deletion, in Thailand. A change whose source does not say when holds from when it
//! arrived, but for what was there when the source was first read, which holds since ever.
//!
//! Guaranteed, for any day D and any time K: of the changes of a key that were known by K and are
//! effective by D, the one with the latest effective date stands, of several of one date the one with
//! the latest source position; it is in one row that is valid at D and known at K, and no other is. If
//! it is a delete or a truncation, no row is. Either ends, from its own date on, all that the source
//! said before it, what it said of later days too. A change that arrives late splits what was known.
//!
//! A change that leaves columns as they were has them from the change before it, in the source's order
//! as it is known now.
//!
//! It is a plain plan: windows over the changes of each key. Filters on the key go below them, to the
//! files.

mod filled;
mod intervals;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::{Column, NullHandling, Result, UnnestOptions};
use datafusion::functions::core::expr_fn::{coalesce, get_field, named_struct};
use datafusion::functions_aggregate::expr_fn::array_agg;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, WindowUDF, cast, ident, lit, when,
};
use ruam_event::change::Op;

use filled::Filled;
use intervals::Intervals;

/// The zone in which a source's time becomes a day; it has been Thailand's since 1920.
const THAILAND: &str = "+07:00";

/// The history of a dataset.
pub(crate) struct History<'a> {
    /// The columns of its rows.
    pub rows: &'a Schema,
    /// The columns that tell one row from another.
    pub key: &'a [String],
    /// The column that says from when on a row holds.
    pub effective: Option<&'a str>,
}

impl History<'_> {
    /// The plan that makes it of the dataset's changes.
    pub(crate) fn plan(&self, changes: &LogicalPlan) -> Result<LogicalPlan> {
        let changes = &without_views(changes)?;
        let clock = clock(self.rows, self.effective)?;
        let arrival = self.rows.field_with_name("_arrived_at")?.data_type();
        let intervals = WindowUDF::from(Intervals::default()).call(vec![
            cast(self.effective_date(clock)?, DataType::Int64),
            cast(ident("_arrived_at"), DataType::Int64),
            text("_position"),
            text("_op"),
            cast(ident("_partition"), DataType::Int32),
            ident("_truncations"),
        ]);
        let plan = LogicalPlanBuilder::from(changes.clone())
            .filter(ident("_op").not_eq(lit(Op::Truncate.word())))?
            .cross_join(self.truncations(changes, clock)?)?
            .window(self.filled()?)?
            .project(self.columns(|name| ident(filled_name(name)).alias(name), [ident("_op"), ident("_truncations")]))?
            .window([self.over_key(intervals)?.alias("_interval")])?
            .project(self.columns(|name| ident(name), [ident("_op"), ident("_interval")]))?
            .unnest_column_with_options(
                Column::from_name("_interval"),
                UnnestOptions::new().with_null_handling(NullHandling::Drop),
            )?;
        let bound = |name: &str, data_type: &DataType| cast(get_field(ident("_interval"), name), data_type.clone());
        let is_open = |name: &str| get_field(ident("_interval"), name).is_null();
        let clocks = [
            bound("valid_from", clock).alias("valid_from"),
            bound("valid_to", clock).alias("valid_to"),
            bound("known_from", arrival).alias("known_from"),
            bound("known_to", arrival).alias("known_to"),
            is_open("valid_to").and(is_open("known_to")).alias("is_current"),
            ident("_op"),
        ];
        plan.project(self.columns(|name| ident(name), clocks))?.build()
    }

    /// The dataset's columns, and others after them.
    fn columns(&self, of: impl Fn(&str) -> Expr, more: impl IntoIterator<Item = Expr>) -> Vec<Expr> {
        let column = |name: &str| if self.may_be_unchanged(name) { of(name) } else { ident(name) };
        self.rows.fields().iter().map(|field| column(field.name())).chain(more).collect()
    }

    /// Whether a change can leave a column as it was.
    fn may_be_unchanged(&self, column: &str) -> bool {
        !column.starts_with('_') && !self.key.iter().any(|key| key == column)
    }

    /// A window over the changes of each key, in the order of their source.
    fn over_key(&self, function: Expr) -> Result<Expr> {
        let key = self.key.iter().map(ident).collect();
        function.partition_by(key).order_by(vec![ident("_position").sort(true, false)]).build()
    }

    /// Each column with the values that were left as they were.
    fn filled(&self) -> Result<Vec<Expr>> {
        let names = self.rows.fields().iter().map(|field| field.name()).filter(|name| self.may_be_unchanged(name));
        let filled = names.map(|name| {
            let filled = WindowUDF::from(Filled::new(name)).call(vec![ident(name), text("_unchanged")]);
            Ok(self.over_key(filled)?.alias(filled_name(name)))
        });
        filled.collect()
    }

    /// When a change took effect; null where that is since ever.
    fn effective_date(&self, clock: &DataType) -> Result<Expr> {
        let by_source = by_source(clock)?;
        let Some(effective) = self.effective else { return Ok(by_source) };
        // A delete may have the row that it deletes, and the date of that.
        when(ident("_op").eq(lit(Op::Delete.word())), by_source.clone())
            .otherwise(coalesce(vec![ident(effective), by_source]))
    }

    /// One row with a list of all truncations: each ends every key of its partition.
    fn truncations(&self, changes: &LogicalPlan, clock: &DataType) -> Result<LogicalPlan> {
        let truncation = named_struct(vec![
            lit("partition"),
            cast(ident("_partition"), DataType::Int32),
            lit("position"),
            text("_position"),
            lit("effective"),
            cast(by_source(clock)?, DataType::Int64),
            lit("arrived"),
            cast(ident("_arrived_at"), DataType::Int64),
        ]);
        LogicalPlanBuilder::from(changes.clone())
            .filter(ident("_op").eq(lit(Op::Truncate.word())))?
            .aggregate(Vec::<Expr>::new(), [array_agg(truncation).alias("_truncations")])?
            .build()
    }
}

/// The type of the source's clock.
fn clock<'a>(rows: &'a Schema, effective: Option<&str>) -> Result<&'a DataType> {
    Ok(rows.field_with_name(effective.unwrap_or("_source_time"))?.data_type())
}

/// The columns of a history of some rows.
///
/// # Errors
/// Where the rows do not have the column that says from when on they hold.
pub(crate) fn schema(rows: &Schema, effective: Option<&str>) -> Result<Schema> {
    let (clock, arrival) = (clock(rows, effective)?, rows.field_with_name("_arrived_at")?.data_type());
    let clocks = [
        ("valid_from", clock),
        ("valid_to", clock),
        ("known_from", arrival),
        ("known_to", arrival),
        ("is_current", &DataType::Boolean),
        ("_op", &DataType::Utf8),
    ];
    let clocks = clocks.into_iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true));
    Ok(Schema::new(rows.fields().iter().map(|field| field.as_ref().clone()).chain(clocks).collect::<Vec<_>>()))
}

/// A plan with its texts in one piece each: windows over texts that are views of others keep all of those, and a
/// sort counts them once for each of its batches.
fn without_views(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let text = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8View => text(field.name()).alias(field.name()),
        _ => ident(field.name()),
    };
    let columns: Vec<_> = plan.schema().fields().iter().map(text).collect();
    LogicalPlanBuilder::from(plan.clone()).project(columns)?.build()
}

/// When a change happened, as the source tells it.
fn by_source(clock: &DataType) -> Result<Expr> {
    let on_clock = |column: &str| match clock {
        DataType::Date32 => {
            let local = DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from(THAILAND)));
            cast(cast(ident(column), local), DataType::Date32)
        }
        _ => ident(column),
    };
    let arrived = when(ident("_op").not_eq(lit(Op::Snapshot.word())), on_clock("_arrived_at")).end()?;
    Ok(coalesce(vec![on_clock("_source_time"), arrived]))
}

fn text(column: &str) -> Expr {
    cast(ident(column), DataType::Utf8)
}

fn filled_name(column: &str) -> String {
    format!("_filled_{column}")
}

#[cfg(test)]
mod tests;
