//! Answers recorded from kube-apiserver 1.36.2 (`tests/data/invalid.json`), wrong fields by table, and hostile JSON.

mod others;
mod pods;
mod services;
mod workloads;

use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::defaults::{self, Admission};
use crate::api::kinds::Subresource::{EphemeralContainers, Finalize, Resize, Status};
use crate::api::kinds::{self, KINDS};
use crate::api::object;

fn data(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn kind_of(object: &Value) -> &'static Kind {
    kinds::of(
        object::text(object, &["apiVersion"]),
        object::text(object, &["kind"]),
    )
    .unwrap()
}

/// As a request comes to validation.
fn prepared(kind: &Kind, mut object: Value) -> Value {
    defaults::apply(kind, &mut object);
    let (suffix, account) = ("abcde", None);
    let _ = defaults::admit(kind, &mut object, &Admission { suffix, account });
    if kind.namespaced() {
        object["metadata"]["namespace"] = json!("demo");
    }
    object["metadata"]["uid"] = json!("u-1");
    defaults::prepare_create(kind, &mut object);
    defaults::service::families(&mut object, None, &["IPv4"]);
    object
}

/// Every recorded object as it is stored.
fn stored() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/defaulted");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let stored = |name: &String| data(&format!("defaulted/{name}"))["stored"].take();
    names.iter().map(stored).collect()
}

fn merge(object: &mut Value, patch: &Value) {
    json_patch::merge(object, patch);
}

#[test]
fn what_the_reference_stores_is_right() {
    for object in stored() {
        let kind = kind_of(&object);
        assert_eq!(create(kind, &object), [], "{object}");
        assert_eq!(update(kind, &object, &object), [], "{object}");
        assert_eq!(subresource(kind, Status, &object, &object), [], "{object}");
    }
}

#[test]
fn what_is_wrong_is_told_as_the_reference_tells_it() {
    for case in data("invalid.json").as_array().unwrap() {
        let causes = match case.get("recording") {
            Some(file) => {
                let file = format!("defaulted/{}", file.as_str().unwrap());
                let old = data(&file)["stored"].take();
                let mut new = old.clone();
                merge(&mut new, &case["patch"]);
                update(kind_of(&old), &new, &old)
            }
            None => {
                let kind = kind_of(&case["object"]);
                create(kind, &prepared(kind, case["object"].clone()))
            }
        };
        let causes: Value = causes
            .iter()
            .map(|cause| {
                json!({"reason": cause.reason, "message": cause.message, "field": cause.field})
            })
            .collect();
        assert_eq!(causes, case["causes"]);
    }
    let cm = kinds::find("", "v1", "configmaps").unwrap();
    let big = json!({"metadata": {"name": "big", "namespace": "demo",
        "annotations": {"a": "x".repeat(256 * 1024)}}});
    assert_eq!(
        create(cm, &big),
        [Cause::too_long("metadata.annotations", 262_144)]
    );
}

/// A recorded object, what is merged into it, and what is wrong then, in whole or (ending in `…`) in part.
fn wrong(file: &str, patch: Value, expected: &[&str]) {
    let mut object = data(&format!("defaulted/{file}.json"))["stored"].take();
    merge(&mut object, &patch);
    let kind = kind_of(&object);
    compare(&create(kind, &object), expected, &patch);
}

/// The same for a change.
fn refused(file: &str, before: Value, patch: Value, expected: &[&str]) {
    let mut old = data(&format!("defaulted/{file}.json"))["stored"].take();
    merge(&mut old, &before);
    let mut new = old.clone();
    merge(&mut new, &patch);
    compare(&update(kind_of(&old), &new, &old), expected, &patch);
}

fn compare(causes: &[Cause], expected: &[&str], patch: &Value) {
    let told: Vec<_> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    let fits = |told: &String, expected: &&str| match expected.strip_suffix('…') {
        Some(start) => told.starts_with(start),
        None => told == expected,
    };
    assert!(
        told.len() == expected.len() && told.iter().zip(expected).all(|(a, b)| fits(a, b)),
        "{patch}: {told:#?}"
    );
}

#[test]
fn metadata() {
    let meta = |patch: Value| json!({"metadata": patch});
    wrong(
        "configmap",
        meta(json!({"name": null})),
        &["metadata.name: Required value: name or generateName is required"],
    );
    wrong(
        "configmap",
        meta(json!({"namespace": null})),
        &["metadata.namespace: Required value"],
    );
    wrong(
        "node",
        meta(json!({"namespace": "demo"})),
        &["metadata.namespace: Forbidden: not allowed on this type"],
    );
    wrong(
        "configmap",
        meta(json!({"generateName": "a_b-"})),
        &["metadata.generateName: Invalid value: \"a_b-\": a lowercase…"],
    );
    wrong("configmap", meta(json!({"generateName": "ab-"})), &[]);
    wrong(
        "configmap",
        meta(json!({"labels": {"a b": "c", "d": "-"}})),
        &[
            "metadata.labels: Invalid value: \"a b\": name part must consist of…",
            "metadata.labels: Invalid value: \"-\": a valid label must be…",
        ],
    );
    wrong(
        "configmap",
        meta(json!({"annotations": {"A/b/c": ""}})),
        &["metadata.annotations: Invalid value: \"A/b/c\": a qualified name must…"],
    );
    wrong(
        "configmap",
        meta(json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]})),
        &["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"],
    );
    wrong(
        "configmap",
        meta(json!({"finalizers": ["orphan", "foregroundDeletion"]})),
        &[
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set",
        ],
    );
    wrong(
        "namespace",
        meta(json!({"name": "a.b"})),
        &["metadata.name: Invalid value: \"a.b\": must not contain dots"],
    );
    refused(
        "configmap",
        meta(json!({"deletionTimestamp": "2026-11-21T06:49:31Z"})),
        meta(json!({"finalizers": ["a/b"]})),
        &[
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a/b\"}",
        ],
    );
}

/// Any JSON.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "None",
            "Always",
            "10.0.0.1",
            "1Gi",
            "ClusterIP",
            "",
            "*"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Puts a value at some place within another: the `at`th in a walk.
fn replace(value: &mut Value, at: &mut usize, new: &Value) -> bool {
    if *at == 0 {
        *value = new.clone();
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(list) => list.iter_mut().any(|item| replace(item, at, new)),
        Value::Object(map) => map.values_mut().any(|item| replace(item, at, new)),
        _ => false,
    }
}

/// Everything that happens to an object, for every way in which it may come.
fn everything(kind: &Kind, object: &Value, other: &Value) {
    let mut new = object.clone();
    defaults::apply(kind, &mut new);
    let mut again = new.clone();
    defaults::apply(kind, &mut again);
    assert_eq!(again, new, "{} is filled in twice", kind.kind);
    let account = Some(other);
    let _ = defaults::admit(
        kind,
        &mut new,
        &Admission {
            suffix: "x",
            account,
        },
    );
    defaults::prepare_create(kind, &mut new);
    for cluster in [&[][..], &["IPv4"], &["IPv6", "IPv4"]] {
        defaults::service::families(&mut new, None, cluster);
        defaults::service::families(&mut new, Some(other), cluster);
    }
    create(kind, &new);
    let (mut changed, mut reported) = (new.clone(), new.clone());
    defaults::prepare_update(kind, &mut changed, other);
    defaults::prepare_status(kind, &mut reported, other);
    update(kind, &changed, other);
    update(kind, other, &new);
    subresource(kind, Status, &reported, other);
    for part in [Status, EphemeralContainers, Resize, Finalize] {
        let mut written = new.clone();
        defaults::prepare_subresource(kind, part, &mut written, other);
        subresource(kind, part, &written, other);
        subresource(kind, part, other, &new);
    }
    defaults::spec_changed(kind, other, &new);
    defaults::service_account(&new);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn hostile_json_is_taken(object in json(), other in json()) {
        for kind in KINDS {
            everything(kind, &object, &other);
        }
    }

    #[test]
    fn objects_with_something_else_in_them_are_taken(at in 0_usize..120, part in json(), second in 0_usize..120) {
        for old in stored() {
            let kind = kind_of(&old);
            let (mut new, mut other) = (old.clone(), old.clone());
            replace(&mut new, &mut { at }, &part);
            replace(&mut other, &mut { second }, &part);
            everything(kind, &new, &old);
            everything(kind, &other, &new);
        }
    }
}
