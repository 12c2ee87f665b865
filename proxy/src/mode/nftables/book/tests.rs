use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;

use super::super::layout::Place;
use super::*;
use crate::model::{Endpoint, Family, Front, FrontKind, LocalDetector, Policy, Protocol};

pub(crate) fn site() -> Site {
    Site {
        family: Family::V4,
        node: "n1".into(),
        masquerade_all: false,
        masquerade_mark: 0x4000,
        local: LocalDetector::None,
        node_port_addresses: NodePortAddresses::Some(BTreeSet::from([IpAddr::from([
            192, 168, 66, 11,
        ])])),
        service_cidrs: Vec::new(),
        affinity_by_hash: false,
        localhost_node_ports: false,
        conntrack_liberal: false,
    }
}

fn port(number: u8) -> PortName {
    PortName {
        service: crate::model::ObjectName::new("default", &format!("s{number}")),
        port: "http".into(),
        protocol: Protocol::Tcp,
    }
}

/// A balancer of port `number`: its fronts are its own; ports 0 and 1 share the cluster IP.
fn balancer(number: u8) -> impl Strategy<Value = Arc<Balancer>> {
    let policy = || prop::sample::select(vec![Policy::Cluster, Policy::Local]);
    let endpoints = prop::collection::btree_set((0u8..6, 8080u16..8082), 0..6);
    (
        prop::bits::u8::masked(0b111),
        policy(),
        policy(),
        prop::option::of(prop::sample::select(vec![30u32, 10_800])),
        endpoints,
        any::<bool>(),
        prop::collection::btree_set(0u8..4, 0..3),
    )
        .prop_map(
            move |(kinds, internal, external, affinity, endpoints, elsewhere, ranges)| {
                let cluster: Vec<Endpoint> = endpoints
                    .into_iter()
                    .map(|(host, port)| Endpoint {
                        ip: [10, 244, host % 2, host].into(),
                        port,
                        local: host % 2 == 0,
                    })
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect();
                let mut fronts = vec![Front {
                    kind: FrontKind::ClusterIp,
                    ip: Some([10, 96, 0, number / 2].into()),
                    port: 80 + u16::from(number),
                }];
                let more = [
                    (
                        FrontKind::ExternalIp,
                        Some(IpAddr::from([203, 0, 113, number])),
                    ),
                    (
                        FrontKind::LoadBalancer,
                        Some(IpAddr::from([198, 51, 100, number])),
                    ),
                    (FrontKind::NodePort, None),
                ];
                for (bit, (kind, ip)) in more.into_iter().enumerate() {
                    if kinds & 1 << bit != 0 {
                        let port = 30_000 + u16::from(number);
                        fronts.push(Front { kind, ip, port });
                    }
                }
                let ranges = ranges.into_iter();
                Arc::new(Balancer {
                    fronts,
                    internal_policy: internal,
                    external_policy: external,
                    affinity,
                    source_ranges: ranges
                        .map(|n| format!("10.{n}.0.0/1{n}").parse().expect("a network"))
                        .collect(),
                    local: cluster.iter().copied().filter(|each| each.local).collect(),
                    any_endpoint: !cluster.is_empty() || elsewhere,
                    cluster,
                })
            },
        )
}

fn step() -> impl Strategy<Value = (u8, Option<Arc<Balancer>>)> {
    (0u8..5).prop_flat_map(|number| {
        prop::option::weighted(0.8, balancer(number)).prop_map(move |new| (number, new))
    })
}

/// What the kernel would do: refuses what it would refuse.
pub(crate) fn carry_out(kernel: &mut Contents, delta: &Delta) -> Result<(), String> {
    for gone in &delta.delete {
        match kernel.remove(&(gone.set, gone.key)) {
            Some(data) if data == gone.data => {}
            other => return Err(format!("delete {gone:?}: there is {other:?}")),
        }
    }
    for new in &delta.add {
        if let Some(old) = kernel.insert((new.set, new.key), new.data) {
            return Err(format!("add {new:?}: there is {old:?}"));
        }
    }
    Ok(())
}

type Canonical = (
    BTreeMap<(Set, Key), Data>,
    BTreeMap<(Set, String), Vec<Data>>,
);

/// Slots as sorted lists: which endpoint is in which may depend on the past.
fn canonical(contents: &Contents) -> Canonical {
    let mut slots: BTreeMap<(Set, String), BTreeMap<u32, Data>> = BTreeMap::new();
    let mut others = BTreeMap::new();
    for ((set, key), data) in contents {
        match key {
            Key::Slot(at, slot) => {
                let front = slots.entry((*set, at.to_string())).or_default();
                front.insert(*slot, *data);
            }
            _ => drop(others.insert((*set, *key), *data)),
        }
    }
    let lists = slots.into_iter().map(|(front, slots)| {
        // Dense, from 0.
        assert!(
            (0..)
                .zip(slots.keys())
                .all(|(wanted, slot)| wanted == *slot),
            "{front:?}"
        );
        let mut endpoints: Vec<Data> = slots.into_values().collect();
        endpoints.sort_unstable();
        (front, endpoints)
    });
    (others, lists.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn step_by_step_comes_to_the_same_as_from_scratch(
        steps in prop::collection::vec(step(), 1..30),
        hash in any::<bool>(),
    ) {
        let mut wanted = Wanted { site: site(), balancers: BTreeMap::new() };
        wanted.site.affinity_by_hash = hash;
        let mut book = Book::default();
        let mut kernel = Contents::new();
        for (number, new) in steps {
            let name = port(number);
            let delta = book.change(&name, new.as_ref(), &wanted.site);
            prop_assert_eq!(carry_out(&mut kernel, &delta), Ok(()));
            match new {
                Some(new) => wanted.balancers.insert(name, new),
                None => wanted.balancers.remove(&name),
            };
            let mut fresh = contents(&wanted);
            fresh.retain(|(set, _), _| *set != Set::NodePortIps);
            prop_assert_eq!(canonical(&kernel), canonical(&fresh));
            let timeouts: BTreeSet<u32> =
                wanted.balancers.values().filter_map(|each| each.affinity).collect();
            prop_assert_eq!(book.timeouts().collect::<BTreeSet<_>>(), timeouts);
        }
        // A restart: what is there already is left alone, slots and all.
        let mut observed = kernel.clone();
        let mut seen = Contents::new();
        for (name, balancer) in &wanted.balancers {
            let slots = book.get(name).map(|written| written.slots.clone()).unwrap_or_default();
            let elements = Book::default().insert(name, balancer, &slots, &wanted.site);
            prop_assert!(compare(&mut observed, &mut seen, elements).is_empty());
        }
        prop_assert!(observed.is_empty());
    }
}

#[test]
fn one_endpoint_more_among_five_is_two_changes_of_maps() {
    let endpoint = |host: u8| Endpoint {
        ip: [10, 244, 1, host].into(),
        port: 8080,
        local: false,
    };
    let plain = |hosts: std::ops::Range<u8>| {
        Arc::new(Balancer {
            fronts: vec![Front {
                kind: FrontKind::ClusterIp,
                ip: Some([10, 96, 0, 1].into()),
                port: 80,
            }],
            internal_policy: Policy::Cluster,
            external_policy: Policy::Cluster,
            affinity: None,
            source_ranges: Vec::new(),
            cluster: hosts.map(endpoint).collect(),
            local: Vec::new(),
            any_endpoint: true,
        })
    };
    let (site, mut book) = (site(), Book::default());
    let all = book.change(&port(0), Some(&plain(0..5)), &site);
    // The map, the cluster IP, five slots.
    assert_eq!((all.delete.len(), all.add.len()), (0, 7));
    let one = book.change(&port(0), Some(&plain(0..6)), &site);
    let text: Vec<String> = one
        .add
        .iter()
        .map(|each| format!("{} {} : {}", each.set.name(), each.key, each.data))
        .collect();
    assert_eq!(
        text,
        [
            "service-ips 10.96.0.1 . tcp . 80 : goto cluster-6",
            "endpoints 10.96.0.1 . tcp . 80 . 5 : 10.244.1.5 . 8080",
        ]
    );
    assert_eq!(one.delete.len(), 1);
    assert_eq!(one.delete[0].set, Set::Services(Place::Ip));
    let nothing = book.change(&port(0), Some(&plain(0..6)), &site);
    assert!(nothing.is_empty());
    assert_eq!(book.change(&port(0), None, &site).delete.len(), 8);
}
