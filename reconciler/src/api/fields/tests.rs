use serde_json::{Value, json};

use super::*;
use crate::api::kinds::KINDS;

pub(super) fn kind_of(value: &Value) -> &'static Kind {
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
pub(super) fn recorded() -> Vec<(String, Value)> {
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

/// A controller's status, as recorded: what the subresource writes, and what it does not.
#[test]
fn status_updates_are_recorded_as_such() {
    let mut new: Value =
        serde_json::from_str(include_str!("../../../tests/data/managed-status.json")).unwrap();
    let expected = new["metadata"]["managedFields"].take();
    let mut old = new.clone();
    old["status"] = json!({});
    old["metadata"]["managedFields"] = json!([expected[0]]);
    old["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("annotations");
    let kind = kind_of(&new);
    // As a client does that does not know managed fields.
    new["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    // Neither of them may be written here.
    new["spec"]["replicas"] = json!(77);
    new["metadata"]["labels"] = json!({"a": "b"});
    let status = Writer {
        manager: "kube-controller-manager",
        subresource: "status",
        now: "2026-11-21T06:49:31Z",
    };
    update(Some(&old), &mut new, &status, kind);
    assert_eq!(new["metadata"]["managedFields"], expected);
    // Through the object itself, the status is nobody's.
    let mut other = new.clone();
    other["status"]["replicas"] = json!(9);
    update(
        Some(&new),
        &mut other,
        &writer("x", "2026-11-22T00:00:00Z"),
        kind,
    );
    assert_eq!(other["metadata"]["managedFields"], expected);
}

const ONE: &str = "2026-01-01T00:00:01Z";
const TWO: &str = "2026-01-01T00:00:02Z";

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "demo"}, "data": data})
}

fn config_map() -> &'static Kind {
    kind_of(&map(json!({})))
}

fn created(data: Value, manager: &str) -> Value {
    let mut object = map(data);
    update(None, &mut object, &writer(manager, ONE), config_map());
    object
}

fn entry(manager: &str, operation: &str, time: &str, fields: Value) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": time,
        "fieldsType": "FieldsV1", "fieldsV1": fields})
}

fn managed(object: &Value) -> &Value {
    &object["metadata"]["managedFields"]
}

#[test]
fn who_changes_a_field_takes_it() {
    let old = created(json!({"a": "1", "b": "1", "c": "1"}), "one");
    let mut new = map(json!({"a": "1", "b": "2", "d": "2"}));
    update(Some(&old), &mut new, &writer("two", TWO), config_map());
    let one = entry(
        "one",
        "Update",
        ONE,
        json!({"f:data": {".": {}, "f:a": {}}}),
    );
    let two = entry(
        "two",
        "Update",
        TWO,
        json!({"f:data": {"f:b": {}, "f:d": {}}}),
    );
    assert_eq!(managed(&new), &json!([one, two]));
    // Nothing changes: nothing moves.
    let mut same = new.clone();
    update(Some(&new), &mut same, &writer("three", TWO), config_map());
    assert_eq!(same, new);
    // All of it gone: so are the entries.
    let mut empty = map(Value::Null);
    update(Some(&new), &mut empty, &writer("three", TWO), config_map());
    assert_eq!(empty["metadata"].get("managedFields"), None);
    // And then nobody is recorded until somebody applies.
    let mut later = map(json!({"z": "1"}));
    update(
        Some(&empty),
        &mut later,
        &writer("three", TWO),
        config_map(),
    );
    assert_eq!(later["metadata"].get("managedFields"), None);
    let applied = map(json!({"y": "1"}));
    let result = apply(
        Some(&later),
        &applied,
        &writer("four", TWO),
        false,
        config_map(),
    )
    .unwrap();
    let first = entry(
        "before-first-apply",
        "Update",
        TWO,
        json!({"f:data": {".": {}, "f:z": {}}}),
    );
    let four = entry("four", "Apply", TWO, json!({"f:data": {"f:y": {}}}));
    assert_eq!(managed(&result), &json!([four, first]));
}

#[test]
fn clients_may_write_managed_fields() {
    let old = created(json!({"a": "1"}), "one");
    for reset in [json!([]), json!([{}])] {
        let mut new = old.clone();
        new["metadata"]["managedFields"] = reset;
        update(Some(&old), &mut new, &writer("two", TWO), config_map());
        assert_eq!(new["metadata"].get("managedFields"), None);
    }
    let other = json!([entry("other", "Apply", TWO, json!({"f:data": {"f:a": {}}}))]);
    let mut new = old.clone();
    new["metadata"]["managedFields"] = other.clone();
    update(Some(&old), &mut new, &writer("two", TWO), config_map());
    assert_eq!(managed(&new), &other);
    // Malformed: as if none had been sent.
    let mut wrong_type = other.clone();
    wrong_type[0]["fieldsType"] = json!("FieldsV2");
    let mut wrong_element = other.clone();
    wrong_element[0]["fieldsV1"] = json!({"k:{": {}});
    for bad in [
        json!("x"),
        json!([1]),
        json!(null),
        wrong_type,
        wrong_element,
    ] {
        let mut new = old.clone();
        new["metadata"]["managedFields"] = bad;
        update(Some(&old), &mut new, &writer("two", TWO), config_map());
        assert_eq!(new, old);
    }
    // A subresource does not write them.
    let mut new = old.clone();
    new["metadata"]["managedFields"] = other;
    let status = Writer {
        manager: "two",
        subresource: "status",
        now: TWO,
    };
    update(Some(&old), &mut new, &status, config_map());
    assert_eq!(new, old);
}

#[test]
fn there_are_never_many_updates() {
    let mut object = created(json!({"k0": "0"}), "m0");
    for number in 1..40 {
        let mut new = object.clone();
        new["data"][format!("k{number}")] = json!("x");
        let now = format!("2026-01-01T00:01:{number:02}Z");
        update(
            Some(&object),
            &mut new,
            &writer(&format!("m{number}"), &now),
            config_map(),
        );
        object = new;
        assert!(managed(&object).as_array().unwrap().len() <= 10);
    }
    let first = &managed(&object)[0];
    assert_eq!(first["manager"], "ancient-changes");
    assert_eq!(first["time"], "2026-01-01T00:01:30Z");
    let all: std::collections::BTreeSet<_> = managed(&object)
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|entry| entry["fieldsV1"]["f:data"].as_object().unwrap().keys())
        .collect();
    assert_eq!(all.len(), 41, "40 keys and the map itself");
}

#[test]
fn programs_name_themselves() {
    assert_eq!(
        of_user_agent("kubectl/v1.36.2 (linux/amd64) kubernetes/abc"),
        "kubectl"
    );
    assert_eq!(of_user_agent(""), "");
    assert_eq!(of_user_agent(&"x".repeat(500)).len(), 128);
}
