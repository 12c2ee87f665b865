//! What the kernel gave in one piece, as the packets that go on the wire.
//!
//! A TUN device with `IFF_VNET_HDR` hands out TCP of up to 64 KiB and runs of UDP datagrams as one packet, with
//! checksums left undone. [`Segments`] does what a network card would do with it (as Linux does in `net/ipv4/tcp_offload.c` and
//! `udp_offload.c`): copies the headers before each piece of payload, advances the sequence number and the
//! IPv4 identification, keeps FIN and PSH for the last and CWR for the first segment, and sums while copying.
//!
//! The virtio header is a claim: only its type, `gso_size` and checksum place are used, and checked. Header lengths come from the packet
//! itself.

use crate::DropReason;
use crate::packet::checksum::{copy_and_sum, finish, finish_nonzero, pseudo_header, sum, word};
use crate::packet::{Checksum, Packet, addresses, checksum_state, parse, protocol, tcp};
use crate::vnet::{self, VnetHeader};

const UDP_HEADER: usize = 8;
const UDP_CHECKSUM: usize = 6;

/// The wire packets of one packet from the kernel, made one by one.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    /// Without padding.
    bytes: &'a [u8],
    packet: Packet,
    kind: Kind,
    /// What every segment begins with; 0 when there is nothing to cut.
    header_len: usize,
    /// Payload of every segment but the last.
    size: usize,
    /// How many there are.
    count: usize,
    /// How many were made.
    made: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As it is.
    Plain,
    /// As it is, but for the checksum over all from `start`, stored at `field`.
    Sum {
        start: usize,
        field: usize,
    },
    Tcp,
    Udp,
}

impl<'a> Segments<'a> {
    /// Takes a packet as a TUN device gives it: `header` and what stands behind it.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when the two contradict each other, [`DropReason::Unsupported`] for offloads that we never
    /// ask for (UFO, tunnels) and for no IP packet.
    pub fn new(header: &VnetHeader, bytes: &'a [u8]) -> Result<Self, DropReason> {
        let packet = parse(bytes)?;
        let bytes = &bytes[..packet.len];
        let kind = match (header.gso_type & !vnet::GSO_ECN, packet.is_v6()) {
            (vnet::GSO_NONE, _) if header.flags & vnet::NEEDS_CSUM == 0 => Kind::Plain,
            (vnet::GSO_NONE, _) => {
                let start = usize::from(header.csum_start);
                return Self::with_sum(packet, bytes, start, usize::from(header.csum_offset));
            }
            (vnet::GSO_TCPV4, false) | (vnet::GSO_TCPV6, true) => Kind::Tcp,
            (vnet::GSO_UDP_L4, _) => Kind::Udp,
            (vnet::GSO_TCPV4 | vnet::GSO_TCPV6, _) => return Err(DropReason::Malformed),
            _ => return Err(DropReason::Unsupported),
        };
        if kind == Kind::Plain {
            return Ok(Self::whole(packet, bytes, kind));
        }
        Self::cutting(packet, bytes, kind, usize::from(header.gso_size))
    }

    /// Takes a packet with an unfinished checksum that came from a peer's kernel in one piece
    /// ([`Checksum::Unfinished`]), for a device without offloads: cuts what is larger than `mtu` and finishes all checksums. Other
    /// packets stay as they are.
    ///
    /// `gso_size` is the size that the kernel told beside the datagram (`UDP_GRO` control message), if it did. TCP does
    /// without; for UDP the borders between datagrams are lost then.
    ///
    /// # Errors
    /// As [`parse`]; [`DropReason::TooBig`] for what cannot be cut.
    pub fn cut(bytes: &'a [u8], mtu: usize, gso_size: Option<u16>) -> Result<Self, DropReason> {
        let packet = parse(bytes)?;
        let bytes = &bytes[..packet.len];
        if checksum_state(&packet, bytes) != Checksum::Unfinished {
            return Ok(Self::whole(packet, bytes, Kind::Plain));
        }
        let (kind, field) = match packet.protocol {
            protocol::TCP => (Kind::Tcp, tcp::CHECKSUM),
            _ => (Kind::Udp, UDP_CHECKSUM),
        };
        let size = match (gso_size, kind) {
            (Some(size), _) => usize::from(size),
            _ if packet.len <= mtu => {
                return Self::with_sum(packet, bytes, packet.transport_at, field);
            }
            (None, Kind::Tcp) => {
                let header = header_len(&packet, bytes, kind).ok_or(DropReason::Malformed)?;
                mtu.checked_sub(header)
                    .filter(|size| *size > 0)
                    .ok_or(DropReason::TooBig)?
            }
            (None, _) => return Err(DropReason::TooBig),
        };
        Self::cutting(packet, bytes, kind, size)
    }

    fn whole(packet: Packet, bytes: &'a [u8], kind: Kind) -> Self {
        Self {
            bytes,
            packet,
            kind,
            header_len: 0,
            size: bytes.len(),
            count: 1,
            made: 0,
        }
    }

    fn with_sum(
        packet: Packet,
        bytes: &'a [u8],
        start: usize,
        offset: usize,
    ) -> Result<Self, DropReason> {
        let field = start + offset;
        if field + 2 > bytes.len() {
            return Err(DropReason::Malformed);
        }
        Ok(Self::whole(packet, bytes, Kind::Sum { start, field }))
    }

    fn cutting(
        packet: Packet,
        bytes: &'a [u8],
        kind: Kind,
        size: usize,
    ) -> Result<Self, DropReason> {
        let header_len = header_len(&packet, bytes, kind).ok_or(DropReason::Malformed)?;
        if size == 0 {
            return Err(DropReason::Malformed);
        }
        let count = (bytes.len() - header_len).div_ceil(size).max(1);
        let connects = || bytes[packet.transport_at + tcp::FLAGS] & (tcp::SYN | tcp::RST) != 0;
        if count > 1 && kind == Kind::Tcp && connects() {
            return Err(DropReason::Malformed);
        }
        Ok(Self {
            bytes,
            packet,
            kind,
            header_len,
            size,
            count,
            made: 0,
        })
    }

    /// The packet as a whole, before cutting: addresses and traffic class are those of every segment.
    #[must_use]
    pub fn packet(&self) -> &Packet {
        &self.packet
    }

    /// How many segments there are in all; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many are yet to be made.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.count - self.made
    }

    /// Bytes of all segments together.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.payload_len() + self.count * self.header_len
    }

    /// Length of every segment but the last, which is not longer.
    #[must_use]
    pub fn full_len(&self) -> usize {
        self.header_len + self.size.min(self.payload_len())
    }

    fn payload_len(&self) -> usize {
        self.bytes.len() - self.header_len
    }

    /// Length of the next segment; none when all were made.
    #[must_use]
    pub fn next_len(&self) -> Option<usize> {
        let begin = self.made * self.size;
        (self.remaining() > 0).then(|| self.header_len + self.size.min(self.payload_len() - begin))
    }

    /// Writes the next segment to the beginning of `out` and returns its length. None when all were made, and when `out` is
    /// too short for it: then nothing has happened ([`remaining`](Self::remaining) tells which).
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        let len = self.next_len()?;
        let out = out.get_mut(..len)?;
        match self.kind {
            Kind::Plain => out.copy_from_slice(self.bytes),
            Kind::Sum { start, field } => {
                out[..start].copy_from_slice(&self.bytes[..start]);
                // The field holds the pseudo header's sum. Like the kernel, never a zero.
                let sum = copy_and_sum(&mut out[start..], &self.bytes[start..]);
                out[field..field + 2].copy_from_slice(&finish_nonzero(sum).to_be_bytes());
            }
            Kind::Tcp | Kind::Udp => self.cut_into(out),
        }
        self.made += 1;
        Some(len)
    }

    fn cut_into(&self, out: &mut [u8]) {
        let (at, header_len) = (self.packet.transport_at, self.header_len);
        let begin = self.made * self.size;
        let (header, payload) = out.split_at_mut(header_len);
        header.copy_from_slice(&self.bytes[..header_len]);
        let (ip, transport) = header.split_at_mut(at);
        let transport_len = transport.len() + payload.len();
        self.render_ip(ip, transport_len);
        let field = if self.kind == Kind::Tcp {
            self.render_tcp(transport, begin);
            tcp::CHECKSUM
        } else {
            transport[4..6].copy_from_slice(&be(transport_len));
            UDP_CHECKSUM
        };
        let pseudo = self.pseudo(transport_len, field);
        transport[field..field + 2].fill(0);
        let from = header_len + begin;
        let sum = pseudo
            + sum(transport)
            + copy_and_sum(payload, &self.bytes[from..from + payload.len()]);
        let sum = match self.kind {
            Kind::Udp => finish_nonzero(sum),
            _ => finish(sum),
        };
        transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn render_ip(&self, ip: &mut [u8], transport_len: usize) {
        if self.packet.is_v6() {
            let payload_len = ip.len() - 40 + transport_len;
            ip[4..6].copy_from_slice(&be(payload_len));
            return;
        }
        let len = ip.len() + transport_len;
        ip[2..4].copy_from_slice(&be(len));
        let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(self.made as u16);
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        ip[10..12].fill(0);
        let field = finish(sum(ip));
        ip[10..12].copy_from_slice(&field.to_be_bytes());
    }

    fn render_tcp(&self, header: &mut [u8], begin: usize) {
        let seq = &mut header[tcp::SEQ..tcp::SEQ + 4];
        let first = u32::from_be_bytes([seq[0], seq[1], seq[2], seq[3]]);
        // Payloads are shorter than 64 KiB.
        seq.copy_from_slice(&first.wrapping_add(begin as u32).to_be_bytes());
        if self.remaining() > 1 {
            header[tcp::FLAGS] &= !(tcp::FIN | tcp::PSH);
        }
        if self.made > 0 {
            header[tcp::FLAGS] &= !tcp::CWR;
            if header[tcp::FLAGS] & tcp::URG != 0 {
                render_urgent(header, begin);
            }
        }
    }

    /// The pseudo header of a segment. Where a routing header hides the final destination, the kernel's own sum (which the
    /// field holds, with the length of the whole) is all there is.
    fn pseudo(&self, transport_len: usize, field: usize) -> u64 {
        if self.packet.has_transport {
            let addresses = addresses(&self.packet, self.bytes);
            return pseudo_header(addresses, self.packet.protocol, transport_len);
        }
        let at = self.packet.transport_at + field;
        let whole = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        word(whole) + word(!(self.packet.transport_len() as u16)) + word(transport_len as u16)
    }
}

/// The urgent pointer counts from the segment's own sequence number; behind it nothing is urgent.
fn render_urgent(header: &mut [u8], begin: usize) {
    let pointer = &mut header[tcp::URGENT..tcp::URGENT + 2];
    let end = usize::from(u16::from_be_bytes([pointer[0], pointer[1]]));
    let left = end.saturating_sub(begin);
    pointer.copy_from_slice(&be(left));
    if left == 0 {
        header[tcp::FLAGS] &= !tcp::URG;
    }
}

/// Bytes before the payload; none when the packet is not of this kind.
fn header_len(packet: &Packet, bytes: &[u8], kind: Kind) -> Option<usize> {
    let transport = &bytes[packet.transport_at..];
    let len = match (kind, packet.protocol) {
        _ if packet.is_fragment => return None,
        (Kind::Tcp, protocol::TCP) => tcp::header_len(transport)?,
        (Kind::Udp, protocol::UDP) if transport.len() >= UDP_HEADER => UDP_HEADER,
        _ => return None,
    };
    Some(packet.transport_at + len)
}

/// A length field; lengths inside one IP packet fit.
fn be(len: usize) -> [u8; 2] {
    (len as u16).to_be_bytes()
}

#[cfg(test)]
mod tests;
