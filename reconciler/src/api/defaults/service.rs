//! Services: what follows from what is written, and what an update may leave out.
//!
//! The order after that: [`families`], validation (which asks for no address yet), and then what is left to whoever
//! allocates:
//!
//! - while the type is not ExternalName and `clusterIP` is not `None`: one address in `spec.clusterIPs` for each of
//!   `spec.ipFamilies`, in that order, where there is none yet, and `spec.clusterIP`, the first of them;
//! - where [`needs_node_ports`]: `nodePort` of every item of `spec.ports` that has none (0 is none); ports of the same
//!   number and another protocol may share one;
//! - where [`needs_health_check_port`]: `spec.healthCheckNodePort`;
//! - to give back what the old object had and the new one has not.

use serde_json::{Value, json};

pub use super::families::families;
use super::fields::{child, items, make, unset, word, word_default};
use crate::api::object::{self, Object};

/// Schema defaults.
pub(super) fn service(service: &mut Object) {
    let Some(spec) = make(service, "spec") else {
        return;
    };
    word_default(spec, "sessionAffinity", "None");
    match word(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            if let Some(client) =
                make(spec, "sessionAffinityConfig").and_then(|config| make(config, "clientIP"))
            {
                object::default(client, "timeoutSeconds", 10800);
            }
        }
        _ => {}
    }
    word_default(spec, "type", "ClusterIP");
    for port in items(spec, "ports") {
        word_default(port, "protocol", "TCP");
        if unset(port, "targetPort")
            && let Some(number) = port.get("port").cloned()
        {
            port.insert("targetPort".to_owned(), number);
        }
    }
    let kind = word(spec, "type");
    let balanced = kind == "LoadBalancer";
    let internal = has_cluster_ip(spec);
    if reached_from_outside(spec) {
        word_default(spec, "externalTrafficPolicy", "Cluster");
    }
    if internal {
        object::default(spec, "internalTrafficPolicy", "Cluster");
    }
    if balanced {
        object::default(spec, "allocateLoadBalancerNodePorts", true);
    }
    let Some(balancer) = make(service, "status").and_then(|status| make(status, "loadBalancer"))
    else {
        return;
    };
    for ingress in items(balancer, "ingress") {
        if balanced && !unset(ingress, "ip") {
            object::default(ingress, "ipMode", "VIP");
        }
    }
}

/// A new Service: the older field for one address, if it stands alone, is taken for the newer.
pub(super) fn prepare_create(service: &mut Object) {
    service.insert("status".to_owned(), json!({"loadBalancer": {}}));
    if let Some(spec) = child(service, "spec")
        && !unset(spec, "clusterIP")
        && unset(spec, "clusterIPs")
    {
        spec.insert("clusterIPs".to_owned(), json!([word(spec, "clusterIP")]));
    }
}

/// An update: what was allocated and is not mentioned is kept; what the new type has no use for, and was not touched,
/// is dropped.
pub(super) fn prepare_update(service: &mut Object, old: &Value) {
    let empty = Object::new();
    let old = old.get("spec").and_then(Value::as_object).unwrap_or(&empty);
    let Some(spec) = child(service, "spec") else {
        return;
    };
    follow_first_address(spec, old);
    keep_allocated(spec, old);
    drop_unused(spec, old);
    if word(spec, "type") != "LoadBalancer" {
        let status = make(service, "status");
        status.map(|status| status.insert("loadBalancer".to_owned(), json!({})));
    }
}

/// A client that knows only `clusterIP` changes only that.
fn follow_first_address(spec: &mut Object, old: &Object) {
    let (now, before) = (word(spec, "clusterIP"), word(old, "clusterIP"));
    if now == before || !same(spec, old, "clusterIPs") {
        return;
    }
    if now.is_empty() {
        spec.remove("clusterIPs");
    } else {
        spec.insert("clusterIPs".to_owned(), json!([now]));
    }
}

fn keep_allocated(spec: &mut Object, old: &Object) {
    let keep = |spec: &mut Object, key: &str| {
        if let Some(value) = old.get(key).filter(|_| unset(spec, key)) {
            spec.insert(key.to_owned(), value.clone());
        }
    };
    if has_cluster_ip(old) && has_cluster_ip(spec) {
        keep(spec, "clusterIP");
        if same(spec, old, "clusterIP") {
            keep(spec, "clusterIPs");
        }
    }
    if needs_health_check_port(old) && needs_health_check_port(spec) {
        keep(spec, "healthCheckNodePort");
    }
    if !(needs_node_ports(old) && needs_node_ports(spec)) {
        return;
    }
    let used = |spec: &Object| -> Vec<i64> { ports(spec).filter_map(node_port).collect() };
    let (now, before) = (used(spec), used(old));
    let mut taken: Vec<_> = now
        .into_iter()
        .filter(|port| before.contains(port))
        .collect();
    for port in items(spec, "ports") {
        if !unset(port, "nodePort") {
            continue;
        }
        let name = word(port, "name");
        let known = ports(old).filter(|port| word(port, "name") == name);
        if let Some(number) = known.filter_map(node_port).next_back()
            && !taken.contains(&number)
        {
            taken.push(number);
            port.insert("nodePort".to_owned(), json!(number));
        }
    }
}

fn drop_unused(spec: &mut Object, old: &Object) {
    let lost = |what: fn(&Object) -> bool, spec: &Object| what(old) && !what(spec);
    let drop = |spec: &mut Object, key: &str| {
        if same(spec, old, key) {
            spec.remove(key);
        }
    };
    if lost(has_cluster_ip, spec) {
        if same(spec, old, "clusterIP") && same(spec, old, "clusterIPs") {
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
        drop(spec, "ipFamilies");
        drop(spec, "ipFamilyPolicy");
        drop(spec, "internalTrafficPolicy");
    }
    let known = |number| ports(old).any(|port| node_port(port) == Some(number));
    if lost(needs_node_ports, spec) && ports(spec).filter_map(node_port).all(known) {
        for port in items(spec, "ports") {
            port.remove("nodePort");
        }
    }
    if lost(needs_health_check_port, spec) {
        drop(spec, "healthCheckNodePort");
    }
    if lost(is_balanced, spec) {
        drop(spec, "allocateLoadBalancerNodePorts");
        drop(spec, "loadBalancerClass");
    }
    if lost(reached_from_outside, spec) {
        drop(spec, "externalTrafficPolicy");
    }
    if lost(|spec| word(spec, "type") == "ExternalName", spec) {
        drop(spec, "externalName");
    }
}

/// Whether its type has an address in the cluster (or `None`).
pub fn has_cluster_ip(spec: &Object) -> bool {
    matches!(
        word(spec, "type"),
        "ClusterIP" | "NodePort" | "LoadBalancer"
    )
}

/// Whether every port needs one on the nodes.
pub fn needs_node_ports(spec: &Object) -> bool {
    match word(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

/// Whether nodes tell a load balancer if they have endpoints.
pub fn needs_health_check_port(spec: &Object) -> bool {
    is_balanced(spec) && word(spec, "externalTrafficPolicy") == "Local"
}

fn is_balanced(spec: &Object) -> bool {
    word(spec, "type") == "LoadBalancer"
}

fn reached_from_outside(spec: &Object) -> bool {
    match word(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !unset(spec, "externalIPs"),
        _ => false,
    }
}

fn ports(spec: &Object) -> impl DoubleEndedIterator<Item = &Object> {
    let list = spec.get("ports").and_then(Value::as_array);
    list.map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_object)
}

fn node_port(port: &Object) -> Option<i64> {
    port.get("nodePort")?.as_i64().filter(|port| *port != 0)
}

fn same(a: &Object, b: &Object, key: &str) -> bool {
    super::same(a.get(key), b.get(key))
}
