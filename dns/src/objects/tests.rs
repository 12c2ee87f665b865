//! What each rule of reading an object does, as tables.

mod pod;
mod service;
mod slice;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

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

fn read(kind: Kind, value: Value) -> Reduced {
    parse(kind, value).unwrap_or_else(|error| panic!("{error}"))
}

fn ips(texts: &[&str]) -> Box<[IpAddr]> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn port(name: &str, protocol: Protocol, number: u16) -> Port {
    Port {
        name: name.into(),
        protocol,
        number,
    }
}

fn shop(name: &str) -> ObjectName {
    ObjectName {
        namespace: "shop".into(),
        name: name.into(),
    }
}

#[test]
fn kinds_are_known_by_name_and_version() {
    assert_eq!(kind_of("Service", Some("v1")), Some(Kind::Services));
    assert_eq!(kind_of("Service", Some("serving.knative.dev/v1")), None);
    assert_eq!(
        kind_of("EndpointSlice", Some("discovery.k8s.io/v1")),
        Some(Kind::Slices)
    );
    assert_eq!(
        kind_of("EndpointSlice", Some("discovery.k8s.io/v1beta1")),
        None
    );
    assert_eq!(kind_of("Pod", None), Some(Kind::Pods));
    assert_eq!(kind_of("Node", Some("v1")), None);
}

#[test]
fn an_object_without_a_proper_name_is_named_as_far_as_possible() {
    let cases = [
        (
            json!({}),
            "Service null in namespace null: not a name that Kubernetes allows",
        ),
        (
            json!({"metadata": {"name": ""}}),
            "Service \"\" in namespace null: not a name that Kubernetes allows",
        ),
        (
            json!({"metadata": {"name": "a b", "namespace": "shop"}}),
            "Service \"a b\" in namespace \"shop\": not a name that Kubernetes allows",
        ),
        (
            json!({"metadata": {"name": "a", "namespace": "a.b"}}),
            "Service \"a\" in namespace \"a.b\": not a name that Kubernetes allows",
        ),
        (
            json!("text"),
            "Service null in namespace null: not a name that Kubernetes allows",
        ),
    ];
    for (value, text) in cases {
        let error = parse(Kind::Services, value).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.object), (text, None));
    }
}

#[test]
fn a_field_of_a_wrong_type_is_named_with_its_object() {
    let value = json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": {"ports": 7}});
    let error = parse(Kind::Services, value).unwrap_err();
    assert_eq!(error.object, Some(Key(Kind::Services, shop("a"))));
    assert_eq!(
        error.to_string(),
        "Service shop/a: invalid type: integer `7`, expected a sequence"
    );
}

#[test]
fn complaints_have_an_end() {
    let bad: Vec<_> = (0..50)
        .map(|number| json!({"addresses": [format!("x{number}")]}))
        .collect();
    let value = slice::tests_base(&json!({"endpoints": bad}));
    let complaints = read(Kind::Slices, value).complaints;
    assert_eq!(complaints.len(), 11);
    assert_eq!(
        complaints.last().unwrap(),
        "EndpointSlice shop/a-1: and more"
    );
}

/// Any JSON, with our fields in it more often than chance has them.
fn any_json() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "metadata",
        "name",
        "namespace",
        "labels",
        "kubernetes.io/service-name",
        "spec",
        "type",
        "ExternalName",
        "clusterIP",
        "clusterIPs",
        "None",
        "externalName",
        "ports",
        "port",
        "protocol",
        "addressType",
        "IPv4",
        "IPv6",
        "endpoints",
        "addresses",
        "hostname",
        "conditions",
        "ready",
        "status",
        "podIP",
        "podIPs",
        "ip",
        "10.0.0.1",
        "fd00::1",
        "a",
        "_",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        words.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(words.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #[test]
    fn anything_can_be_read(value in any_json(), name in "[a-z.]{1,5}", merge: bool) {
        let value = match merge {
            true => merged(json!({"metadata": {"name": name}, "addressType": "IPv4"}), &value),
            false => value,
        };
        for (_, _, kind) in KINDS {
            match parse(kind, value.clone()) {
                Ok(reduced) => prop_assert!(reduced.complaints.len() <= Complaints::MOST + 1),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
