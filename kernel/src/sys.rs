//! The only unsafe code: system calls that `nix` and the netlink crates do not wrap.
#![allow(
    unsafe_code,
    reason = "system calls without a safe wrapper; each block says why it is sound"
)]

mod ethtool;
pub(crate) mod netfilter;
mod xtables;

pub(crate) use ethtool::set_tx_checksum;
pub(crate) use xtables::{TableShape, table_shape};

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, RawFd},
};

/// `_IO(0xb7, 0x3)`, linux/nsfs.h.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// The CLONE_NEW* type of the namespace behind `fd` (ioctl_nsfs(2), Linux 4.11).
pub(crate) fn namespace_type(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours.
    match unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) } {
        -1 => Err(io::Error::last_os_error()),
        kind => Ok(kind),
    }
}

/// Sets a socket's receive buffer beyond net.core.rmem_max (SO_RCVBUFFORCE, socket(7)).
pub(crate) fn force_receive_buffer(fd: RawFd, bytes: i32) -> io::Result<()> {
    set_option(fd, libc::SO_RCVBUFFORCE, bytes)
}

/// Sets a socket's send buffer beyond net.core.wmem_max (SO_SNDBUFFORCE, socket(7)).
pub(crate) fn force_send_buffer(fd: RawFd, bytes: i32) -> io::Result<()> {
    set_option(fd, libc::SO_SNDBUFFORCE, bytes)
}

fn set_option(fd: RawFd, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option value points to an i32 that lives through the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
