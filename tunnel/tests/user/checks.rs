//! What must not get through, and what the outer header says.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use std::os::fd::{AsRawFd as _, OwnedFd};
use tunnel::{
    DropReason,
    user::Mode::{self, Offload, Plain},
};

use super::lab::{Lab, Node, PORT, Underlay, eventually, pod, underlay};

const OUTSIDE_PORT: u16 = 4242;

/// An IPv4 packet with UDP inside, to port 4242. `checksum`: of UDP, if it is to have one.
fn inner(from: [u8; 4], to: [u8; 4], tos: u8, payload: &[u8], checksum: u16) -> Vec<u8> {
    let udp_length = 8 + payload.len() as u16;
    let mut packet = vec![0x45, tos, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0];
    packet[2..4].copy_from_slice(&(20 + udp_length).to_be_bytes());
    packet.extend([from, to].concat());
    let sum = !folded(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    for word in [999, OUTSIDE_PORT, udp_length, checksum] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(payload);
    packet
}

fn folded(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u64::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Sends datagrams from `address` of the first node to the second node's port.
fn socket_of(node: &Node, address: Ipv4Addr) -> UdpSocket {
    let made = node.run(|| UdpSocket::bind((address, 0)).unwrap());
    made.connect((underlay(2, Underlay::Veth), PORT)).unwrap();
    made
}

const ONE: Ipv4Addr = Ipv4Addr::new(192, 168, 66, 11);

fn foreign_packets(mode: Mode) {
    let Some(lab) = Lab::new([mode, mode]) else {
        return;
    };
    let [one, two] = &lab.sites;
    one.node.sh("ip addr add 192.168.66.99/24 dev eth0");
    let good = inner([10, 9, 1, 1], [10, 9, 2, 1], 0, b"hello", 0);
    let stranger = socket_of(&one.node, Ipv4Addr::new(192, 168, 66, 99));
    let peer = socket_of(&one.node, ONE);
    let target = two
        .node
        .run(|| UdpSocket::bind((pod(2), OUTSIDE_PORT)).unwrap());
    target
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();

    stranger.send(&good).unwrap();
    eventually("counted", || two.dropped(DropReason::UnknownPeer) == 1);
    let foreign = inner([10, 9, 7, 1], [10, 9, 2, 1], 0, b"hello", 0);
    peer.send(&foreign).unwrap();
    eventually("counted", || two.dropped(DropReason::ForeignSource) == 1);
    for (bytes, reason) in [
        (&b""[..], DropReason::Malformed),
        (&good[..27], DropReason::Malformed),
        (b"\xff\xff", DropReason::Unsupported),
    ] {
        let before = two.dropped(reason);
        peer.send(bytes).unwrap();
        eventually("counted", || two.dropped(reason) == before + 1);
    }
    // Padding behind a packet is cut off; any source port is right.
    let padded = [&good[..], &[0; 9]].concat();
    peer.send(&padded).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(target.recv(&mut buffer).unwrap(), 5);
    eventually("counted", || {
        two.counters.received() == (1, good.len() as u64)
    });
}

#[test]
fn foreign_packets_in_mode_offload() {
    foreign_packets(Offload);
}

#[test]
fn foreign_packets_in_mode_plain() {
    foreign_packets(Plain);
}

#[test]
fn garbage_at_full_rate() {
    let Some(lab) = Lab::new([Offload, Offload]) else {
        return;
    };
    let [one, two] = &lab.sites;
    let peer = socket_of(&one.node, ONE);
    let mut state = 1_u32;
    let end = Instant::now() + Duration::from_millis(500);
    let mut garbage = inner([10, 9, 1, 1], [10, 9, 2, 1], 0, &[7; 1300], 0);
    while Instant::now() < end {
        for _ in 0..100 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (at, value) = (state as usize >> 8, state as u8);
            let place = at % 40;
            garbage[place] = value;
            let length = at % (garbage.len() + 1);
            // A full buffer is the receiver's business.
            let _ = peer.send(&garbage[..length]);
        }
    }
    assert_eq!(two.path.ended(), None);
    one.node.sh(&format!("ping -c 3 -i 0.2 -W 5 {}", pod(2)));
    assert!(two.dropped(DropReason::Malformed) > 100);
}

fn unfinished_checksums(mode: Mode) {
    let Some(lab) = Lab::new([mode, mode]) else {
        return;
    };
    let [one, two] = &lab.sites;
    let (from, to) = ([10, 9, 1, 1], [10, 9, 2, 1]);
    let target = two
        .node
        .run(|| UdpSocket::bind((pod(2), OUTSIDE_PORT)).unwrap());
    target
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let peer = socket_of(&one.node, ONE);
    let mut buffer = [0; 2000];
    for payload in [&b"odd"[..], &[5; 1400]] {
        let pseudo = [
            &from[..],
            &to,
            &[0, 17],
            &(8 + payload.len() as u16).to_be_bytes(),
        ]
        .concat();
        let wrong = inner(from, to, 0, payload, 0x1234);
        let unfinished = inner(from, to, 0, payload, folded(&pseudo));
        peer.send(&wrong).unwrap();
        peer.send(&unfinished).unwrap();
        // The wrong one is passed as it is, and the kernel drops it.
        assert_eq!(target.recv(&mut buffer).unwrap(), payload.len());
        assert_eq!(buffer[..payload.len()], *payload);
    }
    let errors = two.node.sh("grep Udp: /proc/net/snmp | tail -1");
    assert_eq!(
        errors.split(' ').nth(7),
        Some("2"),
        "InCsumErrors: {errors}"
    );
}

#[test]
fn unfinished_checksums_in_mode_offload() {
    unfinished_checksums(Offload);
}

#[test]
fn unfinished_checksums_in_mode_plain() {
    unfinished_checksums(Plain);
}

/// All UDP packets that come to `node`, with their IP headers.
fn spy(node: &Node) -> OwnedFd {
    let made = node.run(|| {
        let udp = SockProtocol::Udp;
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), udp).unwrap()
    });
    let patience = nix::sys::time::TimeVal::new(5, 0);
    setsockopt(&made, sockopt::ReceiveTimeout, &patience).unwrap();
    made
}

/// The next packet to a UDP port.
fn seen(spy: &OwnedFd, port: u16) -> Vec<u8> {
    loop {
        let mut buffer = vec![0; 2000];
        let length = recv(spy.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        if buffer[22..24] == port.to_be_bytes() {
            buffer.truncate(length);
            return buffer;
        }
    }
}

#[test]
fn dscp_and_ecn_travel() {
    for mode in [Offload, Plain] {
        let Some(lab) = Lab::new([mode, mode]) else {
            return;
        };
        let [one, two] = &lab.sites;
        let packets = spy(&two.node);
        for tos in [0, 0xb8, 0x02, 0xb9, 0x03] {
            let client = one.node.run(|| UdpSocket::bind((pod(1), 0)).unwrap());
            setsockopt(&client, sockopt::Ipv4Tos, &i32::from(tos)).unwrap();
            client.send_to(b"x", (pod(2), OUTSIDE_PORT)).unwrap();
            let outer = seen(&packets, PORT);
            assert_eq!(outer[1], tos, "outer, {mode}");
            assert_eq!(outer[6] & 0x40, 0x40, "DF");
            assert_eq!(outer[29], tos, "inner on the wire");
            assert_ne!(outer[26..28], [0, 0], "outer UDP checksum");
            assert_eq!(seen(&packets, OUTSIDE_PORT)[1], tos, "inner, {mode}");
        }
        // A mark on the way.
        let peer = socket_of(&one.node, ONE);
        setsockopt(&peer, sockopt::Ipv4Tos, &3).unwrap();
        let capable = inner([10, 9, 1, 1], [10, 9, 2, 1], 0xb8 | 2, b"x", 0);
        peer.send(&capable).unwrap();
        let marked = seen(&packets, OUTSIDE_PORT);
        assert_eq!(marked[1], 0xb8 | 3);
        assert_eq!(folded(&marked[..20]), 0xffff, "header checksum");
        let incapable = inner([10, 9, 1, 1], [10, 9, 2, 1], 0xb8, b"x", 0);
        peer.send(&incapable).unwrap();
        eventually("counted", || {
            two.dropped(DropReason::CongestionUnmarkable) == 1
        });
    }
}

#[test]
fn nobody_has_the_destination() {
    for mode in [Offload, Plain] {
        let Some(lab) = Lab::new([mode, mode]) else {
            return;
        };
        let one = &lab.sites[0];
        for (ping, text) in [
            ("ping -c 1 -W 2 10.9.77.1", "Unreachable"),
            ("ping -c 1 -W 2 fd09:77::1", "unreachable"),
        ] {
            let before = one.dropped(DropReason::NoPeer);
            let output = one.node.try_sh(ping);
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(
                said.to_lowercase().contains(&text.to_lowercase()),
                "{said}{}",
                one.dropped(DropReason::NoPeer) - before
            );
            eventually("counted", || one.dropped(DropReason::NoPeer) == before + 1);
        }
    }
}

/// By flow, so that links and receivers can spread them; and always the same for one flow.
#[test]
fn source_ports_tell_flows_apart() {
    for mode in [Offload, Plain] {
        let Some(lab) = Lab::new([mode, mode]) else {
            return;
        };
        let [one, two] = &lab.sites;
        let packets = spy(&two.node);
        let mut ports = std::collections::BTreeSet::new();
        for flow in 0..32 {
            let client = one
                .node
                .run(|| UdpSocket::bind((pod(1), 5000 + flow)).unwrap());
            let port = || {
                client.send_to(b"x", (pod(2), OUTSIDE_PORT)).unwrap();
                let outer = seen(&packets, PORT);
                u16::from_be_bytes([outer[20], outer[21]])
            };
            let first = port();
            // The worker is the kernel's choice, and may change once it has seen an answer; there is none here.
            assert_eq!(port(), first, "{mode}");
            ports.insert(first);
        }
        assert!(ports.len() >= 6, "{ports:?}");
    }
}
