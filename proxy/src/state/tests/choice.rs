//! Which endpoints a port uses (facts of kube-proxy's `CategorizeEndpoints`).

use super::*;
use crate::model::{Fate, List, NodeInfo};

/// A case: endpoints, then what the cluster and the local list come to.
struct Case {
    what: &'static str,
    endpoints: &'static [&'static str],
    cluster: &'static [&'static str],
    local: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        what: "nothing there",
        endpoints: &[],
        cluster: &[],
        local: &[],
    },
    Case {
        what: "ready ones, sorted by address",
        endpoints: &["10.1.0.10", "10.1.0.9 on=n1", "10.1.0.1 unready on=n1"],
        cluster: &["10.1.0.9:8080!", "10.1.0.10:8080"],
        local: &["10.1.0.9:8080!"],
    },
    Case {
        what: "a ready one keeps those that drain away",
        endpoints: &["10.1.0.1 drains on=n1", "10.1.0.2"],
        cluster: &["10.1.0.2:8080"],
        local: &["10.1.0.1:8080!"],
    },
    Case {
        what: "no ready one: those that drain",
        endpoints: &[
            "10.1.0.1 drains on=n1",
            "10.1.0.2 drains",
            "10.1.0.3 gone",
            "10.1.0.4 unready",
        ],
        cluster: &["10.1.0.1:8080!", "10.1.0.2:8080"],
        local: &["10.1.0.1:8080!"],
    },
    Case {
        what: "ready though terminating (publishNotReadyAddresses) is ready",
        endpoints: &["10.1.0.1 ready+terminating on=n1", "10.1.0.2 drains on=n1"],
        cluster: &["10.1.0.1:8080!"],
        local: &["10.1.0.1:8080!"],
    },
    Case {
        what: "all unready",
        endpoints: &["10.1.0.1 unready on=n1", "10.1.0.2 gone"],
        cluster: &[],
        local: &[],
    },
    Case {
        what: "zone hints on all ready ones",
        endpoints: &[
            "10.1.0.1 zone=a",
            "10.1.0.2 zone=b",
            "10.1.0.3 zone=b zone=a",
            "10.1.0.4 unready",
        ],
        cluster: &["10.1.0.1:8080", "10.1.0.3:8080"],
        local: &[],
    },
    Case {
        what: "zone hints on all but one: none count",
        endpoints: &["10.1.0.1 zone=a", "10.1.0.2"],
        cluster: &["10.1.0.1:8080", "10.1.0.2:8080"],
        local: &[],
    },
    Case {
        what: "zone hints without ours: none count",
        endpoints: &["10.1.0.1 zone=b", "10.1.0.2 zone=c"],
        cluster: &["10.1.0.1:8080", "10.1.0.2:8080"],
        local: &[],
    },
    Case {
        what: "the only one of the zone is not ready: none count",
        endpoints: &["10.1.0.1 zone=b", "10.1.0.2 zone=a unready"],
        cluster: &["10.1.0.1:8080"],
        local: &[],
    },
    Case {
        what: "hints do not bind those that drain",
        endpoints: &["10.1.0.1 zone=b drains", "10.1.0.2 zone=a drains"],
        cluster: &["10.1.0.1:8080", "10.1.0.2:8080"],
        local: &[],
    },
    Case {
        what: "node hints before zone hints",
        endpoints: &["10.1.0.1 zone=a node=n1", "10.1.0.2 zone=a node=n2"],
        cluster: &["10.1.0.1:8080"],
        local: &[],
    },
    Case {
        what: "node hints for other nodes: zone hints",
        endpoints: &["10.1.0.1 zone=a node=n3", "10.1.0.2 zone=b node=n2"],
        cluster: &["10.1.0.1:8080"],
        local: &[],
    },
    Case {
        what: "node hints on all but one: zone hints",
        endpoints: &["10.1.0.1 zone=a node=n1", "10.1.0.2 zone=a"],
        cluster: &["10.1.0.1:8080", "10.1.0.2:8080"],
        local: &[],
    },
    Case {
        what: "the local list does not know hints",
        endpoints: &["10.1.0.1 zone=b on=n1", "10.1.0.2 zone=a on=n2"],
        cluster: &["10.1.0.2:8080"],
        local: &["10.1.0.1:8080!"],
    },
];

fn node(zone: &str) -> Event {
    Event::Node(Some(NodeInfo {
        zone: Some(zone.into()),
        ..NodeInfo::default()
    }))
}

#[test]
fn endpoints_are_chosen_as_by_kube_proxy() {
    for case in CASES {
        for local in [false, true] {
            let mut state = state();
            let mut service = service("a", &["10.0.0.1"]);
            if local {
                service.internal_policy = Policy::Local;
            }
            state.apply(node("a"));
            state.apply(has_slice(slice("a-1", "a", case.endpoints)));
            state.apply(has(service));
            state.take(Family::V4);
            let balancer = &state.wanted(Family::V4).unwrap().balancers[&port("a")];
            assert_eq!(shown(&balancer.cluster), case.cluster, "{}", case.what);
            let expected: &[&str] = if local { case.local } else { &[] };
            assert_eq!(shown(&balancer.local), expected, "{}", case.what);
            assert_eq!(balancer.any_endpoint, !case.cluster.is_empty());
        }
    }
}

#[test]
fn doubles_over_slices_count_once_and_the_better_one_wins() {
    let cases: &[(&[&[&str]], &[&str])] = &[
        (&[&["10.1.0.1"], &["10.1.0.1"]], &["10.1.0.1:8080"]),
        // Moving from slice to slice: for a moment both have it.
        (&[&["10.1.0.1 drains"], &["10.1.0.1"]], &["10.1.0.1:8080"]),
        (
            &[&["10.1.0.1 on=n1"], &["10.1.0.1 drains on=n2"]],
            &["10.1.0.1:8080!"],
        ),
        // The one that does not terminate counts, even if it is not ready.
        (&[&["10.1.0.1 unready"], &["10.1.0.1 drains"]], &[]),
        (
            &[&["10.1.0.1 on=n2"], &["10.1.0.1 on=n1"]],
            &["10.1.0.1:8080!"],
        ),
    ];
    for (slices, expected) in cases {
        // In whichever order they come.
        for reverse in [false, true] {
            let mut state = state();
            let mut slices: Vec<_> = slices.iter().zip(["a-1", "a-2"]).collect();
            if reverse {
                slices.reverse();
            }
            for (endpoints, name) in slices {
                state.apply(has_slice(slice(name, "a", endpoints)));
            }
            state.apply(has(service("a", &["10.0.0.1"])));
            state.take(Family::V4);
            let balancer = &state.wanted(Family::V4).unwrap().balancers[&port("a")];
            assert_eq!(shown(&balancer.cluster), *expected);
        }
    }
}

#[test]
fn each_endpoint_has_the_number_its_slice_gives_the_port() {
    let mut state = state();
    let mut other = slice("a-2", "a", &["10.1.0.2", "10.1.0.1"]);
    other.ports[0].port = 9090;
    let mut udp = slice("a-3", "a", &["10.1.0.3"]);
    udp.ports[0].protocol = Protocol::Udp;
    let mut unnamed = slice("a-4", "a", &["10.1.0.4"]);
    unnamed.ports[0].name = "".into();
    state.apply(has(service("a", &["10.0.0.1"])));
    for slice in [slice("a-1", "a", &["10.1.0.1"]), other, udp, unnamed] {
        state.apply(has_slice(slice));
    }
    state.take(Family::V4);
    let balancer = &state.wanted(Family::V4).unwrap().balancers[&port("a")];
    let expected = ["10.1.0.1:8080", "10.1.0.1:9090", "10.1.0.2:9090"];
    assert_eq!(shown(&balancer.cluster), expected);
}

#[test]
fn each_family_has_its_own() {
    let mut state = state();
    let mut both = service("a", &["10.0.0.1", "fd00::1"]);
    both.external_ips = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    both.source_ranges = vec![
        "192.0.2.0/24".parse().unwrap(),
        "2001:db8::/64".parse().unwrap(),
    ];
    both.ports[0].node_port = Some(30080);
    let mut one = service("b", &["fd00::2"]);
    one.external_ips = both.external_ips.clone();
    one.ports[0].port = 81;
    one.ports[0].node_port = Some(30081);
    state.apply(has(both));
    state.apply(has(one));
    state.apply(has_slice(slice("a-1", "a", &["10.1.0.1"])));
    state.apply(has_slice(slice("a-2", "a", &["fd01::1"])));
    state.take(Family::V4);
    let expected = [
        "ClusterIp 10.0.0.1:80",
        "ExternalIp 192.0.2.1:80",
        "NodePort 30080",
    ];
    assert_eq!(shown_fronts(&state, Family::V4, "a"), expected);
    let expected = [
        "ClusterIp fd00::1:80",
        "ExternalIp 2001:db8::1:80",
        "NodePort 30080",
    ];
    assert_eq!(shown_fronts(&state, Family::V6, "a"), expected);
    assert_eq!(shown_fronts(&state, Family::V4, "b"), ["none"]);
    let balancer = |family| state.wanted(family).unwrap().balancers[&port("a")].clone();
    assert_eq!(shown(&balancer(Family::V4).cluster), ["10.1.0.1:8080"]);
    assert_eq!(shown(&balancer(Family::V6).cluster), ["fd01::1:8080"]);
    let ranges = |family| balancer(family).source_ranges.clone();
    assert_eq!(ranges(Family::V4), ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(ranges(Family::V6), ["2001:db8::/64".parse().unwrap()]);
}

#[test]
fn a_local_policy_without_local_endpoints_drops_and_is_counted() {
    let mut state = state();
    let mut local = service("a", &["10.0.0.1"]);
    local.internal_policy = Policy::Local;
    local.external_policy = Policy::Local;
    state.apply(has(local.clone()));
    state.take(Family::V4);
    let internal = |state: &State| {
        let balancers = &state.wanted(Family::V4).unwrap().balancers;
        balancers[&port("a")].internal()
    };
    assert_eq!(internal(&state), Fate::Reject);
    assert_eq!(state.no_local(Family::V4), NoLocal::default());

    state.apply(has_slice(slice("a-1", "a", &["10.1.0.1 on=n2"])));
    state.take(Family::V4);
    assert_eq!(internal(&state), Fate::Drop);
    // Nobody can come from outside: there is no front for it.
    let no_local = |internal, external| NoLocal { internal, external };
    assert_eq!(state.no_local(Family::V4), no_local(1, 0));
    assert_eq!(state.no_local(Family::V6), no_local(0, 0));

    local.ports[0].node_port = Some(30080);
    state.apply(has(local));
    state.take(Family::V4);
    assert_eq!(state.no_local(Family::V4), no_local(1, 1));

    state.apply(has_slice(slice("a-1", "a", &["10.1.0.1 on=n1"])));
    state.take(Family::V4);
    assert_eq!(internal(&state), Fate::Balance(List::Local));
    assert_eq!(state.no_local(Family::V4), no_local(0, 0));
}

#[test]
fn health_ports_count_distinct_local_addresses_that_are_ready() {
    let mut state = state();
    let mut balanced = service("a", &["10.0.0.1", "fd00::1"]);
    balanced.external_policy = Policy::Local;
    balanced.health_check_node_port = Some(32000);
    state.apply(has(balanced.clone()));
    let here = [
        "10.1.0.1 on=n1",
        "10.1.0.2 on=n1 drains",
        "10.1.0.3 on=n2",
        "10.1.0.4 on=n1 unready",
    ];
    state.apply(has_slice(slice("a-1", "a", &here)));
    let mut second_port = slice("a-2", "a", &["10.1.0.1 on=n1", "10.1.0.5 on=n1"]);
    second_port.ports[0].port = 9090;
    state.apply(has_slice(second_port));
    state.take(Family::V4);
    let health = |state: &State, family| {
        let health = state
            .health(family)
            .get(&ObjectName::new("shop", "a"))
            .copied();
        health.map(|health| (health.port, health.local_endpoints))
    };
    assert_eq!(health(&state, Family::V4), Some((32000, 2)));
    assert_eq!(health(&state, Family::V6), Some((32000, 0)));
    balanced.cluster_ips.pop();
    state.apply(has(balanced.clone()));
    state.take(Family::V4);
    assert_eq!(health(&state, Family::V6), None);
    state.apply(Event::ServiceGone(balanced.name));
    state.take(Family::V4);
    assert_eq!(health(&state, Family::V4), None);
}

#[test]
fn another_zone_changes_what_it_changes_and_nothing_else() {
    let mut state = state();
    for name in ["a", "b"] {
        state.apply(has(service(name, &[&format!("10.0.0.{}", name.len())])));
    }
    state.apply(has_slice(slice(
        "a-1",
        "a",
        &["10.1.0.1 zone=x", "10.1.0.2 zone=y"],
    )));
    state.apply(has_slice(slice("b-1", "b", &["10.1.0.3"])));
    state.take(Family::V4);
    state.apply(node("y"));
    let Some(Update::Ports(ports)) = state.take(Family::V4) else {
        panic!("the zone has not changed anything");
    };
    assert_eq!(ports.keys().collect::<Vec<_>>(), [&port("a")]);
    assert_eq!(
        shown(&ports[&port("a")].as_ref().unwrap().cluster),
        ["10.1.0.2:8080"]
    );
    state.apply(Event::Node(None));
    state.take(Family::V4);
    let balancer = &state.wanted(Family::V4).unwrap().balancers[&port("a")];
    assert_eq!(balancer.cluster.len(), 2);
}

#[test]
fn flows_of_udp_may_go_on_to_what_drains() {
    for (protocol, draining) in [(Protocol::Udp, 1), (Protocol::Tcp, 0)] {
        let mut state = state();
        let mut dns = service("dns", &["10.96.0.10"]);
        dns.ports[0].protocol = protocol;
        let endpoints = ["10.1.0.1", "10.1.0.2 drains", "10.1.0.3 gone"];
        let mut slice = slice("dns-1", "dns", &endpoints);
        slice.ports[0].protocol = protocol;
        state.apply(has(dns));
        state.apply(has_slice(slice));
        state.take(Family::V4);
        let wanted = state.wanted(Family::V4).unwrap();
        let balancer = wanted.balancers.values().next().unwrap();
        assert_eq!(balancer.cluster.len(), 1, "{protocol}");
        assert_eq!(balancer.draining.len(), draining, "{protocol}");
    }
}
