//! Answers recorded from kube-apiserver 1.36.2 (`tests/data/invalid.json`), wrong fields by table, and hostile JSON.

use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::defaults::{self, Admission};
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
    defaults::service::families(&mut object, &["IPv4"]);
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
        assert_eq!(status(kind, &object, &object), [], "{object}");
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

#[test]
fn pods() {
    let container = |patch: Value| {
        let mut container = json!({"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"});
        merge(&mut container, &patch);
        json!({"spec": {"containers": [container]}})
    };
    let spec = |patch: Value| json!({"spec": patch});
    wrong(
        "pod",
        spec(json!({"containers": []})),
        &["spec.containers: Required value"],
    );
    wrong(
        "pod",
        container(json!({"name": "A"})),
        &["spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label…"],
    );
    wrong(
        "pod",
        container(json!({"image": " i"})),
        &[
            "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
        ],
    );
    wrong(
        "pod",
        container(json!({"imagePullPolicy": "No"})),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"No\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    wrong(
        "pod",
        container(json!({"ports": [{"containerPort": 70000, "protocol": "ICMP"}, {}]})),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[0].ports[1].containerPort: Required value",
            "spec.containers[0].ports[1].protocol: Required value",
        ],
    );
    wrong(
        "pod",
        container(json!({"ports": [
        {"containerPort": 80, "hostPort": 80, "protocol": "TCP", "name": "a"},
        {"containerPort": 81, "hostPort": 80, "protocol": "TCP", "name": "a"}]})),
        &[
            "spec.containers[0].ports[1].name: Duplicate value: \"a\"",
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\"",
        ],
    );
    wrong(
        "pod",
        container(
            json!({"env": [{"name": "a=b"}, {"value": "x"}, {"name": "x", "valueFrom": {}}]}),
        ),
        &[
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name…",
            "spec.containers[0].env[1].name: Required value",
            "spec.containers[0].env[2].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        ],
    );
    wrong(
        "pod",
        container(
            json!({"volumeMounts": [{"name": "no", "mountPath": "/a"}, {"name": "no", "mountPath": "/a", "subPath": "../x"}]}),
        ),
        &[
            "spec.containers[0].volumeMounts[0].name: Not found: \"no\"",
            "spec.containers[0].volumeMounts[1].name: Not found: \"no\"",
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "spec.containers[0].volumeMounts[1].subPath: Invalid value: \"../x\": must not contain '..'",
        ],
    );
    wrong(
        "pod",
        container(
            json!({"resources": {"limits": {"cpu": "1", "memory": "x"}, "requests": {"cpu": "2", "gpu": "1"}}}),
        ),
        &[
            "spec.containers[0].resources.limits[memory]: Invalid value: \"x\": quantities must match…",
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
        ],
    );
    wrong(
        "pod",
        container(json!({"livenessProbe": {"timeoutSeconds": -1, "successThreshold": 2}})),
        &[
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            "spec.containers[0].livenessProbe.timeoutSeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
    wrong(
        "pod",
        spec(json!({"dnsPolicy": "None", "activeDeadlineSeconds": 0, "hostname": "a.b"})),
        &[
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            "spec.hostname: Invalid value: \"a.b\": must not contain dots",
        ],
    );
    wrong(
        "pod",
        spec(
            json!({"initContainers": [{"name": "c", "image": "i", "imagePullPolicy": "Never", "terminationMessagePolicy": "File", "lifecycle": {}}]}),
        ),
        &[
            "spec.initContainers[0].name: Duplicate value: \"c\"",
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
    wrong(
        "pod",
        spec(
            json!({"tolerations": [{"operator": "Equal"}, {"key": "a", "operator": "Most", "effect": "No"}]}),
        ),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty…",
            "spec.tolerations[1].operator: Unsupported value: \"Most\": supported values: \"Equal\", \"Exists\"",
            "spec.tolerations[1].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ],
    );
    wrong(
        "pod-rich",
        spec(
            json!({"volumes": [{"name": "cm", "secret": {}}, {"name": "cm", "emptyDir": {}, "hostPath": {"path": "/a"}}]}),
        ),
        &[
            "spec.volumes[0].secret.secretName: Required value",
            "spec.volumes[1].name: Duplicate value: \"cm\"",
            "spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type",
            "spec.containers[0].volumeMounts[1].name: Not found: \"kube-api-access-574bf\"",
            "spec.initContainers[0].volumeMounts[0].name: Not found: \"kube-api-access-574bf\"",
        ],
    );
    wrong(
        "pod-rich",
        spec(json!({"hostNetwork": true})),
        &[
            "spec.containers[0].ports[0].hostPort: Invalid value: 0: must match `containerPort` when `hostNetwork` is true",
        ],
    );
    wrong(
        "pod",
        spec(
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Is"}]}]}}}}),
        ),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator",
        ],
    );
}

#[test]
fn changes_of_pods() {
    const FIXED: &str = "spec: Forbidden: pod updates may not change fields other than…";
    let none = || json!({});
    let old = data("defaulted/pod.json")["stored"].take();
    let pod = kind_of(&old);
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("other");
    new["spec"]["activeDeadlineSeconds"] = json!(5);
    new["spec"]["tolerations"]
        .as_array_mut()
        .unwrap()
        .push(json!({"key": "a", "operator": "Exists"}));
    new["spec"]["tolerations"][0]["tolerationSeconds"] = json!(5);
    new["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(update(pod, &new, &old), []);
    compare(
        &update(pod, &old, &new),
        &[
            "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value",
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
        ],
        &json!("back"),
    );
    new["spec"]["containers"][0]["command"] = json!(["a"]);
    compare(&update(pod, &new, &old), &[FIXED], &json!("command"));
    refused("pod", none(), json!({"spec": {"hostname": "a"}}), &[FIXED]);
    let mut more = old.clone();
    let mut second = more["spec"]["containers"][0].clone();
    second["name"] = json!("d");
    more["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(second);
    compare(
        &update(pod, &more, &old),
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        &json!("more"),
    );
    let mut debug = old.clone();
    debug["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]);
    assert_eq!(ephemeral_containers(&debug, &old), []);
    compare(
        &ephemeral_containers(&old, &debug),
        &[
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n",
        ],
        &json!("ephemeral"),
    );
}

#[test]
fn services() {
    let spec = |patch: Value| json!({"spec": patch});
    let port = |patch: Value| {
        let mut port = json!({"port": 80, "protocol": "TCP", "targetPort": 80});
        merge(&mut port, &patch);
        port
    };
    wrong(
        "service-clusterip",
        spec(json!({"ports": null})),
        &["spec.ports: Required value"],
    );
    wrong("service-headless", spec(json!({"ports": null})), &[]);
    wrong(
        "service-clusterip",
        spec(json!({"ports": [port(json!({})), port(json!({"name": "a"}))]})),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
        ],
    );
    wrong(
        "service-clusterip",
        spec(json!({"ports": [port(json!({"targetPort": "a--b", "nodePort": 80}))]})),
        &[
            "spec.ports[0].targetPort: Invalid value: \"a--b\": must not contain consecutive hyphens",
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ],
    );
    wrong(
        "service-nodeport",
        spec(
            json!({"ports": [port(json!({"name": "a", "nodePort": 30000})), port(json!({"name": "b", "port": 81, "nodePort": 30000}))]}),
        ),
        &["spec.ports[1].nodePort: Duplicate value: 30000"],
    );
    wrong(
        "service-clusterip",
        spec(json!({"type": "Other", "sessionAffinity": "Some"})),
        &[
            "spec.sessionAffinity: Unsupported value: \"Some\": supported values: \"ClientIP\", \"None\"",
            "spec.type: Unsupported value: \"Other\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    wrong(
        "service-clusterip",
        spec(
            json!({"clusterIP": "10.96.0.300", "clusterIPs": ["10.96.0.300"], "externalIPs": ["127.0.0.1"], "externalTrafficPolicy": "Cluster"}),
        ),
        &[
            "spec.clusterIPs[0]: Invalid value: \"10.96.0.300\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ],
    );
    wrong(
        "service-externalname",
        spec(json!({"externalName": "a_b"})),
        &["spec.externalName: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain…"],
    );
    wrong(
        "service-clusterip",
        spec(json!({"externalTrafficPolicy": "Local"})),
        &[
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ],
    );
    wrong(
        "service-affinity",
        spec(json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90000}}})),
        &[
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000: must be greater than 0 and less than 86400",
        ],
    );
    refused(
        "service-clusterip",
        json!({}),
        spec(json!({"clusterIP": "None", "clusterIPs": ["None"]})),
        &["spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set"],
    );
    refused(
        "service-clusterip",
        json!({}),
        spec(json!({"clusterIP": null, "clusterIPs": null})),
        &["spec.clusterIPs[0]: Invalid value: null: primary clusterIP can not be unset"],
    );
    refused(
        "service-clusterip",
        json!({}),
        spec(json!({"selector": {"a": "b"}})),
        &[],
    );
}

#[test]
fn workloads() {
    let spec = |patch: Value| json!({"spec": patch});
    for (file, name) in [
        ("deployment", "deployment"),
        ("replicaset", "deployment"),
        ("daemonset", "daemonset"),
        ("statefulset", "statefulset"),
    ] {
        let empty =
            format!("spec.selector: Invalid value: {{}}: empty selector is invalid for {name}");
        wrong(
            file,
            spec(json!({"selector": {"matchLabels": null}})),
            &[&empty],
        );
        wrong(
            file,
            spec(json!({"selector": null})),
            &["spec.selector: Required value"],
        );
        wrong(
            file,
            spec(json!({"template": {"spec": {"restartPolicy": "Never"}}})),
            &[
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ],
        );
    }
    for file in ["deployment", "replicaset", "daemonset"] {
        let both = spec(
            json!({"selector": {"matchLabels": {"app": "y"}}, "template": {"metadata": {"labels": {"app": "y"}}}}),
        );
        refused(
            file,
            json!({}),
            both,
            &[
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"y\"}}: field is immutable",
            ],
        );
    }
    wrong(
        "deployment",
        spec(json!({"replicas": -1})),
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    wrong(
        "deployment",
        spec(json!({"strategy": {"type": "Recreate"}})),
        &[
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ],
    );
    wrong(
        "deployment",
        spec(json!({"strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 0}}})),
        &[
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ],
    );
    wrong(
        "deployment",
        spec(json!({"template": {"metadata": {"labels": {"-": "x"}}}})),
        &["spec.template.labels: Invalid value: \"-\": name part must…"],
    );
    wrong(
        "replicationcontroller",
        spec(json!({"selector": {"app": "z"}})),
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`",
        ],
    );
    refused(
        "statefulset",
        json!({}),
        spec(json!({"serviceName": "other"})),
        &["spec: Forbidden: updates to statefulset spec for fields other than…"],
    );
    refused(
        "statefulset",
        json!({}),
        spec(json!({"replicas": 5, "template": {"metadata": {"annotations": {"a": "b"}}}})),
        &[],
    );
    wrong(
        "poddisruptionbudget",
        spec(json!({"maxUnavailable": "101%"})),
        &[
            "spec: Invalid value: {\"maxUnavailable\":\"101%\",\"minAvailable\":1,\"selector\":{\"matchLabels\":{\"app\":\"none\"}}}: minAvailable and maxUnavailable cannot be both set",
            "spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ],
    );
    wrong(
        "job",
        spec(json!({"template": {"spec": {"restartPolicy": "Always"}}})),
        &[
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ],
    );
    wrong(
        "job",
        spec(json!({"completionMode": "Indexed", "completions": null})),
        &["spec.completions: Required value: when completion mode is Indexed"],
    );
    refused(
        "job",
        json!({}),
        spec(json!({"template": {"spec": {"hostname": "a"}}})),
        &["spec.template: Invalid value: {…"],
    );
    refused(
        "job",
        spec(json!({"suspend": true})),
        spec(json!({"template": {"spec": {"nodeSelector": {"a": "b"}}}})),
        &[],
    );
    refused(
        "job",
        json!({}),
        spec(json!({"parallelism": 3, "suspend": true})),
        &[],
    );
    wrong(
        "cronjob",
        spec(json!({"schedule": "* * *", "concurrencyPolicy": "Maybe"})),
        &[
            "spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]",
            "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
        ],
    );
    let revision = kinds::find("apps", "v1", "controllerrevisions").unwrap();
    let old =
        json!({"metadata": {"name": "r", "namespace": "demo"}, "data": {"a": 1}, "revision": 1});
    let mut new = old.clone();
    new["data"]["a"] = json!(2);
    compare(
        &update(revision, &new, &old),
        &["data: Invalid value: {\"a\":2}: field is immutable"],
        &json!("revision"),
    );
}

#[test]
fn configuration() {
    wrong(
        "configmap",
        json!({"data": {"a/b": "c"}}),
        &["data[a/b]: Invalid value: \"a/b\": a valid config key…"],
    );
    wrong(
        "configmap",
        json!({"data": {"b": "x".repeat(1024 * 1024)}}),
        &[": Too long: may not be more than 1048576 bytes"],
    );
    wrong(
        "configmap",
        json!({"binaryData": {"a": "?"}}),
        &[
            "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
            "binaryData[a]: Invalid value: \"<contents redacted>\": illegal base64 data",
        ],
    );
    refused(
        "configmap",
        json!({"immutable": true}),
        json!({"immutable": false, "data": {"a": "z"}}),
        &[
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
        ],
    );
    refused(
        "secret",
        json!({}),
        json!({"type": "other"}),
        &["type: Invalid value: \"other\": field is immutable"],
    );
    wrong(
        "secret",
        json!({"type": "kubernetes.io/tls"}),
        &[
            "data[tls.crt]: Required value",
            "data[tls.key]: Required value",
        ],
    );
    wrong(
        "secret",
        json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}}),
        &[],
    );
    wrong(
        "secret",
        json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "ew=="}}),
        &["data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": EOF…"],
    );
}

#[test]
fn networks() {
    wrong(
        "endpointslice",
        json!({"addressType": "IPv6"}),
        &["endpoints[0].addresses[0]: Invalid value: \"10.1.2.3\": must be a valid IPv6 address"],
    );
    wrong(
        "endpointslice",
        json!({"addressType": null}),
        &["addressType: Required value"],
    );
    wrong(
        "endpointslice",
        json!({"endpoints": [{"addresses": []}], "ports": [{"name": "", "protocol": "TCP"}, {"name": "", "protocol": "TCP"}]}),
        &[
            "endpoints[0].addresses: Required value: must contain at least 1 address",
            "ports[1].name: Duplicate value: \"\"",
        ],
    );
    refused(
        "endpointslice",
        json!({}),
        json!({"addressType": "IPv6", "endpoints": []}),
        &["addressType: Invalid value: \"IPv6\": field is immutable"],
    );
    wrong(
        "endpoints",
        json!({"subsets": [{"addresses": [{"ip": "169.254.0.1"}], "ports": [{"port": 0, "protocol": "TCP"}]}, {}]}),
        &[
            "subsets[0].addresses[0].ip: Invalid value: \"169.254.0.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
            "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`",
        ],
    );
    wrong(
        "networkpolicy",
        json!({"spec": {"egress": [{"ports": [{"port": 90, "endPort": 80}, {"endPort": 1}], "to": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8", "11.0.0.0/16"]}, "podSelector": {}}]}]}}),
        &[
            "spec.egress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
            "spec.egress[0].ports[1].endPort: Invalid value: 1: may not be specified when `port` is not specified",
            "spec.egress[0].to[0]: Required value: must specify a peer",
            "spec.egress[0].to[1].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
            "spec.egress[0].to[1].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            "spec.egress[0].to[1]: Forbidden: may not specify both ipBlock and another peer",
        ],
    );
    wrong(
        "ingress",
        json!({"spec": {"rules": [{"host": "1.2.3.4", "http": {"paths": [{"path": "a", "pathType": "Prefix", "backend": {}}, {"path": "/"}]}}]}}),
        &[
            "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
            "spec.rules[0].http.paths[0].backend: Required value: must specify one of `service` or `resource`",
            "spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified",
        ],
    );
}

#[test]
fn the_cluster() {
    let spec = |patch: Value| json!({"spec": patch});
    refused(
        "node",
        spec(json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]})),
        spec(json!({"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24"]})),
        &[
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
        ],
    );
    refused(
        "node",
        json!({}),
        spec(json!({"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24"]})),
        &[],
    );
    wrong(
        "node",
        spec(json!({"taints": [{"key": "a", "effect": "No"}]})),
        &[
            "spec.taints[0].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ],
    );
    wrong(
        "node",
        spec(json!({"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]})),
        &[
            "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family",
        ],
    );
    wrong(
        "persistentvolume",
        spec(json!({"accessModes": ["Any"], "capacity": {"storage": "0"}, "hostPath": null})),
        &[
            "spec.accessModes: Unsupported value: \"Any\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
            "spec: Required value: must specify a volume type",
        ],
    );
    wrong(
        "persistentvolumeclaim",
        spec(json!({"resources": null, "accessModes": null})),
        &[
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources.requests[storage]: Required value",
        ],
    );
    refused(
        "persistentvolumeclaim",
        json!({}),
        spec(json!({"storageClassName": "other"})),
        &["spec: Forbidden: spec is immutable after creation except…"],
    );
    refused(
        "persistentvolumeclaim",
        json!({}),
        spec(json!({"volumeName": "pv1"})),
        &[],
    );
    refused(
        "persistentvolume",
        json!({}),
        spec(json!({"hostPath": {"path": "/other"}})),
        &[
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
        ],
    );
    wrong(
        "event",
        json!({"involvedObject": {"namespace": "other"}}),
        &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
    );
    wrong(
        "lease",
        spec(json!({"leaseDurationSeconds": 0})),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than zero"],
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
        defaults::service::families(&mut new, cluster);
    }
    create(kind, &new);
    let (mut changed, mut reported) = (new.clone(), new.clone());
    defaults::prepare_update(kind, &mut changed, other);
    defaults::prepare_status(kind, &mut reported, other);
    update(kind, &changed, other);
    update(kind, other, &new);
    status(kind, &reported, other);
    ephemeral_containers(&new, other);
    defaults::spec_changed(kind, other, &new);
    defaults::service_account(&new);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

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
