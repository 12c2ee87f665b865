use super::*;
use crate::packet::checksum::tests::plain;
use crate::packet::parse;
use crate::packet::sample::{Sample, TCP, UDP, data};

mod passing;
mod properties;
mod speed;

const MTU: u32 = 1472;

/// One write to the device.
struct Written {
    header: VnetHeader,
    packet: Vec<u8>,
    packets: u64,
}

/// What a joiner writes for `packets`, one batch.
fn write(joiner: &mut Joiner, packets: &[Vec<u8>]) -> Vec<Written> {
    let mut written = Vec::new();
    let mut out = |bytes: &[u8], packets: u64| {
        let header = VnetHeader::decode(bytes).unwrap();
        let packet = bytes[VnetHeader::LEN..].to_vec();
        written.push(Written {
            header,
            packet,
            packets,
        });
    };
    for bytes in packets {
        joiner
            .push(&parse(bytes).unwrap(), bytes, &mut out)
            .unwrap();
    }
    joiner.flush(&mut out);
    joiner.flush(&mut |_, _| panic!("nothing is left after a flush"));
    written
}

impl Written {
    /// What a device makes of it, by the plain reference.
    fn expand(&self) -> Vec<Vec<u8>> {
        let Self {
            header,
            packet,
            packets,
        } = self;
        if *header == VnetHeader::default() {
            assert_eq!(*packets, 1);
            return vec![packet.clone()];
        }
        let sample = Sample::read(packet);
        assert_eq!(
            *packet,
            sample.unfinished(),
            "lengths and sums of the train"
        );
        assert_eq!(header.flags, vnet::NEEDS_CSUM);
        assert_eq!(usize::from(header.csum_start), sample.transport_at());
        assert_eq!(header.csum_offset, if sample.udp { 6 } else { 16 });
        if header.gso_type == vnet::GSO_NONE {
            assert_eq!((header.gso_size, *packets), (0, 1));
            return vec![sample.bytes()];
        }
        assert_eq!(usize::from(header.hdr_len), sample.header_len());
        let gso_type = match (sample.udp, sample.v6) {
            (true, _) => vnet::GSO_UDP_L4,
            (false, false) => vnet::GSO_TCPV4,
            (false, true) => vnet::GSO_TCPV6,
        };
        let congested = sample.flags & tcp::CWR != 0;
        let ecn = if congested { vnet::GSO_ECN } else { 0 };
        assert_eq!(header.gso_type, gso_type | ecn);
        let cut = sample.cut(usize::from(header.gso_size));
        assert_eq!(cut.len() as u64, *packets);
        assert!(cut.len() > 1);
        cut.iter().map(Sample::bytes).collect()
    }
}

/// How many packets are in each write, and that all expand to the same as came in.
fn join(samples: &[Sample]) -> Vec<u64> {
    let packets: Vec<_> = samples.iter().map(Sample::bytes).collect();
    let written = write(&mut Joiner::new(8, MTU, true), &packets);
    let expanded: Vec<_> = written.iter().flat_map(Written::expand).collect();
    assert_eq!(expanded, packets);
    written.iter().map(|written| written.packets).collect()
}

/// Both families of a stream of `payloads`; the same stream with `change` done to its third packet.
fn stream(template: &Sample, payloads: &[usize], change: impl Fn(&mut Sample)) -> [Vec<Sample>; 2] {
    [false, true].map(|v6| {
        let mut next = Sample {
            v6,
            ..template.clone()
        };
        let mut all = Vec::new();
        for (at, len) in payloads.iter().enumerate() {
            next.payload = data(*len, at * 7);
            let mut sample = next.clone();
            if at == 2 {
                change(&mut sample);
            }
            if v6 {
                sample.id = 0;
            }
            all.push(sample);
            next.id = next.id.wrapping_add(1);
            if !next.udp {
                next.seq = next.seq.wrapping_add(u32::try_from(*len).unwrap());
            }
        }
        all
    })
}

#[track_caller]
fn expect(template: &Sample, payloads: &[usize], change: impl Fn(&mut Sample), writes: &[u64]) {
    for samples in stream(template, payloads, change) {
        assert_eq!(join(&samples), writes, "IPv6: {}", samples[0].v6);
    }
}

#[test]
fn a_stream_is_one_train() {
    let wrapping = Sample {
        seq: u32::MAX - 2000,
        id: u16::MAX - 1,
        dont_fragment: false,
        ..TCP
    };
    for template in [&TCP, &wrapping, &UDP] {
        expect(template, &[1000; 40], |_| (), &[40]);
        expect(template, &[1000, 1000, 1000, 1], |_| (), &[4]);
        expect(template, &[1000], |_| (), &[1]);
    }
    let with_options = Sample {
        options: vec![1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8],
        traffic_class: 0xb8,
        ..TCP
    };
    expect(&with_options, &[1400; 5], |_| (), &[5]);
    let echo = Sample {
        flags: tcp::ACK | tcp::ECE,
        ..TCP
    };
    expect(&echo, &[1400; 5], |_| (), &[5]);
}

#[test]
fn a_train_ends_with_the_first_shorter_segment() {
    for template in [&TCP, &UDP] {
        expect(template, &[900, 900, 899, 900, 900], |_| (), &[3, 2]);
        expect(template, &[900, 901, 901], |_| (), &[1, 2]);
        expect(template, &[1, 1, 1], |_| (), &[3]);
    }
}

#[test]
fn a_train_is_not_longer_than_a_packet_can_be() {
    // 40 or 60 bytes of headers, 1400 each: 46 fit into 65535.
    expect(&TCP, &[1400; 100], |_| (), &[46, 46, 8]);
    // Never more datagrams than kernels cut.
    expect(&UDP, &[64; 150], |_| (), &[64, 64, 22]);
    let exact = Sample {
        options: vec![1; 4],
        ..TCP
    };
    // 65535 - 44 = 65491 = 77 * 850 + 41; IPv6 leaves 20 less.
    let mut payloads = vec![850; 77];
    payloads.push(41);
    let [v4, v6] = stream(&exact, &payloads, |_| ());
    assert_eq!((join(&v4), join(&v6)), (vec![78], vec![77, 1]));
    payloads[77] = 42;
    assert_eq!(join(&stream(&exact, &payloads, |_| ())[0]), [77, 1]);
}

#[test]
fn push_ends_a_train_and_belongs_to_it() {
    let push = |sample: &mut Sample| sample.flags |= tcp::PSH;
    expect(&TCP, &[900; 6], push, &[3, 3]);
    let all = Sample {
        flags: tcp::ACK | tcp::PSH,
        ..TCP
    };
    expect(&all, &[900; 3], |_| (), &[1, 1, 1]);
}

#[test]
fn other_flags_travel_alone() {
    for flags in [
        tcp::ACK | tcp::FIN,
        tcp::ACK | tcp::FIN | tcp::PSH,
        tcp::ACK | tcp::RST,
        tcp::ACK | tcp::SYN,
        tcp::ACK | tcp::URG,
        tcp::ACK | tcp::CWR,
        0,
    ] {
        expect(&TCP, &[900; 6], |sample| sample.flags = flags, &[2, 1, 3]);
    }
    expect(&TCP, &[900; 6], |sample| sample.urgent = 1, &[2, 1, 3]);
    // ECE may be in all cars, but not in some.
    expect(
        &TCP,
        &[900; 6],
        |sample| sample.flags |= tcp::ECE,
        &[2, 1, 3],
    );
}

#[test]
fn what_a_cut_could_not_restore_does_not_join() {
    let changes: [fn(&mut Sample); 8] = [
        |sample| sample.ttl -= 1,
        |sample| sample.traffic_class = 3,
        |sample| sample.ack += 1,
        |sample| sample.window += 1,
        |sample| sample.seq += 1,
        |sample| sample.seq -= 900, // the one before, again
        |sample| sample.seq -= 1800,
        |sample| sample.options[11] += 1,
    ];
    let template = Sample {
        options: vec![1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8],
        ..TCP
    };
    for change in changes {
        expect(&template, &[900; 6], change, &[2, 1, 3]);
    }
    for change in &changes[..2] {
        expect(&UDP, &[900; 6], change, &[2, 1, 3]);
    }
    let other_length: fn(&mut Sample) = |sample| sample.options = vec![1; 8];
    expect(&template, &[900; 6], other_length, &[2, 1, 3]);
    let [_, v6] = stream(&TCP, &[900; 6], |sample| sample.flow_label = 7);
    assert_eq!(join(&v6), [2, 1, 3]);
    let [v4, _] = stream(&TCP, &[900; 6], |sample| sample.dont_fragment = false);
    assert_eq!(join(&v4), [2, 1, 3]);
}

#[test]
fn empty_segments_travel_alone_in_their_place() {
    // A pure acknowledgement amid the stream: of the same sequence number.
    for samples in stream(&TCP, &[900, 900, 0, 900, 900], |_| ()) {
        assert_eq!(join(&samples), [2, 1, 2]);
    }
    expect(&UDP, &[900, 900, 0, 900], |_| (), &[2, 1, 1]);
}

#[test]
fn identification_counts_only_without_dont_fragment() {
    let [mut v4, _] = stream(&TCP, &[900; 6], |_| ());
    let any_id = |samples: &[Sample]| {
        let packets: Vec<_> = samples.iter().map(Sample::bytes).collect();
        let written = write(&mut Joiner::new(8, MTU, true), &packets);
        written
            .iter()
            .map(|written| written.packets)
            .collect::<Vec<_>>()
    };
    for sample in &mut v4 {
        sample.id = 0;
    }
    assert_eq!(any_id(&v4), [6]);
    for sample in &mut v4 {
        sample.dont_fragment = false;
    }
    assert_eq!(any_id(&v4), [1; 6]);
    let may_fragment = Sample {
        dont_fragment: false,
        ..TCP
    };
    let [v4, _] = stream(&may_fragment, &[900; 6], |sample| sample.id += 1);
    assert_eq!(join(&v4), [2, 1, 3]);
}

#[test]
fn options_and_extension_headers_travel_alone() {
    let between = |sample: &mut Sample| sample.between = vec![0, 0, 1, 4, 0, 0, 0, 0];
    expect(&TCP, &[900; 6], between, &[2, 1, 3]);
    expect(&UDP, &[900; 6], between, &[2, 1, 3]);
}

#[test]
fn interleaved_flows_are_trains_of_their_own() {
    // Flows that differ in one thing only.
    let flows: [fn(&mut Sample); 4] = [
        |_| (),
        |s| s.ports[0] += 1,
        |s| s.ports[1] += 1,
        |s| s.source += 1,
    ];
    let mut samples = Vec::new();
    for step in 0..10 {
        for flow in flows {
            for template in [&TCP, &UDP] {
                for v6 in [false, true] {
                    let mut sample = Sample {
                        v6,
                        payload: data(700, step),
                        ..template.clone()
                    };
                    sample.id = if v6 { 0 } else { sample.id + step as u16 };
                    sample.seq += if sample.udp { 0 } else { step as u32 * 700 };
                    flow(&mut sample);
                    samples.push(sample);
                }
            }
        }
    }
    let packets: Vec<_> = samples.iter().map(Sample::bytes).collect();
    let counts = |trains| {
        let written = write(&mut Joiner::new(trains, MTU, true), &packets);
        written
            .iter()
            .map(|written| written.packets)
            .collect::<Vec<_>>()
    };
    assert_eq!(counts(16), [10; 16]);
    // With fewer trains than flows nothing is lost, though little is joined.
    assert_eq!(counts(3).iter().sum::<u64>(), 160);
    assert_eq!(counts(0).iter().sum::<u64>(), 160);
}
