//! ICMP errors to inner senders.
//!
//! They go out through a raw socket, as the host's own errors do, and not through the TUN device: what comes *in* with one
//! of the host's own source addresses is dropped as a martian. Without CAP_NET_RAW they are written to
//! the device after all (that works where `accept_local` is set).

use std::{
    fs::File,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

use super::rate::Rate;
use crate::{
    Own,
    packet::{self, icmp},
    vnet::VnetHeader,
};

/// No error is longer (RFC 4443, section 2.4: the least IPv6 MTU).
const LARGEST: usize = 1280;

/// Makes and sends them, rate-limited.
pub(super) struct Answers {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
    device: File,
    has_header: bool,
    rate: Rate,
    buffer: Box<[u8; VnetHeader::LEN + LARGEST]>,
}

impl Answers {
    /// `device`: a queue of the TUN device, with a virtio_net_hdr or not.
    pub(super) fn new(device: File, has_header: bool) -> Self {
        let raw = |family| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(family, SockType::Raw, flags, SockProtocol::Raw).ok()
        };
        Self {
            v4: raw(AddressFamily::Inet),
            v6: raw(AddressFamily::Inet6),
            device,
            has_header,
            rate: Rate::new(),
            buffer: Box::new([0; _]),
        }
    }

    /// "No route": nobody has the destination of `inner`.
    pub(super) fn unreachable(&mut self, inner: &[u8], own: &Own) {
        self.answer(inner, |out| icmp::unreachable(inner, own, out));
    }

    /// "Host unreachable": there is no way to the peer that has the destination of `inner`.
    pub(super) fn host_unreachable(&mut self, inner: &[u8], own: &Own) {
        self.answer(inner, |out| icmp::host_unreachable(inner, own, out));
    }

    /// "Packet too big": a packet of `mtu` bytes would pass.
    pub(super) fn too_big(&mut self, inner: &[u8], own: &Own, mtu: usize) {
        let mtu = u32::try_from(mtu).unwrap_or(u32::MAX);
        self.answer(inner, |out| icmp::too_big(inner, own, mtu, out));
    }

    fn answer(&mut self, inner: &[u8], write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let Ok(packet) = packet::parse(inner) else {
            return;
        };
        if !self.rate.take() {
            return;
        }
        let Some(length) = write(&mut self.buffer[VnetHeader::LEN..]) else {
            return;
        };
        let end = VnetHeader::LEN + length;
        let to = packet.source;
        let raw = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let outcome = match raw {
            Some(raw) => send_raw(raw, &self.buffer[VnetHeader::LEN..end], to),
            None => {
                self.buffer[..VnetHeader::LEN].fill(0);
                let start = if self.has_header { 0 } else { VnetHeader::LEN };
                self.device.write(&self.buffer[start..end]).map(drop)
            }
        };
        if let Err(error) = outcome {
            tracing::debug!("send an ICMP error to {to}: {error}");
        }
    }
}

fn send_raw(raw: &OwnedFd, packet: &[u8], to: IpAddr) -> std::io::Result<()> {
    let to = SockaddrStorage::from(SocketAddr::new(to, 0));
    sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty())?;
    Ok(())
}
