use proptest::prelude::*;

use super::*;

fn ip(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::V4 => any::<[u8; 4]>().prop_map(IpAddr::from).boxed(),
        Family::V6 => any::<[u8; 16]>().prop_map(IpAddr::from).boxed(),
    }
}

fn at(family: Family, place: Place) -> impl Strategy<Value = At> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    (
        ip(family),
        prop::sample::select(protocols.to_vec()),
        any::<u16>(),
    )
        .prop_map(move |(ip, protocol, port)| At {
            ip: (place == Place::Ip).then_some(ip),
            protocol,
            port,
        })
}

fn key(set: Set, family: Family) -> BoxedStrategy<Key> {
    let width: u8 = if family == Family::V4 { 32 } else { 128 };
    match set {
        Set::ClusterIps | Set::NodePortIps => ip(family).prop_map(Key::Ip).boxed(),
        Set::FirewallIps => at(family, Place::Ip).prop_map(Key::At).boxed(),
        Set::Services(place)
        | Set::Lists(_, place)
        | Set::NoEndpoints(place)
        | Set::AffinityTimeouts(place) => at(family, place).prop_map(Key::At).boxed(),
        Set::Endpoints(_, place) => (at(family, place), any::<u32>())
            .prop_map(|(at, slot)| Key::Slot(at, slot))
            .boxed(),
        Set::Hairpin | Set::Affinity => (ip(family), at(family, Place::Ip))
            .prop_map(|(source, at)| Key::From(source, at))
            .boxed(),
        Set::SourceRanges => (at(family, Place::Ip), ip(family), 0u8..=width)
            .prop_map(|(at, ip, length)| {
                Key::Range(
                    at,
                    IpNet::new(ip, length).expect("a length that fits").trunc(),
                )
            })
            .boxed(),
    }
}

fn any_key() -> impl Strategy<Value = (Set, Family, Key)> {
    (
        prop::sample::select(Set::all()),
        prop::sample::select(Family::ALL.to_vec()),
    )
        .prop_flat_map(|(set, family)| key(set, family).prop_map(move |key| (set, family, key)))
}

proptest! {
    #[test]
    fn keys_come_back_as_they_went((set, family, key) in any_key()) {
        let (bytes, end) = key.encode();
        prop_assert_eq!(Key::decode(set, family, &bytes, end.as_deref()), Some(key));
        // Cut or prolonged, they are refused and nothing panics.
        for length in 0..bytes.len() {
            prop_assert_eq!(Key::decode(set, family, &bytes[..length], end.as_deref()), None);
        }
    }

    #[test]
    fn foreign_bytes_do_not_panic(
        set in prop::sample::select(Set::all()),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        for family in Family::ALL {
            let _ = Key::decode(set, family, &bytes, Some(&bytes));
            let _ = Data::decode(set, family, Some(&kernel::nft::Data::Value(bytes.clone().into())));
        }
    }
}

#[test]
fn names_of_chains_come_back() {
    let mut all = vec![
        Chain::Pick(List::Cluster),
        Chain::Pick(List::Local),
        Chain::InternalLocal,
        Chain::ExternalCluster,
        Chain::ExternalLocal,
        Chain::Reject,
        Chain::Note(10_800),
    ];
    for list in [List::Cluster, List::Local] {
        for place in [Place::Ip, Place::NodePort] {
            all.extend([Chain::Size(list, place, 5), Chain::Hash(list, place, 64)]);
        }
    }
    for chain in all {
        assert_eq!(Chain::parse(&chain.to_string()), Some(chain), "{chain}");
    }
    assert_eq!(Chain::parse("cluster-x"), None);
    assert_eq!(Chain::parse("other-5"), None);
}

#[test]
fn keys_print_as_nft_does() {
    let at = At {
        ip: Some([10, 96, 0, 1].into()),
        protocol: Protocol::Tcp,
        port: 443,
    };
    assert_eq!(Key::Slot(at, 3).to_string(), "10.96.0.1 . tcp . 443 . 3");
    let node = At { ip: None, ..at };
    assert_eq!(Key::At(node).to_string(), "tcp . 443");
    let net: IpNet = "192.0.2.0/24".parse().unwrap();
    assert_eq!(
        Key::Range(at, net).to_string(),
        "10.96.0.1 . tcp . 443 . 192.0.2.0/24"
    );
}

#[test]
fn bytes_are_the_kernels_registers() {
    let at = At {
        ip: Some([10, 96, 0, 1].into()),
        protocol: Protocol::Udp,
        port: 53,
    };
    let (bytes, _) = Key::Slot(at, 2).encode();
    let mut wanted = vec![10, 96, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0];
    wanted.extend(2u32.to_ne_bytes());
    assert_eq!(bytes, wanted);
}
