use serde_json::{Value, json};

use super::*;
use crate::api::fields::update;
use crate::api::kinds::KINDS;
use crate::api::patch::{self, Format};

const ONE: &str = "2026-01-01T00:00:01Z";
const TWO: &str = "2026-01-01T00:00:02Z";
const THREE: &str = "2026-01-01T00:00:03Z";

fn kind(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.kind == name).unwrap()
}

fn writer<'a>(manager: &'a str, now: &'a str) -> Writer<'a> {
    Writer {
        manager,
        subresource: "",
        now,
    }
}

fn map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "demo"}, "data": data})
}

fn applied(
    live: Option<&Value>,
    data: &Value,
    manager: &str,
    now: &str,
    force: bool,
) -> Result<Value, Status> {
    apply(
        live,
        &map(data),
        &writer(manager, now),
        force,
        kind("ConfigMap"),
    )
}

fn managed(object: &Value) -> &Value {
    &object["metadata"]["managedFields"]
}

fn service(ports: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "demo"},
        "spec": {"ports": ports}})
}

#[test]
fn what_is_no_longer_applied_goes_unless_another_owns_it() {
    let one = applied(
        None,
        &json!({"a": "1", "b": "1", "c": "1"}),
        "one",
        ONE,
        false,
    )
    .unwrap();
    assert_eq!(one["data"], json!({"a": "1", "b": "1", "c": "1"}));
    assert_eq!(
        managed(&one),
        &json!([{"manager": "one", "operation": "Apply", "apiVersion": "v1", "time": ONE, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}, "f:c": {}}}}])
    );
    // Unchanged: a no-op, time and all.
    let again = applied(
        Some(&one),
        &json!({"a": "1", "b": "1", "c": "1"}),
        "one",
        TWO,
        false,
    )
    .unwrap();
    assert_eq!(again, one);
    // The same value is shared; the object is the same, so there is no time (as recorded of kubectl-last-applied).
    let two = applied(Some(&one), &json!({"b": "1"}), "two", TWO, false).unwrap();
    assert_eq!(managed(&two)[0].get("time"), None);
    let three = applied(Some(&two), &json!({"a": "1"}), "one", THREE, false).unwrap();
    assert_eq!(three["data"], json!({"a": "1", "b": "1"}));
    assert_eq!(managed(&three)[1]["time"], THREE);
    // Nothing applied: all of its own goes, and its entry with it.
    let bare = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}});
    let four = apply(
        Some(&three),
        &bare,
        &writer("one", THREE),
        false,
        kind("ConfigMap"),
    )
    .unwrap();
    assert_eq!(four["data"], json!({"b": "1"}));
    assert_eq!(managed(&four).as_array().unwrap().len(), 1);
    let five = apply(
        Some(&four),
        &bare,
        &writer("two", THREE),
        false,
        kind("ConfigMap"),
    )
    .unwrap();
    assert_eq!(five.get("data"), None);
}

/// statuses/conflict-apply.json, and kubectl's own words for a manager that applied.
#[test]
fn conflicts_are_told_as_the_reference_tells_them() {
    let mut live = map(&json!({"a": "b", "c": "d"}));
    update(None, &mut live, &writer("wire", ONE), kind("ConfigMap"));
    let refused = applied(Some(&live), &json!({"a": "zz"}), "other", TWO, false).unwrap_err();
    assert_eq!(
        refused.to_value(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Apply failed with 1 conflict: conflict with \"wire\" using v1: .data.a",
            "reason": "Conflict",
            "details": {"causes": [{"reason": "FieldManagerConflict",
                "message": "conflict with \"wire\" using v1", "field": ".data.a"}]},
            "code": 409})
    );
    let two = applied(
        Some(&live),
        &json!({"a": "zz", "c": "zz"}),
        "other",
        TWO,
        false,
    )
    .unwrap_err();
    assert_eq!(
        two.message,
        "Apply failed with 2 conflicts: conflicts with \"wire\" using v1:\n- .data.a\n- .data.c"
    );
    let forced = applied(Some(&live), &json!({"a": "zz"}), "other", TWO, true).unwrap();
    assert_eq!(forced["data"], json!({"a": "zz", "c": "d"}));
    assert_eq!(
        managed(&forced)[0]["fieldsV1"],
        json!({"f:data": {"f:a": {}}})
    );
    assert_eq!(
        managed(&forced)[1]["fieldsV1"],
        json!({"f:data": {".": {}, "f:c": {}}})
    );
    let pod = |image: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p1"},
            "spec": {"containers": [{"image": image, "name": "c"}]}})
    };
    let live = apply(
        None,
        &pod("busybox"),
        &writer("kubectl", ONE),
        false,
        kind("Pod"),
    )
    .unwrap();
    let refused = apply(
        Some(&live),
        &pod("busybox:2"),
        &writer("other", TWO),
        false,
        kind("Pod"),
    );
    assert_eq!(
        refused.unwrap_err().message,
        "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.containers[name=\"c\"].image"
    );
}

#[test]
fn items_of_lists_have_owners() {
    let one = json!([{"port": 80, "name": "a"}, {"port": 53, "protocol": "UDP", "name": "dns"}]);
    let mut live = apply(
        None,
        &service(&one),
        &writer("one", ONE),
        false,
        kind("Service"),
    )
    .unwrap();
    // The server's defaults.
    live["spec"]["ports"][0]["protocol"] = json!("TCP");
    live["spec"]["ports"][0]["targetPort"] = json!(80);
    let other = json!([{"port": 443, "name": "b"}, {"port": 80, "appProtocol": "http"}]);
    let both = apply(
        Some(&live),
        &service(&other),
        &writer("two", TWO),
        false,
        kind("Service"),
    )
    .unwrap();
    assert_eq!(
        both["spec"]["ports"],
        json!([
            {"port": 443, "name": "b"},
            {"port": 80, "name": "a", "protocol": "TCP", "targetPort": 80, "appProtocol": "http"},
            {"port": 53, "protocol": "UDP", "name": "dns"}
        ])
    );
    assert_eq!(
        managed(&both)[1]["fieldsV1"]["f:spec"]["f:ports"],
        json!({"k:{\"port\":443,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}},
            "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:appProtocol": {}, "f:port": {}}})
    );
    // The first one leaves: its item goes; of the shared one only its name.
    let left = apply(
        Some(&both),
        &service(&json!([])),
        &writer("one", THREE),
        false,
        kind("Service"),
    )
    .unwrap();
    assert_eq!(
        left["spec"]["ports"],
        json!([{"port": 443, "name": "b"},
            {"port": 80, "protocol": "TCP", "targetPort": 80, "appProtocol": "http"}])
    );
}

#[test]
fn values_of_sets_have_owners_and_atomic_lists_one() {
    let with = |finalizers: &Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "finalizers": finalizers}});
    let kind = kind("ConfigMap");
    let one = apply(
        None,
        &with(&json!(["x/a", "x/b"])),
        &writer("one", ONE),
        false,
        kind,
    )
    .unwrap();
    let two = apply(
        Some(&one),
        &with(&json!(["x/b", "x/c"])),
        &writer("two", TWO),
        false,
        kind,
    )
    .unwrap();
    assert_eq!(two["metadata"]["finalizers"], json!(["x/a", "x/b", "x/c"]));
    let three = apply(
        Some(&two),
        &with(&json!([])),
        &writer("one", THREE),
        false,
        kind,
    )
    .unwrap();
    assert_eq!(three["metadata"]["finalizers"], json!(["x/b", "x/c"]));
}

#[test]
fn what_cannot_be_applied_is_refused() {
    let live = map(&json!({}));
    let refuse = |body: Value, manager: &str| {
        let writer = writer(manager, ONE);
        let status = apply(Some(&live), &body, &writer, false, kind("ConfigMap")).unwrap_err();
        (status.code, status.message)
    };
    // Recorded: statuses/apply-*.json.
    let status = apply(
        None,
        &map(&json!({})),
        &writer("", ONE),
        false,
        kind("ConfigMap"),
    )
    .unwrap_err();
    assert_eq!(
        status.to_value(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            "reason": "Invalid",
            "details": {"group": "meta.k8s.io", "kind": "PatchOptions", "causes": [
                {"reason": "FieldValueRequired", "message": "Required value: is required for apply patch",
                 "field": "fieldManager"}]},
            "code": 422})
    );
    let mut own = map(&json!({}));
    own["metadata"]["managedFields"] = json!([{"manager": "a"}]);
    assert_eq!(
        refuse(own, "x"),
        (400, "metadata.managedFields must be nil".to_owned())
    );
    assert_eq!(
        refuse(json!({"apiVersion": "apps/v1", "kind": "Pod"}), "x"),
        (400, "invalid object type: apps/v1, Kind=Pod".to_owned())
    );
    assert_eq!(refuse(json!([1]), "x").0, 400);
    let mut unknown = map(&json!({}));
    unknown["foo"] = json!(1);
    assert_eq!(
        refuse(unknown, "x"),
        (400, "failed to create typed patch object (demo/cm; /v1, Kind=ConfigMap): .foo: field not declared in schema".to_owned())
    );
    for (ports, why) in [
        (
            json!([{"name": "x"}]),
            ".spec.ports: element 0: associative list with keys has an element that omits key field \"port\" (and doesn't have default value)",
        ),
        (
            json!([1]),
            ".spec.ports: element 0: associative list with keys may not have non-map elements",
        ),
        (
            json!([{"port": 1}, {"port": 1, "protocol": "TCP"}]),
            ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]",
        ),
        (
            json!([{"port": 1, "nope": 1}]),
            ".spec.ports[port=1,protocol=\"TCP\"].nope: field not declared in schema",
        ),
    ] {
        let status = apply(
            None,
            &service(&ports),
            &writer("x", ONE),
            false,
            kind("Service"),
        )
        .unwrap_err();
        assert_eq!(status.code, 400);
        assert!(status.message.ends_with(why), "{}", status.message);
    }
}

/// Request by request what `kubectl apply --server-side` sends for a Pod that `kubectl apply` made (requests.json,
/// apply-create to apply-ss), with what it computed from the recorded server's answers.
#[test]
fn kubectl_moves_from_the_client_to_the_server() {
    let pod = kind("Pod");
    let note = |labels: &str, image: &str, annotations: &str| {
        format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{{annotations}\"labels\":{{{labels}}},\"name\":\"p1\",\"namespace\":\"default\"}},\"spec\":{{\"containers\":[{{\"image\":\"{image}\",\"name\":\"c\"}}]}}}}\n"
        )
    };
    let both = "\"app\":\"p1\",\"x\":\"why\"";
    let mut live = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"annotations": {LAST_APPLIED: note("\"app\":\"p1\"", "busybox", "\"annotations\":{},")},
            "labels": {"app": "p1"}, "name": "p1", "namespace": "default"},
        "spec": {
            "containers": [{"image": "busybox", "name": "c", "resources": {}, "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true},
        "status": {"phase": "Pending"}});
    update(
        None,
        &mut live,
        &writer("kubectl-client-side-apply", ONE),
        pod,
    );
    let change = json!({
        "metadata": {"annotations": {LAST_APPLIED: note(both, "busybox:2", "\"annotations\":{},")}, "labels": {"x": "why"}},
        "spec": {"$setElementOrder/containers": [{"name": "c"}], "containers": [{"image": "busybox:2", "name": "c"}]}});
    let mut changed =
        patch::apply(Format::Strategic, &live, change.to_string().as_bytes(), pod).unwrap();
    update(
        Some(&live),
        &mut changed,
        &writer("kubectl-client-side-apply", ONE),
        pod,
    );

    // First: no conflict, though the image is another manager's, for it is as `kubectl apply` left it.
    let body: Value = serde_json::from_str(&note(both, "busybox", "")).unwrap();
    let first = apply(Some(&changed), &body, &writer("kubectl", TWO), false, pod).unwrap();
    assert_eq!(
        first["metadata"]["annotations"][LAST_APPLIED],
        note(both, "busybox", "")
    );
    // Then the annotation, which the server already has so.
    let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p1", "namespace": "default",
        "annotations": {LAST_APPLIED: note(both, "busybox", "")}}});
    let second = apply(
        Some(&first),
        &body,
        &writer("kubectl-last-applied", TWO),
        false,
        pod,
    )
    .unwrap();
    // Then the client's entry is folded into the new one, by kubectl.
    let mut entries = entries::read(Some(managed(&second))).unwrap();
    let place = entries
        .iter()
        .position(|entry| entry.manager == "kubectl-client-side-apply")
        .unwrap();
    let from_client = entries.remove(place).fields;
    entries
        .iter_mut()
        .find(|entry| entry.manager == "kubectl")
        .unwrap()
        .fields
        .unite(from_client);
    let folded = entries::write(entries).unwrap();
    assert_eq!(
        folded,
        json!([
            {"manager": "kubectl-last-applied", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
             "fieldsV1": {"f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/last-applied-configuration": {}}}}},
            {"manager": "kubectl", "operation": "Apply", "apiVersion": "v1", "time": TWO, "fieldsType": "FieldsV1",
             "fieldsV1": {
                "f:metadata": {
                    "f:annotations": {".": {}, "f:kubectl.kubernetes.io/last-applied-configuration": {}},
                    "f:labels": {".": {}, "f:app": {}, "f:x": {}}},
                "f:spec": {
                    "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                        "f:resources": {}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}}},
                    "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {}, "f:schedulerName": {},
                    "f:securityContext": {}, "f:terminationGracePeriodSeconds": {}}}}
        ])
    );
    let operations = json!([{"op": "replace", "path": "/metadata/managedFields", "value": folded}]);
    let mut third = patch::apply(
        Format::Json,
        &second,
        operations.to_string().as_bytes(),
        pod,
    )
    .unwrap();
    update(Some(&second), &mut third, &writer("kubectl", THREE), pod);
    assert_eq!(managed(&third), &folded);
    // And at last the manifest again: what it does not say is no longer kubectl's.
    let body: Value = serde_json::from_str(&note(both, "busybox", "")).unwrap();
    let fourth = apply(Some(&third), &body, &writer("kubectl", THREE), false, pod).unwrap();
    assert_eq!(
        fourth["spec"],
        json!({"containers": [{"image": "busybox", "name": "c"}]})
    );
    assert_eq!(
        fourth["metadata"]["annotations"][LAST_APPLIED],
        note(both, "busybox", "")
    );
    assert_eq!(managed(&fourth).as_array().unwrap().len(), 2);
}
