//! Packets and what must become of them: run over the rules of each mode.

mod table;

use std::{
    collections::BTreeMap,
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

/// Adds other Services, each with a cluster IP, an external IP and a node port of its own, none of the
/// cases' own.
pub(crate) fn crowd(wanted: &mut Wanted, count: u16) {
    let net = Net(wanted.site.family);
    let ip = |base: IpAddr, number: u16| -> IpAddr {
        match base {
            IpAddr::V4(base) => (u32::from(base) + u32::from(number)).to_be_bytes().into(),
            IpAddr::V6(base) => (u128::from(base) + u128::from(number)).to_be_bytes().into(),
        }
    };
    for number in 0..count {
        let mut balancer = net.balancer();
        balancer.fronts = vec![
            Front {
                kind: FrontKind::ClusterIp,
                ip: Some(ip(net.ip("172.31.0.0", "fd00:31::"), number)),
                port: 80,
            },
            Front {
                kind: FrontKind::ExternalIp,
                ip: Some(ip(net.ip("192.0.0.0", "fd00:92::"), number)),
                port: 80,
            },
            Front {
                kind: FrontKind::NodePort,
                ip: None,
                port: 31000 + number,
            },
        ];
        balancer.any_endpoint = number % 5 != 0;
        if !balancer.any_endpoint {
            balancer.cluster.clear();
        }
        let name = PortName {
            service: ObjectName::new("crowd", &format!("s{number}")),
            port: "http".into(),
            protocol: [Protocol::Tcp, Protocol::Udp][usize::from(number % 2)],
        };
        wanted.balancers.insert(name, Arc::new(balancer));
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
    table::cluster_ip(&net, &mut cases);
    table::cluster_policy(&net, &mut cases);
    table::local_policies(&net, &mut cases);
    table::without_endpoints(&net, &mut cases);
    table::source_ranges(&net, &mut cases);
    table::node_ports(&net, &mut cases);
    table::detectors(&net, &mut cases);
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
