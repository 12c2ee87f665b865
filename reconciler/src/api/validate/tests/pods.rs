//! Pods.

use serde_json::json;

use super::*;
use crate::api::kinds::Subresource::{EphemeralContainers, Resize};

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
    assert_eq!(subresource(pod, EphemeralContainers, &debug, &old), []);
    compare(
        &subresource(pod, EphemeralContainers, &old, &debug),
        &[
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n",
        ],
        &json!("ephemeral"),
    );
}

#[test]
fn a_part_of_a_pod_is_written_alone() {
    let old = data("defaulted/pod-rich.json")["stored"].take();
    let pod = kind_of(&old);
    let mut sent = old.clone();
    sent["metadata"]["labels"] = json!({"a": "b"});
    sent["metadata"]["resourceVersion"] = json!("7");
    sent["spec"]["hostname"] = json!("other");
    sent["spec"]["containers"][0]["image"] = json!("other");
    sent["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("2");
    sent["spec"]["ephemeralContainers"] = json!([{"name": "d"}]);

    let mut new = sent.clone();
    defaults::prepare_subresource(pod, Resize, &mut new, &old);
    let mut expected = old.clone();
    expected["metadata"]["resourceVersion"] = json!("7");
    expected["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("2");
    assert_eq!(new, expected);
    assert_eq!(subresource(pod, Resize, &new, &old), []);
    new["spec"]["containers"][0]["resources"] =
        json!({"limits": {"cpu": "1", "ephemeral-storage": "1"}});
    compare(
        &subresource(pod, Resize, &new, &old),
        &[
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
            "spec: Forbidden: only cpu and memory resources are mutable",
        ],
        &json!("resize"),
    );
    new["spec"]["containers"][0]["resources"] = json!({});
    compare(
        &subresource(pod, Resize, &new, &old),
        &[
            "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ],
        &json!("resize"),
    );

    let mut new = sent;
    defaults::prepare_subresource(pod, EphemeralContainers, &mut new, &old);
    let mut expected = old.clone();
    expected["metadata"]["resourceVersion"] = json!("7");
    expected["spec"]["ephemeralContainers"] = json!([{"name": "d"}]);
    assert_eq!(new, expected);
}
