use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What a flow does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A full segment in order: by far the most frequent.
    Data,
    Push,
    Short,
    Longer,
    Acknowledgement,
    Flags(u8),
    /// The sequence number jumps, forwards or back.
    Jump(i8),
    Ack,
    Window,
    Options,
    Ttl,
    TrafficClass,
    Identification,
    DontFragment,
    Between,
    Fragment,
    Unfinished,
    Whole,
    /// One bit somewhere is wrong.
    Damage(Index, u8),
    NoChecksum,
    Padding,
    /// The batch ends.
    Flush,
}

fn steps() -> impl Strategy<Value = (u8, Step)> {
    use Step::*;
    let seldom = prop_oneof![
        Just(Push),
        Just(Short),
        Just(Longer),
        Just(Acknowledgement),
        any::<u8>().prop_map(Flags),
        any::<i8>().prop_map(Jump),
        Just(Ack),
        Just(Window),
        Just(Options),
        Just(Ttl),
        Just(TrafficClass),
        Just(Identification),
        Just(DontFragment),
        Just(Between),
        Just(Fragment),
        Just(Unfinished),
        Just(Whole),
        (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Damage(at, bit)),
        Just(NoChecksum),
        Just(Padding),
        Just(Flush),
    ];
    (0u8..12, prop_oneof![3 => Just(Data), 1 => seldom])
}

/// Twelve flows that differ in little.
fn flows() -> Vec<Sample> {
    let flow = |n: u16| {
        let v6 = n & 1 == 0;
        let template = if n & 2 == 0 { TCP } else { UDP };
        Sample {
            v6,
            id: if v6 { 0 } else { 65530 },
            ports: [if n / 4 == 1 { 40001 } else { 40000 }, 5201],
            source: if n / 4 == 2 { 3 } else { 2 },
            seq: if template.udp { 0 } else { u32::MAX - 3000 },
            ..template
        }
    };
    (0..12).map(flow).collect()
}

/// One packet as it comes in, and as what it must leave.
struct Event {
    came: Vec<u8>,
    leaves: Vec<Vec<u8>>,
    /// The flow; none for a fragment, which may belong to any between its addresses.
    flow: Option<usize>,
    addresses: (bool, u8),
    flush: bool,
}

fn play(steps: &[(u8, Step)]) -> Vec<Event> {
    let mut flows = flows();
    let mut events = Vec::new();
    for (at, (flow, step)) in steps.iter().enumerate() {
        let flow = usize::from(*flow);
        let next = &mut flows[flow];
        match step {
            Step::Ack => next.ack += 1,
            Step::Window => next.window ^= 8,
            Step::Options if !next.udp => {
                next.options = [vec![1, 1, 8, 10, at as u8, 0, 0, 9, 0, 0, 0, 8], vec![]]
                    [next.options.len() % 5 % 2]
                    .clone();
            }
            Step::Ttl => next.ttl ^= 1,
            Step::TrafficClass => next.traffic_class ^= 2,
            Step::Identification if !next.v6 => next.id = next.id.wrapping_add(5),
            Step::DontFragment if !next.v6 => next.dont_fragment ^= true,
            Step::Jump(by) if !next.udp => {
                next.seq = next.seq.wrapping_add_signed(i32::from(*by) * 300)
            }
            _ => {}
        }
        if next.udp {
            (next.ack, next.window) = (0, 0);
        }
        let len = match step {
            Step::Short => 299,
            Step::Longer => 301,
            Step::Acknowledgement => 0,
            Step::Whole if !next.udp => 4000,
            _ => 300,
        };
        let mut sample = Sample {
            payload: data(len, at),
            ..next.clone()
        };
        if !sample.udp {
            match step {
                Step::Push => sample.flags |= tcp::PSH,
                Step::Flags(flags) => sample.flags = *flags,
                _ => {}
            }
        }
        if matches!(step, Step::Between) {
            sample.between = vec![0, 0, 1, 4, 0, 0, 0, 0];
        }
        let addresses = (sample.v6, sample.source);
        let mut event = Event {
            came: sample.bytes(),
            leaves: vec![],
            flow: Some(flow),
            addresses,
            flush: false,
        };
        let transport_at = sample.transport_at();
        match step {
            Step::Whole if !sample.udp => {
                event.came = sample.unfinished();
                let size = MTU as usize - sample.header_len();
                event.leaves = sample.cut(size).iter().map(Sample::bytes).collect();
            }
            Step::Unfinished => {
                event.came = sample.unfinished();
                event.leaves = vec![sample.bytes()];
            }
            Step::Damage(at, bit) => {
                let at = transport_at + 4 + at.index(event.came.len() - transport_at - 4);
                event.came[at] ^= 1 << bit;
            }
            Step::NoChecksum if sample.udp => {
                event.came[transport_at + 6..transport_at + 8].fill(0)
            }
            Step::Fragment if !sample.v6 => {
                event.came[6] = 0x20;
                event.flow = None;
            }
            Step::Flush => event.flush = true,
            _ => {}
        }
        if event.leaves.is_empty() {
            event.leaves = vec![event.came.clone()];
        }
        if matches!(step, Step::Padding) {
            event.came.extend([0xaa; 6]);
        }
        // What came after a whole one follows it.
        next.seq = match next.udp {
            true => 0,
            false => next.seq.wrapping_add(u32::try_from(len).unwrap()),
        };
        if !next.v6 {
            next.id = next
                .id
                .wrapping_add(u16::try_from(event.leaves.len()).unwrap());
        }
        events.push(event);
    }
    events
}

/// Without the identification where it means nothing.
fn comparable(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes[0] >> 4 == 4 && bytes[6] & 0x40 != 0 && plain(&bytes[..20]) == 0xffff {
        bytes[4..6].fill(0);
        bytes[10..12].fill(0);
    }
    bytes
}

/// The flow of a packet by its addresses and ports, the only things that no step changes; none for fragments.
fn flow_of(bytes: &[u8]) -> ((bool, u8), Option<usize>) {
    let v6 = bytes[0] >> 4 == 6;
    let source = bytes[if v6 { 23 } else { 15 }];
    if !v6 && bytes[6] & 0x20 != 0 {
        return ((v6, source), None);
    }
    let packet = parse(bytes).unwrap();
    let ports = bytes[packet.transport_at..packet.transport_at + 4].to_vec();
    let same = |flow: &Sample| {
        let of_flow = flow.ports.map(u16::to_be_bytes).concat();
        (flow.v6, flow.udp, flow.source, of_flow)
            == (v6, packet.protocol == 17, source, ports.clone())
    };
    ((v6, source), flows().iter().position(same))
}

proptest! {
    /// Any stream of packets: the same packets leave, in the same order within each flow, whatever was joined meanwhile.
    #[test]
    fn any_stream_leaves_as_it_came(steps in vec(steps(), 1..150), trains in 1usize..14, udp: bool) {
        let events = play(&steps);
        let mut joiner = Joiner::new(trains, MTU, udp);
        let mut left: Vec<Vec<u8>> = Vec::new();
        let mut out = |bytes: &[u8], packets: u64| {
            let header = VnetHeader::decode(bytes).unwrap();
            let packet = bytes[VnetHeader::LEN..].to_vec();
            let written = Written { header, packet, packets };
            assert!(udp || header.gso_type != vnet::GSO_UDP_L4);
            left.extend(written.expand());
        };
        for event in &events {
            joiner.push(&parse(&event.came).unwrap(), &event.came, &mut out).unwrap();
            if event.flush {
                joiner.flush(&mut out);
            }
        }
        joiner.flush(&mut out);
        let expected = events.iter().flat_map(|event| &event.leaves).count();
        prop_assert_eq!(left.len(), expected);
        for (flow, template) in flows().iter().enumerate() {
            // Fragments stand among all flows between their addresses.
            let addresses = (template.v6, template.source);
            let of = |between, of_flow: Option<usize>| between == addresses && of_flow.is_none_or(|n| n == flow);
            let came: Vec<_> = events.iter().filter(|event| of(event.addresses, event.flow))
                .flat_map(|event| &event.leaves).map(|bytes| comparable(bytes)).collect();
            let left: Vec<_> = left.iter().filter(|bytes| { let (between, flow) = flow_of(bytes); of(between, flow) })
                .map(|bytes| comparable(bytes)).collect();
            prop_assert_eq!(came, left);
        }
    }

    /// Cut, joined, cut: the same packets. And joining undoes cutting.
    #[test]
    fn joining_undoes_cutting(len in 2usize..40000, size in 650usize..1400, v6: bool, udp: bool, push: bool, id: u16, seq: u32) {
        let template = if udp { UDP } else { TCP };
        let flags = if push && !udp { tcp::ACK | tcp::PSH } else { template.flags };
        let id = if v6 { 0 } else { id };
        let seq = if udp { 0 } else { seq };
        let sample = Sample { v6, id, seq, flags, dont_fragment: v6, payload: data(len, 0), ..template };
        let whole = sample.unfinished();
        let gso_type = match (udp, v6) {
            (true, _) => vnet::GSO_UDP_L4,
            (false, false) => vnet::GSO_TCPV4,
            (false, true) => vnet::GSO_TCPV6,
        };
        let header = VnetHeader { gso_type, gso_size: size as u16, ..VnetHeader::default() };
        let mut segments = Segments::new(&header, &whole).unwrap();
        let mut packets = Vec::new();
        let mut buffer = vec![0; segments.full_len()];
        while let Some(len) = segments.next_into(&mut buffer) {
            packets.push(buffer[..len].to_vec());
        }
        let written = write(&mut Joiner::new(1, MTU, true), &packets);
        if packets.len() == 1 {
            prop_assert_eq!(&written[0].packet, &packets[0]);
        } else {
            prop_assert_eq!(written.len(), 1);
            prop_assert_eq!(&written[0].packet, &whole);
            prop_assert_eq!(written[0].header.gso_type, gso_type);
            prop_assert_eq!(written[0].header.gso_size, header.gso_size);
        }
        let expanded: Vec<_> = written.iter().flat_map(Written::expand).collect();
        prop_assert_eq!(expanded, packets);
    }

    /// Garbage that parses: nothing panics, nothing but garbage leaves, all of it.
    #[test]
    fn any_bytes(
        packets in vec((0usize..12, vec(any::<u8>(), 0..120), vec((0usize..90, any::<u8>()), 0..6), any::<bool>()), 0..20),
        size: Option<u16>, mtu in 0u32..200,
    ) {
        let mut joiner = Joiner::new(2, mtu, true);
        let (mut pushed, mut left) = (0, 0);
        let mut out = |bytes: &[u8], packets: u64| {
            assert!(bytes.len() >= VnetHeader::LEN + 20);
            left += packets;
        };
        for (flow, payload, noise, unfinished) in packets {
            let sample = Sample { payload, ..flows()[flow].clone() };
            let mut bytes = if unfinished { sample.unfinished() } else { sample.bytes() };
            for (at, value) in noise {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if let Ok(packet) = parse(&bytes)
                && joiner.push_sized(&packet, &bytes, size, &mut out).is_ok() {
                pushed += 1;
            }
        }
        joiner.flush(&mut out);
        prop_assert!(left >= pushed);
    }
}
