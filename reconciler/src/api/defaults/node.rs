//! Nodes.

use serde_json::{Value, json};

use super::fields::{child, make, resource_list};
use crate::api::object::{self, Object};

/// A Node.
pub fn node(node: &mut Object) {
    if let Some(spec) = make(node, "spec") {
        paired(spec, "podCIDR", "podCIDRs", None);
    }
}

/// Its status; what has no omitted form is written.
pub fn status(status: &mut Object) {
    if let Some(endpoint) = make(status, "daemonEndpoints")
        && let Some(kubelet) = make(endpoint, "kubeletEndpoint")
    {
        object::default(kubelet, "Port", 0);
    }
    if let Some(info) = make(status, "nodeInfo") {
        for key in [
            "machineID",
            "systemUUID",
            "bootID",
            "kernelVersion",
            "osImage",
            "containerRuntimeVersion",
            "kubeletVersion",
            "kubeProxyVersion",
            "operatingSystem",
            "architecture",
        ] {
            object::default(info, key, "");
        }
    }
    resource_list(status, "capacity");
    resource_list(status, "allocatable");
    if let Some(capacity) = child(status, "capacity").map(|capacity| capacity.clone()) {
        object::default(status, "allocatable", Value::Object(capacity));
    }
}

/// A field of one value and a field of several that agree: the one leads, then the first of several. `key` is the
/// member of an item that has the value.
pub fn paired(map: &mut Object, one: &str, several: &str, key: Option<&str>) {
    let value = |item: &Value| match key {
        Some(key) => item.get(key).cloned(),
        None => Some(item.clone()),
    };
    let first = map
        .get(several)
        .and_then(|list| list.get(0))
        .and_then(value)
        .filter(|first| !super::fields::empty(first));
    let single = map
        .get(one)
        .filter(|single| !super::fields::empty(single))
        .cloned();
    match (single, first) {
        (Some(single), first) if first.as_ref() != Some(&single) => {
            let item = key.map_or_else(|| single.clone(), |key| json!({key: single}));
            map.insert(several.to_owned(), json!([item]));
        }
        (None, Some(first)) => {
            map.insert(one.to_owned(), first);
        }
        _ => {}
    }
}
