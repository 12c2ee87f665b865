use super::*;
use crate::packet::checksum::tests::plain;
use crate::packet::sample::{Sample, TCP, UDP, data};

mod properties;

fn gso(gso_type: u8, gso_size: usize) -> VnetHeader {
    VnetHeader {
        flags: vnet::NEEDS_CSUM,
        gso_type,
        hdr_len: 0, // never looked at
        gso_size: u16::try_from(gso_size).unwrap(),
        csum_start: 0,
        csum_offset: 0,
    }
}

fn type_of(sample: &Sample) -> u8 {
    match (sample.udp, sample.v6) {
        (true, _) => vnet::GSO_UDP_L4,
        (false, false) => vnet::GSO_TCPV4,
        (false, true) => vnet::GSO_TCPV6,
    }
}

/// All segments, and that what is said about them beforehand is true.
fn collect(mut segments: Segments<'_>) -> Vec<Vec<u8>> {
    let (count, full, total) = (segments.count(), segments.full_len(), segments.total_len());
    let mut out = vec![0xee; full];
    let mut all = Vec::new();
    while let Some(next) = segments.next_len() {
        assert_eq!(segments.remaining(), count - all.len());
        assert_eq!(segments.next_into(&mut out[..next - 1]), None);
        assert_eq!(segments.next_into(&mut out), Some(next));
        all.push(out[..next].to_vec());
    }
    assert_eq!(segments.next_into(&mut out), None);
    assert_eq!((all.len(), segments.remaining()), (count, 0));
    assert_eq!(all.concat().len(), total);
    let (last, others) = all.split_last().unwrap();
    assert!(others.iter().all(|segment| segment.len() == full) && last.len() <= full);
    all
}

fn cut(sample: &Sample, gso_type: u8, size: usize) -> Vec<Sample> {
    let bytes = sample.unfinished();
    let segments = collect(Segments::new(&gso(gso_type, size), &bytes).unwrap());
    for segment in &segments {
        // The checksums, rendered by the plain way.
        assert_eq!(*segment, Sample::read(segment).bytes());
    }
    segments
        .iter()
        .map(|segment| Sample::read(segment))
        .collect()
}

#[test]
fn flags_sequence_and_identification_of_a_train() {
    let train = Sample {
        flags: tcp::ACK | tcp::PSH | tcp::FIN | tcp::CWR | tcp::ECE,
        seq: u32::MAX - 1000,
        id: u16::MAX,
        payload: data(2500, 0),
        ..TCP
    };
    // With the ECN type or without it.
    for gso_type in [vnet::GSO_TCPV4, vnet::GSO_TCPV4 | vnet::GSO_ECN] {
        let [first, second, third] = &cut(&train, gso_type, 1000)[..] else {
            panic!("three segments expected");
        };
        assert_eq!(first.flags, tcp::ACK | tcp::CWR | tcp::ECE);
        assert_eq!(second.flags, tcp::ACK | tcp::ECE);
        assert_eq!(third.flags, tcp::ACK | tcp::ECE | tcp::PSH | tcp::FIN);
        assert_eq!(
            [first.seq, second.seq, third.seq],
            [u32::MAX - 1000, u32::MAX, 999]
        );
        assert_eq!([first.id, second.id, third.id], [u16::MAX, 0, 1]);
        assert_eq!(third.payload, data(500, 2000));
    }
}

#[test]
fn one_segment_keeps_all_flags() {
    for flags in 0..=0xff {
        let payload = data(700, 0);
        let single = Sample {
            flags,
            payload,
            ..TCP
        };
        for size in [700, 701, 65535] {
            assert_eq!(
                cut(&single, vnet::GSO_TCPV4, size),
                std::slice::from_ref(&single)
            );
        }
    }
}

#[test]
fn urgent_data_stays_where_it_is() {
    let train = Sample {
        flags: tcp::ACK | tcp::URG,
        urgent: 150,
        payload: data(300, 0),
        ..TCP
    };
    let pieces = cut(&train, vnet::GSO_TCPV4, 100);
    let told: Vec<_> = pieces
        .iter()
        .map(|piece| (piece.flags & tcp::URG, piece.urgent))
        .collect();
    assert_eq!(told, [(tcp::URG, 150), (tcp::URG, 50), (0, 0)]);
}

#[test]
fn what_opens_or_resets_a_connection_is_no_train() {
    for flags in [tcp::SYN, tcp::SYN | tcp::ACK, tcp::RST] {
        let bytes = Sample {
            flags,
            payload: data(200, 0),
            ..TCP
        }
        .unfinished();
        let refused = Segments::new(&gso(vnet::GSO_TCPV4, 100), &bytes);
        assert_eq!(refused.err(), Some(DropReason::Malformed));
    }
}

#[test]
fn a_udp_checksum_of_zero_is_written_as_its_twin() {
    let mut found = 0;
    for high in 0..=0xff {
        for low in 0..=0xff {
            let payload = [[high, low], [0, 0]].concat();
            let sample = Sample { payload, ..UDP };
            let bytes = sample.unfinished();
            let segments = Segments::new(&gso(vnet::GSO_UDP_L4, 2), &bytes).unwrap();
            let segments = collect(segments);
            assert_ne!(segments[0][26..28], [0, 0]);
            found += usize::from(segments[0][26..28] == [0xff, 0xff]);
        }
    }
    assert_eq!(found, 1);
}

#[test]
fn refuses_what_contradicts_itself() {
    let refused = |header: VnetHeader, bytes: &[u8]| Segments::new(&header, bytes).err();
    let malformed = Some(DropReason::Malformed);
    let tcp = Sample {
        payload: data(3000, 0),
        ..TCP
    };
    let (v4, v6) = (
        tcp.unfinished(),
        Sample {
            v6: true,
            ..tcp.clone()
        }
        .unfinished(),
    );
    let udp = Sample {
        payload: data(3000, 0),
        ..UDP
    }
    .unfinished();
    assert_eq!(refused(gso(vnet::GSO_TCPV4, 1000), &v4), None);
    assert_eq!(refused(gso(vnet::GSO_TCPV4, 0), &v4), malformed);
    assert_eq!(refused(gso(vnet::GSO_UDP_L4, 0), &udp), malformed);
    for (gso_type, bytes) in [
        (vnet::GSO_TCPV6, &v4),
        (vnet::GSO_TCPV4, &v6),
        (vnet::GSO_TCPV4, &udp),
        (vnet::GSO_UDP_L4, &v4),
        (vnet::GSO_UDP_L4 | vnet::GSO_ECN, &v4),
    ] {
        assert_eq!(refused(gso(gso_type, 1000), bytes), malformed);
    }
    for offload in [3, 2, 6, 0x20, 0x41] {
        assert_eq!(
            refused(gso(offload, 1000), &udp),
            Some(DropReason::Unsupported)
        );
    }
    // The packet shorter than it says; a TCP header longer than the packet; a fragment.
    assert_eq!(refused(gso(vnet::GSO_TCPV4, 1000), &v4[..3039]), malformed);
    let mut header = Sample {
        payload: data(8, 0),
        ..TCP
    }
    .unfinished();
    header[32] = 0xf0;
    assert_eq!(refused(gso(vnet::GSO_TCPV4, 1000), &header), malformed);
    header[32] = 0x40;
    assert_eq!(refused(gso(vnet::GSO_TCPV4, 1000), &header), malformed);
    let mut fragment = v4;
    fragment[6] = 0x20;
    assert_eq!(refused(gso(vnet::GSO_TCPV4, 1000), &fragment), malformed);
}

#[test]
fn padding_is_not_payload() {
    let sample = Sample {
        payload: data(250, 0),
        ..TCP
    };
    let mut bytes = sample.unfinished();
    bytes.extend([0xaa; 90]);
    let segments = collect(Segments::new(&gso(vnet::GSO_TCPV4, 100), &bytes).unwrap());
    assert_eq!(segments.len(), 3);
    let plain = collect(Segments::new(&VnetHeader::default(), &bytes).unwrap());
    assert_eq!(plain, [sample.unfinished()]);
}

#[test]
fn behind_a_routing_header_the_kernels_own_sum_counts() {
    // Drawn with a destination-options header, then made a routing header with one segment left: the
    // pseudo header has another destination, whose sum is larger by 0x0101.
    let sample = Sample {
        v6: true,
        between: vec![0, 0, 0, 1, 0, 0, 0, 0],
        payload: data(30, 0),
        ..TCP
    };
    let field = sample.transport_at() + tcp::CHECKSUM;
    let more = |bytes: &[u8]| plain(&[&bytes[field..field + 2], &[1, 1]].concat());
    let mut bytes = sample.unfinished();
    let sum = more(&bytes);
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    bytes[6] = 43;
    assert!(!parse(&bytes).unwrap().has_transport);
    let segments = collect(Segments::new(&gso(vnet::GSO_TCPV6, 20), &bytes).unwrap());
    let less = |piece: &Sample| {
        let mut bytes = piece.bytes();
        let inverted = [!bytes[field], !bytes[field + 1], 1, 1];
        bytes[field..field + 2].copy_from_slice(&(!plain(&inverted)).to_be_bytes());
        bytes[6] = 43;
        bytes
    };
    let expected: Vec<_> = sample.cut(20).iter().map(less).collect();
    assert_eq!(segments, expected);
}

#[test]
fn a_checksum_of_any_protocol_is_computed_where_it_is_asked_for() {
    let mut bytes = Sample {
        payload: data(77, 0),
        ..UDP
    }
    .bytes();
    bytes[9] = 132; // no protocol that we look into
    bytes[30..32].copy_from_slice(&[0x12, 0x34]); // "the pseudo header's sum"
    let header = VnetHeader {
        flags: vnet::NEEDS_CSUM,
        csum_start: 28,
        csum_offset: 2,
        ..VnetHeader::default()
    };
    let made = collect(Segments::new(&header, &bytes).unwrap()).remove(0);
    assert_eq!(made[..30], bytes[..30]);
    assert_eq!(made[32..], bytes[32..]);
    let sum = !plain(&bytes[28..]);
    assert_eq!(made[30..32], sum.to_be_bytes());
    let len = u16::try_from(bytes.len()).unwrap();
    for (csum_start, csum_offset) in [(len - 2, 0), (0, len - 2), (10, 3)] {
        let header = VnetHeader {
            csum_start,
            csum_offset,
            ..header
        };
        assert!(Segments::new(&header, &bytes).is_ok());
    }
    for (csum_start, csum_offset) in [(len - 1, 0), (len, 0), (28, len - 29), (u16::MAX, u16::MAX)]
    {
        let header = VnetHeader {
            csum_start,
            csum_offset,
            ..header
        };
        assert_eq!(
            Segments::new(&header, &bytes).err(),
            Some(DropReason::Malformed)
        );
    }
}

#[test]
fn what_came_whole_is_cut_to_the_mtu() {
    for v6 in [false, true] {
        let tcp = Sample {
            v6,
            id: 0,
            payload: data(5000, 0),
            options: vec![1; 12],
            ..TCP
        };
        let bytes = tcp.unfinished();
        let size = 1400 - tcp.header_len();
        let expected: Vec<_> = tcp.cut(size).iter().map(Sample::bytes).collect();
        assert_eq!(
            collect(Segments::cut(&bytes, 1400, None).unwrap()),
            expected
        );
        let expected: Vec<_> = tcp.cut(900).iter().map(Sample::bytes).collect();
        assert_eq!(
            collect(Segments::cut(&bytes, 1400, Some(900)).unwrap()),
            expected
        );
        // Small enough: finished, not cut.
        assert_eq!(
            collect(Segments::cut(&bytes, 9000, None).unwrap()),
            [tcp.bytes()]
        );
        // Finished: nothing to do.
        let finished = tcp.bytes();
        assert_eq!(
            collect(Segments::cut(&finished, 1400, None).unwrap()),
            std::slice::from_ref(&finished)
        );
        assert_eq!(
            Segments::cut(&bytes, 70, None).err(),
            (v6).then_some(DropReason::TooBig)
        );

        let udp = Sample {
            v6,
            id: 0,
            payload: data(5000, 0),
            ..UDP
        };
        let bytes = udp.unfinished();
        assert_eq!(
            Segments::cut(&bytes, 1400, None).err(),
            Some(DropReason::TooBig)
        );
        let expected: Vec<_> = udp.cut(1200).iter().map(Sample::bytes).collect();
        assert_eq!(
            collect(Segments::cut(&bytes, 1400, Some(1200)).unwrap()),
            expected
        );
        assert_eq!(
            collect(Segments::cut(&bytes, 9000, None).unwrap()),
            [udp.bytes()]
        );
        assert_eq!(
            Segments::cut(&bytes, 9000, Some(0)).err(),
            Some(DropReason::Malformed)
        );
    }
}
