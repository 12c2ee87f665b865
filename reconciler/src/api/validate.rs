//! What is wrong with an object, in the words and at the paths that users of Kubernetes know.
//!
//! Objects come here after [`super::defaults`] filled them in. Any JSON may come: a value of a wrong type counts as
//! absent here (whether types fit is decided when a body is read).
//!
//! Source: `k8s.io/kubernetes/pkg/apis/*/validation`, and answers recorded from kube-apiserver 1.36.2.

mod at;
mod cluster;
mod config;
mod container;
mod cron;
mod endpoints;
mod job;
mod metadata;
mod names;
mod network;
mod pod;
mod probe;
mod scheduling;
mod service;
mod storage;
#[cfg(test)]
mod tests;
mod volume;
mod workload;

use serde_json::Value;

use super::kinds::{Kind, Subresource};
use super::status::Cause;
use at::At;

/// What is wrong with a new object.
pub fn create(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let root = At::root(object);
    metadata::create(kind, &root, &mut causes);
    content(kind, &root, true, &mut causes);
    causes
}

/// What is wrong with a changed object, and with the change. That name, namespace, uid and times stay is not looked
/// at. [`subresource`] is for the others.
pub fn update(kind: &Kind, new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (new, old) = (At::root(new), At::root(old));
    metadata::update(&new, &old, &mut causes);
    // Of a Service the change is told first, of others the object.
    if kind.kind == "Service" {
        service::update(&new, &old, &mut causes);
    }
    content(kind, &new, false, &mut causes);
    changes(kind, &new, &old, &mut causes);
    causes
}

/// What is wrong with a changed status: the metadata that comes with it, and a Pod's class, which stays.
fn status(kind: &Kind, new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (new, old) = (At::root(new), At::root(old));
    metadata::update(&new, &old, &mut causes);
    if kind.kind == "Pod" {
        let (status, before) = (new.field("status"), old.field("status"));
        status
            .field("qosClass")
            .immutable(&mut causes, &before.field("qosClass"));
        for (list, key) in [("podIPs", "ip"), ("hostIPs", "ip")] {
            for item in status.field(list).items() {
                let address = item.field(key);
                address.invalid_text(&mut causes, names::address(address.text()));
            }
        }
    }
    causes
}

/// What is wrong with an object of which a subresource was changed.
pub fn subresource(kind: &Kind, part: Subresource, new: &Value, old: &Value) -> Vec<Cause> {
    if !matches!(
        part,
        Subresource::EphemeralContainers | Subresource::Resize | Subresource::Finalize
    ) {
        return status(kind, new, old);
    }
    let mut causes = Vec::new();
    let (new, old) = (At::root(new), At::root(old));
    metadata::update(&new, &old, &mut causes);
    content(kind, &new, false, &mut causes);
    match part {
        Subresource::EphemeralContainers => pod::ephemeral(&new, &old, &mut causes),
        Subresource::Resize => pod::resize(&new, &old, &mut causes),
        _ => {}
    }
    causes
}

/// What holds for an object at any time.
fn content(kind: &Kind, root: &At<'_>, new: bool, causes: &mut Vec<Cause>) {
    match (kind.group, kind.kind) {
        ("", "ConfigMap") => config::config_map(root, causes),
        ("", "Endpoints") => endpoints::endpoints(root, causes),
        ("", "Event") => cluster::event(root, causes),
        ("", "Namespace") => cluster::namespace(root, causes),
        ("", "Node") => cluster::node(root, causes),
        ("", "PersistentVolume") => storage::volume(root, causes),
        ("", "PersistentVolumeClaim") => storage::claim_spec(&root.field("spec"), causes),
        ("", "Pod") => pod::pod(root, causes),
        ("", "ReplicationController") => workload::replication_controller(root, causes),
        ("", "Secret") => config::secret(root, causes),
        ("", "Service") => service::service(root, causes),
        ("apps", "ControllerRevision") => workload::revision(root, causes),
        ("apps", kind) => workload::workload(kind, root, causes),
        ("batch", "CronJob") => job::cron_job(root, new, causes),
        ("batch", "Job") => job::job(root, causes),
        ("coordination.k8s.io", "Lease") => cluster::lease(root, causes),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice(root, causes),
        ("events.k8s.io", "Event") if new => cluster::new_event(root, causes),
        ("networking.k8s.io", "Ingress") => network::ingress(root, causes),
        ("networking.k8s.io", "IngressClass") => network::class(root, causes),
        ("networking.k8s.io", "NetworkPolicy") => network::policy(root, causes),
        ("policy", "PodDisruptionBudget") => workload::budget(root, causes),
        _ => {}
    }
}

/// What may not change.
fn changes(kind: &Kind, new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    match (kind.group, kind.kind) {
        ("", "ConfigMap") => config::update(new, old, causes),
        ("", "Secret") => {
            new.field("type").immutable(causes, &old.field("type"));
            config::update(new, old, causes);
        }
        ("", "Node") => cluster::node_update(new, old, causes),
        ("", "PersistentVolume") => storage::volume_update(new, old, causes),
        ("", "PersistentVolumeClaim") => storage::claim_update(new, old, causes),
        ("", "Pod") => pod::update(new, old, causes),
        ("apps", "ControllerRevision") => {
            new.field("data").immutable(causes, &old.field("data"));
        }
        ("apps", kind) => workload::update(kind, new, old, causes),
        ("batch", "Job") => job::update(new, old, causes),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::update(new, old, causes),
        ("networking.k8s.io", "IngressClass") => {
            let (spec, before) = (new.field("spec"), old.field("spec"));
            let controller = spec.field("controller");
            controller.immutable(causes, &before.field("controller"));
        }
        _ => {}
    }
}
