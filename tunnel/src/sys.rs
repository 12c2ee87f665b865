//! The crate's only unsafe code: system calls that `nix` does not wrap.
#![allow(
    unsafe_code,
    reason = "system calls without a safe wrapper; each block says why it is sound"
)]

mod address;
mod receive;
mod send;
mod tun;

pub(crate) use receive::{Receipt, ReceiveBatch};
pub(crate) use send::{Datagram, SendBatch};
pub(crate) use tun::{attach, set_offload, set_persistent, set_vnet_header_length};

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// Sets a socket option whose value is an int (socket(7), ip(7), ipv6(7), udp(7)).
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

/// Reads a socket option whose value is an int.
pub(crate) fn option(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes, which is what `value` has, and the size written.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut size,
        )
    };
    done(result).map(|()| value)
}

/// Datagrams that a socket's receive queue has lost so far (sock_diag(7), SO_MEMINFO: SK_MEMINFO_DROPS).
///
/// Not by SO_RXQ_OVFL: that control message makes the kernel copy out of the packet's own descriptor,
/// and where a peer's TCP made the packet (kernel VXLAN or eBPF, over a virtual link) hardened usercopy
/// takes that for an overrun and kills the reading thread (seen with 6.18, mm/usercopy.c).
pub(crate) fn lost(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// Fields of SO_MEMINFO; the last one is the drops.
    const FIELDS: usize = 9;
    let mut values = [0_u32; FIELDS];
    let mut size = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes, which is what `values` has, and the size written.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    done(result).map(|()| values[FIELDS - 1])
}

/// The result of a call that answers 0 or -1 with errno.
fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
