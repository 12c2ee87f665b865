//! Which flows go, by table: a balancer before, one after, and the flows there are.

use super::*;
use crate::model::{Endpoint, Front, FrontKind, Policy};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn balancer(fronts: &[&str], endpoints: &[&str]) -> Balancer {
    let fronts = fronts.iter().map(|text| match text.strip_prefix("node:") {
        Some(port) => Front {
            kind: FrontKind::NodePort,
            ip: None,
            port: port.parse().unwrap(),
        },
        None => Front {
            kind: FrontKind::ClusterIp,
            ip: Some(at(text).ip()),
            port: at(text).port(),
        },
    });
    let cluster = endpoints.iter().map(|text| Endpoint {
        ip: at(text).ip(),
        port: at(text).port(),
        local: false,
    });
    Balancer {
        fronts: fronts.collect(),
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        cluster: cluster.collect(),
        local: Vec::new(),
        any_endpoint: !endpoints.is_empty(),
    }
}

/// `to` answered by `from`.
fn flow(to: &str, from: &str) -> Flow {
    Flow {
        protocol: Protocol::Udp,
        orig_src: if at(to).is_ipv4() {
            at("10.244.9.9:4000")
        } else {
            at("[fd00:9::9]:4000")
        },
        orig_dst: at(to),
        reply_src: at(from),
    }
}

fn run(old: Option<&Balancer>, new: Option<&Balancer>, flows: &[Flow]) -> Vec<Flow> {
    let local = ["192.0.2.1", "127.0.0.1"].map(|text| text.parse().unwrap());
    let changes = changes(old.map(Served::from), new.map(Served::from));
    plan(&changes, &local.into(), flows.iter().copied())
}

const VIP: &str = "10.96.0.10:53";
const A: &str = "10.244.1.1:5353";
const B: &str = "10.244.2.2:5353";
const C: &str = "10.244.3.3:5353";

#[test]
fn a_lost_endpoint_takes_its_flows_along_and_no_others() {
    let old = balancer(&[VIP, "node:30053"], &[A, B]);
    let new = balancer(&[VIP, "node:30053"], &[B, C]);
    let stale = [
        flow(VIP, A),
        flow("192.0.2.1:30053", A),
        flow("127.0.0.1:30053", A),
    ];
    let live = [
        flow(VIP, B),
        flow("192.0.2.1:30053", B),
        // The same port of someone else.
        flow("8.8.8.8:30053", "8.8.8.8:30053"),
        // Another port of the address, and the endpoint reached directly.
        flow("10.96.0.10:54", A),
        flow(A, A),
        Flow {
            protocol: Protocol::Tcp,
            ..flow(VIP, A)
        },
    ];
    let flows = [&stale[..], &live].concat();
    assert_eq!(run(Some(&old), Some(&new), &flows), stale);
}

#[test]
fn an_endpoint_of_the_same_address_on_another_port_is_another() {
    let old = balancer(&[VIP], &["10.244.1.1:53"]);
    let new = balancer(&[VIP], &["10.244.1.1:54"]);
    let flows = [flow(VIP, "10.244.1.1:53"), flow(VIP, "10.244.1.1:54")];
    assert_eq!(run(Some(&old), Some(&new), &flows), flows[..1]);
}

#[test]
fn a_front_that_is_served_for_the_first_time_loses_untranslated_flows() {
    let old = balancer(&[VIP], &[]);
    let new = balancer(&[VIP], &[A]);
    let flows = [flow(VIP, VIP), flow(VIP, A)];
    for old in [Some(&old), None] {
        assert_eq!(run(old, Some(&new), &flows), flows[..1]);
    }
    // A new front of a Service that was served before.
    let old = balancer(&[VIP], &[A]);
    let new = balancer(&[VIP, "203.0.113.5:53"], &[A]);
    let other = "203.0.113.5:53";
    let flows = [flow(other, other), flow(other, A), flow(VIP, VIP)];
    assert_eq!(run(Some(&old), Some(&new), &flows), flows[..1]);
}

#[test]
fn more_endpoints_cut_nothing() {
    let old = balancer(&[VIP], &[A]);
    let new = balancer(&[VIP], &[A, B]);
    assert_eq!(changes(Some((&old).into()), Some((&new).into())), []);
    assert_eq!(changes(Some((&old).into()), Some((&old).into())), []);
}

#[test]
fn a_service_without_endpoints_is_left_alone() {
    let old = balancer(&[VIP], &[A]);
    let new = balancer(&[VIP], &[]);
    assert_eq!(run(Some(&old), Some(&new), &[flow(VIP, A)]), []);
}

#[test]
fn a_front_that_is_gone_loses_what_was_translated() {
    let old = balancer(&[VIP, "203.0.113.5:53"], &[A]);
    let flows = [flow(VIP, A), flow(VIP, VIP), flow("203.0.113.5:53", A)];
    assert_eq!(run(Some(&old), None, &flows), [flows[0], flows[2]]);
    let new = balancer(&[VIP], &[A]);
    assert_eq!(run(Some(&old), Some(&new), &flows), flows[2..]);
}

#[test]
fn a_front_that_moved_to_another_service_port_is_that_ones() {
    let (old, new) = (balancer(&[VIP], &[A, B]), balancer(&[VIP], &[B]));
    let mut moved = changes(Some((&old).into()), None);
    moved.extend(changes(None, Some((&new).into())));
    let flows = [flow(VIP, A), flow(VIP, B)];
    for _ in 0..2 {
        assert_eq!(plan(&moved, &BTreeSet::new(), flows), flows[..1]);
        moved.reverse();
    }
}

#[test]
fn terminating_endpoints_keep_their_flows_until_they_are_gone() {
    let old = balancer(&[VIP], &[A, B]);
    let new = balancer(&[VIP], &[B]);
    let draining = Served {
        balancer: &new,
        serving: &[at(A)],
    };
    let flows = [flow(VIP, A), flow(VIP, B)];
    assert_eq!(changes(Some((&old).into()), Some(draining)), []);
    let gone = changes(Some(draining), Some((&new).into()));
    assert_eq!(plan(&gone, &BTreeSet::new(), flows), flows[..1]);
}

#[test]
fn ipv6() {
    let old = balancer(&["[fd00:96::a]:53"], &["[fd00:1::1]:53", "[fd00:2::2]:53"]);
    let new = balancer(&["[fd00:96::a]:53"], &["[fd00:2::2]:53"]);
    let flows = [
        flow("[fd00:96::a]:53", "[fd00:1::1]:53"),
        flow("[fd00:96::a]:53", "[fd00:2::2]:53"),
    ];
    assert_eq!(run(Some(&old), Some(&new), &flows), flows[..1]);
}
