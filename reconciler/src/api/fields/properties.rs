//! What holds for all objects and all managed fields, however odd.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::tests::{kind_of, recorded};
use super::*;
use crate::api::kinds::KINDS;

const NOW: &str = "2026-01-01T00:00:00Z";

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        subresource: "",
        now: NOW,
    }
}

/// JSON with names that matter here.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![
            "", "a", "Apply", "Update", "v1", "FieldsV1", "TCP", NOW
        ])
        .prop_map(Value::from),
    ];
    let keys = vec![
        "metadata",
        "spec",
        "status",
        "data",
        "ports",
        "port",
        "protocol",
        "finalizers",
        "name",
        "containers",
        "managedFields",
        "manager",
        "operation",
        "apiVersion",
        "fieldsType",
        "fieldsV1",
        "subresource",
        "time",
        "labels",
        ".",
        "f:spec",
        "f:a",
        "k:{\"name\":\"c\"}",
        "k:{",
        "v:1",
        "i:0",
        "i:x",
        "z:1",
        "f",
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let key = prop::sample::select(keys.clone()).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Entries that are nearly right.
fn entries() -> impl Strategy<Value = Value> {
    let entry = (json(), prop::option::of(json())).prop_map(|(fields, time)| {
        let mut entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": fields});
        if let Some(time) = time {
            entry["time"] = time;
        }
        entry
    });
    prop_oneof![
        json(),
        prop::collection::vec(entry, 0..14).prop_map(Value::Array)
    ]
}

fn set() -> impl Strategy<Value = Set> {
    let element = prop::sample::select(vec![
        "f:spec",
        "f:a",
        "f:b.c/d",
        "k:{\"name\":\"c\"}",
        "k:{\"port\":80,\"protocol\":\"TCP\"}",
        "v:\"x\"",
        "v:1",
        "i:3",
    ])
    .prop_map(str::to_owned);
    Just(Set::leaf())
        .prop_recursive(4, 30, 4, move |inner| {
            (
                any::<bool>(),
                prop::collection::btree_map(element.clone(), inner, 1..4),
            )
                .prop_map(|(member, children)| {
                    let mut set = Set::default();
                    set.member = member;
                    for (element, below) in children {
                        set.insert(element, below);
                    }
                    set
                })
        })
        .prop_map(|mut set| {
            set.member = false;
            set
        })
}

/// A recorded object that lacks some of its parts, as whoever applies only a few of them writes it. It has no empty
/// lists: they have no owner, so that an object with nothing else looks as if nobody had applied it.
fn part(value: &Value, keep: &mut impl FnMut() -> bool, keyed: bool) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter_map(|(key, value)| {
                    let key_of_list = keyed
                        && [
                            "name",
                            "port",
                            "protocol",
                            "containerPort",
                            "type",
                            "uid",
                            "mountPath",
                        ]
                        .contains(&key.as_str());
                    (key_of_list || keep()).then(|| (key.clone(), part(value, keep, false)))
                })
                .filter(|(_, value)| value.as_array().is_none_or(|items| !items.is_empty()))
                .collect::<Map<_, _>>(),
        ),
        Value::Array(items) => items
            .iter()
            .filter_map(|item| match keep() {
                true => Some(part(item, keep, true)),
                false => None,
            })
            .collect(),
        value => value.clone(),
    }
}

/// Two parts of one recorded object.
fn parts() -> impl Strategy<Value = (Value, Value)> {
    let all = recorded();
    (
        0..all.len(),
        prop::collection::vec(any::<bool>(), 97),
        prop::collection::vec(prop::bool::weighted(0.8), 89),
    )
        .prop_map(move |(which, few, many)| {
            let (_, mut object) = all[which].clone();
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.remove("managedFields");
            let cut = |bits: &[bool]| {
                let mut bits = bits.iter().cycle();
                let mut cut = part(&object, &mut || *bits.next().unwrap(), false);
                for field in ["apiVersion", "kind"] {
                    cut[field] = object[field].clone();
                }
                cut
            };
            (cut(&few), cut(&many))
        })
}

proptest! {
    #[test]
    fn sets_come_back_from_what_is_stored(set in set(), other in set()) {
        prop_assert_eq!(&Set::from_value(&set.to_value()).unwrap(), &set);
        let mut rest = set.clone();
        rest.subtract(&other);
        let mut whole = rest.clone();
        whole.unite(set.common(&other));
        prop_assert_eq!(&whole, &set);
        prop_assert!(rest.common(&other).is_empty());
        whole.unite(other.clone());
        whole.subtract(&other);
        prop_assert_eq!(whole, rest);
    }

    #[test]
    fn odd_objects_and_entries_are_answered(old in json(), new in json(), sent in entries(), live in entries(), which in 0..KINDS.len()) {
        let kind = &KINDS[which];
        let with = |value: &Value, managed: &Value| {
            let mut value = value.clone();
            if value.is_object() && value.get("metadata").is_none_or(Value::is_object) {
                value["metadata"]["managedFields"] = managed.clone();
            }
            value
        };
        let old = with(&old, &live);
        let mut written = with(&new, &sent);
        update(Some(&old), &mut written, &writer("w"), kind);
        let count = written["metadata"]["managedFields"].as_array().map_or(0, Vec::len);
        prop_assert!(count <= 11, "ten updates, and the one that is applied");
        // What has been written can be read, unless it was left as it was.
        prop_assert!(!written.is_object() || written["metadata"].get("managedFields").is_none_or(
            |managed| managed.is_null() || entries::read(Some(managed)).is_ok() || *managed == live));
        update(None, &mut new.clone(), &writer("w"), kind);
        let mut applied = new;
        if applied.is_object() {
            applied["apiVersion"] = json!(kind.api_version());
            applied["kind"] = json!(kind.kind);
        }
        for force in [true, false] {
            if let Err(status) = apply(Some(&old), &applied, &writer("a"), force, kind) {
                prop_assert!((400..500).contains(&status.code));
            }
        }
    }

    #[test]
    fn applying_twice_is_applying_once((first, second) in parts()) {
        let kind = kind_of(&first);
        let one = apply(None, &first, &writer("one"), false, kind).unwrap();
        let two = apply(Some(&one), &second, &writer("two"), true, kind).unwrap();
        let later = Writer { manager: "two", subresource: "", now: "2027-01-01T00:00:00Z" };
        prop_assert_eq!(&apply(Some(&two), &second, &later, false, kind).unwrap(), &two);
        // All that is applied is there.
        let mut there = two.clone();
        merge::merge(&mut there, &second, root(kind));
        prop_assert_eq!(&there, &two);
        // The first may take all of its own away; nothing of the second's goes with it.
        let nothing = json!({"apiVersion": first["apiVersion"], "kind": first["kind"]});
        let left = apply(Some(&two), &nothing, &writer("one"), false, kind).unwrap();
        let mut there = left.clone();
        merge::merge(&mut there, &second, root(kind));
        prop_assert_eq!(&there, &left);
    }
}
