//! Socket options that `nix` has no name for.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Sets a socket option whose value is an int (socket(7), ip(7), ipv6(7)).
pub(crate) fn set_option(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: i32,
) -> io::Result<()> {
    // SAFETY: the value points to an i32 that lives through the call, and its size is given; the kernel
    // only reads it, and refuses options whose value has another size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    done(result)
}

/// The result of a call that answers 0 or -1 with errno.
pub(super) fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
