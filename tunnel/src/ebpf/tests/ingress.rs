//! The ingress program: what it takes, drops, leaves alone and learns.

use super::*;

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
