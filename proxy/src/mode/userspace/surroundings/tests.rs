use super::*;
use crate::model::Endpoint;

const VIP: &str = "203.0.113.5";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(text: &str) -> Vec<IpNet> {
    let nets = text.split_whitespace();
    nets.map(|net| net.parse().unwrap()).collect()
}

fn around(pods: LocalDetector) -> Surroundings {
    Surroundings {
        own: [ip("127.0.0.1"), ip("192.0.2.1")].into(),
        next_hops: BTreeSet::new(),
        node_ports: [ip("192.0.2.1")].into(),
        pods,
        stickiness: Stickiness::Table(10),
    }
}

fn balancer(internal: Policy, external: Policy, local: usize, remote: usize) -> Balancer {
    let endpoint = |n: usize| Endpoint {
        ip: [10, 244, 0, n as u8].into(),
        port: 80,
        local: n < local,
    };
    let cluster: Vec<_> = (0..local + remote).map(endpoint).collect();
    Balancer {
        fronts: Vec::new(),
        internal_policy: internal,
        external_policy: external,
        affinity: None,
        source_ranges: Vec::new(),
        local: cluster[..local].to_vec(),
        any_endpoint: !cluster.is_empty(),
        cluster,
    }
}

/// Pods come by interface `cni0`, others by `eth0`.
fn link_to(client: IpAddr) -> Option<String> {
    let link = if client.to_string().starts_with("10.244.") {
        "cni0"
    } else {
        "eth0"
    };
    Some(link.to_owned())
}

const CLUSTER: Verdict = Verdict::Serve(List::Cluster);
const LOCAL: Verdict = Verdict::Serve(List::Local);

#[test]
fn each_client_meets_the_policy_that_is_for_it() {
    use FrontKind::{ClusterIp, ExternalIp, NodePort};
    use Policy::{Cluster, Local};
    use Verdict::{Refuse, Silence};
    let cidrs = LocalDetector::Cidrs(nets("10.244.0.0/24"));
    let (pod, node, outside) = ("10.244.0.9", "192.0.2.1", "198.51.100.1");
    // Policies (internal, external), endpoints (local, remote), front, client.
    for (policies, endpoints, kind, client, expected) in [
        ((Cluster, Cluster), (1, 1), ClusterIp, pod, CLUSTER),
        ((Cluster, Cluster), (0, 0), ClusterIp, pod, Refuse),
        ((Local, Cluster), (1, 1), ClusterIp, pod, LOCAL),
        ((Local, Cluster), (0, 1), ClusterIp, pod, Silence),
        ((Local, Cluster), (0, 1), ClusterIp, node, Silence),
        ((Local, Cluster), (0, 1), ExternalIp, outside, CLUSTER),
        ((Cluster, Local), (0, 1), ClusterIp, outside, CLUSTER),
        ((Cluster, Local), (1, 1), ExternalIp, outside, LOCAL),
        ((Cluster, Local), (1, 1), ExternalIp, pod, CLUSTER),
        ((Cluster, Local), (1, 1), NodePort, node, CLUSTER),
        ((Cluster, Local), (1, 1), NodePort, "127.0.0.1", CLUSTER),
        ((Cluster, Local), (0, 1), NodePort, outside, Silence),
        ((Cluster, Local), (0, 1), NodePort, VIP, CLUSTER),
        ((Cluster, Local), (0, 0), NodePort, outside, Refuse),
    ] {
        let b = balancer(policies.0, policies.1, endpoints.0, endpoints.1);
        for pods in [cidrs.clone(), LocalDetector::Interface("cni0".into())] {
            let verdict = around(pods).admit(&b, kind, ip(VIP), ip(client), link_to);
            let case = format!("{policies:?} {endpoints:?} {kind:?} {client}");
            assert_eq!(verdict, expected, "{case}");
            let refused = expected == Refuse;
            assert_eq!(is_served(&b, kind), !refused, "{case}");
        }
    }
    let prefix = LocalDetector::InterfacePrefix("cn".into());
    let b = balancer(Cluster, Local, 0, 1);
    let admit = |client| around(prefix.clone()).admit(&b, NodePort, ip(VIP), ip(client), link_to);
    assert_eq!((admit(pod), admit(outside)), (CLUSTER, Silence));
    let none = around(LocalDetector::None);
    let verdict = none.admit(&b, NodePort, ip(VIP), ip(pod), |_| {
        panic!("not of interest")
    });
    assert_eq!(verdict, Silence);
}

#[test]
fn source_ranges_are_for_load_balancers_only() {
    let mut b = balancer(Policy::Cluster, Policy::Cluster, 0, 1);
    b.source_ranges = nets("198.51.100.0/24");
    let around = around(LocalDetector::None);
    let admit = |b: &Balancer, kind, client| around.admit(b, kind, ip(VIP), ip(client), link_to);
    let balanced = FrontKind::LoadBalancer;
    assert_eq!(admit(&b, balanced, "198.51.100.7"), CLUSTER);
    assert_eq!(admit(&b, balanced, "198.51.101.7"), Verdict::Silence);
    assert_eq!(admit(&b, balanced, VIP), Verdict::Silence);
    for kind in [
        FrontKind::ClusterIp,
        FrontKind::ExternalIp,
        FrontKind::NodePort,
    ] {
        assert_eq!(admit(&b, kind, "198.51.101.7"), CLUSTER);
    }
    b.source_ranges = nets("192.0.2.0/30");
    assert_eq!(
        admit(&b, balanced, VIP),
        CLUSTER,
        "the node is in the range"
    );
}

/// Whoever is served passes the gate; who meets silence does not, where addresses tell.
#[test]
fn the_gate_agrees_with_the_verdict() {
    use Policy::{Cluster, Local};
    let clients = [
        "127.0.0.9",
        "10.244.0.9",
        "192.0.2.1",
        "198.51.100.1",
        "198.51.101.1",
        VIP,
    ];
    let kinds = [
        FrontKind::ClusterIp,
        FrontKind::LoadBalancer,
        FrontKind::NodePort,
    ];
    let detectors = [
        LocalDetector::None,
        LocalDetector::Cidrs(nets("10.244.0.0/24 fd44::/64")),
        LocalDetector::Interface("cni0".into()),
    ];
    let mut silent = 0;
    for pods in detectors {
        let by_address = !matches!(pods, LocalDetector::Interface(_));
        let around = around(pods);
        for ranges in ["", "198.51.100.0/24 10.0.0.0/8", "192.0.2.0/24"] {
            for (internal, external) in [(Cluster, Cluster), (Local, Local), (Cluster, Local)] {
                for (local, remote) in [(0, 1), (1, 1)] {
                    let mut b = balancer(internal, external, local, remote);
                    b.source_ranges = nets(ranges);
                    for (kind, client) in kinds.iter().flat_map(|k| clients.map(|c| (*k, ip(c)))) {
                        let verdict = around.admit(&b, kind, ip(VIP), client, link_to);
                        let gate = around.gate(&b, kind, ip(VIP));
                        let passes = gate.iter().all(|group| is_in(group, client));
                        let case = format!("{b:?} {kind:?} {client} {gate:?}");
                        match verdict {
                            Verdict::Serve(_) => assert!(passes, "{case}"),
                            Verdict::Silence if by_address => assert!(!passes, "{case}"),
                            Verdict::Silence => {}
                            Verdict::Refuse => panic!("{case}"),
                        }
                        silent += usize::from(verdict == Verdict::Silence);
                    }
                }
            }
        }
    }
    assert!(silent > 100, "{silent} cases of silence");
}
