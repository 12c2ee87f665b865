//! A packet that may become part of a train, and the flow it belongs to.

use crate::packet::{Packet, addresses, checksum, protocol, tcp};

/// A TCP or UDP flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Key {
    ports: [u8; 4],
    protocol: u8,
    is_v6: bool,
    /// Source and destination as in the header, the rest zero.
    addresses: [u8; 32],
}

impl Key {
    /// None when the packet does not tell.
    pub(super) fn of(packet: &Packet, bytes: &[u8]) -> Option<Self> {
        if !packet.has_transport || !matches!(packet.protocol, protocol::TCP | protocol::UDP) {
            return None;
        }
        let ports = *bytes[packet.transport_at..].first_chunk()?;
        Some(Self {
            ports,
            protocol: packet.protocol,
            ..Self::between(packet, bytes)
        })
    }

    /// Of no flow, but with its addresses.
    pub(super) fn between(packet: &Packet, bytes: &[u8]) -> Self {
        let from = addresses(packet, bytes);
        let mut key = Self {
            is_v6: packet.is_v6(),
            ..Self::default()
        };
        key.addresses[..from.len()].copy_from_slice(from);
        key
    }

    pub(super) fn has_addresses_of(&self, other: &Self) -> bool {
        self.is_v6 == other.is_v6 && self.addresses == other.addresses
    }
}

/// A packet of which a cut could restore everything: no IP options or extension headers, no fragment, no other flags
/// than a train may have, some payload. Its transport checksum is yet to be judged.
#[derive(Debug)]
pub(super) struct Car<'a> {
    /// The whole packet without padding.
    pub(super) bytes: &'a [u8],
    pub(super) transport_at: usize,
    pub(super) header_len: usize,
    /// Nothing may follow it (PSH).
    pub(super) is_last: bool,
}

impl<'a> Car<'a> {
    pub(super) fn of(packet: &Packet, bytes: &'a [u8]) -> Option<Self> {
        let at = packet.transport_at;
        let plain_ip = if packet.is_v6() {
            at == 40
        } else {
            // Of the fragment field only DF; and a header checksum that is right, as it will be written anew.
            at == 20 && bytes[6] & 0xbf == 0 && checksum::verifies(checksum::sum(&bytes[..20]))
        };
        if !plain_ip {
            return None;
        }
        let transport = &bytes[at..];
        let (transport_header, is_last) = if packet.protocol == protocol::TCP {
            let len = tcp::header_len(transport)?;
            let flags = transport[tcp::FLAGS];
            let reserved = transport[12] & 0x0f != 0;
            let urgent = transport[tcp::URGENT..tcp::URGENT + 2] != [0, 0];
            if reserved || urgent || flags & !(tcp::PSH | tcp::ECE) != tcp::ACK {
                return None;
            }
            (len, flags & tcp::PSH != 0)
        } else {
            let header: &[u8; 8] = transport.first_chunk()?;
            let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
            if len != transport.len() {
                return None;
            }
            (8, false)
        };
        let header_len = at + transport_header;
        (bytes.len() > header_len).then_some(Self {
            bytes,
            transport_at: at,
            header_len,
            is_last,
        })
    }

    pub(super) fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    pub(super) fn is_v6(&self) -> bool {
        self.bytes[0] >> 4 == 6
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.header_len - self.transport_at > 8
    }

    /// IPv4 identification; none where it has no meaning.
    pub(super) fn id(&self) -> Option<u16> {
        let has_id = !self.is_v6() && self.bytes[6] & 0x40 == 0;
        has_id.then(|| u16::from_be_bytes([self.bytes[4], self.bytes[5]]))
    }

    pub(super) fn seq(&self) -> u32 {
        let seq = &self.bytes[self.transport_at + tcp::SEQ..];
        u32::from_be_bytes([seq[0], seq[1], seq[2], seq[3]])
    }

    pub(super) fn flags(&self) -> u8 {
        self.bytes[self.transport_at + tcp::FLAGS]
    }
}
