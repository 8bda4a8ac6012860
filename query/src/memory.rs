//! Memory: of all answers together, and of one.
//!
//! What passes through: each demand of a step of a plan for memory, to a bound that grants it or says in words
//! that it is reached. A step that can goes on by way of the disk then ([`spill`](crate::spill)); for another,
//! the answer ends, and with it what it held.
//!
//! Guaranteed: an answer with a bound of its own takes no more than that of what all have together, so that the
//! others go on. Of its share, each step that can use the disk may have as much as each other, so that none
//! leaves nothing to those after it.

use std::fmt;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnv;

/// The share of an answer's memory that its sorts keep to merge with what they put on disk.
const TO_MERGE: usize = 4;

/// A bound on memory.
#[derive(Debug)]
struct Bounded {
    own: Box<dyn MemoryPool>,
    /// What it is a part of.
    within: Option<Arc<dyn MemoryPool>>,
    /// What is told where it is reached.
    reached: String,
}

/// The memory of all answers together.
pub(crate) fn of_all(bytes: usize) -> Arc<dyn MemoryPool> {
    let reached = format!(
        "all answers together take more than the {} MB of memory that there are for them (memory_mb), even with what \
         they put on disk. Ask again later, or for less at a time",
        bytes >> 20
    );
    Arc::new(Bounded { own: Box::new(GreedyMemoryPool::new(bytes)), within: None, reached })
}

/// What an answer is worked out with, within a bound of its own, in MB.
pub(crate) fn bounded(context: &TaskContext, megabytes: usize) -> Arc<TaskContext> {
    let (bytes, runtime) = (megabytes << 20, context.runtime_env());
    let reached = format!(
        "the answer takes more than the {megabytes} MB of memory that yours may, even with what it put on disk. Ask \
         for less at a time: fewer columns, fewer groups, or a part of the rows"
    );
    let own: Box<dyn MemoryPool> = Box::new(FairSpillPool::new(bytes));
    let memory_pool = Arc::new(Bounded { own, within: Some(runtime.memory_pool.clone()), reached });
    let runtime = RuntimeEnv { memory_pool, ..(*runtime).clone() };
    let mut config = context.session_config().clone();
    let to_merge = bytes / TO_MERGE / config.target_partitions().max(1);
    let kept = &mut config.options_mut().execution.sort_spill_reservation_bytes;
    *kept = to_merge.min(*kept);
    Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        config,
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        Arc::new(runtime),
    ))
}

impl MemoryPool for Bounded {
    fn name(&self) -> &str {
        "bounded"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
        self.within.iter().for_each(|all| all.register(consumer));
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
        self.within.iter().for_each(|all| all.unregister(consumer));
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.within.iter().for_each(|all| all.grow(reservation, additional));
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.within.iter().for_each(|all| all.shrink(reservation, shrink));
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let reached = |_| DataFusionError::ResourcesExhausted(self.reached.clone());
        self.own.try_grow(reservation, additional).map_err(reached)?;
        let of_all = self.within.iter().try_for_each(|all| all.try_grow(reservation, additional));
        of_all.inspect_err(|_| self.own.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.own.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pool: &Arc<dyn MemoryPool>, bytes: usize) -> (MemoryReservation, Result<()>) {
        let reservation = MemoryConsumer::new("test").register(pool);
        let taken = reservation.try_grow(bytes);
        (reservation, taken)
    }

    #[test]
    fn an_answer_has_a_part_of_what_all_have() {
        let all = of_all(100 << 20);
        let context = TaskContext::default();
        let runtime = RuntimeEnv { memory_pool: all.clone(), ..(*context.runtime_env()).clone() };
        let context = context.with_runtime(Arc::new(runtime));
        let (one, other) = (bounded(&context, 64), bounded(&context, 64));
        let (first, taken) = take(one.memory_pool(), 60 << 20);
        taken.unwrap();
        let told = take(one.memory_pool(), 5 << 20).1.unwrap_err().to_string();
        assert!(told.contains("more than the 64 MB of memory that yours may"), "{told}");
        let told = take(other.memory_pool(), 60 << 20).1.unwrap_err().to_string();
        assert!(told.contains("more than the 100 MB of memory that there are"), "{told}");
        // What was refused is not counted.
        assert_eq!((all.reserved(), other.memory_pool().reserved()), (60 << 20, 0));
        drop(first);
        take(other.memory_pool(), 60 << 20).1.unwrap();
        assert_eq!((all.reserved(), one.memory_pool().reserved(), other.memory_pool().reserved()), (0, 0, 0));
    }
}
