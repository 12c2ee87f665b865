//! Services.

use serde_json::json;

use super::*;

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
