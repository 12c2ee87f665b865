//! What the server makes of an object between reading and storing it.
//!
//! The order of a create: metadata that the server makes (name, uid, creationTimestamp), [`apply`], managed fields,
//! [`admit`], [`prepare_create`], for Services [`service::families`], then validation. Of an update: metadata that no
//! client changes, [`apply`], [`prepare_update`] (or [`prepare_subresource`]), [`service::families`], validation, a
//! higher generation if [`spec_changed`], and managed fields.
//!
//! Source: the defaults of `k8s.io/kubernetes/pkg/apis`, as recorded from kube-apiserver 1.36.2.

mod admission;
mod families;
mod fields;
mod network;
mod node;
mod pod;
pub mod service;
mod storage;
#[cfg(test)]
mod tests;
mod workload;

use serde_json::{Value, json};

pub use admission::{Admission, admit, is_mirror, service_account};
pub use pod::qos_class;

use super::kinds::{Kind, Subresource};
use super::object::{self, Object};
use fields::{child, make, word_default};

/// Fills in what is not written. Filling in twice changes nothing.
pub fn apply(kind: &Kind, object: &mut Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    match (kind.group, kind.kind) {
        ("", "Endpoints") => network::endpoints(map),
        (group, "Event") => network::event(map, group),
        ("", "Namespace") => {
            admission::namespace_label(map);
            make(map, "spec");
        }
        ("", "Node") => node::node(map),
        ("", "PersistentVolume") => storage::volume(map),
        ("", "PersistentVolumeClaim") => storage::claim(map),
        ("", "Pod") => pod::pod(map),
        ("", "ReplicationController") => workload::replication_controller(map),
        ("", "Secret") => secret(map),
        ("", "Service") => service::service(map),
        ("apps", "ControllerRevision") => object::default(map, "revision", 0),
        ("apps", "DaemonSet") => workload::daemon_set(map),
        ("apps", "Deployment") => workload::deployment(map),
        ("apps", "ReplicaSet") => workload::replica_set(map),
        ("apps", "StatefulSet") => workload::stateful_set(map),
        ("batch", "CronJob") => workload::cron_job(map),
        ("batch", "Job") => workload::job(map),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(map),
        ("networking.k8s.io", "IngressClass") => network::ingress_class(map),
        ("networking.k8s.io", "NetworkPolicy") => network::policy(map),
        ("coordination.k8s.io", "Lease")
        | ("networking.k8s.io", "Ingress")
        | ("policy", "PodDisruptionBudget") => {
            make(map, "spec");
        }
        _ => {}
    }
    status(kind, map);
}

/// What a status has that is not written: numbers and parts that have no omitted form.
fn status(kind: &Kind, map: &mut Object) {
    if !kind.has(Subresource::Status) {
        return;
    }
    let Some(status) = make(map, "status") else {
        return;
    };
    let zeros: &[&str] = match kind.kind {
        "DaemonSet" => &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
        ],
        "StatefulSet" => &["replicas", "availableReplicas"],
        "ReplicaSet" | "ReplicationController" => &["replicas"],
        "PodDisruptionBudget" => &[
            "disruptionsAllowed",
            "currentHealthy",
            "desiredHealthy",
            "expectedPods",
        ],
        _ => &[],
    };
    for key in zeros {
        object::default(status, key, 0);
    }
    match kind.kind {
        "Namespace" => word_default(status, "phase", "Active"),
        "PersistentVolume" | "PersistentVolumeClaim" => word_default(status, "phase", "Pending"),
        "Pod" => pod::status(status),
        "Node" => node::status(status),
        "Service" | "Ingress" => {
            make(status, "loadBalancer");
        }
        _ => {}
    }
}

/// A Secret: text is written as bytes are.
fn secret(secret: &mut Object) {
    use base64::Engine;
    word_default(secret, "type", "Opaque");
    let Some(Value::Object(texts)) = secret.get("stringData") else {
        return;
    };
    let texts: Vec<_> = texts
        .iter()
        .filter_map(|(key, text)| {
            let text = text.as_str()?;
            let text = base64::engine::general_purpose::STANDARD.encode(text);
            Some((key.clone(), Value::String(text)))
        })
        .collect();
    secret.remove("stringData");
    if !texts.is_empty()
        && let Some(data) = make(secret, "data")
    {
        data.extend(texts);
    }
}

/// Brings a new object into the state in which new objects are: without the status that the client may have sent, and
/// with what the server makes. The name, uid and creationTimestamp are there already.
pub fn prepare_create(kind: &Kind, object: &mut Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    // A node writes its own status with the object.
    if kind.has(Subresource::Status) && kind.kind != "Node" {
        map.insert("status".to_owned(), json!({}));
    }
    match (kind.group, kind.kind) {
        ("", "Namespace") => admission::namespace_finalizer(map),
        ("", "PersistentVolume") => storage::first_status(map),
        ("", "Pod") => pod::first_status(map),
        ("", "Service") => service::prepare_create(map),
        ("apps", "DaemonSet") => workload::template_generation(map, None),
        ("batch", "Job") => {
            workload::job_selector(map);
            workload::job(map);
        }
        _ => {}
    }
    // Names may have been made since.
    if kind.kind == "Namespace" {
        admission::namespace_label(map);
    }
    status(kind, map);
}

/// Keeps what an update of the object itself may not touch.
pub fn prepare_update(kind: &Kind, new: &mut Value, old: &Value) {
    let Some(map) = new.as_object_mut() else {
        return;
    };
    if kind.has(Subresource::Status) {
        keep(map, old, "status");
    }
    match (kind.group, kind.kind) {
        ("", "Namespace") => {
            if let Some(spec) = make(map, "spec") {
                keep(spec, old.get("spec").unwrap_or(&Value::Null), "finalizers");
            }
        }
        ("", "Service") => service::prepare_update(map, old),
        ("apps", "DaemonSet") => workload::template_generation(map, Some(old)),
        _ => {}
    }
    status(kind, map);
}

/// Keeps everything but the status and what of the metadata goes with it: annotations, finalizers, and (but for Pods
/// and Deployments) labels and owners.
pub fn prepare_status(kind: &Kind, new: &mut Value, old: &Value) {
    let Some(map) = new.as_object_mut() else {
        return;
    };
    map.retain(|key, _| ["apiVersion", "kind", "metadata", "status"].contains(&key.as_str()));
    for (key, value) in old.as_object().into_iter().flatten() {
        if !["apiVersion", "kind", "metadata", "status"].contains(&key.as_str()) {
            map.insert(key.clone(), value.clone());
        }
    }
    let metadata = old.get("metadata").unwrap_or(&Value::Null);
    let fixed: &[&str] = match kind.kind {
        "Pod" => &["ownerReferences", "deletionTimestamp"],
        "Deployment" => &["labels"],
        _ => &[],
    };
    if let Some(new) = child(map, "metadata") {
        for key in fixed {
            keep(new, metadata, key);
        }
    }
    if kind.kind == "Pod"
        && let Some(status) = child(map, "status")
        && fields::unset(status, "qosClass")
    {
        keep(
            status,
            old.get("status").unwrap_or(&Value::Null),
            "qosClass",
        );
    }
    status(kind, map);
}

/// Keeps everything but what a subresource writes: [`prepare_status`], a Namespace's finalizers, and of a Pod its
/// ephemeral containers, or its containers' resources.
pub fn prepare_subresource(kind: &Kind, part: Subresource, new: &mut Value, old: &Value) {
    match part {
        Subresource::Status => prepare_status(kind, new, old),
        Subresource::Finalize => {
            if let Some(map) = new.as_object_mut() {
                keep(map, old, "status");
            }
        }
        Subresource::EphemeralContainers => pod::only_ephemeral_containers(new, old),
        Subresource::Resize => pod::only_resources(new, old),
        _ => {}
    }
}

/// Puts the old value at a key, or none.
fn keep(new: &mut Object, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) => {
            new.insert(key.to_owned(), value.clone());
        }
        None => {
            new.remove(key);
        }
    }
}

/// Whether an update changes what `metadata.generation` counts, for kinds that have one.
pub fn spec_changed(kind: &Kind, old: &Value, new: &Value) -> bool {
    let metadata = |key| {
        let get = |object| object::at(object, &["metadata", key]);
        !same(get(old), get(new))
    };
    match kind.kind {
        "Deployment" if metadata("annotations") => return true,
        "EndpointSlice" if metadata("labels") => return true,
        _ => {}
    }
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return old != new;
    };
    let counts = |key: &str| !["apiVersion", "kind", "metadata", "status"].contains(&key);
    let keys = old.keys().chain(new.keys());
    keys.filter(|key| counts(key))
        .any(|key| !same(old.get(key), new.get(key)))
}

/// Whether two values mean the same: absent, null and an empty list do.
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let filled = |value: &&Value| match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    match (a.filter(filled), b.filter(filled)) {
        (None, None) => true,
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            a.iter().all(|(key, value)| same(Some(value), b.get(key)))
                && b.iter()
                    .all(|(key, value)| a.contains_key(key) || same(None, Some(value)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (a, b) => a == b,
    }
}
