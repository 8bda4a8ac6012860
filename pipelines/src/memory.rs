//! Who gives memory to the process: jemalloc, to its C libraries as well.
//!
//! Batches come and go by the megabyte, and small pieces by the million from one thread to another: what one asks for,
//! another gives back. glibc locks its heaps for each of the latter, and keeps of the former what depends on luck, or,
//! told to share two heaps, locks them more. With jemalloc the gateway takes a third more events a second, and a worker
//! with a backlog has a fifth more memory, than with the best of glibc's settings.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Two heaps: with four for each core, memory in use was a tenth higher, and nothing faster. What is free goes back to
/// the system within a second, by a thread that does nothing else: so that also a process that has nothing to do any
/// more gives it back. jemalloc reads this by its name. See its manual, under "TUNING".
#[allow(unsafe_code)]
// SAFETY: the name is jemalloc's own for a text that ends with 0, to which this points.
#[unsafe(export_name = "malloc_conf")]
pub(crate) static SETTINGS: &[u8; 70] = b"narenas:2,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";
