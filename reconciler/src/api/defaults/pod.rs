//! Pods, and the templates that workloads make them from.

use serde_json::{Value, json};

use super::fields::{amount, child, empty, items, make, resource_list, unset, word, word_default};
use crate::api::object::{self, Object};

/// Every list of containers.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A Pod: what templates have, and what only Pods have.
pub fn pod(pod: &mut Object) {
    let Some(spec) = make(pod, "spec") else {
        return;
    };
    spec_of_template(spec);
    object::default(spec, "enableServiceLinks", true);
    let host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        for container in items(spec, list) {
            requests_from_limits(container);
            if host {
                host_ports(container);
            }
        }
    }
}

/// The template at `template`, made if there is none.
pub fn template(owner: &mut Object) {
    let Some(template) = make(owner, "template") else {
        return;
    };
    make(template, "metadata");
    if let Some(spec) = make(template, "spec") {
        spec_of_template(spec);
    }
}

fn spec_of_template(spec: &mut Object) {
    word_default(spec, "dnsPolicy", "ClusterFirst");
    word_default(spec, "restartPolicy", "Always");
    word_default(spec, "schedulerName", "default-scheduler");
    object::default(spec, "terminationGracePeriodSeconds", 30);
    make(spec, "securityContext");
    for list in CONTAINERS {
        for entry in items(spec, list) {
            container(entry);
        }
    }
    for entry in items(spec, "volumes") {
        volume(entry);
    }
    resource_list(spec, "overhead");
    if let Some(resources) = child(spec, "resources") {
        resource_list(resources, "limits");
        resource_list(resources, "requests");
    }
}

fn container(container: &mut Object) {
    word_default(container, "terminationMessagePath", "/dev/termination-log");
    word_default(container, "terminationMessagePolicy", "File");
    if unset(container, "imagePullPolicy") {
        let policy = pull_policy(word(container, "image"));
        container.insert("imagePullPolicy".to_owned(), json!(policy));
    }
    for port in items(container, "ports") {
        word_default(port, "protocol", "TCP");
    }
    for variable in items(container, "env") {
        let Some(source) = child(variable, "valueFrom") else {
            continue;
        };
        field_ref(source);
        if let Some(resource) = child(source, "resourceFieldRef") {
            resource_divisor(resource);
        }
        if let Some(file) = child(source, "fileKeyRef") {
            object::default(file, "optional", false);
        }
    }
    if let Some(resources) = make(container, "resources") {
        resource_list(resources, "limits");
        resource_list(resources, "requests");
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child(container, kind) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(action) = child(lifecycle, hook) {
                http_get(action);
            }
        }
    }
}

/// `Always` for an image whose tag is `latest`, or that has neither tag nor digest.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !digest && !last.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Object) {
    for (key, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if unset(probe, key) {
            probe.insert(key.to_owned(), json!(value));
        }
    }
    http_get(probe);
    if let Some(grpc) = child(probe, "grpc") {
        object::default(grpc, "service", "");
    }
}

fn http_get(action: &mut Object) {
    if let Some(get) = child(action, "httpGet") {
        word_default(get, "path", "/");
        word_default(get, "scheme", "HTTP");
    }
}

fn field_ref(source: &mut Object) {
    if let Some(field) = child(source, "fieldRef") {
        word_default(field, "apiVersion", "v1");
    }
}

/// It is no pointer in the reference: absent is `0`.
fn resource_divisor(resource: &mut Object) {
    object::default(resource, "divisor", "0");
    amount(resource, "divisor");
}

fn downward_items(source: &mut Object) {
    for item in items(source, "items") {
        field_ref(item);
        if let Some(resource) = child(item, "resourceFieldRef") {
            resource_divisor(resource);
        }
    }
}

fn volume(volume: &mut Object) {
    let sources = volume
        .iter()
        .filter(|(key, value)| *key != "name" && !value.is_null());
    if sources.count() == 0 {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for key in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, key) {
            object::default(source, "defaultMode", 0o644);
        }
    }
    if let Some(source) = child(volume, "downwardAPI") {
        downward_items(source);
    }
    if let Some(source) = child(volume, "emptyDir") {
        amount(source, "sizeLimit");
    }
    if let Some(source) = child(volume, "projected") {
        object::default(source, "sources", Value::Null);
        for part in items(source, "sources") {
            if let Some(token) = child(part, "serviceAccountToken") {
                object::default(token, "expirationSeconds", 3600);
            }
            if let Some(certificate) = child(part, "podCertificate") {
                object::default(certificate, "maxExpirationSeconds", 86400);
            }
            if let Some(downward) = child(part, "downwardAPI") {
                downward_items(downward);
            }
        }
    }
    if let Some(claim) =
        child(volume, "ephemeral").and_then(|source| child(source, "volumeClaimTemplate"))
    {
        make(claim, "metadata");
        super::storage::claim_spec(claim);
    }
    if let Some(image) = child(volume, "image")
        && unset(image, "pullPolicy")
    {
        let policy = pull_policy(word(image, "reference"));
        image.insert("pullPolicy".to_owned(), json!(policy));
    }
    super::storage::source(volume);
}

fn requests_from_limits(container: &mut Object) {
    let Some(resources) = child(container, "resources") else {
        return;
    };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = make(resources, "requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

fn host_ports(container: &mut Object) {
    for port in items(container, "ports") {
        if unset(port, "hostPort")
            && let Some(number) = port.get("containerPort").cloned()
        {
            port.insert("hostPort".to_owned(), number);
        }
    }
}

/// The service class by which a node evicts: `Guaranteed` if every container has limits of CPU and memory that are its
/// requests, `BestEffort` if none has any, else `Burstable`.
pub fn qos_class(spec: &Object) -> &'static str {
    let (mut any, mut all) = (false, true);
    let mut count = |owner: &Value| {
        for name in ["cpu", "memory"] {
            let get = |list| {
                object::at(owner, &["resources", list, name])
                    .and_then(crate::api::quantity::Quantity::of)
                    .filter(|amount| !amount.is_zero() && !amount.is_negative())
            };
            let (limit, request) = (get("limits"), get("requests"));
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    };
    let whole = spec.get("resources").is_some_and(|value| !empty(value));
    if whole {
        count(&json!({"resources": spec.get("resources")}));
    } else {
        for list in ["containers", "initContainers"] {
            let list = spec.get(list).and_then(Value::as_array);
            list.into_iter().flatten().for_each(&mut count);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What a Pod that was just created is in. The time of its condition is that of its creation.
pub fn first_status(pod: &mut Object) {
    let spec = pod.get("spec").and_then(Value::as_object);
    let class = spec.map_or("BestEffort", qos_class);
    let mut status = json!({"phase": "Pending", "qosClass": class});
    if spec.is_some_and(|spec| !unset(spec, "schedulingGates")) {
        let created = pod
            .get("metadata")
            .and_then(|metadata| metadata.get("creationTimestamp"));
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": created,
        }]);
    }
    pod.insert("status".to_owned(), status);
}

/// A status that a node writes: the first of several addresses is also the only one of older clients.
pub fn status(status: &mut Object) {
    word_default(status, "phase", "Pending");
    super::node::paired(status, "podIP", "podIPs", Some("ip"));
    super::node::paired(status, "hostIP", "hostIPs", Some("ip"));
}

/// The old Pod with the new one's ephemeral containers, and the metadata that tells who writes.
pub fn only_ephemeral_containers(new: &mut Value, old: &Value) {
    const LIST: &str = "ephemeralContainers";
    let list = new.get_mut("spec").and_then(|spec| spec.get_mut(LIST));
    let list = list.map(Value::take).unwrap_or_default();
    let mut kept = kept(new, old);
    if let Some(spec) = kept.as_object_mut().and_then(|pod| make(pod, "spec")) {
        if empty(&list) {
            spec.remove(LIST);
        } else {
            spec.insert(LIST.to_owned(), list);
        }
    }
    *new = kept;
}

/// The old Pod with the resources of the new one's containers, and the metadata that tells who writes.
pub fn only_resources(new: &mut Value, old: &Value) {
    let mut kept = kept(new, old);
    let specs = (
        kept.as_object_mut().and_then(|pod| child(pod, "spec")),
        new.as_object_mut().and_then(|pod| child(pod, "spec")),
    );
    if let (Some(spec), Some(wanted)) = specs {
        for list in ["containers", "initContainers"] {
            for container in items(spec, list) {
                let name = word(container, "name").to_owned();
                let Some(other) = items(wanted, list).find(|other| word(other, "name") == name)
                else {
                    continue;
                };
                for key in ["resources", "resizePolicy"] {
                    if let Some(value) = other.get_mut(key).map(Value::take) {
                        container.insert(key.to_owned(), value);
                    }
                }
            }
        }
    }
    *new = kept;
}

fn kept(new: &mut Value, old: &Value) -> Value {
    let mut kept = old.clone();
    let (Some(to), Some(from)) = (
        kept.as_object_mut().and_then(|pod| make(pod, "metadata")),
        new.as_object_mut().and_then(|pod| child(pod, "metadata")),
    ) else {
        return kept;
    };
    for key in ["resourceVersion", "managedFields"] {
        if let Some(value) = from.get_mut(key) {
            to.insert(key.to_owned(), value.take());
        }
    }
    kept
}
