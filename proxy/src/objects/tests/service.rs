//! Services.

use super::*;
use crate::model::{Policy, Service};

/// A Service that is proxied, and the complaints.
fn read_service(changes: &Value) -> (Service, Vec<String>) {
    let reduced = read(Kind::Services, service(changes));
    match reduced.event {
        Event::Service(service) => (Arc::unwrap_or_clone(service), reduced.complaints),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plain_service_has_the_defaults() {
    let (service, complaints) = read_service(&json!({}));
    assert_eq!(complaints, [""; 0]);
    assert_eq!(service.name, ObjectName::new("shop", "a"));
    assert_eq!(service.created, 100);
    assert_eq!(texts(&service.cluster_ips), ["10.0.0.1"]);
    let policies = (service.internal_policy, service.external_policy);
    assert_eq!(policies, (Policy::Cluster, Policy::Cluster));
    assert_eq!(
        (service.affinity, service.health_check_node_port),
        (None, None)
    );
    let port = &service.ports[0];
    assert_eq!(
        (&*port.name, port.protocol, port.port),
        ("http", Protocol::Tcp, 80)
    );
    assert_eq!(port.node_port, None);
}

#[test]
fn some_services_are_not_proxied() {
    let cases = [
        json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
        json!({"spec": {"clusterIP": "None", "clusterIPs": null}}),
        json!({"spec": {"clusterIP": "", "clusterIPs": null}}),
        json!({"spec": {"clusterIP": null, "clusterIPs": null}}),
        json!({"spec": null}),
        json!({"spec": {"type": "ExternalName"}}),
        json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": ""}}}),
        // Nothing usable is left.
        json!({"spec": {"clusterIPs": ["10.0.0.256"]}}),
    ];
    for case in cases {
        let reduced = read(Kind::Services, service(&case));
        let gone = Event::ServiceGone(ObjectName::new("shop", "a"));
        assert_eq!(reduced.event, gone, "{case}");
    }
    // The label of slices means nothing on a Service.
    read_service(&json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}}));
}

#[test]
fn addresses_of_services() {
    // What changes, the field that is looked at, what is expected of it, complaints.
    type Look = fn(&Service) -> Vec<String>;
    let cluster: Look = |service| texts(&service.cluster_ips);
    let external: Look = |service| texts(&service.external_ips);
    let balanced: Look = |service| texts(&service.load_balancer_ips);
    let ranges: Look = |service| texts(&service.source_ranges);
    let ingress = |list: Value| json!({"status": {"loadBalancer": {"ingress": list}}});
    let sources = |list: &[&str]| json!({"spec": {"loadBalancerSourceRanges": list}});
    let cases: Vec<(Value, Look, &[&str], usize)> = vec![
        (
            json!({"spec": {"clusterIPs": ["fd00::1", "10.0.0.1"]}}),
            cluster,
            &["fd00::1", "10.0.0.1"],
            0,
        ),
        (
            json!({"spec": {"clusterIPs": null}}),
            cluster,
            &["10.0.0.1"],
            0,
        ),
        (
            json!({"spec": {"clusterIPs": []}}),
            cluster,
            &["10.0.0.1"],
            0,
        ),
        (
            json!({"spec": {"clusterIPs": ["10.0.0.1", "10.0.0.2"]}}),
            cluster,
            &["10.0.0.1"],
            1,
        ),
        (
            json!({"spec": {"clusterIPs": ["0.0.0.0", "10.0.0.2"]}}),
            cluster,
            &["10.0.0.2"],
            1,
        ),
        (
            json!({"spec": {"externalIPs": ["192.0.2.1", "x", "2001:db8::1", "192.0.2.1"]}}),
            external,
            &["192.0.2.1", "2001:db8::1"],
            1,
        ),
        (
            json!({"spec": {"externalIPs": ["::ffff:192.0.2.1", "224.0.0.1", "255.255.255.255", "::"]}}),
            external,
            &["192.0.2.1"],
            3,
        ),
        (
            ingress(
                json!([{"ip": "192.0.2.1"}, {"hostname": "x.example"}, {"ip": "192.0.2.2", "ipMode": "VIP"},
            {"ip": "192.0.2.3", "ipMode": "Proxy"}, {"ip": ""}]),
            ),
            balanced,
            &["192.0.2.1", "192.0.2.2"],
            0,
        ),
        (ingress(json!([{"ip": "nonsense"}])), balanced, &[], 1),
        (ingress(json!(null)), balanced, &[], 0),
        (
            sources(&[" 192.0.2.9/24 ", "10.0.0.0/8", "\t", "2001:db8::/32"]),
            ranges,
            &["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"],
            0,
        ),
        (sources(&["192.0.2.0/24", "0.0.0.0/0"]), ranges, &[], 0),
        (sources(&["192.0.2.0/24", "10.0.0.1/0"]), ranges, &[], 0),
        // All of IPv4 says nothing of IPv6.
        (
            sources(&["0.0.0.0/0", "2001:db8::/32"]),
            ranges,
            &["2001:db8::/32"],
            0,
        ),
        (
            sources(&["192.0.2.0/24", "192.0.2.0/33"]),
            ranges,
            &["192.0.2.0/24"],
            1,
        ),
    ];
    for (changes, look, expected, complaints) in cases {
        let (service, said) = read_service(&changes);
        assert_eq!(look(&service), expected, "{changes}");
        assert_eq!(said.len(), complaints, "{changes}: {said:?}");
    }
}

#[test]
fn source_ranges_that_cannot_be_read_do_not_open_the_balancer() {
    let (service, complaints) = read_service(&json!({
        "spec": {"loadBalancerSourceRanges": ["192.0.2.0"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    }));
    assert!(service.load_balancer_ips.is_empty());
    assert_eq!(texts(&service.cluster_ips), ["10.0.0.1"]);
    let expected = [
        "Service shop/a: spec.loadBalancerSourceRanges: \"192.0.2.0\" is not a network like 192.0.2.0/24",
        "Service shop/a: spec.loadBalancerSourceRanges has no readable range: the load balancer's addresses stay closed",
    ];
    assert_eq!(complaints, expected);
}

#[test]
fn policies_affinity_and_health_port() {
    type Settings = (Policy, Policy, Option<u32>, Option<u16>);
    use Policy::{Cluster, Local};
    let affinity = |seconds: Value| {
        json!({"spec": {"sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}})
    };
    let health = |kind: &str, policy: &str, port: i64| json!({"spec": {"type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": port}});
    let cases: Vec<(Value, Settings, usize)> = vec![
        (
            json!({"spec": {"internalTrafficPolicy": "Local"}}),
            (Local, Cluster, None, None),
            0,
        ),
        (
            json!({"spec": {"externalTrafficPolicy": "Local"}}),
            (Cluster, Local, None, None),
            0,
        ),
        (
            json!({"spec": {"externalTrafficPolicy": "Near"}}),
            (Cluster, Cluster, None, None),
            1,
        ),
        (
            json!({"spec": {"sessionAffinity": "None"}}),
            (Cluster, Cluster, None, None),
            0,
        ),
        (
            json!({"spec": {"sessionAffinity": "Cookie"}}),
            (Cluster, Cluster, None, None),
            1,
        ),
        (
            json!({"spec": {"sessionAffinity": "ClientIP"}}),
            (Cluster, Cluster, Some(10_800), None),
            0,
        ),
        (affinity(json!(60)), (Cluster, Cluster, Some(60), None), 0),
        (
            affinity(json!(0)),
            (Cluster, Cluster, Some(10_800), None),
            1,
        ),
        (
            affinity(json!(-5)),
            (Cluster, Cluster, Some(10_800), None),
            1,
        ),
        (
            affinity(json!(86_401)),
            (Cluster, Cluster, Some(10_800), None),
            1,
        ),
        (
            health("LoadBalancer", "Local", 32_000),
            (Cluster, Local, None, Some(32_000)),
            0,
        ),
        (
            health("LoadBalancer", "Local", 0),
            (Cluster, Local, None, None),
            0,
        ),
        (
            health("LoadBalancer", "Local", 70_000),
            (Cluster, Local, None, None),
            1,
        ),
        (
            health("LoadBalancer", "Cluster", 32_000),
            (Cluster, Cluster, None, None),
            0,
        ),
        (
            health("NodePort", "Local", 32_000),
            (Cluster, Local, None, None),
            0,
        ),
    ];
    for (changes, expected, complaints) in cases {
        let (service, said) = read_service(&changes);
        let settings = (
            service.internal_policy,
            service.external_policy,
            service.affinity,
            service.health_check_node_port,
        );
        assert_eq!(settings, expected, "{changes}");
        assert_eq!(said.len(), complaints, "{changes}: {said:?}");
    }
}

#[test]
fn ports_of_services() {
    let (service, complaints) = read_service(&json!({"spec": {"ports": [
        {"port": 53, "protocol": "UDP", "name": "dns"},
        {"port": 53, "protocol": "TCP", "name": "dns"},
        {"port": 53, "protocol": "TCP", "name": "dns"},
        {"port": 0, "name": "zero"},
        {"port": 65536, "name": "large"},
        {"port": -1, "name": "small"},
        {"port": 1, "name": "other", "protocol": "DCCP"},
        {"port": 2, "name": "Not a label"},
        {"port": 3, "protocol": "SCTP", "nodePort": 30000},
        {"port": 4, "name": "node", "nodePort": 70000},
        {"port": 5, "name": "plain", "nodePort": 0},
    ]}}));
    let shown: Vec<_> = service
        .ports
        .iter()
        .map(|port| {
            let node_port = port
                .node_port
                .map_or(String::new(), |port| format!(" at {port}"));
            format!("{}:{}/{}{node_port}", port.name, port.port, port.protocol)
        })
        .collect();
    let expected = [
        "dns:53/udp",
        "dns:53/tcp",
        ":3/sctp at 30000",
        "node:4/tcp",
        "plain:5/tcp",
    ];
    assert_eq!(shown, expected);
    let expected = [
        "Service shop/a: spec.ports \"dns\": a second tcp port of this name",
        "Service shop/a: spec.ports \"zero\": 0 is no port number",
        "Service shop/a: spec.ports \"large\": 65536 is no port number",
        "Service shop/a: spec.ports \"small\": -1 is no port number",
        "Service shop/a: spec.ports \"other\": unknown protocol \"DCCP\"",
        "Service shop/a: spec.ports: the name \"Not a label\" is not a DNS label",
        "Service shop/a: spec.ports \"node\": 70000 is no node port",
    ];
    assert_eq!(complaints, expected);
}
