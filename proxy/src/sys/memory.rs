//! Memory that the allocator keeps for later.

/// Gives free memory back to the kernel (malloc_trim(3)). Worth it after a list of everything, whose
/// text is several times as large as what is kept of it.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, touches nothing but free memory of the allocator, and may be called
    // from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
