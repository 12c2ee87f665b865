//! Any bytes in: no panic, and what comes out is a message that its client can take.

use proptest::prelude::*;

use super::*;

/// What must hold for any packet. The zone, the forwarder (without upstreams) and the packet path are the real ones.
fn check(bench: &Bench, runtime: &tokio::runtime::Runtime, packet: &[u8], transport: Transport) {
    let mut out = vec![0xee; 7];
    let answered = match bench.begin(packet, CLIENT, transport, &mut out) {
        Step::Answered => true,
        Step::Silence => false,
        Step::Pending(pending) => {
            runtime.block_on(bench.handler.finish(pending, &mut out));
            true
        }
    };
    let is_answer = packet.get(2).is_some_and(|flags| flags & 0x80 != 0);
    assert_eq!(answered, packet.len() >= 12 && !is_answer, "{packet:02x?}");
    if !answered {
        return;
    }
    let answer = Message::from_vec(&out).unwrap_or_else(|error| {
        panic!("{error}: an answer that cannot be read, {out:02x?} to {packet:02x?}")
    });
    assert_eq!(out[..2], packet[..2], "the id");
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(u8::from(answer.metadata.op_code), packet[2] >> 3 & 15);
    let asked = Message::from_vec(packet).ok();
    let payload = asked
        .as_ref()
        .and_then(|asked| asked.edns.as_ref())
        .map_or(512, |edns| usize::from(edns.max_payload()).clamp(512, 1232));
    if transport == Transport::Udp {
        assert!(
            out.len() <= payload,
            "{} bytes to a client of {payload}",
            out.len()
        );
    }
    if let Some(asked) = asked
        && asked.metadata.op_code == OpCode::Query
        && asked.queries.len() == 1
    {
        assert!(
            answer.queries[0].name.eq_case(&asked.queries[0].name),
            "the question, in its case"
        );
        assert_eq!(answer.edns.is_some(), asked.edns.is_some());
    } else {
        assert!(answer.metadata.response_code != ResponseCode::NoError);
    }
}

/// A query that makes sense, for most names that matter.
fn queries() -> impl Strategy<Value = Vec<u8>> {
    let names = prop::sample::select(vec![
        "web.shop.svc.cluster.local.",
        "many.shop.svc.cluster.local.",
        "_http._tcp.many.shop.svc.cluster.local.",
        "alias2.shop.svc.cluster.local.",
        "ring.shop.svc.cluster.local.",
        "out.shop.svc.cluster.local.",
        "www.example.com.shop.svc.cluster.local.",
        "7.0.244.10.in-addr.arpa.",
        "cluster.local.",
        "www.example.com.",
        "version.bind.",
        ".",
    ]);
    (
        names,
        any::<u16>(),
        any::<u16>(),
        any::<u16>(),
        prop::option::of(any::<(u16, u8, bool)>()),
    )
        .prop_map(|(asked, id, record_type, class, offer)| {
            let mut message = query(asked, RecordType::from(record_type % 300));
            message.metadata.id = id;
            if class % 4 == 0 {
                message.queries[0].query_class = DNSClass::from(class);
            }
            message.edns = offer.map(|(payload, version, dnssec_ok)| {
                let mut edns = edns(payload);
                edns.set_version(version & 1).set_dnssec_ok(dnssec_ok);
                edns
            });
            message.to_vec().unwrap()
        })
}

fn transports() -> impl Strategy<Value = Transport> {
    prop::sample::select(vec![Transport::Udp, Transport::Tcp])
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn bench() -> Bench {
    let search = Search::new(name("cluster.local."), Vec::new(), 5).unwrap();
    let limits = limits::Settings {
        queries: 0,
        forwards: 0,
        concurrent_forwards: 0,
        clients: 8,
    };
    Bench::new(
        zone(),
        Vec::new(),
        Settings {
            search: Some(search),
            limits,
            ..settings()
        },
    )
}

#[test]
fn any_bytes() {
    let (bench, runtime) = (bench(), runtime());
    proptest!(ProptestConfig::with_cases(4000), |(packet in prop::collection::vec(any::<u8>(), 0..700), transport in transports())| {
        check(&bench, &runtime, &packet, transport);
    });
}

#[test]
fn any_bytes_behind_a_header_of_a_query() {
    let (bench, runtime) = (bench(), runtime());
    let packets = (
        any::<u16>(),
        prop::array::uniform4(0u16..3),
        prop::collection::vec(any::<u8>(), 0..300),
    );
    proptest!(ProptestConfig::with_cases(4000), |((id, counts, body) in packets, transport in transports())| {
        let mut packet = id.to_be_bytes().to_vec();
        packet.extend([1, 0]);
        packet.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        packet.extend(body);
        check(&bench, &runtime, &packet, transport);
    });
}

#[test]
fn queries_with_bytes_changed_cut_and_added() {
    let (bench, runtime) = (bench(), runtime());
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let strategy = (
        queries(),
        changes,
        0usize..40,
        prop::collection::vec(any::<u8>(), 0..30),
        transports(),
    );
    proptest!(ProptestConfig::with_cases(6000), |((mut packet, changes, cut, tail, transport) in strategy)| {
        for (at, byte) in changes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        packet.truncate(packet.len() - cut.min(packet.len()) / 8);
        packet.extend(tail);
        check(&bench, &runtime, &packet, transport);
    });
}

#[test]
fn every_type_and_opcode() {
    let (bench, runtime) = (bench(), runtime());
    for number in (0..=300).chain([32768, 32769, 65280, 65534, 65535]) {
        for asked in [
            "web.shop.svc.cluster.local.",
            "missing.shop.svc.cluster.local.",
            "www.example.com.",
        ] {
            let packet = query(asked, RecordType::from(number)).to_vec().unwrap();
            check(&bench, &runtime, &packet, Transport::Udp);
        }
    }
    for opcode in 0..16u8 {
        let mut packet = query("web.shop.svc.cluster.local.", RecordType::A)
            .to_vec()
            .unwrap();
        packet[2] = packet[2] & 0x87 | opcode << 3;
        check(&bench, &runtime, &packet, Transport::Udp);
    }
}

#[test]
fn pointers_that_loop_and_labels_that_lie() {
    let (bench, runtime) = (bench(), runtime());
    let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for body in [
        &[0xc0, 12, 0, 1, 0, 1][..],       // to itself
        &[1, b'a', 0xc0, 12, 0, 1, 0, 1],  // to its own beginning
        &[0xc0, 14, 0xc0, 12, 0, 1, 0, 1], // to each other
        &[0xc0, 0, 0, 1, 0, 1],            // into the header
        &[0xc0, 255, 0, 1, 0, 1],          // past the end
        &[0xff, 0xff, 0, 1, 0, 1],
        &[63, b'a', 0, 0, 1, 0, 1],   // longer than the packet
        &[0x40, b'a', 0, 0, 1, 0, 1], // an extended label (RFC 6891 5)
        &[0x80, b'a', 0, 0, 1, 0, 1],
        &[],
        &[0],
        &[0, 0, 1, 0],
    ] {
        let packet = [&header[..], body].concat();
        check(&bench, &runtime, &packet, Transport::Udp);
        check(&bench, &runtime, &packet, Transport::Tcp);
    }
    // A name of 128 labels, one too long; and a packet of the largest size.
    let mut long = header.to_vec();
    long.extend([1, b'x'].repeat(127));
    long.extend([1, b'x', 0, 0, 1, 0, 1]);
    check(&bench, &runtime, &long, Transport::Udp);
    let mut large = query("web.shop.svc.cluster.local.", RecordType::A)
        .to_vec()
        .unwrap();
    large.resize(65535, 0xc0);
    check(&bench, &runtime, &large, Transport::Tcp);
    // As many records as the header can promise.
    let mut promise = header.to_vec();
    promise[4..12].fill(0xff);
    promise.extend([0, 0, 1, 0, 1]);
    check(&bench, &runtime, &promise, Transport::Udp);
    promise[4..6].copy_from_slice(&[0, 1]);
    check(&bench, &runtime, &promise, Transport::Udp);
}
