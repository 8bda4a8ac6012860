//! Memory: of all answers together, and of one.
//!
//! What passes through: each demand of a step of a plan for memory, to a bound that grants it or says in words
//! that it is reached. A step that can goes on by way of the disk then ([`spill`](crate::spill)); for another,
//! the answer ends, and with it what it held.
//!
//! Guaranteed: an answer with a bound of its own takes no more than that of what all have together, so that the
//! others go on. Of its memory, half is for the steps that can use the disk, each of which may have as much as each
//! other: what is left is for those that cannot, and to bring together what was put there.

use std::fmt;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnv;

/// What DataFusion calls the part of a sort that brings together what was put on disk. It takes whatever there is
/// to do so with more files at once, also what the same part of another sort cannot do without.
const MERGE: &str = "ExternalSorterMerge";
/// The share of an answer's memory that its sorts keep to merge with what they put on disk.
const TO_MERGE: usize = 4;

/// A bound on memory.
#[derive(Debug)]
struct Bounded {
    own: GreedyMemoryPool,
    /// The part of it that is for what can be put on disk, if that has a bound as well.
    spillable: Option<FairSpillPool>,
    /// The most that one sort may take to bring together what it put on disk.
    merge: usize,
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
    Arc::new(Bounded { own: GreedyMemoryPool::new(bytes), spillable: None, merge: bytes, within: None, reached })
}

/// What an answer is worked out with, within a bound of its own, in MB.
pub(crate) fn bounded(context: &TaskContext, megabytes: usize) -> Arc<TaskContext> {
    let (bytes, runtime) = (megabytes << 20, context.runtime_env());
    let reached = format!(
        "the answer takes more than the {megabytes} MB of memory that yours may, even with what it put on disk. Ask \
         for less at a time: fewer columns, fewer groups, or a part of the rows"
    );
    let (own, spillable) = (GreedyMemoryPool::new(bytes), Some(FairSpillPool::new(bytes / 2)));
    let mut config = context.session_config().clone();
    let sorts = config.target_partitions().max(1);
    let (merge, within) = (bytes / 2 / sorts, Some(runtime.memory_pool.clone()));
    let memory_pool = Arc::new(Bounded { own, spillable, merge, within, reached });
    let runtime = RuntimeEnv { memory_pool, ..(*runtime).clone() };
    let to_merge = bytes / TO_MERGE / sorts;
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

impl Bounded {
    /// What a demand of somebody has to be granted by.
    fn all(&self, consumer: &MemoryConsumer) -> impl Iterator<Item = &dyn MemoryPool> {
        let spillable = self.spillable.as_ref().filter(|_| consumer.can_spill()).map(|pool| pool as &dyn MemoryPool);
        let within = self.within.as_ref().map(|pool| pool.as_ref());
        spillable.into_iter().chain([&self.own as &dyn MemoryPool]).chain(within)
    }
}

impl MemoryPool for Bounded {
    fn name(&self) -> &str {
        "bounded"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.all(consumer).for_each(|pool| pool.register(consumer));
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.all(consumer).for_each(|pool| pool.unregister(consumer));
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.all(reservation.consumer()).for_each(|pool| pool.grow(reservation, additional));
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.all(reservation.consumer()).for_each(|pool| pool.shrink(reservation, shrink));
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let is_merge = reservation.consumer().name().starts_with(MERGE);
        if is_merge && reservation.size() + additional > self.merge {
            return Err(DataFusionError::ResourcesExhausted(self.reached.clone()));
        }
        let pools: Vec<_> = self.all(reservation.consumer()).collect();
        for (place, pool) in pools.iter().enumerate() {
            if let Err(refused) = pool.try_grow(reservation, additional) {
                pools[..place].iter().for_each(|pool| pool.shrink(reservation, additional));
                // Where it is a part of something that says so itself.
                let is_own = place + 1 < pools.len() || self.within.is_none();
                return Err(if is_own { DataFusionError::ResourcesExhausted(self.reached.clone()) } else { refused });
            }
        }
        Ok(())
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
    fn half_is_left_for_what_cannot_go_to_disk() {
        let all = of_all(100 << 20);
        let context = TaskContext::default();
        let runtime = RuntimeEnv { memory_pool: all.clone(), ..(*context.runtime_env()).clone() };
        let context = bounded(&context.with_runtime(Arc::new(runtime)), 64);
        let sort = || MemoryConsumer::new("a sort").with_can_spill(true).register(context.memory_pool());
        let (one, other) = (sort(), sort());
        one.try_grow(16 << 20).unwrap();
        assert!(one.try_grow(1).is_err(), "the other has as much");
        other.try_grow(16 << 20).unwrap();
        let (rest, taken) = take(context.memory_pool(), 32 << 20);
        taken.unwrap();
        assert_eq!(all.reserved(), 64 << 20);
        drop((one, other, rest));
        assert_eq!((all.reserved(), context.memory_pool().reserved()), (0, 0));
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
