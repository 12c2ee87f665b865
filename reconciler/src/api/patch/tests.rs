use serde_json::json;

use super::*;
use crate::api::kinds;

pub(super) fn kind(plural: &str) -> &'static Kind {
    kinds::KINDS
        .iter()
        .find(|kind| kind.plural == plural)
        .unwrap()
}

pub(super) fn strategic(plural: &str, target: &Value, patch: &Value) -> Result<Value, Status> {
    let body = patch.to_string();
    apply(Format::Strategic, target, body.as_bytes(), kind(plural))
}

fn containers(target: &Value, patch: &Value) -> Result<Value, Status> {
    let pod = |list: &Value| json!({"spec": {"containers": list}});
    let patched = strategic("pods", &pod(target), &json!({"spec": patch}))?;
    Ok(patched["spec"]["containers"].clone())
}

fn named(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name})).collect()
}

/// `kubectl apply` of a changed Deployment (recorded), to the object that its predecessor made.
#[test]
fn what_apply_sends_for_a_deployment() {
    let container = |name: &str| json!({"name": name, "image": "i:1", "resources": {}, "terminationMessagePolicy": "File"});
    let mut c = container("c");
    c["args"] = json!(["a", "b"]);
    c["env"] = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    c["ports"] = json!([{"containerPort": 80, "protocol": "TCP"}]);
    let live = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "smp", "namespace": "demo", "finalizers": ["a/b", "a/c"],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "old", "x": "y"}},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"a": "smp"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}, "type": "RollingUpdate"},
            "template": {"metadata": {"labels": {"a": "smp"}}, "spec": {
                "containers": [c, container("d")], "restartPolicy": "Always",
                "volumes": [{"emptyDir": {}, "name": "v"}]}}
        }
    });
    let patch = json!({
        "metadata": {
            "$deleteFromPrimitiveList/finalizers": ["a/c"], "$setElementOrder/finalizers": ["a/b"],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "new", "x": null}},
        "spec": {
            "strategy": {"$retainKeys": ["type"], "rollingUpdate": null, "type": "Recreate"},
            "template": {"spec": {
                "$setElementOrder/containers": [{"name": "c"}],
                "$setElementOrder/volumes": [{"name": "v"}],
                "containers": [
                    {"$setElementOrder/env": [{"name": "A"}], "$setElementOrder/ports": [{"containerPort": 81}],
                     "args": ["c"], "env": [{"$patch": "delete", "name": "B"}], "name": "c",
                     "ports": [{"containerPort": 81}, {"$patch": "delete", "containerPort": 80}]},
                    {"$patch": "delete", "name": "d"}],
                "volumes": [{"$retainKeys": ["configMap", "name"], "configMap": {"name": "x"},
                    "emptyDir": null, "name": "v"}]}}}
    });
    let mut c = container("c");
    c["args"] = json!(["c"]);
    c["env"] = json!([{"name": "A", "value": "1"}]);
    c["ports"] = json!([{"containerPort": 81}]);
    assert_eq!(
        strategic("deployments", &live, &patch).unwrap(),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "smp", "namespace": "demo", "finalizers": ["a/b"],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "new"}},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"a": "smp"}}, "strategy": {"type": "Recreate"},
                "template": {"metadata": {"labels": {"a": "smp"}}, "spec": {
                    "containers": [c], "restartPolicy": "Always",
                    "volumes": [{"configMap": {"name": "x"}, "name": "v"}]}}
            }
        })
    );
}

/// Recorded patch and recorded result (live/services.json); the object before as its create request has it.
#[test]
fn what_apply_sends_for_a_service() {
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "TCP", "targetPort": port});
    let live = json!({"spec": {"ports": [port("x", 80), port("y", 81)], "selector": {"a": "b"}}});
    let patch = json!({"spec": {"$setElementOrder/ports": [{"port": 80}],
        "ports": [{"$patch": "delete", "port": 81}], "selector": {"a": "c"}}});
    assert_eq!(
        strategic("services", &live, &patch).unwrap(),
        json!({"spec": {"ports": [port("x", 80)], "selector": {"a": "c"}}})
    );
}

/// `kubectl set image`, `set env`, `rollout resume`, `taint`, `debug`, as recorded.
#[test]
fn what_the_other_commands_send() {
    let template = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let live = template(
        json!({"containers": [{"name": "nginx", "image": "nginx:1", "env": [{"name": "Z"}]}]}),
    );
    let set = template(json!({"$setElementOrder/containers": [{"name": "nginx"}],
        "containers": [{"image": "nginx:2", "name": "nginx"}]}));
    assert_eq!(
        strategic("deployments", &live, &set).unwrap(),
        template(
            json!({"containers": [{"name": "nginx", "image": "nginx:2", "env": [{"name": "Z"}]}]})
        )
    );
    let env = template(json!({"$setElementOrder/containers": [{"name": "nginx"}],
        "containers": [{"env": [{"name": "A", "value": "b"}], "name": "nginx"}]}));
    assert_eq!(
        strategic("deployments", &live, &env).unwrap(),
        template(json!({"containers": [{"name": "nginx", "image": "nginx:1",
            "env": [{"name": "A", "value": "b"}, {"name": "Z"}]}]}))
    );
    let paused = json!({"spec": {"paused": true, "replicas": 1}});
    assert_eq!(
        strategic("deployments", &paused, &json!({"spec": {"paused": null}})).unwrap(),
        json!({"spec": {"replicas": 1}})
    );
    let taint = json!({"spec": {"taints": [{"effect": "NoSchedule", "key": "k", "value": "v"}]}});
    let before = json!({"spec": {"taints": [{"effect": "NoExecute", "key": "other"}]}});
    assert_eq!(strategic("nodes", &before, &taint).unwrap(), taint);
    let debug =
        json!({"spec": {"ephemeralContainers": [{"name": "debugger-rcd8k", "resources": {}}]}});
    assert_eq!(
        strategic("pods", &json!({"spec": {}}), &debug).unwrap(),
        debug
    );
}

/// The order is what "Preserving Order in Strategic Merge Patch" (Kubernetes' design documents) asks for.
#[test]
fn lists_keep_the_order_that_is_asked_for() {
    let live = named(&["a", "b", "c"]);
    for (patch, result) in [
        // New ones come first, as in the documentation's patch-demo.
        (
            json!({"containers": [{"name": "n"}]}),
            ["n", "a", "b", "c"].as_slice(),
        ),
        (json!({"containers": [{"name": "c"}]}), &["a", "b", "c"]),
        (
            json!({"containers": [{"name": "c"}, {"name": "a"}]}),
            &["b", "c", "a"],
        ),
        (
            json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}]}),
            &["a", "c", "b"],
        ),
        (
            json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "n"}, {"name": "a"}],
                "containers": [{"name": "n"}]}),
            &["b", "c", "n", "a"],
        ),
        (
            json!({"containers": [{"$patch": "delete", "name": "b"}]}),
            &["a", "c"],
        ),
        (
            json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
            &["z"],
        ),
        (json!({"containers": null}), &[]),
    ] {
        let expected = if result.is_empty() {
            Value::Null
        } else {
            named(result)
        };
        assert_eq!(containers(&live, &patch).unwrap(), expected, "{patch}");
    }
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    assert_eq!(
        strategic(
            "pods",
            &finalizers(json!(["a", "b"])),
            &finalizers(json!(["c", "a"]))
        )
        .unwrap(),
        finalizers(json!(["c", "a", "b"]))
    );
}

#[test]
fn objects_are_replaced_deleted_and_kept() {
    let live = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "data": {"x": "1"}});
    for (patch, result) in [
        (
            json!({"$patch": "replace", "data": {"y": "2"}}),
            json!({"data": {"y": "2"}}),
        ),
        (
            json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
            json!({"metadata": {"labels": {"c": "3"}}, "data": {"x": "1"}}),
        ),
        (
            json!({"metadata": {"labels": {"$patch": "delete"}}}),
            json!({"metadata": {"labels": {}}, "data": {"x": "1"}}),
        ),
        (
            json!({"data": {"x": null, "z": "3"}, "foo": {"bar": 1, "gone": null}}),
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "data": {"z": "3"}, "foo": {"bar": 1}}),
        ),
    ] {
        assert_eq!(
            strategic("configmaps", &live, &patch).unwrap(),
            result,
            "{patch}"
        );
    }
    let budget = |selector: Value| json!({"spec": {"selector": selector}});
    let new = budget(json!({"matchExpressions": []}));
    assert_eq!(
        strategic(
            "poddisruptionbudgets",
            &budget(json!({"matchLabels": {"a": "b"}})),
            &new
        )
        .unwrap(),
        new
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let live = named(&["a", "b"]);
    let generic = "the server rejected our request due to an error in our request";
    for (patch, code, message) in [
        (
            json!({"containers": [{"image": "x", "tty": true}]}),
            422,
            "map: map[image:x tty:true] does not contain declared merge key: name",
        ),
        (json!({"containers": [["a"]]}), 422, generic),
        (json!({"containers": ["a"]}), 422, generic),
        (
            json!({"containers": [{"$patch": "swap", "name": "a"}]}),
            400,
            "unknown patch type: swap in map: map[$patch:swap name:a]",
        ),
        (
            json!({"$patch": 1}),
            400,
            "unknown patch type: 1 in map: map[$patch:1]",
        ),
        (
            json!({"$setElementOrder/containers": 1}),
            400,
            "invalid patch format of setElementOrder list",
        ),
        (
            json!({"$deleteFromPrimitiveList/containers": 1}),
            400,
            "invalid patch format of primitive list",
        ),
        (
            json!({"$retainKeys": 1}),
            400,
            "invalid patch format of retainKeys",
        ),
        (
            json!({"$retainKeys": ["x"], "y": 1}),
            400,
            "invalid patch format of retainKeys",
        ),
        (
            json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}),
            422,
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[\"a\"]\n",
        ),
    ] {
        let status = containers(&live, &patch).unwrap_err();
        assert_eq!(
            (status.code, status.message.as_str()),
            (code, message),
            "{patch}"
        );
    }
    for format in [Format::Merge, Format::Strategic] {
        let refused = |body: &[u8]| apply(format, &json!({}), body, kind("pods")).unwrap_err();
        assert_eq!(refused(b"{").code, 400);
        assert_eq!(
            refused(b"[]").message,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
    }
}

fn patched(target: &Value, operations: &Value) -> Result<Value, Status> {
    let body = operations.to_string();
    apply(Format::Json, target, body.as_bytes(), kind("configmaps"))
}

/// The refusals are recorded (statuses/jsonpatch-*.json).
#[test]
fn json_patches() {
    let live = json!({"data": {"a": "b"}, "list": [1, 2]});
    assert_eq!(
        patched(
            &live,
            &json!([
                {"op": "test", "path": "/data/a", "value": "b"},
                {"op": "replace", "path": "/data/a", "value": "c"},
                {"op": "add", "path": "/list/-", "value": 3},
                {"op": "copy", "from": "/list", "path": "/data/l"},
                {"op": "move", "from": "/data/l", "path": "/m"},
                {"op": "remove", "path": "/list/0"},
            ])
        )
        .unwrap(),
        json!({"data": {"a": "c"}, "list": [2, 3], "m": [1, 2, 3]})
    );
    assert_eq!(
        patched(&live, &json!({"a": 1})).unwrap_err().to_value(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            "reason": "BadRequest", "code": 400})
    );
    for refused in [
        json!([{"op": "remove", "path": "/data/zz"}]),
        json!([{"op": "test", "path": "/data/a", "value": "no"}]),
        json!([{"op": "add", "path": "/x/y", "value": 1}]),
        json!([{"op": "dance", "path": "/data"}]),
        json!([{"op": "add", "path": "data", "value": 1}]),
        json!([{"op": "add", "path": "/list/9", "value": 1}]),
        json!([{}]),
    ] {
        assert_eq!(
            patched(&live, &refused).unwrap_err().to_value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "the server rejected our request due to an error in our request",
                "reason": "Invalid", "details": {}, "code": 422}),
            "{refused}"
        );
    }
    assert_eq!(patched(&live, &json!([1])).unwrap_err().code, 400);
}

#[test]
fn json_patches_cannot_build_without_end() {
    let live = json!({"data": {"a": "b"}});
    let test = json!({"op": "test", "path": "/data/a", "value": "b"});
    let many: Value = std::iter::repeat_n(test, 10_001).collect();
    let status = patched(&live, &many).unwrap_err();
    assert_eq!((status.code, status.reason), (413, "RequestEntityTooLarge"));
    let deep = json!([{"op": "add", "path": "/data", "value": {"text": "a".repeat(1 << 20)}},
        {"op": "copy", "from": "/data", "path": "/b"}, {"op": "copy", "from": "/data", "path": "/c"},
        {"op": "copy", "from": "/data", "path": "/d"}]);
    // Doubles with every operation.
    let wide: Value = (0..40)
        .map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/{n}")}))
        .collect();
    for bomb in [wide, deep] {
        assert_eq!(patched(&live, &bomb).unwrap_err().code, 422);
    }
    // Grows by one level at a time.
    let nest: Value = (0..1000)
        .flat_map(|_| {
            [
                json!({"op": "move", "from": "/data", "path": "/x"}),
                json!({"op": "add", "path": "/data", "value": {}}),
                json!({"op": "move", "from": "/x", "path": "/data/x"}),
            ]
        })
        .collect();
    assert_eq!(patched(&live, &nest).unwrap_err().code, 422);
}

#[test]
fn merge_patches() {
    let live = json!({"a": {"b": 1, "c": [1, 2]}, "d": "e"});
    let patch = br#"{"a": {"b": null, "c": [3], "n": {"x": null, "y": 1}}, "d": {"f": null}}"#;
    assert_eq!(
        apply(Format::Merge, &live, patch, kind("pods")).unwrap(),
        json!({"a": {"c": [3], "n": {"y": 1}}, "d": {}})
    );
}
