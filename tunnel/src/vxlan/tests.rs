use ipnet::{Ipv4Net, Ipv6Net};
use proptest::{collection::vec, prelude::*};

use super::*;

const OURS: Mac = Mac([0x0a, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([0x0a, 0, 0, 0, 0, 2]);
const BROADCAST: Mac = Mac([0xff; 6]);
const VNI: u32 = 0x01_0203;

fn own() -> Own {
    Own {
        v4: Some("10.5.1.0/24".parse::<Ipv4Net>().unwrap()),
        v6: Some("fd00:5:1::/64".parse::<Ipv6Net>().unwrap()),
        mac: Some(OURS),
    }
}

/// `aa bb-cc` → bytes.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks_exact(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn framed(to: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut headroom = [0; HEADER];
    encode_for(&mut headroom, VNI, PEER, to, ethertype);
    [&headroom, payload].concat()
}

fn answer(datagram: &[u8]) -> Vec<u8> {
    let Ok(Inner::Question(question)) = decode(datagram, VNI, &own()) else {
        panic!("no question: {:?}", decode(datagram, VNI, &own()));
    };
    let mut out = [0xee; ANSWER];
    let length = question.answer(&mut out);
    out[..length].to_vec()
}

/// RFC 7348, section 5: flags (I set), 24 reserved bits, VNI, 8 reserved bits; then Ethernet.
#[test]
fn header_as_the_rfc_draws_it() {
    let mut headroom = [0xee; HEADER];
    encode(&mut headroom, VNI, OURS, PEER, false);
    let golden = "08 000000 010203 00  0a0000000002 0a0000000001 0800";
    assert_eq!(headroom[..], hex(golden));
    encode(&mut headroom, 1, OURS, PEER, true);
    let golden = "08 000000 000001 00  0a0000000002 0a0000000001 86dd";
    assert_eq!(headroom[..], hex(golden));
    assert_eq!(HEADER, crate::Wire::Vxlan { vni: 1 }.overhead());
}

#[test]
fn reserved_bits_and_group_policies_are_ignored() {
    let mut datagram = framed(OURS, IPV4, &[0x45, 1, 2]);
    let golden = Ok(Inner::Packet(&[0x45, 1, 2][..]));
    assert_eq!(decode(&datagram, VNI, &own()), golden);
    // All reserved bits; G flag, don't-learn and applied bits, group 0x1234 (draft-smith-vxlan-group-policy).
    for header in ["ffffffff 010203 ff", "88481234 010203 00"] {
        datagram[..8].copy_from_slice(&hex(header));
        assert_eq!(decode(&datagram, VNI, &own()), golden);
    }
}

#[test]
fn what_is_not_for_us_is_named() {
    use DropReason::{Malformed, NotForUs, Unsupported};
    let v4 = [0x45, 0];
    let no_vni = {
        let mut datagram = framed(OURS, IPV4, &v4);
        datagram[0] = 0xf7;
        datagram
    };
    let other_vni = {
        let mut datagram = framed(OURS, IPV4, &v4);
        datagram[6] += 1;
        datagram
    };
    let multicast = Mac([0x01, 0, 0x5e, 0, 0, 1]);
    let cases = [
        (no_vni, Malformed),
        (other_vni, NotForUs),
        (framed(Mac([0x0a, 0, 0, 0, 0, 3]), IPV4, &v4), NotForUs),
        (framed(BROADCAST, IPV4, &v4), Unsupported),
        (framed(multicast, IPV4, &v4), Unsupported),
        (
            framed(Mac([0x33, 0x33, 0, 0, 0, 1]), IPV6, &[0x60, 0]),
            Unsupported,
        ),
        // A VLAN tag (RFC 7348, section 6.1), and one of a provider; LLDP.
        (framed(OURS, 0x8100, &hex("0001 0800 45")), Unsupported),
        (framed(OURS, 0x88a8, &hex("0001 0800 45")), Unsupported),
        (framed(OURS, 0x88cc, &v4), Unsupported),
        (framed(OURS, IPV6, &v4), Malformed),
        (framed(OURS, IPV4, &[0x60]), Malformed),
        (framed(OURS, IPV4, &[]), Malformed),
        (framed(OURS, IPV4, &v4)[..HEADER - 1].to_vec(), Malformed),
        (hex("08000000 010203"), Malformed),
        (framed(BROADCAST, ARP, &[0; 27]), Malformed),
    ];
    for (datagram, reason) in cases {
        assert_eq!(decode(&datagram, VNI, &own()), Err(reason), "{datagram:x?}");
    }
    let nobody = Own::default();
    assert_eq!(
        decode(&framed(OURS, IPV4, &v4), VNI, &nobody),
        Err(NotForUs)
    );
}

/// RFC 826: hardware type, protocol type, lengths, operation, sender's and target's addresses.
const ARP_REQUEST: &str = "0001 0800 06 04 0001  0a0000000002 0a050200  000000000000 0a050100";

#[test]
fn arp_request_is_answered() {
    let reply = "08000000 010203 00  0a0000000002 0a0000000001 0806
        0001 0800 06 04 0002  0a0000000001 0a050100  0a0000000002 0a050200";
    for to in [BROADCAST, OURS] {
        let request = framed(to, ARP, &hex(ARP_REQUEST));
        assert_eq!(answer(&request), hex(reply));
        // Ethernet pads a frame to 60 bytes.
        assert_eq!(answer(&[request, vec![0; 18]].concat()), hex(reply));
    }
}

#[test]
fn other_arp_is_ignored() {
    let changed = |at: usize, bytes: &str| {
        let mut packet = hex(ARP_REQUEST);
        let bytes = hex(bytes);
        packet[at..at + bytes.len()].copy_from_slice(&bytes);
        framed(BROADCAST, ARP, &packet)
    };
    let cases = [
        ("another address", changed(24, "0a050101")),
        ("a reply", changed(7, "02")),
        ("an announcement", changed(14, "0a050100")),
        ("hardware type", changed(0, "0006")),
        ("protocol type", changed(2, "86dd")),
        ("lengths", changed(4, "08")),
        ("asked by a group", changed(8, "01")),
    ];
    for (name, datagram) in cases {
        assert_eq!(
            decode(&datagram, VNI, &own()),
            Err(DropReason::Unsupported),
            "{name}"
        );
    }
}

/// RFC 4861, section 4.3: to the solicited-node address ff02::1:ff00:0, with our source link-layer
/// option. The checksum was computed by hand, see below.
const SOLICITATION: &str = "60000000 0020 3a ff
    fd000005000200000000000000000000 ff0200000000000000000001ff000000
    87 00 758e 00000000 fd000005000100000000000000000000
    01 01 0a0000000002";

/// fd00+5+2 + ff02+1+ff00 + 20+3a + 8700 + fd00+5+1 + 0101+0a00+2, carried round and inverted.
#[test]
fn solicitation_sum() {
    let words = [
        0xfd00, 5, 2, 0xff02, 1, 0xff00, 0x20, 0x3a, 0x8700, 0xfd00, 5, 1, 0x0101, 0x0a00, 2,
    ];
    let sum: u32 = words.iter().sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    assert_eq!(
        format!("{:04x}", 0xffff - folded),
        SOLICITATION.split_whitespace().nth(8).unwrap()
    );
}

const SOLICITED_NODE: Mac = Mac([0x33, 0x33, 0xff, 0, 0, 0]);

#[test]
fn solicitation_is_answered() {
    // Section 4.4: router, solicited, override; target link-layer option.
    let sum: u32 = [
        0xfd00, 5, 1, 0xfd00, 5, 2, 0x20, 0x3a, 0x8800, 0xe000, 0xfd00, 5, 1, 0x0201, 0x0a00, 1,
    ]
    .iter()
    .sum();
    let sum = 0xffff - ((sum & 0xffff) + (sum >> 16));
    let advertisement = format!(
        "08000000 010203 00  0a0000000002 0a0000000001 86dd
        60000000 0020 3a ff
        fd000005000100000000000000000000 fd000005000200000000000000000000
        88 00 {sum:04x} e0000000 fd000005000100000000000000000000
        02 01 0a0000000001"
    );
    for to in [SOLICITED_NODE, OURS] {
        let request = framed(to, IPV6, &hex(SOLICITATION));
        assert_eq!(answer(&request), hex(&advertisement));
    }
}

/// A solicitation with other `bytes` at each place, its checksum made right again.
fn solicitation<const N: usize>(changes: [(usize, &str); N]) -> Vec<u8> {
    let mut packet = hex(SOLICITATION);
    for (at, bytes) in changes {
        let bytes = hex(bytes);
        packet[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    packet[42..44].fill(0);
    let words = packet[8..].chunks(2);
    let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    // Length and protocol of the pseudo-header.
    sum += u32::from(packet[4]) << 8 | u32::from(packet[5]);
    sum += 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[42..44].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

#[test]
fn one_without_an_address_is_told_through_all_nodes() {
    // Duplicate address detection: unspecified source, and a nonce (type 14) for an option.
    let packet = solicitation([(8, "00000000000000000000000000000000"), (64, "0e")]);
    let answer = answer(&framed(SOLICITED_NODE, IPV6, &packet));
    assert_eq!(answer[8..14], ALL);
    let all_nodes = hex("ff020000000000000000000000000001");
    assert_eq!(answer[HEADER + 24..HEADER + 40], all_nodes);
    assert_eq!(answer[HEADER + 44], 0xa0, "not solicited");
}

const ALL: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

#[test]
fn other_discovery_is_ignored() {
    use DropReason::{Malformed, Unsupported};
    let cases = [
        (
            "another address",
            solicitation([(48 + 15, "01")]),
            Unsupported,
        ),
        ("advertisement", solicitation([(40, "88")]), Unsupported),
        (
            "router advertisement",
            solicitation([(40, "86")]),
            Unsupported,
        ),
        ("redirect", solicitation([(40, "89")]), Unsupported),
        ("asked by a group", solicitation([(66, "01")]), Unsupported),
        ("code", solicitation([(41, "01")]), Malformed),
        ("multicast target", solicitation([(48, "ff02")]), Malformed),
        ("option of no length", solicitation([(65, "00")]), Malformed),
        ("option too long", solicitation([(65, "02")]), Malformed),
        ("length", solicitation([(4, "0017")]), Malformed),
        ("longer than it is", solicitation([(4, "0021")]), Malformed),
    ];
    for (name, packet, reason) in cases {
        let datagram = framed(OURS, IPV6, &packet);
        assert_eq!(decode(&datagram, VNI, &own()), Err(reason), "{name}");
    }
    let mut wrong = hex(SOLICITATION);
    wrong[42] ^= 1;
    let datagram = framed(OURS, IPV6, &wrong);
    assert_eq!(decode(&datagram, VNI, &own()), Err(Malformed));
    // It crossed a router, so it is a packet like any other.
    let routed = solicitation([(7, "fe")]);
    let datagram = framed(OURS, IPV6, &routed);
    assert_eq!(decode(&datagram, VNI, &own()), Ok(Inner::Packet(&routed)));
}

proptest! {
    #[test]
    fn decode_gives_back_what_was_encoded(
        vni in 0..1_u32 << 24, from: [u8; 6], v6: bool, rest in vec(any::<u8>(), 0..2000),
    ) {
        // Not all bytes of an ICMPv6 header: neighbour discovery is not for the host.
        let mut packet = vec![if v6 { 0x60 } else { 0x45 }; 8];
        packet[6] = 17;
        packet.extend(rest);
        let mut datagram = vec![0; HEADER];
        encode(datagram.first_chunk_mut().unwrap(), vni, Mac(from), OURS, v6);
        datagram.extend(&packet);
        prop_assert_eq!(decode(&datagram, vni, &own()), Ok(Inner::Packet(&packet)));
        prop_assert_eq!(decode(&datagram, vni ^ 1, &own()), Err(DropReason::NotForUs));
    }

    /// Whatever arrives, what is handed on is a part of it, and every question has an answer.
    #[test]
    fn garbage_is_survived(bytes in vec(any::<u8>(), 0..200)) {
        check(&bytes)?;
    }

    /// The same, behind a good header and near the messages that are understood.
    #[test]
    fn near_misses_are_survived(
        kind in 0..4_usize, to in 0..3_usize, cut in 0..80_usize, flips in vec((0..72_usize, any::<u8>()), 0..4),
    ) {
        let (ethertype, payload) = [
            (ARP, hex(ARP_REQUEST)), (IPV6, hex(SOLICITATION)), (IPV4, vec![0x45; 40]), (IPV6, vec![0x60; 60]),
        ][kind].clone();
        let mut datagram = framed([OURS, BROADCAST, SOLICITED_NODE][to], ethertype, &payload);
        for (at, value) in flips {
            if let Some(byte) = datagram.get_mut(HEADER + at) {
                *byte = value;
            }
        }
        datagram.truncate(datagram.len().saturating_sub(cut.saturating_sub(60)));
        check(&datagram)?;
    }
}

fn check(datagram: &[u8]) -> Result<(), TestCaseError> {
    match decode(datagram, VNI, &own()) {
        Ok(Inner::Packet(packet)) => {
            prop_assert_eq!(packet, &datagram[HEADER..]);
            prop_assert!(matches!(packet[0] >> 4, 4 | 6));
        }
        Ok(Inner::Question(question)) => {
            let mut out = [0; ANSWER];
            let length = question.answer(&mut out);
            prop_assert!(length > HEADER);
            // To one station or to all nodes, from us.
            prop_assert_eq!(&out[14..20], &OURS.0);
            prop_assert!(!is_group(Mac(out[8..14].try_into().unwrap())) || out[8..14] == ALL);
        }
        Err(reason) => prop_assert!(matches!(
            reason,
            DropReason::Malformed | DropReason::NotForUs | DropReason::Unsupported
        )),
    }
    Ok(())
}
