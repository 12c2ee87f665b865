//! Classic BPF on sockets (socket(7), SO_ATTACH_FILTER): what a socket never gets to see.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::option::{done, set_option};

/// One instruction (linux/filter.h, struct sock_filter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Operation.
    pub(crate) code: u16,
    /// So many instructions further if true.
    pub(crate) jt: u8,
    /// So many instructions further if false.
    pub(crate) jf: u8,
    /// Operand.
    pub(crate) k: u32,
}

/// Gives the socket a program; it replaces the one it has. The kernel checks the program.
pub(crate) fn attach_filter(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|instruction| libc::sock_filter {
            code: instruction.code,
            jt: instruction.jt,
            jf: instruction.jf,
            k: instruction.k,
        })
        .collect();
    let length = u16::try_from(filter.len())
        .map_err(|_| io::Error::other("the filter has more than 65535 instructions"))?;
    let program = libc::sock_fprog {
        len: length,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the option value points to a sock_fprog that lives through the call, whose pointer and length
    // are those of `filter`, which lives as long; the kernel copies the instructions.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    done(result)
}

/// Takes the socket's program away, if it has one.
pub(crate) fn detach_filter(socket: BorrowedFd<'_>) -> io::Result<()> {
    let result = set_option(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0);
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
