use proptest::prelude::*;

use super::super::checksum::tests::plain;
use super::super::sample::{Sample, TCP, UDP, data};
use super::*;

fn own() -> Own {
    Own {
        v4: Some("10.244.1.0/24".parse().unwrap()),
        v6: Some("fd00:1::/64".parse().unwrap()),
        mac: None,
    }
}

/// The answer, its checksums and fixed fields looked at; and what it quotes.
#[track_caller]
fn check(answer: &[u8], about: &[u8], kind: [u8; 2], word: u32) -> usize {
    let packet = parse(answer).unwrap();
    let asked = parse(about).unwrap();
    assert_eq!(packet.len, answer.len());
    assert_eq!(packet.destination, asked.source);
    assert_eq!(packet.traffic_class, 0xc0);
    let (icmp, drawn) = if packet.is_v6() {
        assert_eq!(packet.source.to_string(), "fd00:1::");
        assert_eq!((packet.protocol, answer[7]), (58, 64));
        let len = u32::try_from(answer.len() - 40).unwrap().to_be_bytes();
        let pseudo = [&answer[8..40], &len, &[0, 0, 0, 58]].concat();
        (40, [&pseudo, &answer[40..]].concat())
    } else {
        assert_eq!(packet.source.to_string(), "10.244.1.0");
        assert_eq!((packet.protocol, answer[8]), (1, 64));
        assert_eq!(plain(&answer[..20]), 0xffff);
        (20, answer[20..].to_vec())
    };
    assert_eq!(plain(&drawn), 0xffff);
    assert_eq!(answer[icmp..icmp + 2], kind);
    assert_eq!(answer[icmp + 4..icmp + 8], word.to_be_bytes());
    let quoted = &answer[icmp + 8..];
    assert_eq!(*quoted, about[..quoted.len()]);
    quoted.len()
}

#[test]
fn tells_the_sender_why() {
    let mut out = [0; LONGEST];
    for (v6, kinds) in [
        (false, [[3, 0], [3, 1], [3, 4]]),
        (true, [[1, 0], [1, 3], [2, 0]]),
    ] {
        let bytes = Sample {
            v6,
            payload: data(100, 0),
            ..UDP
        }
        .bytes();
        let len = unreachable(&bytes, &own(), &mut out).unwrap();
        assert_eq!(check(&out[..len], &bytes, kinds[0], 0), bytes.len());
        let len = host_unreachable(&bytes, &own(), &mut out).unwrap();
        assert_eq!(check(&out[..len], &bytes, kinds[1], 0), bytes.len());
        let len = too_big(&bytes, &own(), 1372, &mut out).unwrap();
        assert_eq!(check(&out[..len], &bytes, kinds[2], 1372), bytes.len());
    }
    // IPv4 has 16 bits for it.
    let bytes = UDP.bytes();
    let len = too_big(&bytes, &own(), 70000, &mut out).unwrap();
    check(&out[..len], &bytes, [3, 4], 65535);
}

#[test]
fn quotes_as_much_as_is_allowed() {
    let mut out = [0; 3000];
    for (v6, most) in [(false, 576), (true, 1280)] {
        // A whole train as the TUN device gives it; and padding.
        let mut bytes = Sample {
            v6,
            payload: data(60000, 0),
            ..TCP
        }
        .unfinished();
        assert_eq!(unreachable(&bytes, &own(), &mut out), Some(most));
        assert!(out[most..].iter().all(|byte| *byte == 0));
        let short = Sample {
            v6,
            payload: data(3, 0),
            ..TCP
        }
        .bytes();
        bytes = short.clone();
        bytes.extend([0xaa; 40]);
        let len = unreachable(&bytes, &own(), &mut out).unwrap();
        let kind = if v6 { [1, 0] } else { [3, 0] };
        assert_eq!(check(&out[..len], &bytes, kind, 0), short.len());
        out.fill(0);
    }
}

#[test]
fn a_small_buffer_shortens_the_quote_to_eight_bytes_behind_the_header() {
    let bytes = Sample {
        payload: data(100, 0),
        ..UDP
    }
    .bytes();
    for room in 0..28 + 28 {
        assert_eq!(unreachable(&bytes, &own(), &mut vec![0; room]), None);
    }
    let mut out = [0; 60];
    assert_eq!(unreachable(&bytes, &own(), &mut out), Some(60));
    assert_eq!(check(&out, &bytes, [3, 0], 0), 32);
}

#[test]
fn without_an_address_of_the_family_there_is_no_answer() {
    let own = own();
    let (v4, v6) = (UDP.bytes(), Sample { v6: true, ..UDP }.bytes());
    let mut out = [0; LONGEST];
    assert_eq!(unreachable(&v4, &Own { v4: None, ..own }, &mut out), None);
    assert_eq!(unreachable(&v6, &Own { v6: None, ..own }, &mut out), None);
}

/// Whether there is an answer about `bytes`.
fn answered(bytes: &[u8]) -> bool {
    let mut out = [0; LONGEST];
    let answers = [
        unreachable(bytes, &own(), &mut out),
        host_unreachable(bytes, &own(), &mut out),
        too_big(bytes, &own(), 1300, &mut out),
    ];
    assert!(
        answers
            .iter()
            .all(|answer| answer.is_some() == answers[0].is_some())
    );
    answers[0].is_some()
}

#[test]
fn never_about_errors() {
    let icmp = |v6: bool, kind: u8| {
        let mut bytes = Sample { v6, ..UDP }.bytes();
        let (protocol, transport) = if v6 { (6, 40) } else { (9, 20) };
        bytes[protocol] = if v6 { 58 } else { 1 };
        bytes[transport] = kind;
        answered(&bytes)
    };
    for kind in 0..=255 {
        assert_eq!(
            icmp(false, kind),
            ![3, 4, 5, 11, 12].contains(&kind),
            "ICMP {kind}"
        );
        assert_eq!(
            icmp(true, kind),
            kind >= 128 && kind != 137,
            "ICMPv6 {kind}"
        );
    }
    // The type is missing, or hidden behind what we cannot follow.
    let mut bytes = UDP.bytes()[..20].to_vec();
    (bytes[3], bytes[9]) = (20, 1);
    assert!(!answered(&bytes));
    let mut bytes = Sample { v6: true, ..UDP }.bytes();
    bytes[6] = 60; // a destination header of UDP's first bytes, far too long
    assert!(!answered(&bytes));
}

#[test]
fn never_about_later_fragments() {
    let mut bytes = Sample {
        dont_fragment: false,
        payload: data(40, 0),
        ..UDP
    }
    .bytes();
    bytes[6..8].copy_from_slice(&[0x20, 0]);
    assert!(answered(&bytes));
    bytes[6..8].copy_from_slice(&[0x20, 1]);
    assert!(!answered(&bytes));
    let mut bytes = Sample {
        v6: true,
        between: vec![0, 0, 0, 1, 0, 0, 0, 0],
        ..UDP
    }
    .bytes();
    bytes[6] = 44;
    assert!(answered(&bytes));
    bytes[42..44].copy_from_slice(&[0, 9]);
    assert!(!answered(&bytes));
}

#[test]
fn only_from_one_host_to_one_host() {
    let with = |from: bool, ip: &str| {
        let ip: IpAddr = ip.parse().unwrap();
        let mut bytes = Sample {
            v6: ip.is_ipv6(),
            ..UDP
        }
        .bytes();
        match (ip, from) {
            (IpAddr::V4(ip), true) => bytes[12..16].copy_from_slice(&ip.octets()),
            (IpAddr::V4(ip), false) => bytes[16..20].copy_from_slice(&ip.octets()),
            (IpAddr::V6(ip), true) => bytes[8..24].copy_from_slice(&ip.octets()),
            (IpAddr::V6(ip), false) => bytes[24..40].copy_from_slice(&ip.octets()),
        }
        answered(&bytes)
    };
    for ip in [
        "0.0.0.0",
        "127.0.0.1",
        "169.254.3.4",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
    ] {
        assert!(!with(true, ip), "from {ip}");
        assert!(!with(false, ip), "to {ip}");
    }
    for ip in [
        "10.244.7.7",
        "192.0.2.1",
        "223.255.255.1",
        "fd00:7::7",
        "2001:db8::1",
    ] {
        assert!(with(true, ip) && with(false, ip), "{ip}");
    }
}

proptest! {
    /// No bytes make it panic, and an answer is never answered.
    #[test]
    fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), v6: bool, honest: bool, room in 0usize..1400) {
        if honest && bytes.len() >= 40 {
            let len = u16::try_from(bytes.len()).unwrap();
            if v6 {
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                bytes[6] = [6, 17, 44, 58, 60][usize::from(bytes[6] % 5)];
            } else {
                bytes[0] = 0x45 + bytes[0] % 4;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
            }
        }
        let mut out = vec![0; room];
        for len in [unreachable(&bytes, &own(), &mut out), too_big(&bytes, &own(), 1400, &mut out)].into_iter().flatten() {
            prop_assert!(parse(&out[..len]).is_ok());
            prop_assert!(!answered(&out[..len]));
        }
    }
}
