use proptest::prelude::*;

use super::*;

/// TCP and UDP of both families, of any size.
fn samples() -> impl Strategy<Value = Sample> {
    let ip = (
        any::<bool>(),
        any::<bool>(),
        any::<u8>(),
        any::<u8>(),
        any::<u16>(),
        any::<bool>(),
        any::<u16>(),
        0usize..3,
    );
    let tcp = (
        any::<u32>(),
        any::<u32>(),
        any::<u8>(),
        any::<u16>(),
        0usize..11,
    );
    (ip, tcp, 0usize..9000).prop_map(|(ip, tcp, len)| {
        let (v6, udp, traffic_class, ttl, id, dont_fragment, flow_label, between) = ip;
        let (seq, ack, flags, window, options) = tcp;
        let between = match between {
            0 => Vec::new(),
            n => [&[0, 0, 1, 4], vec![0; n * 8 - 4].as_slice()].concat(),
        };
        let network = Sample {
            v6,
            udp,
            traffic_class,
            ttl,
            id,
            dont_fragment,
            flow_label,
            between,
            payload: data(len, id.into()),
            ..UDP
        };
        if udp {
            return network;
        }
        let flags = flags & !(tcp::SYN | tcp::RST | tcp::URG);
        Sample {
            seq,
            ack,
            flags,
            window,
            options: vec![1; options * 4],
            ..network
        }
    })
}

proptest! {
    /// Byte for byte what the plain reference makes of it.
    #[test]
    fn same_as_the_plain_reference(sample in samples(), size in 1usize..3000, ecn: bool) {
        let size = size.max(sample.payload.len() / 200);
        let bytes = sample.unfinished();
        let ecn = if ecn && !sample.udp { vnet::GSO_ECN } else { 0 };
        let segments = collect(Segments::new(&gso(type_of(&sample) | ecn, size), &bytes).unwrap());
        let expected: Vec<_> = sample.cut(size).iter().map(Sample::bytes).collect();
        prop_assert_eq!(segments, expected);
    }

    /// A checksum alone: what the plain way renders.
    #[test]
    fn finishes_a_single_packet(sample in samples()) {
        let offset = if sample.udp { 6 } else { 16 };
        let header = VnetHeader {
            flags: vnet::NEEDS_CSUM,
            csum_start: u16::try_from(sample.transport_at()).unwrap(),
            csum_offset: offset,
            ..VnetHeader::default()
        };
        let made = collect(Segments::new(&header, &sample.unfinished()).unwrap()).remove(0);
        let mut expected = sample.bytes();
        let field = sample.transport_at() + usize::from(offset);
        if expected[field..field + 2] == [0, 0] {
            expected[field..field + 2].fill(0xff); // the kernel's way, for every protocol
        }
        prop_assert_eq!(made, expected);
    }

    /// No header and no packet makes it panic, and all lengths told are kept.
    #[test]
    fn any_header_with_any_bytes(
        header: [u8; VnetHeader::LEN], gso_type in 0u8..7, flag in 0u8..2,
        sample in samples(), noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep: prop::sample::Index, raw: bool, mtu in 0usize..2000,
    ) {
        let mut header = VnetHeader::decode(&header).unwrap();
        if !raw {
            header.gso_type = gso_type;
            header.flags = flag;
        }
        let mut bytes = sample.unfinished();
        for (at, value) in noise {
            let at = at.index(bytes.len().min(80));
            bytes[at] = value;
        }
        if raw {
            bytes.truncate(keep.index(bytes.len() + 1));
        }
        header.gso_size |= 0x40; // not thousands of segments: this is a test
        let made = [
            Segments::new(&header, &bytes),
            Segments::cut(&bytes, mtu.max(100), None),
            Segments::cut(&bytes, mtu, Some(header.gso_size)),
        ];
        for segments in made.into_iter().flatten() {
            collect(segments);
        }
    }
}
