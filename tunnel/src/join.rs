//! Packets as they came from the wire, as few TUN writes as possible.
//!
//! Consecutive TCP segments of a flow become one packet of up to 64 KiB, runs of equal UDP datagrams likewise, with a
//! virtio header that says how to cut them again. The kernel carries such a *train* through its stack in one piece.
//!
//! Invariants, which make a train and its cars the same thing (as `net/ipv4/tcp_offload.c` and `udp_offload.c` have
//! them):
//! - cutting a train gives back the very packets, bit by bit; only the IPv4 identification may differ, where
//!   DF makes it meaningless (RFC 6864). So whatever a cut cannot restore ends a train or never enters one: another TTL,
//!   traffic class, flow label, acknowledgement, window or TCP option; any flag but ACK, ECE and a last PSH; a gap; another
//!   size but for a shorter last;
//! - a packet overtakes no other of its flow: what cannot join sends the flow's train off first;
//! - nothing with a wrong checksum gets one that is right: it passes as it is, for the receiver to count.

mod car;
mod train;

use crate::DropReason;
use crate::packet::{Checksum, Packet, copy_and_judge, protocol, tcp};
use crate::segment::Segments;
use crate::vnet::{self, VnetHeader};

use car::{Car, Key};
use train::{ROOM, Train};

/// A worker's open trains. Its memory is allocated once: about 64 KiB a train.
#[derive(Debug)]
pub struct Joiner {
    trains: Box<[Train]>,
    /// For what passes without joining.
    single: Box<[u8]>,
    /// The next train to leave when all are taken.
    turn: usize,
    mtu: usize,
    udp: bool,
}

impl Joiner {
    /// `trains` flows (at least one) are kept open at a time. `mtu` is the TUN device's. `udp`: the device takes
    /// [`vnet::GSO_UDP_L4`]; without it UDP is not joined.
    #[must_use]
    pub fn new(trains: usize, mtu: u32, udp: bool) -> Self {
        Self {
            trains: (0..trains.max(1)).map(|_| Train::new()).collect(),
            single: vec![0; ROOM].into(),
            turn: 0,
            mtu: usize::try_from(mtu).unwrap_or(usize::MAX),
            udp,
        }
    }

    /// Takes the packet that [`parse`](crate::packet::parse) found in `bytes`. `out` is given what is ready to be written to the
    /// device: a virtio header with its packet behind it, and how many wire packets are in it.
    ///
    /// An unfinished checksum is left to the device; if the packet is larger than the MTU, so is cutting it.
    ///
    /// # Errors
    /// [`DropReason::TooBig`]: a train of UDP datagrams that a peer's kernel sent whole, whose borders nobody knows. It
    /// was not passed on.
    pub fn push(
        &mut self,
        packet: &Packet,
        bytes: &[u8],
        out: &mut impl FnMut(&[u8], u64),
    ) -> Result<(), DropReason> {
        self.push_sized(packet, bytes, None, out)
    }

    /// The same for a packet beside which the kernel told a `gso_size` (`UDP_GRO` control message on a datagram that is one
    /// packet): where a peer's kernel would have cut it.
    ///
    /// # Errors
    /// As [`push`](Self::push); not for UDP with a size.
    pub fn push_sized(
        &mut self,
        packet: &Packet,
        bytes: &[u8],
        gso_size: Option<u16>,
        out: &mut impl FnMut(&[u8], u64),
    ) -> Result<(), DropReason> {
        let bytes = &bytes[..packet.len];
        let Some(key) = Key::of(packet, bytes) else {
            self.flush_between(packet, bytes, out);
            return self.pass(packet, bytes, gso_size, out);
        };
        let at = self.trains.iter().position(|train| train.is_for(&key));
        let car = Car::of(packet, bytes).filter(|car| self.takes(car, gso_size));
        if let (Some(at), Some(car)) = (at, &car) {
            let train = &mut self.trains[at];
            if train.fits(car) && train.couple(car, packet) {
                if train.is_complete() {
                    train.depart(out);
                }
                return Ok(());
            }
        }
        if let Some(at) = at {
            self.trains[at].depart(out);
        }
        match car {
            Some(car) if !car.is_last => {
                let at = at.unwrap_or_else(|| self.free(out));
                if self.trains[at].open(key, &car, packet) {
                    return Ok(());
                }
            }
            _ => {}
        }
        self.pass(packet, bytes, gso_size, out)
    }

    /// Sends all trains off: at the end of each batch.
    pub fn flush(&mut self, out: &mut impl FnMut(&[u8], u64)) {
        for train in &mut self.trains {
            train.depart(out);
        }
    }

    /// Whether such a car may be in a train of ours at all. Larger ones than the MTU may be whole trains.
    fn takes(&self, car: &Car<'_>, gso_size: Option<u16>) -> bool {
        (self.udp || car.is_tcp())
            && car.bytes.len() <= self.mtu
            && gso_size.is_none_or(|size| car.payload().len() <= usize::from(size))
    }

    /// Every train between the packet's addresses: for what belongs to a flow that it does not tell (fragments).
    fn flush_between(&mut self, packet: &Packet, bytes: &[u8], out: &mut impl FnMut(&[u8], u64)) {
        if packet.has_transport && !matches!(packet.protocol, protocol::TCP | protocol::UDP) {
            return; // of no flow that we join
        }
        let addresses = Key::between(packet, bytes);
        for train in &mut self.trains {
            if train.key().has_addresses_of(&addresses) {
                train.depart(out);
            }
        }
    }

    /// A train that is not in use; if there is none, one leaves.
    fn free(&mut self, out: &mut impl FnMut(&[u8], u64)) -> usize {
        if let Some(at) = self.trains.iter().position(Train::is_free) {
            return at;
        }
        let at = self.turn;
        self.turn = (at + 1) % self.trains.len();
        self.trains[at].depart(out);
        at
    }

    /// On its own.
    fn pass(
        &mut self,
        packet: &Packet,
        bytes: &[u8],
        gso_size: Option<u16>,
        out: &mut impl FnMut(&[u8], u64),
    ) -> Result<(), DropReason> {
        let len = VnetHeader::LEN + packet.len;
        let body = &mut self.single[VnetHeader::LEN..len];
        let mut header = VnetHeader::default();
        let mut packets = 1;
        if copy_and_judge(packet, bytes, body) == Checksum::Unfinished {
            let whole = Whole::of(packet, bytes, self.mtu, gso_size)?;
            if whole.packets > 1 && packet.protocol == protocol::UDP && !self.udp {
                return self.pass_cut(bytes, gso_size, out);
            }
            (header, packets) = (whole.header, whole.packets);
        }
        header.encode(&mut self.single);
        out(&self.single[..len], packets);
        Ok(())
    }

    /// One by one, for a device that does not cut such a packet.
    fn pass_cut(
        &mut self,
        bytes: &[u8],
        gso_size: Option<u16>,
        out: &mut impl FnMut(&[u8], u64),
    ) -> Result<(), DropReason> {
        let mut segments = Segments::cut(bytes, self.mtu, gso_size)?;
        VnetHeader::default().encode(&mut self.single);
        while let Some(len) = segments.next_into(&mut self.single[VnetHeader::LEN..]) {
            out(&self.single[..VnetHeader::LEN + len], 1);
        }
        Ok(())
    }
}

/// What the device is told about a packet with an unfinished checksum.
struct Whole {
    header: VnetHeader,
    packets: u64,
}

impl Whole {
    fn of(
        packet: &Packet,
        bytes: &[u8],
        mtu: usize,
        gso_size: Option<u16>,
    ) -> Result<Self, DropReason> {
        let transport = &bytes[packet.transport_at..];
        let (transport_header, gso_type, field) = match (packet.protocol, packet.is_v6()) {
            (protocol::UDP, _) => (Some(8), vnet::GSO_UDP_L4, 6),
            (_, false) => (tcp::header_len(transport), vnet::GSO_TCPV4, tcp::CHECKSUM),
            (_, true) => (tcp::header_len(transport), vnet::GSO_TCPV6, tcp::CHECKSUM),
        };
        let mut header = VnetHeader {
            flags: vnet::NEEDS_CSUM,
            csum_start: packet.transport_at as u16,
            csum_offset: field as u16,
            ..VnetHeader::default()
        };
        let Some(header_len) = transport_header.map(|len| packet.transport_at + len) else {
            return Ok(Self { header, packets: 1 }); // The kernel will drop and count it.
        };
        let payload_len = packet.len - header_len;
        let size = match gso_size {
            Some(size) if size > 0 => usize::from(size),
            _ if packet.len <= mtu => payload_len,
            _ if packet.protocol == protocol::UDP => return Err(DropReason::TooBig),
            _ => mtu
                .checked_sub(header_len)
                .filter(|size| *size > 0)
                .ok_or(DropReason::TooBig)?,
        };
        if payload_len <= size {
            return Ok(Self { header, packets: 1 });
        }
        let congested = field == tcp::CHECKSUM && transport[tcp::FLAGS] & tcp::CWR != 0;
        header.gso_type = gso_type | if congested { vnet::GSO_ECN } else { 0 };
        header.gso_size = size as u16;
        header.hdr_len = header_len as u16;
        let packets = payload_len.div_ceil(size) as u64;
        Ok(Self { header, packets })
    }
}

#[cfg(test)]
mod tests;
