//! Real connections through the rules.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
};

use proxy::model::{Changed, Family, Policy};

use crate::{bed::on_each, wanted::port};

#[test]
fn cluster_ip_and_node_port_reach_the_pods() {
    on_each(|mut bed| {
        bed.serve();
        let wanted = bed.wanted(vec![("web", bed.balancer(10, Some(30080), &[2, 3]))]);
        assert!(bed.sync(&wanted, &Changed::All).full);
        let cluster = SocketAddr::new(bed.cluster_ip(10), 80);
        let node_port = SocketAddr::new(bed.node_ip(), 30080);

        let answered: BTreeSet<_> = (0..40)
            .map(|_| bed.client_calls(node_port).unwrap().0)
            .collect();
        assert_eq!(answered, BTreeSet::from([bed.pod(2), bed.pod(3)]));

        // From outside, the Pod sees the node; from a Pod, that Pod, but by way of the node to itself.
        let (_, seen) = bed.client_calls(cluster).unwrap();
        assert_ne!(seen, bed.client_ip());
        for _ in 0..10 {
            let (pod, seen) = bed.pod_calls(2, cluster).unwrap();
            assert_eq!(seen == bed.pod(2), pod != bed.pod(2), "{pod} saw {seen}");
        }
        bed.node_calls(cluster).unwrap();
        bed.node_calls(node_port).unwrap();
    });
}

#[test]
fn the_local_policy_keeps_the_clients_address() {
    on_each(|mut bed| {
        bed.serve();
        let mut balancer = bed.balancer(10, Some(30080), &[2, 3]);
        balancer.external_policy = Policy::Local;
        balancer.local = balancer.cluster.clone();
        let wanted = bed.wanted(vec![("web", balancer)]);
        bed.sync(&wanted, &Changed::All);
        let node_port = SocketAddr::new(bed.node_ip(), 30080);
        let (_, seen) = bed.client_calls(node_port).unwrap();
        assert_eq!(seen, bed.client_ip());
        bed.node_calls(node_port).unwrap();
        bed.pod_calls(2, node_port).unwrap();
    });
}

#[test]
fn node_ports_on_loopback_where_that_is_on() {
    on_each(|mut bed| {
        bed.serve();
        let mut wanted = bed.wanted(vec![("web", bed.balancer(10, Some(30080), &[2, 3]))]);
        let loopback = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 30080);
        bed.sync(&wanted, &Changed::All);
        assert!(bed.node_calls(loopback).is_err());
        wanted.site.localhost_node_ports = true;
        bed.sync(&wanted, &Changed::All);
        if bed.family == Family::V4 {
            bed.node_calls(loopback).unwrap();
            assert!(bed.saved().contains("block incoming localnet connections"));
        } else {
            assert!(!bed.saved().contains("KUBE-FIREWALL"));
        }
    });
}

#[test]
fn without_endpoints_a_client_is_refused_at_once() {
    on_each(|mut bed| {
        let wanted = bed.wanted(vec![("web", bed.balancer(10, Some(30080), &[]))]);
        bed.sync(&wanted, &Changed::All);
        let cluster = SocketAddr::new(bed.cluster_ip(10), 80);
        let node_port = SocketAddr::new(bed.node_ip(), 30080);
        for (who, error) in [
            ("client to cluster IP", bed.client_calls(cluster)),
            ("client to node port", bed.client_calls(node_port)),
            ("Pod to cluster IP", bed.pod_calls(2, cluster)),
            ("node to cluster IP", bed.node_calls(cluster)),
            ("node to node port", bed.node_calls(node_port)),
        ] {
            let kind = error.unwrap_err().kind();
            assert_eq!(kind, ErrorKind::ConnectionRefused, "{who}");
        }
    });
}

#[test]
fn a_client_stays_with_its_pod() {
    on_each(|mut bed| {
        bed.serve();
        let mut balancer = bed.balancer(10, Some(30080), &[2, 3]);
        balancer.affinity = Some(100);
        let mut wanted = bed.wanted(vec![("web", balancer)]);
        bed.sync(&wanted, &Changed::All);
        let cluster = SocketAddr::new(bed.cluster_ip(10), 80);
        let answered: BTreeSet<_> = (0..15)
            .map(|_| bed.client_calls(cluster).unwrap().0)
            .collect();
        assert_eq!(answered.len(), 1);

        // Another Service's change does not make the node forget.
        wanted.balancers.extend(
            bed.wanted(vec![("more", bed.balancer(11, None, &[2]))])
                .balancers,
        );
        bed.sync(&wanted, &Changed::Ports(BTreeSet::from([port("more")])));
        let again = bed.client_calls(cluster).unwrap().0;
        assert_eq!(answered, BTreeSet::from([again]));
    });
}

#[test]
fn a_hundred_services_in_branches() {
    on_each(|mut bed| {
        bed.serve();
        let names: Vec<_> = (0..100).map(|number| format!("s{number}")).collect();
        let balancers = names
            .iter()
            .zip(20..)
            .map(|(name, host)| (name.as_str(), bed.balancer(host, None, &[2])))
            .collect();
        let wanted = bed.wanted(balancers);
        bed.sync(&wanted, &Changed::All);
        let chains = bed.saved().matches("\n:KUBE-SERVICES-").count();
        assert!((16..=272).contains(&chains), "{chains} branches");
        for host in [20, 37, 54, 119] {
            let cluster = SocketAddr::new(bed.cluster_ip(host), 80);
            assert_eq!(bed.client_calls(cluster).unwrap().0, bed.pod(2));
        }
    });
}
