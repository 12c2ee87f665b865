//! A cheap look at a legacy iptables table: its shape, without its rules
//! (linux/netfilter_ipv4/ip_tables.h, IPT_SO_GET_INFO).

use std::{io, os::fd::AsRawFd as _};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// IPT_BASE_CTL and IP6T_BASE_CTL, which both are IPT_SO_GET_INFO.
const GET_INFO: i32 = 64;

/// struct ipt_getinfo and struct ip6t_getinfo, which are the same.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct TableShape {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}

/// The shape of a table in the calling thread's namespace. It changes with nearly every change of
/// rules, but not with one that swaps rules of the same size.
pub(crate) fn table_shape(ipv6: bool, table: &str) -> io::Result<TableShape> {
    let (family, level) = if ipv6 {
        (AddressFamily::Inet6, libc::IPPROTO_IPV6)
    } else {
        (AddressFamily::Inet, libc::IPPROTO_IP)
    };
    let socket = socket(
        family,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Raw,
    )?;
    let mut shape = TableShape::default();
    if table.len() >= shape.name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    shape.name[..table.len()].copy_from_slice(table.as_bytes());
    let mut length = size_of::<TableShape>() as libc::socklen_t;
    // SAFETY: the kernel reads the name from, and writes at most `length` bytes to, a struct that
    // lives through the call and is valid for every bit pattern.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            GET_INFO,
            (&raw mut shape).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(shape)
    } else {
        Err(io::Error::last_os_error())
    }
}
