use std::net::IpAddr;

use super::super::book::tests::site;
use super::*;

fn endpoint(host: u8, local: bool) -> Endpoint {
    Endpoint {
        ip: [10, 244, u8::from(!local), host].into(),
        port: 8080,
        local,
    }
}

fn balancer(kind: FrontKind, ip: Option<[u8; 4]>) -> Balancer {
    Balancer {
        fronts: vec![Front {
            kind,
            ip: ip.map(IpAddr::from),
            port: 80,
        }],
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        cluster: vec![endpoint(1, false), endpoint(2, false)],
        local: Vec::new(),
        any_endpoint: true,
    }
}

fn text(balancer: &Balancer, site: &Site) -> String {
    let slots = Slots::default().next(balancer, site);
    let lines = elements(Protocol::Tcp, balancer, &slots, site)
        .into_iter()
        .map(|each| match each.data {
            Data::None => format!("{} {}\n", each.set.name(), each.key),
            data => format!("{} {} : {data}\n", each.set.name(), each.key),
        });
    lines.collect()
}

#[test]
fn cluster_ip() {
    let plain = balancer(FrontKind::ClusterIp, Some([10, 96, 0, 1]));
    assert_eq!(
        text(&plain, &site()),
        "service-ips 10.96.0.1 . tcp . 80 : goto cluster-2
endpoints 10.96.0.1 . tcp . 80 . 0 : 10.244.1.1 . 8080
endpoints 10.96.0.1 . tcp . 80 . 1 : 10.244.1.2 . 8080
cluster-ips 10.96.0.1
"
    );
}

#[test]
fn cluster_ip_without_endpoints_is_refused_and_with_others_only_dropped() {
    let mut none = balancer(FrontKind::ClusterIp, Some([10, 96, 0, 1]));
    none.cluster.clear();
    none.any_endpoint = false;
    assert_eq!(
        text(&none, &site()),
        "no-endpoint-services 10.96.0.1 . tcp . 80 : goto reject-chain\ncluster-ips 10.96.0.1\n"
    );
    let mut elsewhere = balancer(FrontKind::ClusterIp, Some([10, 96, 0, 1]));
    elsewhere.internal_policy = Policy::Local;
    assert_eq!(
        text(&elsewhere, &site()),
        "no-endpoint-services 10.96.0.1 . tcp . 80 : drop\ncluster-ips 10.96.0.1\n"
    );
}

#[test]
fn node_port_with_the_local_policy() {
    let mut local = balancer(FrontKind::NodePort, None);
    local.external_policy = Policy::Local;
    local.cluster.push(endpoint(3, true));
    local.local = vec![endpoint(3, true)];
    local.cluster.sort();
    assert_eq!(
        text(&local, &site()),
        "service-nodeports tcp . 80 : goto external-local
cluster-nodeport-lists tcp . 80 : goto cluster-nodeport-3
local-nodeport-lists tcp . 80 : goto local-nodeport-1
nodeport-endpoints tcp . 80 . 0 : 10.244.0.3 . 8080
nodeport-endpoints tcp . 80 . 1 : 10.244.1.1 . 8080
nodeport-endpoints tcp . 80 . 2 : 10.244.1.2 . 8080
local-nodeport-endpoints tcp . 80 . 0 : 10.244.0.3 . 8080
hairpin-connections 10.244.0.3 . 10.244.0.3 . tcp . 8080
"
    );
    local.local.clear();
    local.cluster.remove(0);
    let without = text(&local, &site());
    assert!(
        without.contains("no-endpoint-nodeports tcp . 80 : drop\n"),
        "{without}"
    );
    assert!(without.contains("cluster-nodeport-lists"), "{without}");
}

#[test]
fn load_balancer_with_source_ranges() {
    let mut ranges = balancer(FrontKind::LoadBalancer, Some([198, 51, 100, 1]));
    ranges.source_ranges = ["192.0.2.0/25", "192.0.2.128/25", "203.0.113.9/32"]
        .map(|net| net.parse().unwrap())
        .into();
    let text = text(&ranges, &site());
    for line in [
        "service-ips 198.51.100.1 . tcp . 80 : goto external-cluster\n",
        "cluster-lists 198.51.100.1 . tcp . 80 : goto cluster-2\n",
        "firewall-ips 198.51.100.1 . tcp . 80\n",
        // Neighbours are joined: the kernel takes no overlaps.
        "source-ranges 198.51.100.1 . tcp . 80 . 192.0.2.0/24\n",
        "source-ranges 198.51.100.1 . tcp . 80 . 203.0.113.9\n",
        "source-ranges 198.51.100.1 . tcp . 80 . 198.51.100.1\n",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[test]
fn affinity_by_table_and_by_hash() {
    let mut sticky = balancer(FrontKind::ClusterIp, Some([10, 96, 0, 1]));
    sticky.affinity = Some(10_800);
    let table = text(&sticky, &site());
    for line in [
        "service-ips 10.96.0.1 . tcp . 80 : goto pick-cluster\n",
        "cluster-lists 10.96.0.1 . tcp . 80 : goto cluster-2\n",
        "affinity-timeouts 10.96.0.1 . tcp . 80 : jump note-client-10800\n",
    ] {
        assert!(table.contains(line), "{line} is missing in\n{table}");
    }
    let hash = Site {
        affinity_by_hash: true,
        ..site()
    };
    let hashed = text(&sticky, &hash);
    assert!(hashed.contains("service-ips 10.96.0.1 . tcp . 80 : goto cluster-hash-64\n"));
    assert_eq!(hashed.matches("\nendpoints ").count(), 64);
    assert!(!hashed.contains("affinity"));
}
