//! Nodes, Namespaces, Leases and Events.

use std::collections::HashSet;

use ipnet::IpNet;

use super::at::At;
use super::{names, scheduling};
use crate::api::defaults::same;
use crate::api::object;
use crate::api::status::Cause;

/// A Node.
pub fn node(root: &At<'_>, causes: &mut Vec<Cause>) {
    let (spec, status) = (root.field("spec"), root.field("status"));
    // The reference names this path.
    let metadata = root.field("metadata");
    let taints = metadata.field("taints").with(spec.field("taints").value);
    scheduling::taints(&taints, causes);
    for list in ["capacity", "allocatable"] {
        for (_, amount) in status.field(list).entries() {
            amount.amount(causes);
        }
    }
    let networks = spec.field("podCIDRs");
    let mut families = HashSet::new();
    let mut doubled = false;
    for network in networks.items() {
        match network.text().parse::<IpNet>() {
            Ok(IpNet::V4(_)) => doubled |= !families.insert(4),
            Ok(IpNet::V6(_)) => doubled |= !families.insert(6),
            Err(_) => network.invalid_text(causes, names::network(network.text())),
        }
    }
    if doubled {
        networks.invalid(
            causes,
            "may specify no more than one CIDR for each IP family",
        );
    }
}

/// What may not change in a Node: its Pods' networks once they are given, and which machine it is.
pub fn node_update(new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    for (key, detail) in [
        (
            "podCIDRs",
            "node updates may not change podCIDR except from \"\" to valid",
        ),
        (
            "providerID",
            "node updates may not change providerID except from \"\" to valid",
        ),
    ] {
        let (now, then) = (spec.field(key), before.field(key));
        if !then.is_empty() && !same(Some(now.value), Some(then.value)) {
            now.forbidden(causes, detail);
        }
    }
}

/// A Namespace.
pub fn namespace(root: &At<'_>, causes: &mut Vec<Cause>) {
    for finalizer in root.field("spec").field("finalizers").items() {
        let wrong = names::qualified(finalizer.text());
        finalizer.invalid_text(causes, wrong);
    }
}

/// A Lease.
pub fn lease(root: &At<'_>, causes: &mut Vec<Cause>) {
    let spec = root.field("spec");
    spec.field("leaseDurationSeconds").positive(causes);
    spec.field("leaseTransitions").non_negative(causes);
    let (strategy, preferred) = (spec.field("strategy"), spec.field("preferredHolder"));
    if !preferred.is_empty() && strategy.is_empty() {
        preferred.forbidden(causes, "may only be specified if `strategy` is defined");
    }
}

/// An Event of the core group.
pub fn event(root: &At<'_>, causes: &mut Vec<Cause>) {
    about(root, "involvedObject", causes);
}

/// An Event of `events.k8s.io`, which is stricter.
pub fn new_event(root: &At<'_>, causes: &mut Vec<Cause>) {
    about(root, "regarding", causes);
    for key in [
        "eventTime",
        "reportingController",
        "reportingInstance",
        "action",
        "reason",
    ] {
        let field = root.field(key);
        if field.is_empty() {
            field.required(causes, "");
        }
    }
    let kind = root.field("type");
    if !["Normal", "Warning"].contains(&kind.text()) {
        let why = format!("has invalid value: {}", kind.text());
        kind.invalid(causes, &why);
    }
    for (key, most) in [
        ("reason", 128),
        ("action", 128),
        ("reportingInstance", 128),
        ("note", 1024),
    ] {
        let field = root.field(key);
        if field.text().len() > most {
            field.invalid(causes, &format!("can have at most {most} characters"));
        }
    }
}

/// An event is kept in the namespace of what it is about; if that has none, in one of the cluster's own.
fn about(root: &At<'_>, key: &str, causes: &mut Vec<Cause>) {
    let subject = root.field(key);
    let namespace = subject.field("namespace");
    let own = object::namespace(root.value).unwrap_or_default();
    if namespace.is_empty() {
        if !["", "default", "kube-system"].contains(&own) {
            namespace.invalid_text(causes, vec!["does not match event.namespace".to_owned()]);
        }
    } else if namespace.text() != own {
        namespace.invalid(causes, "does not match event.namespace");
    }
}
