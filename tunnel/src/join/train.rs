//! One open train: its packet grows in its own buffer.

use super::car::{Car, Key};
use crate::packet::checksum::{copy_and_sum, finish, fold, pseudo_header, sum};
use crate::packet::{Checksum, Packet, copy_and_judge, judge, tcp};
use crate::vnet::{self, VnetHeader};

/// The largest IP packet that its own length field can tell.
const LONGEST: usize = 65535;

/// Bytes for the virtio header and the longest packet; an IPv6 packet that is not joined may be longer by its fixed header.
pub(super) const ROOM: usize = VnetHeader::LEN + 40 + LONGEST;

/// The most datagrams that kernels take at once (`UDP_MAX_SEGMENTS` was 64 once).
const MOST_DATAGRAMS: u64 = 64;

#[derive(Debug)]
pub(super) struct Train {
    key: Key,
    /// Room for the virtio header, then the packet. The headers are those of the first car until it departs.
    buffer: Box<[u8]>,
    /// Of the packet.
    len: usize,
    transport_at: usize,
    header_len: usize,
    /// Payload of the first car.
    size: usize,
    /// How many there are; none: not in use.
    cars: u64,
    /// The first car's checksum is unfinished.
    unfinished: bool,
    next_seq: u32,
    next_id: u16,
    /// Flags of the last car.
    last_flags: u8,
    complete: bool,
}

impl Train {
    pub(super) fn new() -> Self {
        Self {
            key: Key::default(),
            buffer: vec![0; ROOM].into(),
            len: 0,
            transport_at: 0,
            header_len: 0,
            size: 0,
            cars: 0,
            unfinished: false,
            next_seq: 0,
            next_id: 0,
            last_flags: 0,
            complete: false,
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.cars == 0
    }

    pub(super) fn is_for(&self, key: &Key) -> bool {
        self.cars > 0 && self.key == *key
    }

    /// Nothing can follow.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Puts the first car on the rails, unless its checksum is wrong.
    pub(super) fn open(&mut self, key: Key, car: &Car<'_>, packet: &Packet) -> bool {
        let state = copy_and_judge(packet, car.bytes, &mut self.buffer[VnetHeader::LEN..]);
        if !matches!(state, Checksum::Valid | Checksum::Unfinished) {
            return false;
        }
        self.key = key;
        self.transport_at = car.transport_at;
        self.header_len = car.header_len;
        self.size = car.payload().len();
        self.cars = 0;
        self.unfinished = state == Checksum::Unfinished;
        self.len = car.header_len;
        self.count(car);
        true
    }

    /// Whether the car may follow, as far as its headers say.
    pub(super) fn fits(&self, car: &Car<'_>) -> bool {
        let len = car.payload().len();
        let (at, is_tcp) = (self.transport_at, car.is_tcp());
        let train = &self.buffer[VnetHeader::LEN..][..self.header_len];
        len <= self.size
            && self.len + len <= LONGEST
            && car.header_len == self.header_len
            && same_ip(train, car)
            && car.id().is_none_or(|id| id == self.next_id)
            && (is_tcp || self.cars < MOST_DATAGRAMS)
            && (!is_tcp || (car.seq() == self.next_seq && same_tcp(&train[at..], car)))
    }

    /// Appends a car that [fits](Self::fits), unless its checksum is wrong.
    pub(super) fn couple(&mut self, car: &Car<'_>, packet: &Packet) -> bool {
        let payload = car.payload();
        let end = VnetHeader::LEN + self.len;
        let room = &mut self.buffer[end..end + payload.len()];
        let mut copied = false;
        let state = judge(packet, car.bytes, |covered| {
            copied = true;
            let header_len = covered.len() - payload.len();
            sum(&covered[..header_len]) + copy_and_sum(room, payload)
        });
        if !matches!(state, Checksum::Valid | Checksum::Unfinished) {
            return false;
        }
        if !copied {
            room.copy_from_slice(payload);
        }
        self.count(car);
        true
    }

    fn count(&mut self, car: &Car<'_>) {
        let len = car.payload().len();
        self.len += len;
        self.cars += 1;
        if car.is_tcp() {
            self.next_seq = car.seq().wrapping_add(len as u32);
            self.last_flags = car.flags();
        }
        self.next_id = car.id().unwrap_or_default().wrapping_add(1);
        self.complete = car.is_last || len < self.size;
    }

    /// Hands the train out, if there is one.
    pub(super) fn depart(&mut self, out: &mut impl FnMut(&[u8], u64)) {
        if self.cars == 0 {
            return;
        }
        let mut header = VnetHeader::default();
        if self.cars > 1 || self.unfinished {
            header.flags = vnet::NEEDS_CSUM;
            header.csum_start = self.transport_at as u16;
            header.csum_offset = self.checksum_offset() as u16;
        }
        if self.cars > 1 {
            self.render_headers();
            header.gso_type = match (self.is_tcp(), self.is_v6()) {
                (true, false) => vnet::GSO_TCPV4,
                (true, true) => vnet::GSO_TCPV6,
                (false, _) => vnet::GSO_UDP_L4,
            };
            header.gso_size = self.size as u16;
            header.hdr_len = self.header_len as u16;
        }
        header.encode(&mut self.buffer);
        out(&self.buffer[..VnetHeader::LEN + self.len], self.cars);
        self.cars = 0;
        self.complete = false;
    }

    /// Lengths, last flags, and the checksum that the device is to finish.
    fn render_headers(&mut self) {
        let (v6, is_tcp, field) = (self.is_v6(), self.is_tcp(), self.checksum_offset());
        let packet = &mut self.buffer[VnetHeader::LEN..][..self.header_len];
        let (ip, transport) = packet.split_at_mut(self.transport_at);
        let transport_len = self.len - ip.len();
        let (addresses, protocol) = if v6 {
            ip[4..6].copy_from_slice(&(transport_len as u16).to_be_bytes());
            (&ip[8..40], ip[6])
        } else {
            ip[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
            ip[10..12].fill(0);
            let checksum = finish(sum(ip));
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            (&ip[12..20], ip[9])
        };
        if is_tcp {
            transport[tcp::FLAGS] |= self.last_flags;
        } else {
            transport[4..6].copy_from_slice(&(transport_len as u16).to_be_bytes());
        }
        let unfinished = fold(pseudo_header(addresses, protocol, transport_len));
        transport[field..field + 2].copy_from_slice(&unfinished.to_be_bytes());
    }

    fn is_v6(&self) -> bool {
        self.transport_at == 40
    }

    fn is_tcp(&self) -> bool {
        self.header_len - self.transport_at > 8
    }

    fn checksum_offset(&self) -> usize {
        if self.is_tcp() { tcp::CHECKSUM } else { 6 }
    }
}

/// What of an IP header is the same in all cars; the addresses are in the key.
fn same_ip(train: &[u8], car: &Car<'_>) -> bool {
    let car = car.bytes;
    if car[0] >> 4 == 6 {
        // Traffic class and flow label; protocol and hop limit.
        train[..4] == car[..4] && train[6..8] == car[6..8]
    } else {
        // Traffic class; DF, TTL and protocol.
        train[..2] == car[..2] && train[6..10] == car[6..10]
    }
}

/// The same for TCP: acknowledgement, flags but for PSH, window, options.
fn same_tcp(train: &[u8], car: &Car<'_>) -> bool {
    let car = &car.bytes[car.transport_at..car.header_len];
    train[8..13] == car[8..13]
        && (train[tcp::FLAGS] ^ car[tcp::FLAGS]) & !tcp::PSH == 0
        && train[14..16] == car[14..16]
        && train[20..] == car[20..]
}
