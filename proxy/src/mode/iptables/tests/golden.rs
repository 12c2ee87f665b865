//! Whole rule sets as text. `WEFT_GOLDEN=write cargo test -p proxy golden` writes the files anew; what
//! changed is then to be read in the difference.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc};

use super::super::{Options, Parts, plan, trace::Chains};
use crate::model::{
    Balancer, Endpoint, Family, Front, FrontKind, LocalDetector, NodePortAddresses, ObjectName,
    Policy, PortName, Protocol, Site, Wanted,
};

fn site(family: Family) -> Site {
    Site {
        family,
        node: "node1".into(),
        masquerade_all: false,
        masquerade_mark: 0x4000,
        local: LocalDetector::Cidrs(vec![
            "10.180.0.0/16".parse().unwrap(),
            "fd00:180::/64".parse().unwrap(),
        ]),
        node_port_addresses: NodePortAddresses::All,
        service_cidrs: Vec::new(),
        affinity_by_hash: false,
        localhost_node_ports: false,
        conntrack_liberal: false,
    }
}

fn front(kind: FrontKind, ip: &str, port: u16) -> Front {
    Front {
        kind,
        ip: ip.parse().ok(),
        port,
    }
}

/// A cluster IP with these endpoints, the first of which is here.
fn balancer(endpoints: &[&str]) -> Balancer {
    let cluster: Vec<_> = endpoints
        .iter()
        .enumerate()
        .map(|(position, ip)| Endpoint {
            ip: ip.parse().unwrap(),
            port: 8080,
            local: position == 0,
        })
        .collect();
    Balancer {
        fronts: vec![front(FrontKind::ClusterIp, "172.30.0.41", 80)],
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        local: Vec::new(),
        any_endpoint: !cluster.is_empty(),
        cluster,
    }
}

const TWO: [&str; 2] = ["10.180.0.1", "10.180.1.2"];

/// Adds a load balancer address and a node port.
fn exposed(mut balancer: Balancer) -> Balancer {
    balancer
        .fronts
        .push(front(FrontKind::ExternalIp, "192.168.99.11", 80));
    balancer
        .fronts
        .push(front(FrontKind::LoadBalancer, "198.51.100.4", 80));
    balancer.fronts.push(front(FrontKind::NodePort, "", 30001));
    balancer
}

fn wanted(site: Site, protocol: Protocol, balancer: Balancer) -> Wanted {
    let name = PortName {
        service: ObjectName::new("ns1", "svc1"),
        port: "p80".into(),
        protocol,
    };
    Wanted {
        site,
        balancers: BTreeMap::from([(name, Arc::new(balancer))]),
    }
}

fn check(name: &str, wanted: &Wanted) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/mode/iptables/tests/golden")
        .join(format!("{name}.rules"));
    let text = Chains::planned(wanted, &Options::default()).text();
    if std::env::var_os("WEFT_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&folder, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&folder).unwrap();
    assert_eq!(text, golden, "{name}");
}

fn check_tcp(name: &str, balancer: Balancer) {
    check(name, &wanted(site(Family::V4), Protocol::Tcp, balancer));
}

#[test]
fn cluster_ip() {
    check_tcp(
        "cluster-ip",
        balancer(&["10.180.0.1", "10.180.1.2", "10.180.1.3"]),
    );
}

#[test]
fn every_front() {
    check_tcp("every-front", exposed(balancer(&TWO)));
}

#[test]
fn source_ranges() {
    let mut balancer = exposed(balancer(&TWO));
    balancer.source_ranges = vec![
        "203.0.113.0/25".parse().unwrap(),
        "10.0.0.1/8".parse().unwrap(),
        "2001:db8::/32".parse().unwrap(),
    ];
    check_tcp("source-ranges", balancer);
}

#[test]
fn local_policies() {
    let mut balancer = exposed(balancer(&TWO));
    (balancer.internal_policy, balancer.external_policy) = (Policy::Local, Policy::Local);
    balancer.local = vec![balancer.cluster[0]];
    check_tcp("local-policies", balancer.clone());
    balancer.local.clear();
    check_tcp("local-policies-elsewhere", balancer);
}

#[test]
fn affinity() {
    let mut balancer = balancer(&TWO);
    balancer.affinity = Some(10800);
    check_tcp("affinity", balancer);
}

#[test]
fn no_endpoints() {
    check_tcp("no-endpoints", exposed(balancer(&[])));
}

#[test]
fn sctp_masquerade_all_and_node_ports_of_some_addresses() {
    let mut site = site(Family::V4);
    site.masquerade_all = true;
    site.masquerade_mark = 0x8;
    site.conntrack_liberal = true;
    let addresses: [IpAddr; 2] = [[192, 168, 0, 2].into(), [127, 0, 0, 1].into()];
    site.node_port_addresses = NodePortAddresses::Some(addresses.into());
    check(
        "sctp",
        &wanted(site, Protocol::Sctp, exposed(balancer(&TWO))),
    );
}

#[test]
fn several_cluster_networks_and_loopback_node_ports() {
    let mut site = site(Family::V4);
    site.localhost_node_ports = true;
    site.local = LocalDetector::Cidrs(vec![
        "10.180.0.0/16".parse().unwrap(),
        "10.181.0.0/16".parse().unwrap(),
    ]);
    let mut balancer = exposed(balancer(&TWO));
    balancer.external_policy = Policy::Local;
    balancer.local = vec![balancer.cluster[0]];
    check("networks", &wanted(site, Protocol::Tcp, balancer));
}

#[test]
fn a_cluster_that_is_all_networks() {
    let mut site = site(Family::V4);
    site.local = LocalDetector::Cidrs(vec!["0.0.0.0/0".parse().unwrap()]);
    let mut balancer = exposed(balancer(&TWO));
    balancer.external_policy = Policy::Local;
    let wanted = wanted(site, Protocol::Tcp, balancer);
    let rules = Chains::planned(&wanted, &Options::default()).text();
    // Words that iptables-save leaves out would be a difference at every restart.
    assert!(!rules.contains("0.0.0.0/0"), "{rules}");
    assert!(rules.contains("pod traffic for"), "{rules}");
}

#[test]
fn interface_detectors() {
    let mut site = site(Family::V4);
    site.local = LocalDetector::InterfacePrefix("veth".into());
    check("interface", &wanted(site, Protocol::Udp, balancer(&TWO)));
}

#[test]
fn without_the_parts_that_old_programs_lack() {
    let mut balancer = exposed(balancer(&TWO));
    balancer.affinity = Some(60);
    let wanted = wanted(site(Family::V4), Protocol::Tcp, balancer);
    let bare = Parts {
        comment: false,
        recent: false,
        random_fully: false,
    };
    let rules: String = plan::all_chains(&wanted, bare, 2000)
        .into_values()
        .collect();
    for part in ["comment", "recent", "random-fully"] {
        assert!(!rules.contains(part), "{rules}");
    }
    let whole: String = plan::all_chains(&wanted, Parts::default(), 2000)
        .into_values()
        .collect();
    for part in ["comment", "recent", "random-fully"] {
        assert!(whole.contains(part), "{whole}");
    }
}

#[test]
fn ipv6() {
    let mut balancer = balancer(&["fd00:180::1", "fd00:180::2"]);
    balancer.fronts = vec![
        front(FrontKind::ClusterIp, "fd00:30::41", 80),
        front(FrontKind::NodePort, "", 30001),
    ];
    balancer.affinity = Some(60);
    check("ipv6", &wanted(site(Family::V6), Protocol::Tcp, balancer));
}
