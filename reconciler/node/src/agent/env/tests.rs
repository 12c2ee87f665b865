//! Variables.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::{environment, expand};
use crate::agent::fields::Facts;
use crate::agent::objects::{Data, Kind, Lookup};
use crate::agent::plan::tests::world::pod;
use crate::agent::services::{Services, told, variables};
use crate::agent::spec;

struct One;

impl Lookup for One {
    fn find(&self, kind: Kind, _: &str, name: &str) -> Result<Option<Data>, String> {
        let data = BTreeMap::from([
            ("a".to_owned(), b"1".to_vec()),
            ("b".to_owned(), vec![0xff]),
        ]);
        Ok((kind == Kind::ConfigMap && name == "map").then(|| Arc::new(data)))
    }
}

fn run(container: serde_json::Value) -> Result<BTreeMap<String, String>, String> {
    let pod = pod(json!({"nodeName": "n1", "containers": [container]}));
    let services = BTreeMap::from([("WEB_PORT".to_owned(), "tcp://10.96.0.5:80".to_owned())]);
    let facts = Facts {
        pod_ips: vec!["10.244.1.2".to_owned()],
        cpu: 2000,
        ..Facts::default()
    };
    environment(&pod, &spec::containers(&pod)[0], services, &One, &facts)
}

#[test]
fn each_source() {
    let all = run(json!({"name": "c", "resources": {"limits": {"memory": "64Mi"}}, "envFrom": [
        {"prefix": "P_", "configMapRef": {"name": "map"}}, {"secretRef": {"name": "none", "optional": true}}],
    "env": [
        {"name": "X", "value": "x"},
        {"name": "Y", "value": "$(X) $(P_a) $(WEB_PORT) $(NO) $$(X)"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "a"}}},
        {"name": "OPT", "valueFrom": {"secretKeyRef": {"name": "none", "key": "a", "optional": true}}},
        {"name": "EMPTY"}]}))
    .unwrap();
    let lines: Vec<_> = all
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        lines,
        [
            "CPU=2",
            "EMPTY=",
            "IP=10.244.1.2",
            "KEY=1",
            "MEM=64",
            "NODE=n1",
            "P_a=1",
            "WEB_PORT=tcp://10.96.0.5:80",
            "X=x",
            "Y=x 1 tcp://10.96.0.5:80 $(NO) $(X)"
        ]
    );
}

#[test]
fn what_is_missing_is_named() {
    let from = |from: serde_json::Value| {
        run(json!({"name": "c", "env": [{"name": "A", "valueFrom": from}]})).unwrap_err()
    };
    assert_eq!(
        from(json!({"secretKeyRef": {"name": "s", "key": "k"}})),
        "secret \"s\" not found"
    );
    assert_eq!(
        from(json!({"configMapKeyRef": {"name": "map", "key": "k"}})),
        "couldn't find key k in ConfigMap default/map"
    );
    assert_eq!(
        from(json!({"fieldRef": {"fieldPath": "spec.x"}})),
        "unsupported fieldPath: spec.x"
    );
    let whole =
        run(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "no"}}]})).unwrap_err();
    assert_eq!(whole, "configmap \"no\" not found");
}

#[test]
fn services() {
    let service = |namespace: &str, name: &str, ip: &str| {
        let ports = json!([{"name": "http", "port": 80}, {"port": 53, "protocol": "UDP"}]);
        let service = json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": ip, "ports": ports}});
        told(&serde_json::from_value(service).unwrap())
    };
    let all: Services = [
        service("default", "kubernetes", "10.96.0.1"),
        service("a", "my-web", "fd00::1"),
        service("a", "headless", "None"),
        service("b", "other", "10.96.0.3"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let links = variables(&all, "a", true);
    assert_eq!(links["MY_WEB_SERVICE_HOST"], "fd00::1");
    assert_eq!(links["MY_WEB_SERVICE_PORT"], "80");
    assert_eq!(links["MY_WEB_SERVICE_PORT_HTTP"], "80");
    assert_eq!(links["MY_WEB_PORT"], "tcp://[fd00::1]:80");
    assert_eq!(links["MY_WEB_PORT_53_UDP"], "udp://[fd00::1]:53");
    assert_eq!(links["MY_WEB_PORT_53_UDP_ADDR"], "fd00::1");
    assert_eq!(links["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
    assert!(
        links
            .keys()
            .all(|name| !name.starts_with("OTHER") && !name.starts_with("HEADLESS"))
    );
    let none = variables(&all, "a", false);
    assert!(none.keys().all(|name| name.starts_with("KUBERNETES_")) && !none.is_empty());
}

proptest! {
    #[test]
    fn text_without_dollars_stays(text in "[^$]*") {
        prop_assert_eq!(expand(&text, &|_| None), text);
    }

    #[test]
    fn any_text_is_taken(text in any::<String>()) {
        expand(&text, &|name| Some(name.to_owned()));
    }
}
