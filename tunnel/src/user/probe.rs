//! What the kernel's TUN devices and UDP sockets take.

use std::{
    fmt,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd as _,
};

use super::{Error, device};
use crate::sys;

/// A device of this name is made for the moment; the kernel puts a number there.
const NAME: &str = "weftprobe%d";

/// What the user-space path can use here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// TUN packets with a virtio_net_hdr, of up to 64 KiB of TCP. Without it only [`Mode::Plain`](super::Mode::Plain).
    pub tun_tso: bool,
    /// The same for UDP (Linux 6.2).
    pub tun_uso: bool,
    /// TUN devices of several queues.
    pub tun_queues: bool,
    /// UDP_SEGMENT (Linux 4.18). A link may still refuse it.
    pub udp_segment: bool,
    /// UDP_GRO (Linux 5.0).
    pub udp_gro: bool,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.tun_tso, "TUN TSO"),
            (self.tun_uso, "TUN USO"),
            (self.tun_queues, "TUN queues"),
            (self.udp_segment, "UDP_SEGMENT"),
            (self.udp_gro, "UDP_GRO"),
        ];
        for (at, (has, text)) in parts.into_iter().enumerate() {
            let space = if at == 0 { "" } else { ", " };
            let no = if has { "" } else { "no " };
            write!(f, "{space}{no}{text}")?;
        }
        Ok(())
    }
}

/// Tries everything out in the calling thread's network namespace. A TUN device is made for it, and is gone at the return.
///
/// # Errors
/// There are no TUN devices at all here (or none for us): no mode of the user-space path works.
pub fn probe() -> Result<Capabilities, Error> {
    let plain = libc::IFF_TUN | libc::IFF_NO_PI;
    let many = plain | libc::IFF_MULTI_QUEUE;
    let with_header = plain | libc::IFF_VNET_HDR;
    drop(device::queue(NAME, plain).map_err(|cause| device::refusal(NAME, cause))?);
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let udp = tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let takes = |offloads| {
        device::queue(NAME, with_header)
            .and_then(|queue| sys::set_offload(queue.as_fd(), offloads))
            .is_ok()
    };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let has = |name| {
        socket
            .as_ref()
            .is_ok_and(|socket| sys::option(socket.as_fd(), libc::SOL_UDP, name).is_ok())
    };
    Ok(Capabilities {
        tun_tso: takes(tcp),
        tun_uso: takes(udp),
        tun_queues: device::queue(NAME, many).is_ok(),
        udp_segment: has(libc::UDP_SEGMENT),
        udp_gro: has(libc::UDP_GRO),
    })
}
