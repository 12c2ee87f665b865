use super::*;

/// Changed packets pass bit by bit, in their place.
#[track_caller]
fn expect_raw(template: &Sample, change: impl Fn(&mut Vec<u8>), writes: &[u64]) {
    for samples in stream(template, &[900; 6], |_| ()) {
        let mut packets: Vec<_> = samples.iter().map(Sample::bytes).collect();
        change(&mut packets[2]);
        let written = write(&mut Joiner::new(8, MTU, true), &packets);
        let counts: Vec<_> = written.iter().map(|written| written.packets).collect();
        assert_eq!(counts, writes);
        let expanded: Vec<_> = written.iter().flat_map(Written::expand).collect();
        assert_eq!(expanded, packets);
    }
}

#[test]
fn wrong_checksums_stay_wrong() {
    for template in [&TCP, &UDP] {
        expect_raw(
            template,
            |bytes| *bytes.last_mut().unwrap() ^= 1,
            &[2, 1, 3],
        );
    }
    // At the head of a train.
    let mut packets: Vec<_> = stream(&TCP, &[900; 4], |_| ())[0]
        .iter()
        .map(Sample::bytes)
        .collect();
    packets[0][100] ^= 1;
    let written = write(&mut Joiner::new(8, MTU, true), &packets);
    assert_eq!(written[0].packet, packets[0]);
    assert_eq!((written[0].packets, written[1].packets), (1, 3));
    // The IPv4 header's.
    let [v4, _] = stream(&TCP, &[900; 4], |_| ());
    let mut packets: Vec<_> = v4.iter().map(Sample::bytes).collect();
    packets[1][10] ^= 1;
    let written = write(&mut Joiner::new(8, MTU, true), &packets);
    assert_eq!(
        written
            .iter()
            .map(|written| written.packets)
            .collect::<Vec<_>>(),
        [1, 1, 2]
    );
    assert_eq!(written[1].packet, packets[1]);
}

#[test]
fn udp_without_a_checksum_passes() {
    let [v4, _] = stream(&UDP, &[900; 4], |_| ());
    let mut packets: Vec<_> = v4.iter().map(Sample::bytes).collect();
    packets[1][26..28].fill(0);
    let written = write(&mut Joiner::new(8, MTU, true), &packets);
    let expanded: Vec<_> = written.iter().flat_map(Written::expand).collect();
    assert_eq!(expanded, packets);
    assert_eq!(written.len(), 3);
}

#[test]
fn fragments_pass_in_their_place() {
    let [mut v4, _] = stream(&UDP, &[900; 6], |_| ());
    for sample in &mut v4 {
        sample.dont_fragment = false;
    }
    let mut packets: Vec<_> = v4.iter().map(Sample::bytes).collect();
    for fragment in [[0x20, 0], [0, 9], [0x20, 9], [0x80, 0]] {
        packets[2][6..8].copy_from_slice(&fragment);
        packets[2][10..12].fill(0);
        let checksum = !plain(&packets[2][..20]);
        packets[2][10..12].copy_from_slice(&checksum.to_be_bytes());
        let written = write(&mut Joiner::new(8, MTU, true), &packets);
        let expanded: Vec<_> = written.iter().flat_map(Written::expand).collect();
        assert_eq!(expanded, packets);
        assert_eq!(
            written
                .iter()
                .map(|written| written.packets)
                .collect::<Vec<_>>(),
            [2, 1, 3]
        );
    }
}

#[test]
fn udp_is_left_alone_where_the_device_does_not_cut_it() {
    let [v4, _] = stream(&UDP, &[900; 4], |_| ());
    let packets: Vec<_> = v4.iter().map(Sample::bytes).collect();
    let written = write(&mut Joiner::new(8, MTU, false), &packets);
    assert_eq!(written.len(), 4);
    let expanded: Vec<_> = written.iter().flat_map(Written::expand).collect();
    assert_eq!(expanded, packets);
}

#[test]
fn what_came_whole_is_left_to_the_device() {
    for v6 in [false, true] {
        let whole = |template: &Sample, len: usize| Sample {
            v6,
            id: 0,
            payload: data(len, 0),
            ..template.clone()
        };
        let push = |sample: &Sample, size: Option<u16>, udp: bool| {
            let bytes = sample.unfinished();
            let mut written = Vec::new();
            let packet = parse(&bytes).unwrap();
            let mut joiner = Joiner::new(1, MTU, udp);
            let pushed = joiner.push_sized(&packet, &bytes, size, &mut |bytes, packets| {
                let header = VnetHeader::decode(bytes).unwrap();
                let packet = bytes[VnetHeader::LEN..].to_vec();
                written.push(Written {
                    header,
                    packet,
                    packets,
                });
            });
            joiner.flush(&mut |bytes, packets| {
                let header = VnetHeader::decode(bytes).unwrap();
                let packet = bytes[VnetHeader::LEN..].to_vec();
                written.push(Written {
                    header,
                    packet,
                    packets,
                });
            });
            let expanded: Vec<_> = written.iter().flat_map(Written::expand).collect();
            (pushed, written.len(), expanded)
        };
        let cut = |sample: &Sample, size| {
            sample
                .cut(size)
                .iter()
                .map(Sample::bytes)
                .collect::<Vec<_>>()
        };
        let tcp = whole(
            &Sample {
                flags: tcp::ACK | tcp::CWR | tcp::PSH,
                ..TCP
            },
            60000,
        );
        let size = MTU as usize - tcp.header_len();
        assert_eq!(push(&tcp, None, true), (Ok(()), 1, cut(&tcp, size)));
        assert_eq!(push(&tcp, Some(1000), true), (Ok(()), 1, cut(&tcp, 1000)));
        let udp = whole(&UDP, 5000);
        assert_eq!(push(&udp, None, true), (Err(DropReason::TooBig), 0, vec![]));
        assert_eq!(push(&udp, Some(1200), true), (Ok(()), 1, cut(&udp, 1200)));
        assert_eq!(push(&udp, Some(1200), false), (Ok(()), 5, cut(&udp, 1200)));
        // Smaller than the MTU, and yet several.
        let small = whole(&UDP, 300);
        assert_eq!(push(&small, Some(64), true), (Ok(()), 1, cut(&small, 64)));
        assert_eq!(push(&small, None, true), (Ok(()), 1, vec![small.bytes()]));
        assert_eq!(
            push(&small, Some(300), true),
            (Ok(()), 1, vec![small.bytes()])
        );
    }
}

#[test]
fn unfinished_packets_join_with_their_like_and_with_others() {
    for template in [&TCP, &UDP] {
        for samples in stream(template, &[900; 6], |_| ()) {
            let bytes = |(at, sample): (usize, &Sample)| match at % 3 {
                0 => sample.unfinished(),
                _ => sample.bytes(),
            };
            let packets: Vec<_> = samples.iter().enumerate().map(bytes).collect();
            let written = write(&mut Joiner::new(8, MTU, true), &packets);
            assert_eq!(written.len(), 1);
            let finished: Vec<_> = samples.iter().map(Sample::bytes).collect();
            assert_eq!(written[0].expand(), finished);
        }
    }
}

#[test]
fn reserved_bits_keep_packets_apart() {
    // Nobody knows whether a cut may copy them.
    for samples in stream(&TCP, &[900; 4], |_| ()) {
        let mut packets: Vec<_> = samples.iter().map(Sample::bytes).collect();
        for bytes in &mut packets {
            let packet = parse(bytes).unwrap();
            bytes[packet.transport_at + 12] |= 1;
            crate::packet::finish_checksum(&packet, bytes);
        }
        let written = write(&mut Joiner::new(8, MTU, true), &packets);
        let left: Vec<_> = written.iter().flat_map(Written::expand).collect();
        assert_eq!((written.len(), left), (4, packets));
    }
}
