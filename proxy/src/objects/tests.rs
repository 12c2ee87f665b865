//! What each rule of reading an object does, as tables.

mod service;
mod slice;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::NodeInfo;

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

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
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
    let object = Key::new(Kind::Services, ObjectName::new("shop", "a"));
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
