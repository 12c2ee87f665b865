//! Nodes and components.

use jiff::Timestamp;
use serde_json::Value;

use super::super::object::{at, list, text};
use super::cells::{NONE, UNKNOWN};

/// `Ready`, `NotReady`, `Unknown`, and `,SchedulingDisabled` if Pods are kept off.
pub fn status(node: &Value) -> String {
    let ready = condition(node, "Ready");
    let mut words = match ready.map(|condition| text(condition, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if at(node, &["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
        words.push_str(",SchedulingDisabled");
    }
    words
}

/// The condition of a type, in `status.conditions` or a component's `conditions`.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, &["status", "conditions"])
        .iter()
        .chain(list(object, &["conditions"]))
        .find(|condition| text(condition, &["type"]) == kind)
}

/// Of the labels `node-role.kubernetes.io/ROLE` and `kubernetes.io/role=ROLE`.
pub fn roles(node: &Value) -> String {
    let labels = at(node, &["metadata", "labels"]).and_then(Value::as_object);
    let mut roles: Vec<_> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.as_str() {
            "kubernetes.io/role" => value.as_str(),
            key => key.strip_prefix("node-role.kubernetes.io/"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        return NONE.to_owned();
    }
    roles.join(",")
}

/// The first address of a type.
pub fn address(node: &Value, kind: &str) -> String {
    list(node, &["status", "addresses"])
        .iter()
        .find(|address| text(address, &["type"]) == kind)
        .map_or(NONE, |address| text(address, &["address"]))
        .to_owned()
}

/// `6.1.0 (amd64)`
pub fn kernel(node: &Value) -> String {
    let part = |key| text(node, &["status", "nodeInfo", key]);
    match (part("kernelVersion"), part("architecture")) {
        ("", _) => UNKNOWN.to_owned(),
        (kernel, "") => kernel.to_owned(),
        (kernel, architecture) => format!("{kernel} ({architecture})"),
    }
}

/// A component's status, message and error.
pub fn component(component: &Value, _: Timestamp, out: &mut Vec<Value>) {
    let healthy = condition(component, "Healthy");
    let part = |key| healthy.map_or("", |condition| text(condition, &[key]));
    out.push(match healthy.map(|_| part("status")) {
        Some("True") => "Healthy".into(),
        Some(_) => "Unhealthy".into(),
        None => "Unknown".into(),
    });
    out.extend([part("message").into(), part("error").into()]);
}
