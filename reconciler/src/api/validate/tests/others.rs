//! Configuration, networks, nodes, volumes.

use serde_json::json;

use super::*;

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
            "metadata.taints[0].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
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
