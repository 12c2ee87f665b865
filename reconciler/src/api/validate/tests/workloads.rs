//! What makes Pods.

use serde_json::json;

use super::*;

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
