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
