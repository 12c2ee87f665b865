//! The TUN device's ioctls (linux/if_tun.h, Documentation/networking/tuntap.rst).

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::done;

/// Attaches an open `/dev/net/tun` to the device `name`, which is made if it is not there (TUNSETIFF).
///
/// `flags`: IFF_TUN and others. A name of 16 bytes or more is refused with EINVAL.
pub(crate) fn attach(queue: BorrowedFd<'_>, name: &str, flags: i32) -> io::Result<()> {
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    done(result)
}

/// Lets the device outlive its queues, or not (TUNSETPERSIST).
pub(crate) fn set_persistent(queue: BorrowedFd<'_>, persistent: bool) -> io::Result<()> {
    let value = libc::c_ulong::from(persistent);
    // SAFETY: the argument is a number; the kernel touches no memory of ours.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETPERSIST as _, value) };
    done(result)
}

/// Says what the reader can take unfinished, by the TUN_F_ flags (TUNSETOFFLOAD). EINVAL: the kernel does not know a flag.
pub(crate) fn set_offload(queue: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    let value = libc::c_ulong::from(flags);
    // SAFETY: the argument is a number; the kernel touches no memory of ours.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETOFFLOAD as _, value) };
    done(result)
}

/// How many bytes of virtio_net_hdr are before each packet (TUNSETVNETHDRSZ).
pub(crate) fn set_vnet_header_length(queue: BorrowedFd<'_>, length: i32) -> io::Result<()> {
    // SAFETY: the kernel reads one int, which lives through the call.
    let result = unsafe {
        libc::ioctl(
            queue.as_raw_fd(),
            libc::TUNSETVNETHDRSZ as _,
            &raw const length,
        )
    };
    done(result)
}
