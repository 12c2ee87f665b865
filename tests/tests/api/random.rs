//! Random JSON, YAML and protobuf; valid objects of many kinds, and what becomes of them.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// A kind with an object that the server takes.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Of its objects.
    pub path: String,
    pub name: String,
    pub object: Value,
}

impl Kind {
    /// The path of the object.
    pub fn one(&self) -> String {
        format!("{}/{}", self.path, self.name)
    }
}

/// One of each.
pub fn kinds() -> Vec<Kind> {
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{
        "name": "c", "image": "nginx:1", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "b"}],
        "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "volumes": [{"name": "v", "emptyDir": {}}]}});
    let selector = json!({"matchLabels": {"app": "x"}});
    let mut job = template.clone();
    job["spec"]["restartPolicy"] = json!("Never");
    let workload = json!({"selector": selector, "template": template, "replicas": 1});
    let mut stateful = workload.clone();
    stateful["serviceName"] = json!("x");
    let daemon = json!({"selector": selector, "template": template});
    let claim =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let all = [
        ("v1", "Pod", "pods", json!({"spec": template["spec"]})),
        (
            "v1",
            "Service",
            "services",
            json!({"spec": {"type": "NodePort", "selector": {"app": "x"},
            "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 53, "protocol": "UDP"}]}}),
        ),
        (
            "v1",
            "Endpoints",
            "endpoints",
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
        ),
        (
            "v1",
            "ConfigMap",
            "configmaps",
            json!({"data": {"a": "b"}, "binaryData": {"c": "AAAA"}}),
        ),
        (
            "v1",
            "Secret",
            "secrets",
            json!({"stringData": {"a": "b"}, "data": {"c": "AAAA"}}),
        ),
        ("v1", "ServiceAccount", "serviceaccounts", json!({})),
        (
            "v1",
            "ReplicationController",
            "replicationcontrollers",
            json!({"spec": {"replicas": 1, "selector": {"app": "x"}, "template": template}}),
        ),
        (
            "v1",
            "PersistentVolumeClaim",
            "persistentvolumeclaims",
            json!({"spec": claim}),
        ),
        (
            "v1",
            "Event",
            "events",
            json!({"involvedObject": {"kind": "Pod", "name": "x", "namespace": "default"}, "reason": "r"}),
        ),
        (
            "v1",
            "Node",
            "nodes",
            json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
        ),
        ("v1", "Namespace", "namespaces", json!({})),
        (
            "v1",
            "PersistentVolume",
            "persistentvolumes",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}}),
        ),
        (
            "apps/v1",
            "Deployment",
            "deployments",
            json!({"spec": workload}),
        ),
        (
            "apps/v1",
            "ReplicaSet",
            "replicasets",
            json!({"spec": workload}),
        ),
        (
            "apps/v1",
            "DaemonSet",
            "daemonsets",
            json!({"spec": daemon}),
        ),
        (
            "apps/v1",
            "StatefulSet",
            "statefulsets",
            json!({"spec": stateful}),
        ),
        (
            "apps/v1",
            "ControllerRevision",
            "controllerrevisions",
            json!({"revision": 1, "data": {"a": 1}}),
        ),
        (
            "batch/v1",
            "Job",
            "jobs",
            json!({"spec": {"template": job}}),
        ),
        (
            "batch/v1",
            "CronJob",
            "cronjobs",
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": job}}}}),
        ),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "endpointslices",
            json!({"addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}], "ports": [{"port": 80}]}),
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "networkpolicies",
            json!({"spec": {"podSelector": selector,
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 90}]}]}}),
        ),
        (
            "networking.k8s.io/v1",
            "Ingress",
            "ingresses",
            json!({"spec": {"rules": [{"host": "a.example", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "x", "port": {"number": 80}}}}]}}]}}),
        ),
        (
            "networking.k8s.io/v1",
            "IngressClass",
            "ingressclasses",
            json!({"spec": {"controller": "example.com/x"}}),
        ),
        (
            "coordination.k8s.io/v1",
            "Lease",
            "leases",
            json!({"spec": {"holderIdentity": "x", "renewTime": "2026-01-02T03:04:05.000006Z"}}),
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            "poddisruptionbudgets",
            json!({"spec": {"minAvailable": "50%", "selector": selector}}),
        ),
    ];
    let cluster = ["nodes", "namespaces", "persistentvolumes", "ingressclasses"];
    let made = all.into_iter().map(|(version, kind, plural, mut object)| {
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        object["metadata"] =
            json!({"name": "fuzz", "labels": {"app": "x"}, "annotations": {"a": "b"}});
        let root = if version == "v1" { "/api" } else { "/apis" };
        let path = match cluster.contains(&plural) {
            true => format!("{root}/{version}/{plural}"),
            false => format!("{root}/{version}/namespaces/default/{plural}"),
        };
        Kind {
            path,
            name: "fuzz".to_owned(),
            object,
        }
    });
    made.collect()
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

fn text(rng: &mut Rng) -> String {
    let some = [
        "",
        "a",
        "default",
        "None",
        "fuzz",
        "10.96.0.9",
        "fd00::1",
        "10.0.0.0/8",
        "80%",
        "-1",
        "1e400",
        "9223372036854775808",
        "1Gi",
        "1.5",
        "0x10",
        "2026-11-26T00:00:00Z",
        "2026-99-99T99:99:99Z",
        "AAAA",
        "=",
        "a/b",
        "A_B.c-",
        "-a-",
        "\u{0}",
        "é\u{1F600}",
        "../..",
        "NodePort",
        "LoadBalancer",
        "ExternalName",
        "Orphan",
        "TCP",
        "http",
        "*.example.com",
        "* * * *",
        "RollingUpdate",
        "IPv6",
        "RequireDualStack",
        "Always",
        "{}",
        "null",
    ];
    match rng.u8(..12) {
        0 => "x".repeat(rng.usize(..300)),
        1 => (0..rng.usize(..12)).map(|_| rng.char(..)).collect(),
        _ => pick(rng, &some).to_owned(),
    }
}

/// Any JSON.
pub fn value(rng: &mut Rng, depth: usize) -> Value {
    let kinds = if depth == 0 { 9 } else { 13 };
    match rng.u8(..kinds) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(rng.i64(..)),
        3 => json!(rng.u64(..)),
        4 => json!(rng.i32(-2..100_000)),
        5 => json!(rng.f64() * 1e300),
        6..9 => json!(text(rng)),
        9 | 10 => (0..rng.usize(..4)).map(|_| value(rng, depth - 1)).collect(),
        _ => {
            let mut map = Map::new();
            for _ in 0..rng.usize(..5) {
                map.insert(key(rng), value(rng, depth - 1));
            }
            Value::Object(map)
        }
    }
}

fn key(rng: &mut Rng) -> String {
    let known = [
        "metadata",
        "name",
        "namespace",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "resourceVersion",
        "uid",
        "generation",
        "deletionTimestamp",
        "creationTimestamp",
        "generateName",
        "managedFields",
        "spec",
        "status",
        "ports",
        "port",
        "targetPort",
        "nodePort",
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "ipFamilyPolicy",
        "type",
        "selector",
        "template",
        "containers",
        "replicas",
        "strategy",
        "data",
        "stringData",
        "immutable",
        "$patch",
        "$setElementOrder/ports",
        "$deleteFromPrimitiveList/finalizers",
        "$retainKeys",
        "kind",
        "apiVersion",
        "items",
        "volumes",
        "affinity",
        "externalName",
        "sessionAffinity",
        "healthCheckNodePort",
        "conditions",
        "loadBalancerSourceRanges",
    ];
    match rng.u8(..8) {
        0 => text(rng),
        _ => pick(rng, &known).to_owned(),
    }
}

/// The object with a few things changed anywhere in it; now and then none.
pub fn mutate(rng: &mut Rng, mut object: Value) -> Value {
    for _ in 0..rng.usize(..4) {
        change(rng, &mut object);
    }
    object
}

/// Goes down to somewhere, and changes what is there.
fn change(rng: &mut Rng, at: &mut Value) {
    let down = rng.u8(..5) > 0;
    match at {
        Value::Object(map) if !map.is_empty() && down => {
            let index = rng.usize(..map.len());
            let Some(name) = map.keys().nth(index).cloned() else {
                return;
            };
            match rng.u8(..10) {
                0 => drop(map.remove(&name)),
                1 => drop(map.insert(key(rng), value(rng, 3))),
                2 => {
                    let moved = map.remove(&name).unwrap_or_default();
                    map.insert(key(rng), moved);
                }
                _ => change(rng, &mut map[&name]),
            }
        }
        Value::Array(list) if !list.is_empty() && down => {
            let index = rng.usize(..list.len());
            match rng.u8(..8) {
                0 => drop(list.remove(index)),
                1 => list.push(list[index].clone()),
                2 => list.push(value(rng, 3)),
                _ => change(rng, &mut list[index]),
            }
        }
        _ => *at = value(rng, 4),
    }
}

/// A JSON patch that may fit the object.
pub fn json_patch(rng: &mut Rng, object: &Value) -> Value {
    let mut operations = Vec::new();
    for _ in 0..rng.usize(..4) {
        let mut pointer = String::new();
        let mut at = object;
        while rng.u8(..4) > 0 {
            let (step, below) = match at {
                Value::Object(map) if !map.is_empty() => {
                    let index = rng.usize(..map.len());
                    match map.iter().nth(index) {
                        Some((name, below)) => (name.replace('~', "~0").replace('/', "~1"), below),
                        None => break,
                    }
                }
                Value::Array(list) if !list.is_empty() => {
                    let index = rng.usize(..list.len());
                    (index.to_string(), &list[index])
                }
                _ => break,
            };
            pointer = format!("{pointer}/{step}");
            at = below;
        }
        if rng.u8(..4) == 0 {
            pointer += pick(
                rng,
                &["/-", "/99999999999999999999", "/~", "x", "/x/y", "/-1"],
            );
        }
        let operation = pick(
            rng,
            &[
                "add", "remove", "replace", "move", "copy", "test", "nonsense",
            ],
        );
        operations.push(
            json!({"op": operation, "path": pointer, "from": text(rng), "value": value(rng, 2)}),
        );
    }
    Value::Array(operations)
}

/// The object as YAML of a kind, or something near it.
pub fn yaml(rng: &mut Rng, object: &Value) -> String {
    match rng.u8(..6) {
        0 => format!(
            "a: &a [x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nd: [*c, *c, *c, *c]\n{object}"
        ),
        1 => format!("---\n{object}\n---\n{object}\n"),
        2 => format!("{}: {}\n", text(rng), text(rng)),
        3 => format!("? {object}\n: !!binary {}\n", text(rng)),
        4 => "- ".repeat(rng.usize(..3000)) + "x",
        // JSON is YAML.
        _ => object.to_string(),
    }
}

/// The server's frame around random fields, some of which are those of its messages.
pub fn protobuf(rng: &mut Rng, kind: &Kind) -> Vec<u8> {
    let part = |key: &str| {
        kind.object[key]
            .as_str()
            .unwrap_or_default()
            .as_bytes()
            .to_vec()
    };
    let of_type = [field(1, &part("apiVersion")), field(2, &part("kind"))].concat();
    let mut raw = message(rng, 4);
    if rng.bool() {
        let metadata = field(1, b"fuzz");
        raw = [field(1, &metadata), raw].concat();
    }
    let mut bytes = b"k8s\0".to_vec();
    bytes.extend([field(1, &of_type), field(2, &raw)].concat());
    if rng.u8(..6) == 0 {
        bytes.truncate(rng.usize(..bytes.len()));
    }
    if rng.u8(..4) == 0 {
        let index = rng.usize(..bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(index) {
            *byte = rng.u8(..);
        }
    }
    bytes
}

fn message(rng: &mut Rng, depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(..5) {
        let number = rng.u64(1..20);
        match rng.u8(..8) {
            0 => {
                bytes.extend(varint(number << 3));
                bytes.extend(varint(rng.u64(..)));
            }
            1 => {
                bytes.extend(varint(number << 3 | rng.u64(..8)));
                bytes.extend(rng.u64(..).to_le_bytes());
            }
            2 | 3 => bytes.extend(field(number, text(rng).as_bytes())),
            _ if depth > 0 => {
                let below = message(rng, depth - 1);
                bytes.extend(field(number, &below));
            }
            _ => {}
        }
    }
    bytes
}

fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [
        varint(number << 3 | 2),
        varint(bytes.len() as u64),
        bytes.to_vec(),
    ]
    .concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(number as u8 & 127 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// `?` and options, good and bad.
pub fn query(rng: &mut Rng) -> String {
    let names = [
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "labelSelector",
        "fieldSelector",
        "watch",
        "timeoutSeconds",
        "allowWatchBookmarks",
        "sendInitialEvents",
        "dryRun",
        "fieldManager",
        "fieldValidation",
        "force",
        "gracePeriodSeconds",
        "propagationPolicy",
        "orphanDependents",
        "pretty",
        "includeObject",
        "container",
        "tailLines",
        "command",
        "%ff",
        "x",
    ];
    let values = [
        "",
        "0",
        "1",
        "-1",
        "true",
        "false",
        "99999999999999999999",
        "abc",
        "All",
        "Strict",
        "Warn",
        "Ignore",
        "Exact",
        "NotOlderThan",
        "a%3Db",
        "a+in+(b,c)",
        "!a",
        "a%20notin%20(",
        "metadata.name%3Dfuzz",
        "spec.nodeName%21%3Dx",
        "%00",
        "%ff",
        "%zz",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIvIn0",
        "Foreground",
        "Orphan",
        "Background",
        "Metadata",
        "Object",
        "1e9",
        "é",
    ];
    let mut query = "?".to_owned();
    for _ in 0..rng.usize(..4) {
        // A watch would not end.
        let seconds = if rng.bool() { "&timeoutSeconds=1" } else { "" };
        query += &format!("{}={}{seconds}&", pick(rng, &names), pick(rng, &values));
    }
    query
}
