//! Packets that are larger than the path to the peer carries.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use super::sockets::{self, Fragmenting};
use crate::{
    packet,
    sys::{Datagram, SendBatch},
};

/// How long an answer of the kernel is used again.
const FRESH: Duration = Duration::from_secs(1);
/// Every IPv6 link carries this much (RFC 8200, section 5); a tunnel fragments outside if it must.
const LEAST_IPV6_MTU: usize = 1280;
const UDP_HEADER: usize = 8;

/// Finds path MTUs, and sends what may be fragmented.
pub(super) struct Oversize {
    local: IpAddr,
    /// Bytes between the UDP header and the inner packet.
    overhead: usize,
    fragmenting: Option<UdpSocket>,
    known: Option<(SocketAddr, usize, Instant)>,
}

impl Oversize {
    pub(super) fn new(local: IpAddr, overhead: usize) -> Self {
        Self {
            local,
            overhead,
            fragmenting: None,
            known: None,
        }
    }

    /// The largest inner packet that passes to `peer` unfragmented.
    pub(super) fn limit(&mut self, peer: SocketAddr) -> usize {
        if let Some((whose, limit, when)) = self.known
            && whose == peer
            && when.elapsed() < FRESH
        {
            return limit;
        }
        let ip_header = if peer.is_ipv4() { 20 } else { 40 };
        let mtu = match sockets::path_mtu(self.local, peer) {
            Ok(mtu) => mtu,
            Err(error) => {
                tracing::debug!("ask for the path MTU to {peer}: {error}");
                LEAST_IPV6_MTU
            }
        };
        let limit = mtu.saturating_sub(ip_header + UDP_HEADER + self.overhead);
        self.known = Some((peer, limit, Instant::now()));
        limit
    }

    /// The MTU to tell the sender of `inner`; none when it has to be fragmented outside.
    pub(super) fn must_tell(inner: &[u8], limit: usize) -> Option<usize> {
        let packet = packet::parse(inner).ok()?;
        match packet.source {
            IpAddr::V4(_) => packet.dont_fragment.then_some(limit),
            IpAddr::V6(_) => (inner.len() > LEAST_IPV6_MTU).then_some(limit.max(LEAST_IPV6_MTU)),
        }
    }

    /// Sends one datagram, in fragments if it must be.
    pub(super) fn send_fragmented(
        &mut self,
        batch: &mut SendBatch,
        buffer: &[u8],
        datagram: &Datagram,
    ) -> io::Result<()> {
        let socket = match &self.fragmenting {
            Some(socket) => socket,
            None => {
                let made = sockets::sender(self.local, Fragmenting::Allowed)
                    .map_err(|error| io::Error::other(error.to_string()))?;
                self.fragmenting.insert(made)
            }
        };
        batch
            .send(socket.as_fd(), buffer, std::slice::from_ref(datagram))
            .map(drop)
    }
}
