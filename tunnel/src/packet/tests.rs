use proptest::prelude::*;

use super::checksum::tests::plain;
use super::*;

/// An IPv4 packet with a right header checksum.
fn v4(protocol: u8, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let len = u16::try_from(header_len + payload.len()).unwrap();
    let mut bytes = vec![0x40 | u8::try_from(header_len / 4).unwrap(), 0xb9];
    bytes.extend(len.to_be_bytes());
    bytes.extend([0x12, 0x34]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0, 10, 1, 1, 2, 10, 1, 2, 3]);
    bytes.extend(options);
    let field = !plain(&bytes);
    bytes[10..12].copy_from_slice(&field.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x6b, 0x91, 0x23, 0x45];
    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend((1..33).collect::<Vec<u8>>());
    bytes.extend(payload);
    bytes
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    [&[0x30, 0x39, 0, 53], len.as_slice(), &[0, 0], payload].concat()
}

#[test]
fn reads_ipv4() {
    let mut bytes = v4(17, 0x4000, &[1; 8], &udp(b"hello"));
    bytes.extend([0; 9]); // padding
    let packet = parse(&bytes).unwrap();
    assert_eq!(packet.len, 28 + 13);
    assert_eq!((packet.transport_at, packet.transport_len()), (28, 13));
    assert_eq!(packet.protocol, protocol::UDP);
    assert_eq!(packet.source.to_string(), "10.1.1.2");
    assert_eq!(packet.destination.to_string(), "10.1.2.3");
    assert_eq!(packet.traffic_class, 0xb9);
    assert!(packet.dont_fragment && packet.has_transport && !packet.is_fragment);
    assert!(!packet.is_v6() && !packet.stays_on_link());
}

#[test]
fn reads_ipv6() {
    let packet = parse(&v6(17, &udp(b"hello"))).unwrap();
    assert_eq!(packet.len, 53);
    assert_eq!((packet.transport_at, packet.protocol), (40, protocol::UDP));
    let address = "102:304:506:708:90a:b0c:d0e:f10";
    assert_eq!(packet.source.to_string(), address);
    assert_eq!(packet.traffic_class, 0xb9);
    assert!(packet.is_v6() && packet.dont_fragment && packet.has_transport);
}

#[test]
fn lengths_that_lie_are_malformed() {
    let whole = v4(17, 0, &[], &udp(b"hello"));
    for len in 0..whole.len() {
        assert_eq!(parse(&whole[..len]), Err(DropReason::Malformed), "{len}");
    }
    let mut short_header = whole.clone();
    short_header[0] = 0x44;
    assert_eq!(parse(&short_header), Err(DropReason::Malformed));
    let mut header_beyond_total = whole.clone();
    header_beyond_total[0] = 0x4f;
    assert_eq!(parse(&header_beyond_total), Err(DropReason::Malformed));
    let whole = v6(17, &udp(b"hello"));
    for len in 0..whole.len() {
        assert_eq!(parse(&whole[..len]), Err(DropReason::Malformed), "{len}");
    }
}

#[test]
fn other_versions_are_unsupported() {
    for version in (0..16).filter(|version| ![4, 6].contains(version)) {
        assert_eq!(parse(&[version << 4; 60]), Err(DropReason::Unsupported));
    }
    let jumbogram = v6(0, &[]);
    assert_eq!(parse(&jumbogram), Err(DropReason::Unsupported));
}

#[test]
fn fragments_are_known() {
    let parse = |fragment| parse(&v4(17, fragment, &[], &udp(b"hello"))).unwrap();
    let (first, later, last) = (parse(0x2000), parse(0x2001), parse(0x0010));
    assert!(first.is_fragment && !first.is_later_fragment && !first.has_transport);
    assert!(later.is_fragment && later.is_later_fragment && !later.has_transport);
    assert!(last.is_fragment && last.is_later_fragment && !last.has_transport);
}

#[test]
fn walks_extension_headers() {
    let hop_by_hop = [60, 0, 1, 4, 0, 0, 0, 0];
    let destination = [43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let routing = |left| [51, 2, 4, left].into_iter().chain([0; 20]);
    let authentication = [17, 4].into_iter().chain([0; 22]);
    let chain = |left| {
        let chain = hop_by_hop.into_iter().chain(destination);
        let chain = chain.chain(routing(left)).chain(authentication.clone());
        v6(0, &chain.chain(udp(b"hello")).collect::<Vec<u8>>())
    };
    let arrived = parse(&chain(0)).unwrap();
    assert_eq!(arrived.transport_at, 40 + 8 + 16 + 24 + 24);
    assert_eq!(arrived.protocol, protocol::UDP);
    assert!(arrived.has_transport && !arrived.is_fragment);
    let on_its_way = parse(&chain(1)).unwrap();
    assert_eq!(on_its_way.transport_at, arrived.transport_at);
    assert!(!on_its_way.has_transport);

    let fragment = |offset: u16| {
        let [high, low] = (offset << 3 | 1).to_be_bytes();
        let header = [17, 0, high, low, 1, 2, 3, 4];
        parse(&v6(44, &[header.as_slice(), &udp(b"x")].concat())).unwrap()
    };
    let (first, later) = (fragment(0), fragment(185));
    assert_eq!((first.transport_at, first.protocol), (48, protocol::UDP));
    assert!(first.is_fragment && !first.is_later_fragment && !first.has_transport);
    assert!(later.is_fragment && later.is_later_fragment && !later.has_transport);
}

#[test]
fn chains_that_do_not_end_are_carried_without_a_transport() {
    let endless = v6(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(100));
    assert!(!parse(&endless).unwrap().has_transport);
    let beyond = v6(60, &[17, 9, 1, 4, 0, 0, 0, 0]);
    let packet = parse(&beyond).unwrap();
    assert!(!packet.has_transport);
    assert_eq!((packet.protocol, packet.transport_at), (60, 40));
    let eight = [60, 0, 1, 4, 0, 0, 0, 0].repeat(7);
    let eight = [eight.as_slice(), &[17, 0, 1, 4, 0, 0, 0, 0], &udp(b"x")].concat();
    assert!(parse(&v6(60, &eight)).unwrap().has_transport);
}

#[test]
fn knows_what_stays_on_the_link() {
    let to = |ip: &str| {
        let mut bytes = match ip.contains(':') {
            true => v6(17, &[]),
            false => v4(17, 0, &[], &[]),
        };
        match ip.parse().unwrap() {
            IpAddr::V4(ip) => bytes[16..20].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes[24..40].copy_from_slice(&ip.octets()),
        }
        parse(&bytes).unwrap().stays_on_link()
    };
    for ip in [
        "224.0.0.1",
        "255.255.255.255",
        "169.254.1.1",
        "127.0.0.1",
        "0.0.0.0",
        "ff02::2",
        "fe80::1",
        "::1",
        "::",
    ] {
        assert!(to(ip), "{ip}");
    }
    for ip in ["10.1.2.255", "8.8.8.8", "fd00::1", "2001:db8::1"] {
        assert!(!to(ip), "{ip}");
    }
}

/// The pseudo header drawn out, then the transport: for the plain sum.
fn drawn(packet: &Packet, bytes: &[u8]) -> Vec<u8> {
    let addresses = match packet.is_v6() {
        true => &bytes[8..40],
        false => &bytes[12..20],
    };
    let len = u32::try_from(packet.transport_len()).unwrap().to_be_bytes();
    let rest = &bytes[packet.transport_at..packet.len];
    [addresses, &len, &[0, 0, 0, packet.protocol], rest].concat()
}

fn tcp(payload: &[u8]) -> Vec<u8> {
    let header = [0, 80, 4, 4, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 0x40, 0];
    [header.as_slice(), &[0, 0, 0, 0], payload].concat()
}

/// Both families, both protocols.
fn all(payload: &[u8]) -> [(Vec<u8>, usize); 4] {
    [
        (v4(6, 0x4000, &[], &tcp(payload)), 20 + 16),
        (v4(17, 0, &[1, 1, 1, 0], &udp(payload)), 24 + 6),
        (v6(6, &tcp(payload)), 40 + 16),
        (v6(17, &udp(payload)), 40 + 6),
    ]
}

#[test]
fn unfinished_checksums_are_recognised_and_finished() {
    for payload in [&[][..], b"x", b"hello world"] {
        for (mut bytes, field) in all(payload) {
            let packet = parse(&bytes).unwrap();
            let pseudo = plain(
                &drawn(&packet, &bytes)[..drawn(&packet, &bytes).len() - packet.transport_len()],
            );
            bytes[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
            assert_eq!(checksum_state(&packet, &bytes), Checksum::Unfinished);
            bytes.extend([0xaa; 3]); // padding is not summed
            finish_checksum(&packet, &mut bytes);
            assert_eq!(checksum_state(&packet, &bytes), Checksum::Valid);
            assert_eq!(plain(&drawn(&packet, &bytes)), 0xffff);
            assert_ne!(bytes[field..field + 2], [0, 0]);
        }
    }
}

#[test]
fn no_checksum_where_there_is_none() {
    let state = |bytes: &[u8]| checksum_state(&parse(bytes).unwrap(), bytes);
    assert_eq!(state(&v4(17, 0, &[], &udp(b"zero"))), Checksum::None);
    assert_eq!(state(&v6(17, &udp(b"zero"))), Checksum::None);
    assert_eq!(state(&v4(1, 0, &[], &[8, 0, 0, 0])), Checksum::None);
    assert_eq!(state(&v4(17, 0x2000, &[], &[1; 16])), Checksum::None);
    assert_eq!(
        state(&v6(44, &[17, 0, 0, 1, 0, 0, 0, 0, 1, 1])),
        Checksum::None
    );
}

#[test]
fn transport_headers_that_lie_are_wrong() {
    let state = |bytes: &[u8]| checksum_state(&parse(bytes).unwrap(), bytes);
    assert_eq!(state(&v4(6, 0, &[], &tcp(b"")[..19])), Checksum::Wrong);
    assert_eq!(state(&v4(17, 0, &[], &udp(b"")[..7])), Checksum::Wrong);
    for len in [0, 7, 14] {
        let mut datagram = udp(b"hello");
        datagram[5..7].copy_from_slice(&[len, 1]);
        assert_eq!(state(&v6(17, &datagram)), Checksum::Wrong, "{len}");
    }
}

#[test]
fn a_udp_checksum_covers_the_udp_length_only() {
    let mut bytes = v4(17, 0, &[], &udp(b"hello"));
    let packet = parse(&bytes).unwrap();
    bytes[26] = 1; // anything but zero
    finish_checksum(&packet, &mut bytes);
    let surplus = [&bytes[20..], &[1, 2, 3]].concat(); // UDP options, RFC 9868
    let longer = v4(17, 0, &[], &surplus);
    let packet = parse(&longer).unwrap();
    assert_eq!(checksum_state(&packet, &longer), Checksum::Valid);
    let mut copy = vec![0; longer.len()];
    assert_eq!(copy_and_judge(&packet, &longer, &mut copy), Checksum::Valid);
    assert_eq!(copy, longer);
}

proptest! {
    /// Right is right, a changed bit is wrong (or, by chance of the value, unfinished), in one pass or two.
    #[test]
    fn states_agree_with_the_plain_sum(
        payload in proptest::collection::vec(any::<u8>(), 0..1500),
        kind in 0usize..4, at: prop::sample::Index, bit in 0u8..8,
    ) {
        let (mut bytes, field) = all(&payload)[kind].clone();
        bytes[field] = 1;
        let packet = parse(&bytes).unwrap();
        finish_checksum(&packet, &mut bytes);
        prop_assert_eq!(plain(&drawn(&packet, &bytes)), 0xffff);
        let unfinished = plain(&drawn(&packet, &bytes)[..if packet.is_v6() { 40 } else { 16 }]);
        let expected = match bytes[field..field + 2] == unfinished.to_be_bytes() {
            true => Checksum::Unfinished, // by chance of the value
            false => Checksum::Valid,
        };
        prop_assert_eq!(checksum_state(&packet, &bytes), expected);
        let transport = packet.transport_at;
        let at = transport + at.index(bytes.len() - transport);
        bytes[at] ^= 1 << bit;
        prop_assert_ne!(checksum_state(&packet, &bytes), Checksum::Valid);
        let mut copy = vec![0; bytes.len()];
        prop_assert_eq!(copy_and_judge(&packet, &bytes, &mut copy), checksum_state(&packet, &bytes));
        prop_assert_eq!(copy, bytes);
    }

    /// Nothing panics, and what is found lies inside.
    #[test]
    fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in prop_oneof![Just(4u8), Just(6), 0u8..16], honest: bool) {
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | *first & 15;
        }
        if honest && bytes.len() >= 40 {
            let len = u16::try_from(bytes.len()).unwrap();
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            if version == 6 {
                bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                bytes[6] = [0, 6, 17, 43, 44, 51, 58, 60][usize::from(bytes[6] % 8)];
            }
        }
        if let Ok(packet) = parse(&bytes) {
            prop_assert!(packet.transport_at <= packet.len && packet.len <= bytes.len());
            let mut copy = vec![0; packet.len];
            let state = checksum_state(&packet, &bytes);
            prop_assert_eq!(copy_and_judge(&packet, &bytes, &mut copy), state);
            finish_checksum(&packet, &mut bytes);
        }
    }
}
