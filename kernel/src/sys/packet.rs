//! Sending one Ethernet frame through a packet socket (packet(7)).

use std::{io, os::fd::AsRawFd as _};

/// Sends `frame`, Ethernet header included, out of the link with this index, in the calling
/// thread's namespace.
pub(crate) fn send_frame(index: u32, ether_type: u16, frame: &[u8]) -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    // Protocol 0: the socket sends only and never receives.
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero sockaddr_ll is a valid value of that plain C struct.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = ether_type.to_be();
    to.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: buffer and address are valid for the lengths given and live through the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
