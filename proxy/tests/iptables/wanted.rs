//! What is wanted on the bed's node.

use std::{collections::BTreeMap, sync::Arc};

use proxy::model::{
    Balancer, Endpoint, Family, Front, FrontKind, LocalDetector, NodePortAddresses, ObjectName,
    Policy, PortName, Protocol, Site, Wanted,
};

use crate::bed::Bed;

impl Bed {
    pub fn site(&self) -> Site {
        Site {
            family: self.family,
            node: "node".into(),
            masquerade_all: false,
            masquerade_mark: 0x4000,
            local: LocalDetector::Cidrs(vec![
                "10.244.0.0/16".parse().unwrap(),
                "fd00:244::/64".parse().unwrap(),
            ]),
            node_port_addresses: NodePortAddresses::All,
            service_cidrs: Vec::new(),
            affinity_by_hash: false,
            localhost_node_ports: false,
            conntrack_liberal: false,
        }
    }

    pub fn wanted(&self, balancers: Vec<(&str, Balancer)>) -> Wanted {
        Wanted {
            site: self.site(),
            balancers: balancers
                .into_iter()
                .map(|(name, balancer)| (port(name), Arc::new(balancer)))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    /// A Service at a cluster IP, port 80, and maybe a node port, with the Pods of these numbers.
    pub fn balancer(&self, host: u8, node_port: Option<u16>, pods: &[u8]) -> Balancer {
        let mut fronts = vec![Front {
            kind: FrontKind::ClusterIp,
            ip: Some(self.cluster_ip(host)),
            port: 80,
        }];
        fronts.extend(node_port.map(|port| Front {
            kind: FrontKind::NodePort,
            ip: None,
            port,
        }));
        let cluster: Vec<_> = pods
            .iter()
            .map(|pod| Endpoint {
                ip: self.pod(*pod),
                port: 8080,
                local: true,
            })
            .collect();
        Balancer {
            fronts,
            internal_policy: Policy::Cluster,
            external_policy: Policy::Cluster,
            affinity: None,
            source_ranges: Vec::new(),
            any_endpoint: !cluster.is_empty(),
            local: Vec::new(),
            cluster,
        }
    }
}

/// The port `http` of a Service.
pub fn port(name: &str) -> PortName {
    PortName {
        service: ObjectName::new("shop", name),
        port: "http".into(),
        protocol: Protocol::Tcp,
    }
}

/// A bit of everything.
pub fn variety(bed: &Bed) -> Wanted {
    let mut sticky = bed.balancer(11, Some(30081), &[2, 3]);
    sticky.affinity = Some(10800);
    let mut local = bed.balancer(12, Some(30082), &[2, 3]);
    (local.external_policy, local.internal_policy) = (Policy::Local, Policy::Local);
    local.local = vec![local.cluster[0]];
    let ranges = Balancer {
        source_ranges: vec![match bed.family {
            Family::V4 => "192.0.2.0/24".parse().unwrap(),
            Family::V6 => "fd00:2::/64".parse().unwrap(),
        }],
        fronts: vec![Front {
            kind: FrontKind::LoadBalancer,
            ip: Some(bed.cluster_ip(200)),
            port: 443,
        }],
        ..bed.balancer(13, None, &[2])
    };
    let mut wanted = bed.wanted(vec![
        ("quo\"te\\ and\nline", bed.balancer(15, None, &[2])),
        ("web", bed.balancer(10, Some(30080), &[2, 3])),
        ("sticky", sticky),
        ("local", local),
        ("ranges", ranges),
        ("empty", bed.balancer(14, Some(30083), &[])),
    ]);
    for (protocol, host) in [(Protocol::Udp, 16), (Protocol::Sctp, 17)] {
        let mut name = port("other");
        name.protocol = protocol;
        let balancer = bed.balancer(host, Some(30084), &[2, 3]);
        wanted.balancers.insert(name, Arc::new(balancer));
    }
    wanted.site.localhost_node_ports = true;
    wanted
}

/// The same on nodes that are set up otherwise.
pub fn varieties(bed: &Bed) -> Vec<Wanted> {
    let with = |change: &dyn Fn(&mut Site)| {
        let mut wanted = variety(bed);
        change(&mut wanted.site);
        wanted
    };
    vec![
        variety(bed),
        with(&|site| site.masquerade_all = true),
        with(&|site| site.local = LocalDetector::None),
        with(&|site| {
            site.local =
                LocalDetector::Cidrs(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        }),
        with(&|site| site.local = LocalDetector::Interface("cni0".into())),
        with(&|site| site.local = LocalDetector::InterfacePrefix("veth".into())),
        with(&|site| {
            site.local = LocalDetector::Cidrs(
                ["10.1.0.0/16", "10.2.0.0/16", "fd01::/64", "fd02::/64"]
                    .map(|net| net.parse().unwrap())
                    .into(),
            );
        }),
        with(&|site| {
            site.node_port_addresses = NodePortAddresses::Some([bed.node_ip()].into());
            site.localhost_node_ports = false;
            site.conntrack_liberal = true;
            site.masquerade_mark = 0x8000_0000;
        }),
    ]
}
