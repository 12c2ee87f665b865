//! The only unsafe code of this crate.
#![allow(
    unsafe_code,
    reason = "a library call without a safe wrapper; its block says why it is sound"
)]

/// Sets a parameter of the allocator; false if it is refused (mallopt(3)).
pub fn set_allocator(parameter: libc::c_int, value: libc::c_int) -> bool {
    // SAFETY: mallopt(3) takes two numbers, refuses those it does not know, and may be called at any time.
    unsafe { libc::mallopt(parameter, value) == 1 }
}

/// Gives what is free inside of the heaps back to the kernel; false if there was nothing (malloc_trim(3)).
pub fn trim_heaps() -> bool {
    // SAFETY: malloc_trim(3) takes its own locks, touches free memory alone, and may be called at any time.
    unsafe { libc::malloc_trim(0) == 1 }
}
