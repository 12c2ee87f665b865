use super::super::fronts::{Scope, claim};
use super::super::picker::Stickiness;
use super::super::surroundings::Surroundings;
use super::*;
use crate::model::{Endpoint, Front, FrontKind, LocalDetector, ObjectName, Policy, Protocol};
use proptest::prelude::*;

fn name(n: u8) -> PortName {
    PortName {
        service: ObjectName::new("default", &format!("s{}", n / 2)),
        port: "".into(),
        protocol: [Protocol::Tcp, Protocol::Udp][usize::from(n % 2)],
    }
}

fn around() -> Surroundings {
    Surroundings {
        own: ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()].into(),
        next_hops: ["192.0.2.254".parse().unwrap()].into(),
        node_ports: ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()].into(),
        pods: LocalDetector::None,
        stickiness: Stickiness::Hash,
    }
}

/// Cluster IP by number, perhaps a node port, endpoints or none.
fn balancer(ip: u8, node_port: Option<u16>, endpoints: bool) -> Arc<Balancer> {
    let cluster_ip = Front {
        kind: FrontKind::ClusterIp,
        ip: Some([10, 96, 0, ip].into()),
        port: 80,
    };
    let node_port = node_port.map(|port| Front {
        kind: FrontKind::NodePort,
        ip: None,
        port,
    });
    let endpoint = Endpoint {
        ip: [10, 244, 0, 2].into(),
        port: 80,
        local: false,
    };
    Arc::new(Balancer {
        fronts: std::iter::once(cluster_ip).chain(node_port).collect(),
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        cluster: if endpoints {
            vec![endpoint]
        } else {
            Vec::new()
        },
        local: Vec::new(),
        any_endpoint: endpoints,
    })
}

fn news(name: PortName, balancer: Option<Arc<Balancer>>) -> News {
    let state = balancer.map(|balancer| {
        let claim = claim(&name, &balancer, &around(), Scope::Everything);
        (balancer, claim)
    });
    (name, state)
}

fn open(steps: &[Step], open: &mut BTreeMap<Place, Owned>) {
    for step in steps {
        match step {
            Step::Close(place) => drop(open.remove(place).unwrap()),
            Step::Open(owned) => {
                assert!(
                    open.insert(owned.door.place, owned.clone()).is_none(),
                    "{step}"
                );
            }
            Step::Guard(owned) => {
                assert!(
                    open.insert(owned.door.place, owned.clone()).is_some(),
                    "{step}"
                );
            }
        }
    }
}

#[test]
fn a_service_gets_sockets_and_addresses_and_loses_them() {
    let mut ledger = Ledger::default();
    let mut there = BTreeMap::new();
    let (touched, errors) = ledger.enter(vec![news(name(0), Some(balancer(1, Some(30080), true)))]);
    assert_eq!(errors, [""; 0]);
    let plan = steps(&there, &ledger, &touched);
    let words: Vec<_> = plan.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "listen on 10.96.0.1:80/tcp for default/s0",
            "listen on 192.0.2.1:30080/tcp for default/s0",
            "listen on 192.0.2.2:30080/tcp for default/s0",
        ]
    );
    open(&plan, &mut there);
    // Without endpoints the kernel refuses, for which the address must be there.
    let (touched, _) = ledger.enter(vec![news(name(0), Some(balancer(1, Some(30080), false)))]);
    let plan = steps(&there, &ledger, &touched);
    assert_eq!(plan.len(), 3);
    assert!(plan.iter().all(|step| matches!(step, Step::Close(_))));
    assert!(ledger.has_address([10, 96, 0, 1].into()));
    ledger.enter(vec![news(name(0), None)]);
    assert!(!ledger.has_address([10, 96, 0, 1].into()));
}

#[test]
fn a_place_that_two_want_is_the_first_ones_and_the_other_is_told() {
    let mut ledger = Ledger::default();
    ledger.enter(vec![news(name(0), Some(balancer(1, None, true)))]);
    let (touched, errors) = ledger.enter(vec![news(name(2), Some(balancer(1, None, true)))]);
    assert_eq!(
        errors,
        ["listen on 10.96.0.1:80/tcp for default/s1: default/s0 has it"]
    );
    assert!(touched.is_empty());
    // The address is there for both, and stays for one.
    ledger.enter(vec![news(name(0), None)]);
    assert!(ledger.has_address([10, 96, 0, 1].into()));
}

proptest! {
    /// Whatever changes come in whatever portions, what is open and routed in the end is what a fresh start would give.
    #[test]
    fn changes_one_by_one_come_to_the_same_as_all_at_once(
        portions in prop::collection::vec(
            prop::collection::btree_map(
                0_u8..8,
                // Of its own address, so that nothing clashes; TCP and UDP of a Service share one.
                prop::option::of((prop::bool::ANY, prop::bool::ANY)),
                1..4,
            ),
            1..20,
        )
    ) {
        let mut ledger = Ledger::default();
        let mut there = BTreeMap::new();
        let mut state = BTreeMap::new();
        for portion in portions {
            let mut entered = Vec::new();
            for (n, what) in portion {
                let balancer = what.map(|(node_port, endpoints)| {
                    let node_port = node_port.then_some(30000 + u16::from(n));
                    balancer(n / 2, node_port, endpoints)
                });
                match &balancer {
                    Some(balancer) => drop(state.insert(n, Arc::clone(balancer))),
                    None => drop(state.remove(&n)),
                }
                entered.push(news(name(n), balancer));
            }
            let (touched, errors) = ledger.enter(entered);
            prop_assert_eq!(errors, [""; 0]);
            open(&steps(&there, &ledger, &touched), &mut there);
        }
        let mut fresh = Ledger::default();
        fresh.enter(state.into_iter().map(|(n, b)| news(name(n), Some(b))).collect());
        let doors = |doors: &BTreeMap<Place, Owned>| -> Vec<_> {
            doors.values().map(|owned| (owned.name.clone(), owned.door.clone())).collect()
        };
        prop_assert_eq!(doors(&there), doors(&fresh.doors));
        prop_assert_eq!(&ledger.addresses, &fresh.addresses);
        let everything: BTreeSet<_> = there.keys().copied().collect();
        prop_assert_eq!(steps(&there, &ledger, &everything), []);
    }
}
