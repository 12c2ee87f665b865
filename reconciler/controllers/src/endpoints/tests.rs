use super::plan::{CAPACITY, MANAGED_BY, MANAGER, OVER_CAPACITY, plan};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use serde_json::json;

fn service() -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "demo", "uid": "s", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }))
    .unwrap()
}

fn pod(number: usize, ready: bool) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("web-{number:04}"), "namespace": "demo", "uid": format!("u{number}"),
            "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIP": format!("10.1.{}.{}", number / 250, number % 250),
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    }))
    .unwrap()
}

#[test]
fn ready_and_not_ready_addresses_are_apart() {
    let pods = [pod(1, true), pod(2, false)];
    let made = plan(&service(), &pods.iter().collect::<Vec<_>>(), None).unwrap();
    let address = |number: usize| {
        json!({"ip": format!("10.1.0.{number}"), "nodeName": "n1", "targetRef":
            {"kind": "Pod", "namespace": "demo", "name": format!("web-{number:04}"), "uid": format!("u{number}")}})
    };
    let golden = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "web", "namespace": "demo", "labels": {MANAGED_BY: MANAGER},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "s",
                "controller": true, "blockOwnerDeletion": true}],
        },
        "subsets": [{"addresses": [address(1)], "notReadyAddresses": [address(2)],
            "ports": [{"port": 8080, "protocol": "TCP"}]}],
    });
    assert_eq!(json!(made), golden);
    assert_eq!(
        plan(&service(), &pods.iter().collect::<Vec<_>>(), Some(&made)),
        None
    );
    let none = plan(&service(), &[], Some(&made)).unwrap();
    assert_eq!(none.subsets, None);
}

#[test]
fn those_that_are_not_ready_make_room_for_ready_ones() {
    let pods: Vec<Pod> = (0..CAPACITY + 100)
        .map(|number| pod(number, number >= 200))
        .collect();
    let made = plan(&service(), &pods.iter().collect::<Vec<_>>(), None).unwrap();
    let subset = &made.subsets.unwrap()[0];
    let count = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
    assert_eq!(
        (count(&subset.addresses), count(&subset.not_ready_addresses)),
        (900, 100)
    );
    assert_eq!(
        made.metadata.annotations.unwrap()[OVER_CAPACITY],
        "truncated"
    );
}

#[test]
fn endpoints_of_others_are_left_alone() {
    let foreign: Endpoints =
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "demo"}})).unwrap();
    assert_eq!(plan(&service(), &[&pod(1, true)], Some(&foreign)), None);
}
