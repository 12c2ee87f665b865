//! What one inner IP packet says about itself, read once, of either family.
//!
//! Only what a router must look at can make a packet [`Malformed`](DropReason::Malformed): version, lengths. Whatever
//! is behind (extension headers, transport) may be as strange as it likes; such packets are carried as they are and have
//! no transport for us. Sources: RFC 791, RFC 8200.

pub mod checksum;
pub mod ecn;
mod extension;
pub mod icmp;
pub(crate) mod tcp;
mod transport;

use std::net::IpAddr;

use crate::DropReason;

pub use transport::{Checksum, checksum_state, copy_and_judge, finish_checksum};
pub(crate) use transport::{addresses, judge};

/// IP protocol numbers that matter here.
pub mod protocol {
    #![expect(missing_docs, reason = "the names say it")]
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
}

/// A parsed view: offsets and values, no reference to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Bytes of the whole packet; what the buffer holds behind is padding.
    pub len: usize,
    /// Where the transport header begins: behind IPv4 options and IPv6 extension headers. Never behind `len`.
    pub transport_at: usize,
    /// The protocol of what is at `transport_at`.
    pub protocol: u8,
    /// Inner source; its variant is the packet's version.
    pub source: IpAddr,
    /// Inner destination.
    pub destination: IpAddr,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Routers must not fragment it. Always so for IPv6.
    pub dont_fragment: bool,
    /// One piece of a larger packet (or an IPv6 atomic fragment): its transport checksum covers more than we see.
    pub is_fragment: bool,
    /// Not the first piece: there is no transport header in it.
    pub is_later_fragment: bool,
    /// A whole transport header's beginning may be expected at `transport_at`, and its pseudo header has the
    /// addresses above. False for fragments, extension headers that we do not understand, routing headers on their way.
    pub has_transport: bool,
}

/// Reads the headers of the IPv4 or IPv6 packet at the beginning of `bytes`.
///
/// # Errors
/// [`DropReason::Unsupported`] for another version (and IPv6 jumbograms), [`DropReason::Malformed`] for lengths that
/// contradict each other or go beyond `bytes`.
pub fn parse(bytes: &[u8]) -> Result<Packet, DropReason> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => parse_v4(bytes).ok_or(DropReason::Malformed),
        Some(6) => parse_v6(bytes),
        Some(_) => Err(DropReason::Unsupported),
        None => Err(DropReason::Malformed),
    }
}

impl Packet {
    /// True for IPv6.
    #[must_use]
    pub const fn is_v6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// Bytes from the transport header to the end.
    #[must_use]
    pub const fn transport_len(&self) -> usize {
        self.len - self.transport_at
    }

    /// True when the destination is nothing that an overlay carries from node to node: multicast, broadcast, link-local,
    /// loopback, unspecified. To be dropped as [`DropReason::Unsupported`].
    #[must_use]
    pub const fn stays_on_link(&self) -> bool {
        match self.destination {
            IpAddr::V4(ip) => {
                ip.is_multicast()
                    || ip.is_broadcast()
                    || ip.is_link_local()
                    || ip.is_loopback()
                    || ip.is_unspecified()
            }
            IpAddr::V6(ip) => {
                ip.is_multicast()
                    || ip.is_unicast_link_local()
                    || ip.is_loopback()
                    || ip.is_unspecified()
            }
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

fn parse_v4(bytes: &[u8]) -> Option<Packet> {
    let header: &[u8; 20] = bytes.first_chunk()?;
    let header_len = usize::from(header[0] & 15) * 4;
    let len = usize::from(be16(header, 2)?);
    if header_len < 20 || len < header_len || len > bytes.len() {
        return None;
    }
    let fragment = be16(header, 6)?;
    let (more, offset) = (fragment & 0x2000 != 0, fragment & 0x1fff);
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    Some(Packet {
        len,
        transport_at: header_len,
        protocol: header[9],
        source: [s0, s1, s2, s3].into(),
        destination: [d0, d1, d2, d3].into(),
        traffic_class: header[1],
        dont_fragment: fragment & 0x4000 != 0,
        is_fragment: more || offset != 0,
        is_later_fragment: offset != 0,
        has_transport: !more && offset == 0,
    })
}

fn parse_v6(bytes: &[u8]) -> Result<Packet, DropReason> {
    let header: &[u8; 40] = bytes.first_chunk().ok_or(DropReason::Malformed)?;
    let payload_len = be16(header, 4).ok_or(DropReason::Malformed)?;
    let len = 40 + usize::from(payload_len);
    if len > bytes.len() {
        return Err(DropReason::Malformed);
    }
    if payload_len == 0 && header[6] == extension::HOP_BY_HOP {
        return Err(DropReason::Unsupported); // a jumbogram, RFC 2675
    }
    let end = extension::walk(&bytes[..len], header[6]);
    let address = |at: usize| {
        let mut ip = [0; 16];
        ip.copy_from_slice(&header[at..at + 16]);
        IpAddr::from(ip)
    };
    Ok(Packet {
        len,
        transport_at: end.at,
        protocol: end.protocol,
        source: address(8),
        destination: address(24),
        traffic_class: header[0] << 4 | header[1] >> 4,
        dont_fragment: true,
        is_fragment: end.is_fragment,
        is_later_fragment: end.is_later_fragment,
        has_transport: end.has_transport,
    })
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
