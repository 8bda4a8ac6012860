//! How the process gives memory back.

/// Has large buffers returned to the system when they are freed.
///
/// Batches come and go by the megabyte on many threads. Left to itself, glibc takes the largest buffer
/// that was ever freed for the size from which on it asks the system (up to 32 MB), keeps what is
/// smaller in the heap of the thread that had it, and makes up to eight such heaps per core: memory in
/// use then differs by a fifth from run to run of the same. See mallopt(3).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn give_back() {
    // Larger than a column of a run, which comes and goes too often to be fetched anew each time: at
    // 256 KB memory was lower still, and throughput by a fifth.
    const LARGE: libc::c_int = 4 << 20;
    // A heap's free end goes back as well, and for the same reason not at once. What heaps keep fills
    // up slowly: with 32 MB and four of them, a backlog twice as long had a tenth more.
    const FREE_END: libc::c_int = 8 << 20;
    const HEAPS: libc::c_int = 2;
    // SAFETY: mallopt takes two numbers and is called before any other thread is started. It says
    // whether it knows the option; where it does not, nothing changes.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE_END);
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}

/// Has large buffers returned to the system when they are freed: other allocators do so by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
