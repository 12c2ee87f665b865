//! Packets and what must become of them: run over the rules of each mode.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

use super::{Outcome, Packet, Verdict};
use crate::model::{
    Balancer, Endpoint, Family, Front, FrontKind, LocalDetector, NodePortAddresses, ObjectName,
    Policy, PortName, Protocol, Site, Wanted,
};

/// A packet on a node with one Service.
pub(crate) struct Case {
    /// What it is about.
    pub(crate) name: String,
    pub(crate) wanted: Wanted,
    pub(crate) packet: Packet,
    pub(crate) verdict: Verdict,
    pub(crate) endpoints: BTreeMap<SocketAddr, bool>,
}

impl Case {
    /// Fails the test if the outcome is another.
    pub(crate) fn check(&self, outcome: &Outcome) {
        assert_eq!(
            (outcome.verdict, &outcome.endpoints),
            (self.verdict, &self.endpoints),
            "{}: {}\n{}",
            self.name,
            self.packet,
            outcome.steps.join("\n")
        );
    }
}

/// The Service of the cases, port 80.
pub(crate) fn port(protocol: Protocol) -> PortName {
    PortName {
        service: ObjectName::new("ns1", "svc1"),
        port: "p80".into(),
        protocol,
    }
}

/// Addresses of one family.
struct Net(Family);

impl Net {
    fn ip(&self, v4: &str, v6: &str) -> IpAddr {
        match self.0 {
            Family::V4 => v4.parse().unwrap(),
            Family::V6 => v6.parse().unwrap(),
        }
    }

    fn cidr(&self, v4: &str, v6: &str) -> IpNet {
        match self.0 {
            Family::V4 => v4.parse().unwrap(),
            Family::V6 => v6.parse().unwrap(),
        }
    }

    fn cluster_ip(&self) -> IpAddr {
        self.ip("172.30.0.41", "fd00:30::41")
    }

    fn external_ip(&self) -> IpAddr {
        self.ip("192.168.99.11", "fd00:99::11")
    }

    fn load_balancer_ip(&self) -> IpAddr {
        self.ip("198.51.100.4", "2001:db8:4::4")
    }

    fn node_ip(&self) -> IpAddr {
        self.ip("192.168.0.2", "fd00:168::2")
    }

    /// A Pod of this node.
    fn pod(&self) -> IpAddr {
        self.ip("10.180.0.200", "fd00:180::200")
    }

    fn outside(&self) -> IpAddr {
        self.ip("203.0.113.130", "2001:db8:130::1")
    }

    fn here(&self) -> SocketAddr {
        SocketAddr::new(self.ip("10.180.0.1", "fd00:180::1"), 8080)
    }

    fn there(&self) -> SocketAddr {
        SocketAddr::new(self.ip("10.180.1.2", "fd00:180:0:1::2"), 8080)
    }

    fn site(&self) -> Site {
        Site {
            family: self.0,
            node: "node1".into(),
            masquerade_all: false,
            masquerade_mark: 0x4000,
            local: LocalDetector::Cidrs(vec![self.cidr("10.180.0.0/16", "fd00:180::/32")]),
            node_port_addresses: NodePortAddresses::All,
            service_cidrs: Vec::new(),
            affinity_by_hash: false,
            localhost_node_ports: false,
            conntrack_liberal: false,
        }
    }

    /// All kinds of fronts and two endpoints, one of them here.
    fn balancer(&self) -> Balancer {
        let front = |kind, ip, port| Front { kind, ip, port };
        let mut balancer = Balancer {
            fronts: vec![
                front(FrontKind::ClusterIp, Some(self.cluster_ip()), 80),
                front(FrontKind::ExternalIp, Some(self.external_ip()), 80),
                front(FrontKind::LoadBalancer, Some(self.load_balancer_ip()), 80),
                front(FrontKind::NodePort, None, 30001),
            ],
            internal_policy: Policy::Cluster,
            external_policy: Policy::Cluster,
            affinity: None,
            source_ranges: Vec::new(),
            cluster: Vec::new(),
            local: Vec::new(),
            any_endpoint: true,
        };
        for (address, local) in [(self.here(), true), (self.there(), false)] {
            balancer.cluster.push(Endpoint {
                ip: address.ip(),
                port: address.port(),
                local,
            });
        }
        balancer
    }

    /// The same with the local list filled.
    fn local_balancer(&self) -> Balancer {
        let mut balancer = self.balancer();
        balancer.local = vec![balancer.cluster[0]];
        balancer
    }

    fn pod_calls(&self, to: SocketAddr) -> Packet {
        Packet {
            interface: Some("cni0".into()),
            destination_is_local: to.ip() == self.node_ip(),
            ..Packet::new(self.pod(), to, Protocol::Tcp)
        }
    }

    fn outside_calls(&self, to: SocketAddr) -> Packet {
        Packet {
            destination_is_local: to.ip() == self.node_ip(),
            ..Packet::new(self.outside(), to, Protocol::Tcp)
        }
    }

    fn node_calls(&self, to: SocketAddr) -> Packet {
        Packet {
            interface: None,
            source_is_local: true,
            destination_is_local: to.ip() == self.node_ip(),
            ..Packet::new(self.node_ip(), to, Protocol::Tcp)
        }
    }

    /// The front that is not the cluster IP, one of each kind.
    fn externals(&self) -> [SocketAddr; 3] {
        [
            SocketAddr::new(self.external_ip(), 80),
            SocketAddr::new(self.load_balancer_ip(), 80),
            SocketAddr::new(self.node_ip(), 30001),
        ]
    }

    fn wanted(&self, balancer: &Balancer) -> Wanted {
        Wanted {
            site: self.site(),
            balancers: BTreeMap::from([(port(Protocol::Tcp), Arc::new(balancer.clone()))]),
        }
    }
}

/// What is expected.
enum Fate<'a> {
    To(&'a [(SocketAddr, bool)]),
    Ends(Verdict),
}

/// All cases of a family.
pub(crate) fn all(family: Family) -> Vec<Case> {
    let net = Net(family);
    let mut cases = Vec::new();
    cluster_ip(&net, &mut cases);
    cluster_policy(&net, &mut cases);
    local_policies(&net, &mut cases);
    without_endpoints(&net, &mut cases);
    source_ranges(&net, &mut cases);
    node_ports(&net, &mut cases);
    detectors(&net, &mut cases);
    cases
}

fn add(cases: &mut Vec<Case>, name: &str, wanted: &Wanted, packet: Packet, fate: &Fate<'_>) {
    let (verdict, endpoints) = match fate {
        Fate::To(endpoints) => (Verdict::Balanced, endpoints.iter().copied().collect()),
        Fate::Ends(verdict) => (*verdict, BTreeMap::new()),
    };
    cases.push(Case {
        name: name.to_owned(),
        wanted: wanted.clone(),
        packet,
        verdict,
        endpoints,
    });
}

fn cluster_ip(net: &Net, cases: &mut Vec<Case>) {
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

fn cluster_policy(net: &Net, cases: &mut Vec<Case>) {
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

fn local_policies(net: &Net, cases: &mut Vec<Case>) {
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

fn without_endpoints(net: &Net, cases: &mut Vec<Case>) {
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

fn source_ranges(net: &Net, cases: &mut Vec<Case>) {
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

fn node_ports(net: &Net, cases: &mut Vec<Case>) {
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

fn detectors(net: &Net, cases: &mut Vec<Case>) {
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
