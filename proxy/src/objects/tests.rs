//! What each rule of reading an object does, as tables.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{NodeInfo, Policy, Slice};

/// Puts `changes` into `base`, object by object; null removes.
fn merged(mut base: Value, changes: &Value) -> Value {
    match (&mut base, changes) {
        (Value::Object(base), Value::Object(changes)) => {
            for (key, change) in changes {
                let before = base.remove(key).unwrap_or(Value::Null);
                if !change.is_null() {
                    base.insert(key.clone(), merged(before, change));
                }
            }
        }
        _ => base = changes.clone(),
    }
    base
}

fn service(changes: &Value) -> Value {
    let base = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "a", "namespace": "shop", "creationTimestamp": "1970-01-01T00:01:40Z"},
        "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "type": "ClusterIP",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    });
    merged(base, changes)
}

fn slice(changes: &Value) -> Value {
    let base = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "a-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "a"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.1.0.1"]}],
    });
    merged(base, changes)
}

fn read(kind: Kind, value: Value) -> Reduced {
    parse(kind, value).unwrap_or_else(|error| panic!("{error}"))
}

/// A Service that is proxied, and the complaints.
fn read_service(changes: &Value) -> (crate::model::Service, Vec<String>) {
    let reduced = read(Kind::Services, service(changes));
    match reduced.event {
        Event::Service(service) => (service, reduced.complaints),
        other => panic!("{other:?}"),
    }
}

fn read_slice(changes: &Value) -> (Slice, Vec<String>) {
    let reduced = read(Kind::Slices, slice(changes));
    match reduced.event {
        Event::Slice(slice) => (slice, reduced.complaints),
        other => panic!("{other:?}"),
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
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
    type Look = fn(&crate::model::Service) -> Vec<String>;
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

#[test]
fn some_slices_do_not_count() {
    let cases = [
        (json!({"addressType": "FQDN"}), 0),
        (json!({"addressType": "IPv5"}), 1),
        (json!({"addressType": null}), 1),
        (
            json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}}),
            0,
        ),
        (json!({"metadata": {"labels": null}}), 0),
        (
            json!({"metadata": {"labels": {"kubernetes.io/service-name": null}}}),
            0,
        ),
        (
            json!({"metadata": {"labels": {"kubernetes.io/service-name": "../a"}}}),
            1,
        ),
    ];
    for (case, complaints) in cases {
        let reduced = read(Kind::Slices, slice(&case));
        let gone = Event::SliceGone(ObjectName::new("shop", "a-1"));
        assert_eq!(reduced.event, gone, "{case}");
        assert_eq!(
            reduced.complaints.len(),
            complaints,
            "{case}: {:?}",
            reduced.complaints
        );
    }
}

#[test]
fn endpoints_have_the_apis_defaults() {
    let endpoint = |conditions: Value| {
        let changes = json!({"endpoints": [{"addresses": ["10.1.0.1", "10.1.0.2"], "conditions": conditions}]});
        let (slice, complaints) = read_slice(&changes);
        assert_eq!((slice.endpoints.len(), complaints.len()), (1, 0));
        let endpoint = &slice.endpoints[0];
        assert_eq!(endpoint.address.to_string(), "10.1.0.1");
        (endpoint.ready, endpoint.serving, endpoint.terminating)
    };
    assert_eq!(endpoint(json!(null)), (true, true, false));
    assert_eq!(endpoint(json!({})), (true, true, false));
    assert_eq!(endpoint(json!({"ready": false})), (false, true, false));
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    assert_eq!(endpoint(leaving), (false, true, true));
}

#[test]
fn what_a_slice_says() {
    let (slice, complaints) = read_slice(&json!({
        "metadata": {"annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "1970-01-01T00:00:01.5Z"}},
        "ports": [{"name": "http", "port": 8080}, {"name": "http", "port": 8080}, {"name": "http", "port": 9090},
            {"name": "any"}, {"name": "zero", "port": 0}, {"port": 53, "protocol": "UDP"},
            {"port": 70000}, {"port": 1, "protocol": "DCCP"}, {"port": 1, "name": "no.label"}],
        "endpoints": [
            {"addresses": ["10.1.0.1"], "nodeName": "n1", "targetRef": null,
                "hints": {"forZones": [{"name": "x"}, {"name": "y"}], "forNodes": [{"name": "n1"}]}},
            {"addresses": ["fd00::1"]}, {"addresses": []}, {"addresses": ["web.example"]}, {"addresses": null}],
    }));
    assert_eq!(slice.service, ObjectName::new("shop", "a"));
    assert_eq!(slice.triggered, Some(1500));
    let ports = slice
        .ports
        .iter()
        .map(|port| format!("{}:{}/{}", port.name, port.port, port.protocol));
    assert_eq!(
        ports.collect::<Vec<_>>(),
        ["http:8080/tcp", "http:9090/tcp", ":53/udp"]
    );
    let endpoint = &slice.endpoints[0];
    assert_eq!(slice.endpoints.len(), 1);
    assert_eq!(endpoint.node.as_deref(), Some("n1"));
    assert_eq!(
        (texts(&endpoint.zone_hints), texts(&endpoint.node_hints)),
        (texts(&["x", "y"]), texts(&["n1"]))
    );
    let expected = [
        "EndpointSlice shop/a-1: ports \"\": 70000 is no port number",
        "EndpointSlice shop/a-1: ports \"\": unknown protocol \"DCCP\"",
        "EndpointSlice shop/a-1: ports: the name \"no.label\" is not a DNS label",
        "EndpointSlice shop/a-1: endpoints: fd00::1 is not IPv4",
        "EndpointSlice shop/a-1: endpoints: one has no address",
        "EndpointSlice shop/a-1: endpoints: \"web.example\" is not an IP address",
        "EndpointSlice shop/a-1: endpoints: one has no address",
    ];
    assert_eq!(complaints, expected);
}

#[test]
fn half_a_slice_is_a_slice() {
    let (slice, complaints) = read_slice(&json!({"ports": null, "endpoints": null}));
    assert!(slice.ports.is_empty() && slice.endpoints.is_empty() && complaints.is_empty());
    let when = json!({"metadata": {"annotations":
        {"endpoints.kubernetes.io/last-change-trigger-time": "yesterday"}}});
    let (slice, complaints) = read_slice(&when);
    assert_eq!((slice.triggered, complaints.len()), (None, 1));
}

#[test]
fn thousands_of_bad_lines_are_a_few_complaints() {
    let bad = vec![json!({"addresses": ["x"]}); 5000];
    let (_, complaints) = read_slice(&json!({"endpoints": bad}));
    assert_eq!(complaints.len(), 11);
    assert_eq!(complaints[10], "EndpointSlice shop/a-1: and more");
}

#[test]
fn what_a_node_says() {
    let node = |changes: &Value| {
        let base = json!({"metadata": {"name": "n1"}});
        let reduced = read(Kind::Node, merged(base, changes));
        let Event::Node(Some(node)) = reduced.event else {
            panic!("{reduced:?}");
        };
        (node, reduced.complaints)
    };
    assert_eq!(node(&json!({})).0, NodeInfo::default());
    let (full, complaints) = node(&json!({
        "metadata": {"labels": {"topology.kubernetes.io/zone": "x"}},
        "spec": {"podCIDR": "10.9.0.0/24", "podCIDRs": ["10.2.0.0/24", "fd02::/64", "no"]},
        "status": {"addresses": [
            {"type": "ExternalIP", "address": "192.0.2.1"},
            {"type": "InternalIP", "address": "10.0.0.1"},
            {"type": "Hostname", "address": "n1"},
            {"type": "InternalIP", "address": "fd00::1"},
            {"type": "InternalIP", "address": "?"}]},
    }));
    assert_eq!(full.zone.as_deref(), Some("x"));
    assert_eq!(texts(&full.addresses), ["10.0.0.1", "fd00::1", "192.0.2.1"]);
    assert_eq!(texts(&full.pod_cidrs), ["10.2.0.0/24", "fd02::/64"]);
    assert!(!full.leaving);
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    let (one, _) = node(&json!({"spec": {"podCIDR": "10.9.0.0/24"}}));
    assert_eq!(texts(&one.pod_cidrs), ["10.9.0.0/24"]);
    let taint = |key: &str| json!({"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}});
    assert!(node(&taint("ToBeDeletedByClusterAutoscaler")).0.leaving);
    assert!(!node(&taint("node.kubernetes.io/unreachable")).0.leaving);
    assert!(
        node(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))
            .0
            .leaving
    );
}

#[test]
fn names_are_kubernetes_names() {
    let name = |metadata: Value| {
        let read = parse(
            Kind::Services,
            json!({"metadata": metadata, "spec": {"clusterIP": "10.0.0.1"}}),
        );
        read.map(|reduced| match reduced.event {
            Event::Service(service) => service.name.to_string(),
            other => panic!("{other:?}"),
        })
        .map_err(|error| error.to_string())
    };
    assert_eq!(name(json!({"name": "a"})).unwrap(), "default/a");
    assert_eq!(
        name(json!({"name": "a", "namespace": ""})).unwrap(),
        "default/a"
    );
    assert_eq!(
        name(json!({"name": "a.b-c9", "namespace": "x"})).unwrap(),
        "x/a.b-c9"
    );
    assert_eq!(
        name(json!({})).unwrap_err(),
        "a Service has no metadata.name"
    );
    for bad in [
        "A",
        "a/b",
        "../a",
        "-a",
        "a-",
        "a b",
        "a\n",
        "ä",
        &"a".repeat(254),
    ] {
        let said = name(json!({"name": bad})).unwrap_err();
        assert!(said.contains("not a name that Kubernetes allows"), "{said}");
        assert!(!said.contains('\n'), "{said}");
        assert!(
            name(json!({"name": "a", "namespace": bad})).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn an_unusable_object_is_named_as_far_as_it_can_be() {
    let bad = service(&json!({"spec": {"ports": "none"}}));
    let unusable = parse(Kind::Services, bad).unwrap_err();
    assert!(
        unusable.to_string().starts_with("Service shop/a: "),
        "{unusable}"
    );
    let object = (Kind::Services, ObjectName::new("shop", "a"));
    assert_eq!(unusable.object, Some(object));
    let unusable = parse(Kind::Services, json!([1])).unwrap_err();
    assert_eq!(unusable.object, None);
}

#[test]
fn kinds_are_told_by_their_group() {
    let cases = [
        ("Service", Some("v1"), Some(Kind::Services)),
        ("Service", None, Some(Kind::Services)),
        ("Service", Some("serving.knative.dev/v1"), None),
        (
            "EndpointSlice",
            Some("discovery.k8s.io/v1"),
            Some(Kind::Slices),
        ),
        ("EndpointSlice", Some("discovery.k8s.io/v1beta1"), None),
        ("Node", Some("v1"), Some(Kind::Node)),
        ("Pod", Some("v1"), None),
    ];
    for (kind, version, expected) in cases {
        assert_eq!(kind_of(kind, version), expected, "{kind} {version:?}");
    }
}

/// Values as objects have them, and as they do not.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2i64..70_000).prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "Local",
            "None",
            "ClientIP",
            "10.0.0.1",
            "fd00::1",
            "0.0.0.0/0",
            "UDP"
        ])
        .prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = prop::sample::select(vec![
            "name",
            "port",
            "protocol",
            "nodePort",
            "ip",
            "ipMode",
            "addresses",
            "conditions",
            "ready",
            "hints",
            "forZones",
            "clientIP",
            "timeoutSeconds",
            "ingress",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_a_field_holds_the_rest_is_read_or_refused(
        at in prop::sample::select(vec![
            "/metadata", "/metadata/name", "/metadata/labels", "/spec", "/spec/ports", "/spec/ports/0",
            "/spec/ports/0/port", "/spec/clusterIPs", "/spec/clusterIP", "/addressType", "/endpoints",
            "/endpoints/0", "/ports", "/ports/0",
        ]),
        with in any_value(),
    ) {
        for (kind, mut value) in [
            (Kind::Services, service(&json!({}))),
            (Kind::Slices, slice(&json!({}))),
            (Kind::Node, json!({"metadata": {"name": "n1"}, "spec": {}})),
        ] {
            if let Some(place) = value.pointer_mut(at) {
                *place = with.clone();
            }
            match parse(kind, value) {
                Ok(Reduced { event: Event::Service(service), .. }) => {
                    prop_assert!(!service.cluster_ips.is_empty());
                    prop_assert!(service.ports.iter().all(|port| port.port != 0));
                }
                Ok(Reduced { event: Event::Slice(slice), .. }) => {
                    prop_assert!(slice.ports.iter().all(|port| port.port != 0));
                    let fits = |ip| crate::model::Family::of(ip) == slice.family;
                    prop_assert!(slice.endpoints.iter().all(|endpoint| fits(endpoint.address)));
                }
                Ok(_) => {}
                Err(unusable) => prop_assert!(!unusable.to_string().is_empty()),
            }
        }
    }
}
