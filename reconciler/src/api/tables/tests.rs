//! Against rows that kube-apiserver 1.36.2 printed: `rows.json` (objects with their rows; a value that had changed
//! between the recording of the row and of the object was set back), `pods.json` (hand-made states of Pods).

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::api::kinds::{self, KINDS};

fn now(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn kind(qualified: &str) -> &'static Kind {
    std::iter::once(&SCALE)
        .chain(KINDS)
        .find(|kind| kind.qualified() == qualified)
        .unwrap()
}

fn recorded(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

#[test]
fn objects_are_printed_as_the_reference_prints_them() {
    for row in recorded(include_str!("rows.json")) {
        let kind = kind(row["kind"].as_str().unwrap());
        let cells = cells(kind, &row["object"], now(row["now"].as_str().unwrap()));
        assert_eq!(Value::from(cells), row["cells"], "{}", kind.plural);
    }
}

#[test]
fn every_state_of_a_pod_has_its_word() {
    let pods = recorded(include_str!("pods.json"));
    assert_eq!(pods.len(), 26);
    for mut row in pods {
        let state = row["state"].as_str().unwrap().to_owned();
        let container = |name: &str| json!({"name": name});
        let mut spec = json!({"containers": [container("c")], "nodeName": "n1"});
        if state.starts_with("two-") {
            spec["containers"] = json!([container("c"), container("c2")]);
        }
        if state.starts_with("init-") {
            spec["initContainers"] = json!([container("i")]);
        }
        if state == "sidecar" {
            spec["initContainers"] = json!([{"name": "i", "restartPolicy": "Always"}]);
        }
        if state == "gates" {
            spec["readinessGates"] = json!([{"conditionType": "x/y"}, {"conditionType": "x/z"}]);
        }
        if state == "gated" {
            spec["nodeName"] = Value::Null;
        }
        let expected = row["cells"].clone();
        // The clock of the recording: the end of the last container, and what is said about it.
        let ended = now("2026-11-21T06:46:34Z");
        let restarts = expected[3].as_str().unwrap();
        let ago = match restarts.split_once("(5m") {
            Some((_, rest)) => 300 + rest.split_once('s').unwrap().0.parse::<i64>().unwrap(),
            None => 300,
        };
        let age: i64 = expected[4]
            .as_str()
            .unwrap()
            .trim_end_matches('s')
            .parse()
            .unwrap();
        let clock = ended + jiff::SignedDuration::from_secs(ago);
        let created = clock - jiff::SignedDuration::from_secs(age);
        let pod = json!({
            "metadata": {
                "name": format!("st-{state}"), "creationTimestamp": created.to_string(),
                "deletionTimestamp": row["deletionTimestamp"].take(),
            },
            "spec": spec, "status": row["status"].take(),
        });
        assert_eq!(
            Value::from(cells(kind("pods"), &pod, clock)),
            expected,
            "{state}"
        );
    }
}

#[test]
fn every_kind_has_a_cell_for_every_column() {
    for kind in std::iter::once(&SCALE).chain(KINDS) {
        let columns = columns(kind);
        let cells = cells(kind, &json!({}), Timestamp::UNIX_EPOCH);
        assert_eq!(columns.len(), cells.len(), "{}", kind.qualified());
        assert!(
            COLUMNS.contains_key(&kind.qualified()) || kind.plural == "events",
            "{} has columns of its own",
            kind.qualified()
        );
        for (column, cell) in columns.iter().zip(&cells) {
            if column.kind == "integer" {
                assert!(cell.is_i64() || cell.is_u64(), "{}", column.name);
            }
        }
    }
    let unknown = Kind {
        plural: "widgets",
        ..SCALE
    };
    let names: Vec<_> = columns(&unknown)
        .iter()
        .map(|column| (column.name.as_str(), column.kind.as_str()))
        .collect();
    assert_eq!(names, [("Name", "string"), ("Created At", "date")]);
    assert_eq!(
        cells(
            &unknown,
            &json!({"metadata": {"name": "w", "creationTimestamp": "2026-11-21T06:46:34Z"}}),
            Timestamp::UNIX_EPOCH
        ),
        [json!("w"), json!("2026-11-21T06:46:34Z")]
    );
}

fn selector(selector: Value) -> String {
    label_selector(Some(&selector))
}

#[test]
fn selectors_are_printed_in_the_order_of_their_keys() {
    assert_eq!(selector(json!({})), "<none>");
    assert_eq!(label_selector(None), "<none>");
    let expression =
        |key, operator, values| json!({"key": key, "operator": operator, "values": values});
    assert_eq!(
        selector(json!({
            "matchLabels": {"m": "1"},
            "matchExpressions": [
                expression("z", "DoesNotExist", json!([])),
                expression("app", "In", json!(["b", "a"])),
                expression("b", "NotIn", json!(["c"])),
                expression("x", "Exists", Value::Null),
            ]
        })),
        "app in (a,b),b notin (c),m=1,x,!z"
    );
    assert_eq!(
        selector(json!({"matchExpressions": [expression("a", "Like", json!(["b"]))]})),
        "<error>"
    );
}

/// The cell below a heading.
fn cell(kind: &Kind, object: &Value, heading: &str) -> Value {
    let index = columns(kind).iter().position(|one| one.name == heading);
    cells(kind, object, now("2026-11-21T07:00:00Z")).swap_remove(index.unwrap())
}

#[test]
fn both_views_of_an_event_print_the_same() {
    let core = json!({
        "metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "message": " pulled\n",
        "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{c}"},
        "source": {"component": "kubelet", "host": "n1"}, "count": 3,
        "firstTimestamp": "2026-11-21T06:50:00Z", "lastTimestamp": "2026-11-21T06:59:00Z",
        "eventTime": null,
    });
    let newer = json!({
        "metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "note": " pulled\n",
        "regarding": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{c}"},
        "deprecatedSource": {"component": "kubelet", "host": "n1"}, "deprecatedCount": 3,
        "deprecatedFirstTimestamp": "2026-11-21T06:50:00Z",
        "deprecatedLastTimestamp": "2026-11-21T06:59:00Z", "eventTime": null,
    });
    let at = now("2026-11-21T07:00:00Z");
    let printed = cells(kind("events"), &core, at);
    assert_eq!(
        Value::from(printed.clone()),
        json!([
            "60s",
            "Normal",
            "Pulled",
            "pod/web",
            "spec.containers{c}",
            "kubelet, n1",
            "pulled",
            "10m",
            3,
            "e"
        ])
    );
    let events = kinds::find("events.k8s.io", "v1", "events").unwrap();
    assert_eq!(cells(events, &newer, at), printed);
    assert_eq!(columns(events), columns(kind("events")));
    let series = json!({
        "eventTime": "2026-11-21T06:50:00.000001Z",
        "series": {"count": 9, "lastObservedTime": "2026-11-21T06:59:30.000000Z"},
    });
    assert_eq!(cell(events, &series, "Last Seen"), "30s");
    assert_eq!(cell(events, &series, "First Seen"), "9m59s");
    assert_eq!(cell(events, &series, "Count"), 9);
}

#[test]
fn a_job_says_what_it_is_doing() {
    let jobs = kind("jobs.batch");
    let job = |status: Value, spec: Value| json!({"spec": spec, "status": status});
    let condition = |kind: &str| json!({"conditions": [{"type": kind, "status": "True"}]});
    for word in [
        "Complete",
        "Failed",
        "Suspended",
        "FailureTarget",
        "SuccessCriteriaMet",
    ] {
        assert_eq!(cell(jobs, &job(condition(word), json!({})), "Status"), word);
    }
    let mut deleted = job(condition("Suspended"), json!({"parallelism": 5}));
    deleted["metadata"] = json!({"deletionTimestamp": "2026-11-21T06:59:30Z"});
    assert_eq!(cell(jobs, &deleted, "Status"), "Terminating");
    assert_eq!(cell(jobs, &deleted, "Completions"), "0/1 of 5");
    let running = job(
        json!({"startTime": "2026-11-21T06:59:30Z", "succeeded": 1}),
        json!({"completions": 3}),
    );
    assert_eq!(cell(jobs, &running, "Status"), "Running");
    assert_eq!(cell(jobs, &running, "Completions"), "1/3");
    assert_eq!(cell(jobs, &running, "Duration"), "30s");
    assert_eq!(cell(jobs, &json!({}), "Duration"), "");
}

#[test]
fn addresses_of_services_and_ingresses() {
    let services = kind("services");
    let balanced = json!({
        "spec": {"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "1.example"}]}},
    });
    assert_eq!(
        cell(services, &balanced, "External-IP"),
        "1.example,2.2.2.2,9.9.9.9"
    );
    let ingresses = kind("ingresses.networking.k8s.io");
    let hosts = |hosts: &[&str]| {
        let rules: Vec<_> = hosts.iter().map(|host| json!({"host": host})).collect();
        cell(ingresses, &json!({"spec": {"rules": rules}}), "Hosts")
    };
    assert_eq!(hosts(&[]), "*");
    assert_eq!(hosts(&[""]), "*");
    assert_eq!(hosts(&["a", "b", "c", "d", "e"]), "a,b,c + 2 more...");
    assert_eq!(cell(ingresses, &balanced, "Address"), "1.example,2.2.2.2");
    let headless = json!({"subsets": [
        {"addresses": [{"ip": "10.0.0.1"}]},
        {"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 81}]},
    ]});
    assert_eq!(
        cell(kind("endpoints"), &headless, "Endpoints"),
        "10.0.0.1,[fd00::1]:80,[fd00::1]:81"
    );
    let slices = kind("endpointslices.discovery.k8s.io");
    assert_eq!(cell(slices, &json!({}), "Ports"), "<unset>");
    let ports = json!({"ports": [{"port": null, "name": "web"}, {"port": 53}, {}]});
    assert_eq!(cell(slices, &ports, "Ports"), "web,53,*");
    let class =
        json!({"spec": {"parameters": {"apiGroup": "k8s.example.com", "kind": "P", "name": "n"}}});
    assert_eq!(
        cell(
            kind("ingressclasses.networking.k8s.io"),
            &class,
            "Parameters"
        ),
        "P.k8s.example.com/n"
    );
}

#[test]
fn a_row_holds_what_was_asked_for() {
    let pods = kind("pods");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "resourceVersion": "7"},
        "status": {"phase": "Succeeded"},
    });
    let at = Timestamp::UNIX_EPOCH;
    let made = |include| row(pods, pod.clone(), include, at);
    assert_eq!(made(Include::None)["object"], Value::Null);
    assert_eq!(made(Include::Object)["object"], pod);
    assert_eq!(
        made(Include::Metadata),
        json!({
            "cells": cells(pods, &pod, at),
            "conditions": [{"type": "Completed", "status": "True", "reason": "Succeeded",
                "message": "The pod has completed successfully."}],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": pod["metadata"]},
        })
    );
    assert_eq!(Include::parse(""), Some(Include::Metadata));
    assert_eq!(Include::parse("Object"), Some(Include::Object));
    assert_eq!(Include::parse("object"), None);
}

#[test]
fn a_table_names_its_columns_once() {
    let list =
        json!({"resourceVersion": "9", "continue": "t", "remainingItemCount": 3, "uid": "x"});
    let columns = columns(kind("serviceaccounts"));
    let first = table(Some(columns), &list, vec![]);
    assert_eq!(first["kind"], "Table");
    assert_eq!(first["apiVersion"], "meta.k8s.io/v1");
    assert_eq!(
        first["metadata"],
        json!({"resourceVersion": "9", "continue": "t", "remainingItemCount": 3})
    );
    assert_eq!(first["columnDefinitions"][0]["format"], "name");
    assert_eq!(first["columnDefinitions"][0]["type"], "string");
    assert_eq!(first["rows"], json!([]));
    assert_eq!(table(None, &list, vec![])["columnDefinitions"], Value::Null);
}

/// Any JSON, with the keys and words that the printers look for.
fn hostile() -> impl Strategy<Value = Value> {
    let words = [
        "",
        "True",
        "Always",
        "i",
        "c",
        "Ready",
        "Completed",
        "In",
        "LoadBalancer",
        "2026-11-21T06:46:34Z",
        "9999-12-31T23:59:59Z",
        "-009999-01-01T00:00:00Z",
        "ü/\u{0}",
    ];
    let keys = [
        "metadata",
        "spec",
        "status",
        "name",
        "type",
        "creationTimestamp",
        "deletionTimestamp",
        "containers",
        "initContainers",
        "containerStatuses",
        "initContainerStatuses",
        "conditions",
        "restartCount",
        "state",
        "lastState",
        "terminated",
        "finishedAt",
        "startTime",
        "completionTime",
        "waiting",
        "reason",
        "exitCode",
        "signal",
        "ports",
        "port",
        "nodePort",
        "subsets",
        "addresses",
        "endpoints",
        "selector",
        "matchLabels",
        "matchExpressions",
        "labels",
        "ownerReferences",
        "controller",
        "data",
        "series",
        "capacity",
        "template",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        let key = proptest::sample::select(keys.to_vec()).prop_map(str::to_owned);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever the object is, each column has its cell.
    #[test]
    fn any_json_is_printed(object in hostile(), second in -9_999_999_999_i64..9_999_999_999) {
        let now = Timestamp::new(second, 0).unwrap();
        for kind in std::iter::once(&SCALE).chain(KINDS) {
            prop_assert_eq!(cells(kind, &object, now).len(), columns(kind).len());
            let row = row(kind, object.clone(), Include::Metadata, now);
            prop_assert!(row["object"]["metadata"].is_object());
        }
    }
}
