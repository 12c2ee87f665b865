//! The programs by BPF_PROG_TEST_RUN: a packet in, a verdict and a packet out. The kernel puts an
//! Ethernet header before every packet of a test run, so the egress program is loaded for a device with one.

mod garbage;
mod ingress;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aya::programs::{TestRun as _, TestRunOptions};

use super::*;
use crate::{DropReason, Own, Peer};

const REDIRECT: u32 = 7;
const SHOT: u32 = 2;
/// TC_ACT_UNSPEC.
const LEFT_ALONE: u32 = u32::MAX;
/// To the MAC of the loopback device, on which test runs are.
const ETH_IP: [u8; 14] = [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 8, 0];
const ETH_IP6: [u8; 14] = [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
const US: [u8; 4] = [192, 168, 66, 1];
const PEER: [u8; 4] = [192, 168, 66, 2];
const OTHER: [u8; 4] = [192, 168, 66, 3];

struct Bed {
    object: aya::Ebpf,
    maps: Maps,
}

fn peer(address: [u8; 4], v4: &str, v6: &str) -> Peer {
    Peer {
        address: SocketAddr::from((address, 8285)),
        v4: Some(v4.parse().unwrap()),
        v6: Some(v6.parse().unwrap()),
        mac: None,
        finishes_checksums: true,
    }
}

fn peers() -> Vec<Peer> {
    let plain = Peer {
        finishes_checksums: false,
        ..peer([192, 168, 66, 4], "10.5.4.0/24", "fd00:4::/64")
    };
    vec![
        peer(PEER, "10.5.2.0/24", "fd00:2::/64"),
        peer(OTHER, "10.5.3.0/24", "fd00:3::/64"),
        plain,
        // Of another length: by the trie.
        peer([192, 168, 66, 5], "10.6.0.0/20", "fd00:5::/56"),
    ]
}

impl Bed {
    /// `None`, said loudly, without the right to load programs.
    fn new(peers: Vec<Peer>) -> Option<Self> {
        let config = Config {
            local: SocketAddrV4::new(US.into(), 8285),
            link_header: 14,
            underlay: 1,
            device: 1,
            underlay_mtu: 1500,
            cookie: 0,
        };
        let capacity = (2 * peers.len()).max(64);
        let mut object = match object::load(&config, capacity) {
            Ok(object) => object,
            Err(error) => {
                use std::os::unix::fs::MetadataExt as _;
                let root = fs::metadata("/proc/self").unwrap().uid() == 0;
                let built = !matches!(error, Error::NotBuilt(_));
                let required = std::env::var_os("WEFT_REQUIRE_ROOT").is_some();
                assert!(!(required || root && built), "{error}");
                use std::io::Write as _;
                let test = std::thread::current();
                let line = format!("SKIPPED: {}: {error}\n", test.name().unwrap_or("a test"));
                std::io::stderr().write_all(line.as_bytes()).unwrap();
                return None;
            }
        };
        let mut maps = Maps::take(&mut object, capacity).unwrap();
        let table = Table::new(Own::default(), peers);
        maps.apply(&Wanted::plan(&table)).unwrap();
        Some(Self { object, maps })
    }

    fn run(&mut self, program: &str, packet: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; packet.len() + 64];
        let program = object::program(&mut self.object, program).unwrap();
        let result = program.test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        });
        let result = result.unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.maps.counts().unwrap().dropped(reason)
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// An IP packet with UDP-like bytes in it.
fn inner(from: &str, to: &str, tos: u8, payload: usize) -> Vec<u8> {
    let body: Vec<u8> = (0..payload).map(|at| at as u8).collect();
    match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ip4(from, to, tos, 17, 0x4000, &body),
        (IpAddr::V6(from), IpAddr::V6(to)) => ip6(from, to, tos, &body),
        _ => unreachable!(),
    }
}

fn ip4(from: Ipv4Addr, to: Ipv4Addr, tos: u8, protocol: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, tos];
    packet.extend(((20 + body.len()) as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(body);
    packet
}

fn ip6(from: Ipv6Addr, to: Ipv6Addr, tos: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60 | tos >> 4, tos << 4 | 0x0a, 0xbc, 0xde];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([17, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(body);
    packet
}

/// The inner packet as `from` would send it to us, in an Ethernet frame.
fn datagram(from: [u8; 4], tos: u8, inner: &[u8]) -> Vec<u8> {
    let mut udp = vec![0xc0, 0x00, 0x20, 0x5d];
    udp.extend(((8 + inner.len()) as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(inner);
    framed(&ETH_IP, &ip4(from.into(), US.into(), tos, 17, 0x4000, &udp))
}

fn framed(header: &[u8; 14], packet: &[u8]) -> Vec<u8> {
    [header, packet].concat()
}

#[test]
fn egress_writes_the_outer_header_to_the_byte() {
    let Some(mut bed) = Bed::new(peers()) else {
        return;
    };
    let cases = [
        (ETH_IP, inner("10.5.1.7", "10.5.2.9", 0, 64), PEER, 0),
        (
            ETH_IP,
            inner("10.5.1.7", "10.5.3.255", 0xb9, 1400),
            OTHER,
            0xb9,
        ),
        (
            ETH_IP,
            inner("10.5.1.7", "10.6.15.1", 3, 1472 - 20),
            [192, 168, 66, 5],
            3,
        ),
        (
            ETH_IP6,
            inner("fd00:1::1", "fd00:2::9", 0xb8 | 2, 64),
            PEER,
            0xba,
        ),
        (
            ETH_IP6,
            inner("fd00:1::1", "fd00:5:0:12::9", 0, 40),
            [192, 168, 66, 5],
            0,
        ),
    ];
    for (frame, inner, to, tos) in &cases {
        let (verdict, out) = bed.run(EGRESS, &framed(frame, inner));
        assert_eq!(verdict, REDIRECT);
        let udp_length = ((8 + inner.len()) as u16).to_be_bytes();
        let port = u16::from_be_bytes([out[34], out[35]]);
        assert!((32768..61000).contains(&port), "source port {port}");
        let udp = [
            &port.to_be_bytes()[..],
            &8285u16.to_be_bytes(),
            &udp_length,
            &[0, 0],
            inner,
        ]
        .concat();
        let outer = ip4(US.into(), (*to).into(), *tos, 17, 0x4000, &udp);
        let mut eth = [0; 14];
        eth[12] = 8;
        assert_eq!(out, framed(&eth, &outer));
        assert_eq!(
            bed.run(EGRESS, &framed(frame, inner)).1,
            out,
            "one flow, one port"
        );
    }
    let counts = bed.maps.counts().unwrap();
    let bytes: usize = cases.iter().map(|(_, inner, ..)| inner.len()).sum();
    assert_eq!(counts.sent, (10, 2 * bytes as u64));
    assert_eq!((counts.passed_out, counts.received), (0, (0, 0)));
}

#[test]
fn egress_leaves_to_the_user_path_what_it_cannot_carry() {
    let Some(mut bed) = Bed::new(peers()) else {
        return;
    };
    let mut short = inner("10.5.1.7", "10.5.2.9", 0, 64);
    short.truncate(60);
    let mut padded = inner("10.5.1.7", "10.5.2.9", 0, 64);
    padded.push(0);
    let mut no_ip = inner("10.5.1.7", "10.5.2.9", 0, 64);
    no_ip[0] = 0x55;
    let cases = [
        ("no peer", inner("10.5.1.7", "10.5.9.1", 0, 64)),
        ("no peer, trie", inner("10.5.1.7", "10.6.16.0", 0, 64)),
        ("multicast", inner("10.5.1.7", "224.0.0.1", 0, 64)),
        ("unfinished checksums", inner("10.5.1.7", "10.5.4.1", 0, 64)),
        ("too big", inner("10.5.1.7", "10.5.2.9", 0, 1453)),
        ("cut short", short),
        ("padded", padded),
        ("version 5", no_ip),
    ];
    for (what, inner) in &cases {
        let packet = framed(&ETH_IP, inner);
        assert_eq!(bed.run(EGRESS, &packet), (LEFT_ALONE, packet), "{what}");
    }
    for to in ["fd00:9::1", "ff02::2", "fe80::1", "::"] {
        let packet = framed(&ETH_IP6, &inner("fd00:1::1", to, 0, 64));
        assert_eq!(bed.run(EGRESS, &packet), (LEFT_ALONE, packet), "{to}");
    }
    let counts = bed.maps.counts().unwrap();
    assert_eq!((counts.passed_out, counts.sent), (12, (0, 0)));
}

/// Peers that come, move and go, against the table's own answer.
#[test]
fn maps_follow_the_table() {
    let Some(mut bed) = Bed::new(Vec::new()) else {
        return;
    };
    let mut peers: Vec<Peer> = Vec::new();
    let mut random = 7u32;
    for _ in 0..60 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (third, host) = ((random >> 24) as u8 % 16, (random >> 16) as u8 % 20);
        if random >> 8 & 1 == 0 || peers.is_empty() {
            let length = if random >> 9 & 7 == 0 { 25 } else { 24 };
            peers.retain(|peer| peer.v4.unwrap().network().octets()[2] != third);
            peers.push(peer(
                [192, 168, 66, host],
                &format!("10.5.{third}.0/{length}"),
                &format!("fd00:{third}::/64"),
            ));
        } else {
            peers.remove(usize::from(host) % peers.len());
        }
        let table = Table::new(Own::default(), peers.clone());
        bed.maps.apply(&Wanted::plan(&table)).unwrap();
        for third in 0..16 {
            for to in [
                format!("10.5.{third}.1"),
                format!("10.5.{third}.200"),
                format!("fd00:{third}::1"),
            ] {
                let (eth, from) = if to.contains(':') {
                    (ETH_IP6, "fd00:99::1")
                } else {
                    (ETH_IP, "10.5.99.1")
                };
                let (verdict, out) = bed.run(EGRESS, &framed(&eth, &inner(from, &to, 0, 8)));
                match table.peer(to.parse().unwrap()) {
                    None => assert_eq!(verdict, LEFT_ALONE, "{to}"),
                    Some(peer) => {
                        assert_eq!(verdict, REDIRECT, "{to}");
                        let there = Ipv4Addr::from([out[30], out[31], out[32], out[33]]);
                        assert_eq!(IpAddr::V4(there), peer.address.ip(), "{to}");
                    }
                }
            }
        }
    }
}
