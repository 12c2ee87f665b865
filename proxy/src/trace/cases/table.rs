//! The cases themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use super::{Case, Fate, Net, add, port};
use crate::{
    model::{Family, LocalDetector, NodePortAddresses, Policy, Protocol},
    trace::{Packet, Verdict},
};

pub(super) fn cluster_ip(net: &Net, cases: &mut Vec<Case>) {
    let wanted = net.wanted(&net.balancer());
    let to = SocketAddr::new(net.cluster_ip(), 80);
    let (here, there) = (net.here(), net.there());
    let mut case = |name: &str, packet: Packet, fate: &Fate<'_>| {
        add(cases, name, &wanted, packet, fate);
    };
    case(
        "a Pod calls a cluster IP",
        net.pod_calls(to),
        &Fate::To(&[(here, false), (there, false)]),
    );
    case(
        "the node calls a cluster IP",
        net.node_calls(to),
        &Fate::To(&[(here, true), (there, true)]),
    );
    case(
        "someone outside calls a cluster IP",
        net.outside_calls(to),
        &Fate::To(&[(here, true), (there, true)]),
    );
    let mut itself = net.pod_calls(to);
    itself.source.set_ip(here.ip());
    case(
        "an endpoint calls its own Service",
        itself,
        &Fate::To(&[(here, true), (there, false)]),
    );
    let mut datagram = net.pod_calls(to);
    datagram.protocol = Protocol::Udp;
    case(
        "another protocol is not the Service's",
        datagram,
        &Fate::Ends(Verdict::NotOurs),
    );

    let mut masquerade_all = wanted.clone();
    masquerade_all.site.masquerade_all = true;
    add(
        cases,
        "masquerade all: a Pod calls a cluster IP",
        &masquerade_all,
        net.pod_calls(to),
        &Fate::To(&[(here, true), (there, true)]),
    );
    for protocol in [Protocol::Udp, Protocol::Sctp] {
        let mut other = wanted.clone();
        other.balancers = BTreeMap::from([(port(protocol), Arc::new(net.balancer()))]);
        let mut packet = net.pod_calls(to);
        packet.protocol = protocol;
        add(
            cases,
            "a cluster IP of another protocol",
            &other,
            packet,
            &Fate::To(&[(here, false), (there, false)]),
        );
    }
}

pub(super) fn cluster_policy(net: &Net, cases: &mut Vec<Case>) {
    let wanted = net.wanted(&net.balancer());
    let all = [(net.here(), true), (net.there(), true)];
    for to in net.externals() {
        for packet in [net.pod_calls(to), net.node_calls(to), net.outside_calls(to)] {
            add(
                cases,
                "Cluster policy: everyone is masqueraded at an external front",
                &wanted,
                packet,
                &Fate::To(&all),
            );
        }
    }
}

pub(super) fn local_policies(net: &Net, cases: &mut Vec<Case>) {
    let (here, there) = (net.here(), net.there());
    let mut balancer = net.local_balancer();
    balancer.external_policy = Policy::Local;
    let mut elsewhere = balancer.clone();
    elsewhere.local.clear();
    for to in net.externals() {
        let with = net.wanted(&balancer);
        let without = net.wanted(&elsewhere);
        add(
            cases,
            "externalTrafficPolicy Local keeps the client's address",
            &with,
            net.outside_calls(to),
            &Fate::To(&[(here, false)]),
        );
        add(
            cases,
            "externalTrafficPolicy Local without local endpoint is silent",
            &without,
            net.outside_calls(to),
            &Fate::Ends(Verdict::Drop),
        );
        for wanted in [&with, &without] {
            add(
                cases,
                "externalTrafficPolicy Local: a Pod is short-circuited",
                wanted,
                net.pod_calls(to),
                &Fate::To(&[(here, false), (there, false)]),
            );
            add(
                cases,
                "externalTrafficPolicy Local: the node is short-circuited and masqueraded",
                wanted,
                net.node_calls(to),
                &Fate::To(&[(here, true), (there, true)]),
            );
        }
    }
    let mut inside = net.local_balancer();
    inside.internal_policy = Policy::Local;
    let to = SocketAddr::new(net.cluster_ip(), 80);
    add(
        cases,
        "internalTrafficPolicy Local",
        &net.wanted(&inside),
        net.pod_calls(to),
        &Fate::To(&[(here, false)]),
    );
    inside.local.clear();
    add(
        cases,
        "internalTrafficPolicy Local without local endpoint is silent",
        &net.wanted(&inside),
        net.pod_calls(to),
        &Fate::Ends(Verdict::Drop),
    );
    add(
        cases,
        "internalTrafficPolicy Local does not bind the other fronts",
        &net.wanted(&inside),
        net.outside_calls(SocketAddr::new(net.external_ip(), 80)),
        &Fate::To(&[(here, true), (there, true)]),
    );
}

pub(super) fn without_endpoints(net: &Net, cases: &mut Vec<Case>) {
    let mut balancer = net.balancer();
    balancer.cluster.clear();
    balancer.any_endpoint = false;
    let mut ranged = balancer.clone();
    ranged.source_ranges = vec![net.cidr("203.0.113.0/25", "2001:db8:131::/48")];
    let mut local = balancer.clone();
    local.external_policy = Policy::Local;
    for balancer in [balancer, ranged, local] {
        let wanted = net.wanted(&balancer);
        let to = SocketAddr::new(net.cluster_ip(), 80);
        for to in net.externals().into_iter().chain([to]) {
            for packet in [net.pod_calls(to), net.node_calls(to), net.outside_calls(to)] {
                add(
                    cases,
                    "no endpoint anywhere: refused at once",
                    &wanted,
                    packet,
                    &Fate::Ends(Verdict::Reject),
                );
            }
        }
    }
}

pub(super) fn source_ranges(net: &Net, cases: &mut Vec<Case>) {
    let mut balancer = net.balancer();
    balancer.source_ranges = vec![net.cidr("203.0.113.0/24", "2001:db8:130::/48")];
    let wanted = net.wanted(&balancer);
    let all = [(net.here(), true), (net.there(), true)];
    let to = SocketAddr::new(net.load_balancer_ip(), 80);
    add(
        cases,
        "a source in the ranges",
        &wanted,
        net.outside_calls(to),
        &Fate::To(&all),
    );
    for packet in [net.pod_calls(to), net.node_calls(to)] {
        add(
            cases,
            "a source outside the ranges",
            &wanted,
            packet,
            &Fate::Ends(Verdict::Drop),
        );
    }
    for to in [
        SocketAddr::new(net.external_ip(), 80),
        SocketAddr::new(net.node_ip(), 30001),
    ] {
        add(
            cases,
            "ranges are for load balancer addresses only",
            &wanted,
            net.pod_calls(to),
            &Fate::To(&all),
        );
    }
}

pub(super) fn node_ports(net: &Net, cases: &mut Vec<Case>) {
    let all = [(net.here(), true), (net.there(), true)];
    let mut wanted = net.wanted(&net.balancer());
    add(
        cases,
        "a node port of an address that is not the node's",
        &wanted,
        net.outside_calls(SocketAddr::new(
            net.ip("192.168.0.77", "fd00:168::77"),
            30001,
        )),
        &Fate::Ends(Verdict::NotOurs),
    );
    let mut loopback = net.node_calls(SocketAddr::new(net.ip("127.0.0.1", "::1"), 30001));
    loopback.source.set_ip(loopback.destination.ip());
    loopback.destination_is_local = true;
    add(
        cases,
        "a node port on loopback, where that is off",
        &wanted,
        loopback,
        &Fate::Ends(Verdict::NotOurs),
    );
    wanted.site.node_port_addresses = NodePortAddresses::Some(BTreeSet::from([net.node_ip()]));
    add(
        cases,
        "a node port of an address in the list",
        &wanted,
        net.outside_calls(SocketAddr::new(net.node_ip(), 30001)),
        &Fate::To(&all),
    );
    let mut other = net.outside_calls(SocketAddr::new(net.ip("192.168.5.2", "fd00:5::2"), 30001));
    other.destination_is_local = true;
    add(
        cases,
        "a node port of the node's address that is not in the list",
        &wanted,
        other,
        &Fate::Ends(Verdict::NotOurs),
    );
}

pub(super) fn detectors(net: &Net, cases: &mut Vec<Case>) {
    let to = SocketAddr::new(net.cluster_ip(), 80);
    let (here, there) = (net.here(), net.there());
    let mut external = net.local_balancer();
    external.external_policy = Policy::Local;
    let mut wanted = net.wanted(&external);
    let some_nets = LocalDetector::Cidrs(vec![
        net.cidr("10.180.0.0/24", "fd00:180::/64"),
        net.cidr("10.181.0.0/16", "fd00:181::/32"),
    ]);
    for (detector, knows) in [
        (LocalDetector::None, false),
        (LocalDetector::Interface("cni0".into()), true),
        (LocalDetector::InterfacePrefix("cn".into()), true),
        (some_nets, true),
        // Networks of the other family say nothing.
        (
            LocalDetector::Cidrs(vec![Net(other(net.0)).cidr("10.0.0.0/8", "fd00::/8")]),
            false,
        ),
    ] {
        wanted.site.local = detector;
        add(
            cases,
            "a Pod, by each detector",
            &wanted,
            net.pod_calls(to),
            &Fate::To(&[(here, false), (there, false)]),
        );
        add(
            cases,
            "someone outside, by each detector",
            &wanted,
            net.outside_calls(to),
            &Fate::To(&[(here, knows), (there, knows)]),
        );
        let short = [(here, false), (there, false)];
        add(
            cases,
            "a Pod's short circuit needs a detector",
            &wanted,
            net.pod_calls(SocketAddr::new(net.external_ip(), 80)),
            &Fate::To(if knows { &short } else { &short[..1] }),
        );
    }
}

fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}
