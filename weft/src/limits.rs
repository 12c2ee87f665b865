//! What the process may use: descriptors as many as allowed, memory no more than needed.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::sys;

/// Larger blocks are given back to the kernel when they are freed: answers of lists, mostly.
const LARGE: libc::c_int = 128 << 10;

/// How often the heaps are looked through for what is free.
const TRIM: Duration = Duration::from_secs(60);

/// Raises the limit of open files to what the system allows: each connection is one.
pub fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("raise the limit of open files: {error}");
    }
}

/// Has the allocator keep little of what was freed. By default glibc keeps a heap for each thread, and what a list once
/// needed in each (measured: 145 MB instead of 80 with 15,000 objects).
pub fn keep_memory_low() {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 2),
        (libc::M_MMAP_THRESHOLD, LARGE),
        (libc::M_TRIM_THRESHOLD, LARGE),
    ] {
        if !sys::set_allocator(parameter, value) {
            tracing::warn!("the allocator refuses its parameter {parameter}");
        }
    }
    // What many watches need at once, when they all begin anew, is free afterwards but lies between what is not
    // (measured: 7 MB of 44).
    let trim = || {
        loop {
            std::thread::sleep(TRIM);
            sys::trim_heaps();
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("trim".to_owned())
        .spawn(trim)
    {
        tracing::warn!("start the thread that gives memory back: {error}");
    }
}
