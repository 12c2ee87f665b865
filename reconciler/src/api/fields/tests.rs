use serde_json::Value;

use super::*;
use crate::api::kinds::KINDS;

fn kind_of(value: &Value) -> &'static Kind {
    KINDS
        .iter()
        .find(|kind| value["apiVersion"] == kind.api_version() && value["kind"] == kind.kind)
        .unwrap()
}

fn writer<'a>(manager: &'a str, now: &'a str) -> Writer<'a> {
    Writer {
        manager,
        subresource: "",
        now,
    }
}

/// What kube-apiserver stored when `wire` created objects, with the entry that it made.
fn recorded() -> Vec<(String, Value)> {
    let text = include_str!("../../../tests/data/managed-fields.json");
    let list: Vec<Value> = serde_json::from_str(text).unwrap();
    list.into_iter()
        .map(|mut one| {
            let name = one["name"].as_str().unwrap().to_owned();
            (name, one["stored"].take())
        })
        .collect()
}

/// Takes out what the server added after it had recorded who set what.
fn without_allotted(name: &str, object: &mut Value) {
    let paths: &[&str] = match name.split('-').next().unwrap() {
        "service" if name == "service-headless" || name == "service-headless-noselector" => &[
            "/spec/ipFamilies",
            "/spec/ipFamilyPolicy",
            "/spec/clusterIPs",
        ],
        "service" => &[
            "/spec/ipFamilies",
            "/spec/ipFamilyPolicy",
            "/spec/clusterIPs",
            "/spec/clusterIP",
            "/spec/healthCheckNodePort",
            "/spec/ports/0/nodePort",
        ],
        "job" => &[
            "/metadata/labels",
            "/spec/selector",
            "/spec/template/metadata/labels",
        ],
        "persistentvolume" | "persistentvolumeclaim" => &["/metadata/finalizers"],
        "node" => &["/spec/taints"],
        "namespace" => &["/spec/finalizers"],
        "pod" => {
            without_service_account(object);
            &[
                "/spec/tolerations",
                "/spec/priority",
                "/spec/preemptionPolicy",
                "/spec/serviceAccount",
                "/spec/serviceAccountName",
            ]
        }
        _ => &[],
    };
    for path in paths {
        let (parent, key) = path.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).and_then(Value::as_object_mut);
        parent.and_then(|parent| parent.remove(key));
    }
}

/// Takes the token's volume out of a Pod, with the mounts.
fn without_service_account(pod: &mut Value) {
    let mut prune = |path: &str, list: &str, ours: &dyn Fn(&Value) -> bool| {
        let Some(parent) = pod.pointer_mut(path).and_then(Value::as_object_mut) else {
            return;
        };
        let Some(Value::Array(items)) = parent.get_mut(list) else {
            return;
        };
        items.retain(|item| !ours(item));
        if items.is_empty() {
            parent.remove(list);
        }
    };
    prune("/spec", "volumes", &|volume| {
        volume["name"]
            .as_str()
            .unwrap()
            .starts_with("kube-api-access")
    });
    for path in ["/spec/containers/0", "/spec/initContainers/0"] {
        prune(path, "volumeMounts", &|mount| {
            mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
        });
    }
}

#[test]
fn create_records_what_the_reference_recorded() {
    for (name, mut object) in recorded() {
        let expected = object["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("managedFields");
        let now = object["metadata"]["creationTimestamp"]
            .as_str()
            .unwrap()
            .to_owned();
        without_allotted(&name, &mut object);
        let kind = kind_of(&object);
        update(None, &mut object, &writer("wire", &now), kind);
        let found = object["metadata"].get("managedFields");
        assert_eq!(found, expected.as_ref(), "{name}");
    }
}
