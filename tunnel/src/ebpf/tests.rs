//! The programs by BPF_PROG_TEST_RUN: a packet in, a verdict and a packet out. The kernel puts an
//! Ethernet header before every packet of a test run, so the egress program is loaded for a device with one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aya::programs::{TestRun as _, TestRunOptions};
use proptest::prelude::*;

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

#[test]
fn ingress_takes_the_header_off() {
    let Some(mut bed) = Bed::new(peers()) else {
        return;
    };
    let v4 = inner("10.5.2.9", "10.5.1.7", 0xb8, 64);
    assert_eq!(
        bed.run(INGRESS, &datagram(PEER, 0, &v4)),
        (REDIRECT, framed(&ETH_IP, &v4))
    );
    let v6 = inner("fd00:2::9", "fd00:1::7", 0, 64);
    // The frame's type stays; what counts is skb->protocol.
    assert_eq!(
        bed.run(INGRESS, &datagram(PEER, 0, &v6)),
        (REDIRECT, framed(&ETH_IP, &v6))
    );
    let trie = inner("10.6.3.4", "10.5.1.7", 0, 0);
    let out = bed.run(INGRESS, &datagram([192, 168, 66, 5], 0, &trie));
    assert_eq!(out, (REDIRECT, framed(&ETH_IP, &trie)));
    // Who does not finish checksums may send all the same.
    let plain = inner("10.5.4.4", "10.5.1.7", 0, 9);
    assert_eq!(
        bed.run(INGRESS, &datagram([192, 168, 66, 4], 0, &plain)).0,
        REDIRECT
    );
    let bytes = v4.len() + v6.len() + trie.len() + plain.len();
    assert_eq!(bed.maps.counts().unwrap().received, (4, bytes as u64));
}

#[test]
fn ingress_drops_strangers_and_counts_them() {
    let Some(mut bed) = Bed::new(peers()) else {
        return;
    };
    let stranger = datagram([192, 168, 66, 77], 0, &inner("10.5.2.9", "10.5.1.7", 0, 64));
    assert_eq!(bed.run(INGRESS, &stranger).0, SHOT);
    assert_eq!(bed.dropped(DropReason::UnknownPeer), 1);
    for from in ["10.5.3.9", "10.9.9.9", "127.0.0.1", "10.5.1.1"] {
        let foreign = datagram(PEER, 0, &inner(from, "10.5.1.7", 0, 64));
        assert_eq!(bed.run(INGRESS, &foreign).0, SHOT, "{from}");
    }
    let foreign = datagram(PEER, 0, &inner("fd00:3::9", "fd00:1::7", 0, 64));
    assert_eq!(bed.run(INGRESS, &foreign).0, SHOT);
    assert_eq!(bed.dropped(DropReason::ForeignSource), 5);
    assert_eq!(bed.maps.counts().unwrap().received, (0, 0));
}

#[test]
fn ingress_leaves_alone_what_is_not_a_whole_datagram_of_ours() {
    let Some(mut bed) = Bed::new(peers()) else {
        return;
    };
    let good = datagram(PEER, 0, &inner("10.5.2.9", "10.5.1.7", 0, 64));
    assert_eq!(bed.run(INGRESS, &good).0, REDIRECT);
    let outer = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        change(&mut packet);
        packet[24..26].copy_from_slice(&[0, 0]);
        let sum = checksum(&packet[14..34]);
        packet[24..26].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    let mut bad_sum = good.clone();
    bad_sum[24] ^= 1;
    let cases = [
        ("another host's frame", outer(&|p| p[5] = 1)),
        ("another port", outer(&|p| p[37] = 0x5e)),
        ("another address", outer(&|p| p[33] = 9)),
        ("first fragment", outer(&|p| p[20] = 0x20)),
        ("later fragment", outer(&|p| p[21] = 3)),
        ("TCP", outer(&|p| p[23] = 6)),
        ("UDP length", outer(&|p| p[39] -= 1)),
        ("IP length", outer(&|p| p[17] -= 1)),
        ("outer checksum", bad_sum),
        ("inner length", outer(&|p| p[45] += 1)),
        ("inner header length", outer(&|p| p[42] = 0x44)),
        ("inner version", outer(&|p| p[42] = 0x35)),
        ("padded", outer(&|p| p.push(0))),
        ("not IPv4", [&ETH_IP6[..], &good[14..]].concat()),
        ("no inner packet", datagram(PEER, 0, &[])),
        ("inner header cut", datagram(PEER, 0, &good[42..60])),
        (
            "inner IPv6 header cut",
            datagram(PEER, 0, &inner("fd00:2::9", "fd00:1::7", 0, 0)[..39]),
        ),
    ];
    for (what, packet) in &cases {
        assert_eq!(
            bed.run(INGRESS, packet),
            (LEFT_ALONE, packet.clone()),
            "{what}"
        );
    }
    let counts = bed.maps.counts().unwrap();
    assert_eq!(counts.received.0, 1);
    assert_eq!(counts.passed_in, 10);
}

/// RFC 6040, figure 4.
#[test]
fn ingress_combines_the_ecn_fields() {
    let Some(mut bed) = Bed::new(peers()) else {
        return;
    };
    const DROP: u8 = 9;
    // Rows: inner Not-ECT, ECT(1), ECT(0), CE by their codes 0..3; columns: outer 0..3.
    let table = [[0, 0, 0, DROP], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
    let mut drops = 0;
    for (inside, row) in (0u8..).zip(table) {
        for (outside, after) in (0u8..).zip(row) {
            for (from, to) in [("10.5.2.9", "10.5.1.7"), ("fd00:2::9", "fd00:1::7")] {
                let packet = datagram(PEER, 0x28 | outside, &inner(from, to, 0xb8 | inside, 33));
                let (verdict, out) = bed.run(INGRESS, &packet);
                let at = format!("inner {inside} outer {outside} {from}");
                if after == DROP {
                    drops += 1;
                    assert_eq!(verdict, SHOT, "{at}");
                } else {
                    assert_eq!(verdict, REDIRECT, "{at}");
                    assert_eq!(out[14..], inner(from, to, 0xb8 | after, 33), "{at}");
                }
            }
        }
    }
    assert_eq!(bed.dropped(DropReason::CongestionUnmarkable), drops);
}

/// ICMP fragmentation needed from a router about a datagram from us to `to`.
fn frag_needed(to: [u8; 4], port: u16, mtu: u16) -> Vec<u8> {
    let udp = [&[0xc0, 0, 0, 0][..], &[5, 0, 0, 0]].concat();
    let mut quoted = ip4(US.into(), to.into(), 0, 17, 0x4000, &udp);
    quoted[22..24].copy_from_slice(&port.to_be_bytes());
    let icmp = [&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes(), &quoted].concat();
    framed(
        &ETH_IP,
        &ip4([192, 168, 66, 254].into(), US.into(), 0, 1, 0, &icmp),
    )
}

#[test]
fn a_smaller_path_mtu_is_learnt_for_that_peer() {
    let Some(mut bed) = Bed::new(peers()) else {
        return;
    };
    let of_size = |to: &str, size: usize| framed(&ETH_IP, &inner("10.5.1.7", to, 0, size - 20));
    let verdict = |bed: &mut Bed, to: &str, size| bed.run(EGRESS, &of_size(to, size)).0;
    // Not about us: another port, a host that is no peer, without an MTU.
    for icmp in [
        frag_needed(PEER, 53, 1000),
        frag_needed([8, 8, 8, 8], 8285, 1000),
        frag_needed(PEER, 8285, 0),
    ] {
        assert_eq!(bed.run(INGRESS, &icmp), (LEFT_ALONE, icmp));
        assert_eq!(verdict(&mut bed, "10.5.2.9", 1472), REDIRECT);
    }
    let icmp = frag_needed(PEER, 8285, 1400);
    assert_eq!(bed.run(INGRESS, &icmp), (LEFT_ALONE, icmp));
    assert_eq!(verdict(&mut bed, "10.5.2.9", 1373), LEFT_ALONE);
    assert_eq!(verdict(&mut bed, "10.5.2.9", 1372), REDIRECT);
    assert_eq!(
        verdict(&mut bed, "10.5.3.9", 1472),
        REDIRECT,
        "the other peer"
    );
    // Never up by ICMP, and never below the floor.
    bed.run(INGRESS, &frag_needed(PEER, 8285, 1450));
    assert_eq!(verdict(&mut bed, "10.5.2.9", 1373), LEFT_ALONE);
    bed.run(INGRESS, &frag_needed(PEER, 8285, 68));
    assert_eq!(verdict(&mut bed, "10.5.2.9", 576 - 28), REDIRECT);
    assert_eq!(verdict(&mut bed, "10.5.2.9", 576 - 27), LEFT_ALONE);
    // A change of the peer's entry keeps it; another peer in its slot does not inherit it.
    let mut table = peers();
    table[0].address.set_port(8286);
    bed.maps
        .apply(&Wanted::plan(&Table::new(Own::default(), table.clone())))
        .unwrap();
    assert_eq!(verdict(&mut bed, "10.5.2.9", 1472), LEFT_ALONE);
    table[0].address = SocketAddr::from(([192, 168, 66, 9], 8285));
    bed.maps
        .apply(&Wanted::plan(&Table::new(Own::default(), table)))
        .unwrap();
    assert_eq!(verdict(&mut bed, "10.5.2.9", 1472), REDIRECT);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes: a datagram is only taken if it is whole and its inner source is the sender's; else
    /// it is left as it was, or dropped.
    #[test]
    fn garbage_is_never_taken(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        cut in 0usize..200,
        flips in proptest::collection::vec((14usize..110, any::<u8>()), 0..4),
        shape in 0u8..3,
    ) {
        thread_local! {
            static BED: std::cell::RefCell<Option<Bed>> = std::cell::RefCell::new(Bed::new(peers()));
        }
        let packet = match shape {
            0 => framed(&ETH_IP, &bytes),
            1 => datagram(PEER, 0, &bytes),
            _ => {
                let mut packet = datagram(PEER, 1, &inner("10.5.2.9", "10.5.1.7", 2, 64));
                for (at, byte) in &flips {
                    packet[*at] = *byte;
                }
                packet.truncate(cut.max(14));
                packet
            }
        };
        // The kernel refuses test runs of less.
        prop_assume!(packet.len() >= 34);
        BED.with_borrow_mut(|bed| -> Result<(), TestCaseError> {
            let Some(bed) = bed else { return Ok(()) };
            for program in [INGRESS, EGRESS] {
                let (verdict, out) = bed.run(program, &packet);
                match verdict {
                    LEFT_ALONE => prop_assert_eq!(&out, &packet),
                    SHOT => {}
                    REDIRECT if program == INGRESS => {
                        let inner = &out[14..];
                        let (length, source): (_, IpAddr) = match inner[0] >> 4 {
                            4 => (usize::from(inner[2]) << 8 | usize::from(inner[3]), [inner[12], inner[13], inner[14], inner[15]].into()),
                            _ => (40 + (usize::from(inner[4]) << 8 | usize::from(inner[5])), <[u8; 16]>::try_from(&inner[8..24]).unwrap().into()),
                        };
                        prop_assert_eq!(length, inner.len());
                        prop_assert_eq!(inner.len() + 42, packet.len());
                        let table = Table::new(Own::default(), peers());
                        let from = IpAddr::from([packet[26], packet[27], packet[28], packet[29]]);
                        prop_assert_eq!(table.peer(source).map(|peer| peer.address.ip()), Some(from));
                    }
                    REDIRECT => prop_assert_eq!(&out[42..], &packet[14..]),
                    other => prop_assert!(false, "verdict {}", other),
                }
            }
            Ok(())
        })?;
    }
}
