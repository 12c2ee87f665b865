//! Packets for tests, written down field by field and rendered the plainest way, and the plain references that the code is
//! compared with. Shares nothing with the code under test.

use super::checksum::tests::plain;

/// One TCP or UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) v6: bool,
    pub(crate) udp: bool,
    pub(crate) source: u8,
    pub(crate) ports: [u16; 2],
    pub(crate) traffic_class: u8,
    pub(crate) ttl: u8,
    /// IPv4 identification; 0 with IPv6.
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) flow_label: u16,
    /// IPv4 options, or an IPv6 destination-options header; a multiple of 8.
    pub(crate) between: Vec<u8>,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    /// TCP options; a multiple of 4.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const TCP: Sample = Sample {
    v6: false,
    udp: false,
    source: 2,
    ports: [40000, 5201],
    traffic_class: 0,
    ttl: 63,
    id: 1000,
    dont_fragment: true,
    flow_label: 0,
    between: Vec::new(),
    seq: 1,
    ack: 7,
    flags: 0x10,
    window: 500,
    urgent: 0,
    options: Vec::new(),
    payload: Vec::new(),
};

pub(crate) const UDP: Sample = Sample {
    v6: false,
    udp: true,
    source: 2,
    ports: [40000, 5201],
    traffic_class: 0,
    ttl: 63,
    id: 1000,
    dont_fragment: true,
    flow_label: 0,
    between: Vec::new(),
    seq: 0,
    ack: 0,
    flags: 0,
    window: 0,
    urgent: 0,
    options: Vec::new(),
    payload: Vec::new(),
};

/// `len` bytes that differ from place to place.
pub(crate) fn data(len: usize, from: usize) -> Vec<u8> {
    (from..from + len)
        .map(|at| (at * 31 + at / 251) as u8)
        .collect()
}

impl Sample {
    /// With its checksums right.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (mut bytes, field, pseudo) = self.draw();
        let at = self.transport_at();
        let drawn = [pseudo.as_slice(), &bytes[at..]].concat();
        let sum = match !plain(&drawn) {
            0 if self.udp => 0xffff,
            sum => sum,
        };
        bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// With the checksum that a kernel leaves to the device.
    pub(crate) fn unfinished(&self) -> Vec<u8> {
        let (mut bytes, field, pseudo) = self.draw();
        bytes[field..field + 2].copy_from_slice(&plain(&pseudo).to_be_bytes());
        bytes
    }

    pub(crate) fn transport_at(&self) -> usize {
        self.between.len() + if self.v6 { 40 } else { 20 }
    }

    pub(crate) fn header_len(&self) -> usize {
        self.transport_at() + if self.udp { 8 } else { 20 + self.options.len() }
    }

    fn draw(&self) -> (Vec<u8>, usize, Vec<u8>) {
        let mut transport = Vec::new();
        for port in self.ports {
            transport.extend(port.to_be_bytes());
        }
        let field = if self.udp {
            let len = u16::try_from(8 + self.payload.len()).unwrap();
            transport.extend(len.to_be_bytes());
            transport.extend([0, 0]);
            6
        } else {
            transport.extend(self.seq.to_be_bytes());
            transport.extend(self.ack.to_be_bytes());
            let words = u8::try_from(5 + self.options.len() / 4).unwrap();
            transport.extend([words << 4, self.flags]);
            transport.extend(self.window.to_be_bytes());
            transport.extend([0, 0]);
            transport.extend(self.urgent.to_be_bytes());
            transport.extend(&self.options);
            16
        };
        transport.extend(&self.payload);
        let protocol = if self.udp { 17 } else { 6 };
        let ip = if self.v6 {
            self.draw_v6(transport.len(), protocol)
        } else {
            self.draw_v4(transport.len(), protocol)
        };
        let len = u32::try_from(transport.len()).unwrap().to_be_bytes();
        let addresses = if self.v6 { &ip[8..40] } else { &ip[12..20] };
        let pseudo = [addresses, &len, &[0, 0, 0, protocol]].concat();
        let field = self.transport_at() + field;
        ([ip, transport].concat(), field, pseudo)
    }

    fn draw_v4(&self, transport_len: usize, protocol: u8) -> Vec<u8> {
        let header_len = 20 + self.between.len();
        let len = u16::try_from(header_len + transport_len).unwrap();
        let mut ip = vec![0x40 + u8::try_from(header_len / 4).unwrap()];
        ip.push(self.traffic_class);
        ip.extend(len.to_be_bytes());
        ip.extend(self.id.to_be_bytes());
        ip.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
        ip.extend([self.ttl, protocol, 0, 0]);
        ip.extend([10, 244, 1, self.source, 10, 244, 2, 9]);
        ip.extend(&self.between);
        let sum = !plain(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip
    }

    fn draw_v6(&self, transport_len: usize, protocol: u8) -> Vec<u8> {
        let first = 0x6000_0000 | u32::from(self.traffic_class) << 20 | u32::from(self.flow_label);
        let len = u16::try_from(self.between.len() + transport_len).unwrap();
        let mut ip = first.to_be_bytes().to_vec();
        ip.extend(len.to_be_bytes());
        ip.push(if self.between.is_empty() {
            protocol
        } else {
            60
        });
        ip.push(self.ttl);
        for last in [self.source, 9] {
            ip.extend([0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        if let Some(rest) = self.between.get(2..) {
            ip.push(protocol);
            ip.push(u8::try_from(self.between.len() / 8 - 1).unwrap());
            ip.extend(rest);
        }
        ip
    }

    /// Reads what [`bytes`](Self::bytes) rendered; checksums are not looked at.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let be = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let be32 = |at: usize| u32::from(be(at)) << 16 | u32::from(be(at + 2));
        let v6 = bytes[0] >> 4 == 6;
        let (at, protocol) = match (v6, bytes[6]) {
            (false, _) => (usize::from(bytes[0] % 16) * 4, bytes[9]),
            (true, 60) => (48 + usize::from(bytes[41]) * 8, bytes[40]),
            (true, next) => (40, next),
        };
        let udp = protocol == 17;
        let payload = at
            + if udp {
                8
            } else {
                usize::from(bytes[at + 12] / 16) * 4
            };
        let between = &bytes[if v6 { 40 } else { 20 }..at];
        Self {
            v6,
            udp,
            source: bytes[if v6 { 23 } else { 15 }],
            ports: [be(at), be(at + 2)],
            traffic_class: if v6 { (be(0) >> 4) as u8 } else { bytes[1] },
            ttl: bytes[if v6 { 7 } else { 8 }],
            id: if v6 { 0 } else { be(4) },
            dont_fragment: v6 || bytes[6] & 0x40 != 0,
            flow_label: if v6 { be(2) } else { 0 },
            between: match (v6, between) {
                (true, [_, _, rest @ ..]) => [&[0, 0], rest].concat(),
                _ => between.to_vec(),
            },
            seq: if udp { 0 } else { be32(at + 4) },
            ack: if udp { 0 } else { be32(at + 8) },
            flags: if udp { 0 } else { bytes[at + 13] },
            window: if udp { 0 } else { be(at + 14) },
            urgent: if udp { 0 } else { be(at + 18) },
            options: bytes[if udp { payload } else { at + 20 }..payload].to_vec(),
            payload: bytes[payload..].to_vec(),
        }
    }

    /// Cut into pieces of `size` payload bytes, as a network card does.
    pub(crate) fn cut(&self, size: usize) -> Vec<Self> {
        let pieces: Vec<_> = self.payload.chunks(size).collect();
        let last = pieces.len().saturating_sub(1);
        if last == 0 {
            return vec![self.clone()];
        }
        let cut = |(n, piece): (usize, &&[u8])| {
            let mut cut = self.clone();
            cut.payload = piece.to_vec();
            if !self.v6 {
                cut.id = self.id.wrapping_add(n as u16);
            }
            if !self.udp {
                cut.seq = self.seq.wrapping_add((n * size) as u32);
                if n != last {
                    cut.flags &= !0x09; // PSH, FIN
                }
                if n != 0 {
                    cut.flags &= !0x80; // CWR
                }
            }
            cut
        };
        pieces.iter().enumerate().map(cut).collect()
    }
}

#[test]
fn reading_undoes_rendering() {
    let mut v6 = Sample {
        v6: true,
        id: 0,
        traffic_class: 0xb9,
        flow_label: 0x1234,
        options: vec![1, 1, 1, 0],
        payload: data(9, 0),
        ..TCP
    };
    assert_eq!(Sample::read(&v6.bytes()), v6);
    v6.between = vec![0, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(Sample::read(&v6.bytes()), v6);
    let v4 = Sample {
        between: vec![1; 8],
        payload: data(5, 3),
        ..UDP
    };
    assert_eq!(Sample::read(&v4.bytes()), v4);
}
