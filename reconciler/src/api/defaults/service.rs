//! Services: what follows from what is written, and what an update may leave out.
//!
//! What is left for whoever allocates, after [`families`] on create and on every update:
//!
//! - while the type is not ExternalName and `clusterIP` is not `None`: one address in `spec.clusterIPs` for each of
//!   `spec.ipFamilies`, in that order, where there is none yet, and `spec.clusterIP`, the first of them;
//! - where [`needs_node_ports`]: `nodePort` of every item of `spec.ports` that has none (0 is none); ports of the same
//!   number and another protocol may share one;
//! - where [`needs_health_check_port`]: `spec.healthCheckNodePort`;
//! - to give back what the old object had and the new one has not.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::fields::{child, items, make, make_list, unset, word, word_default};
use crate::api::object::{self, Object};
use crate::api::status::Cause;

/// Schema defaults.
pub fn service(service: &mut Object) {
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
pub fn prepare_create(service: &mut Object) {
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
pub fn prepare_update(service: &mut Object, old: &Value) {
    let empty = Object::new();
    let old = old.get("spec").and_then(Value::as_object).unwrap_or(&empty);
    let Some(spec) = child(service, "spec") else {
        return;
    };
    follow_first_address(spec, old);
    keep_allocated(spec, old);
    drop_unused(spec, old);
    one_family_less(spec, old);
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
    let numbers = |spec: &Object| -> Vec<_> {
        ports(spec)
            .map(|port| node_port(port).unwrap_or(0))
            .collect()
    };
    if lost(needs_node_ports, spec) && numbers(spec) == numbers(old) {
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

/// From two families to one: the second address goes unless it was touched.
fn one_family_less(spec: &mut Object, old: &Object) {
    if word(spec, "ipFamilyPolicy") != "SingleStack" || word(old, "ipFamilyPolicy") == "SingleStack"
    {
        return;
    }
    for key in ["clusterIPs", "ipFamilies"] {
        if same(spec, old, key)
            && let Some(list) = spec.get_mut(key).and_then(Value::as_array_mut)
        {
            list.truncate(1);
        }
    }
}

/// Decides `ipFamilies` and `ipFamilyPolicy`, given the families of the cluster (`IPv4`, `IPv6`), the main one first.
/// Headless Services get `clusterIPs` too. What cannot be had is told.
pub fn families(service: &mut Value, cluster: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let Some(spec) = service
        .as_object_mut()
        .and_then(|service| child(service, "spec"))
    else {
        return causes;
    };
    if !has_cluster_ip(spec) {
        return causes;
    }
    let headless = word(spec, "clusterIP") == "None";
    let dual = cluster.len() > 1;
    let addresses = words(spec, "clusterIPs");
    let mut families = words(spec, "ipFamilies");
    for (index, address) in addresses.iter().enumerate().skip(families.len()) {
        match address.parse() {
            Ok(IpAddr::V4(_)) => families.push("IPv4".to_owned()),
            Ok(IpAddr::V6(_)) => families.push("IPv6".to_owned()),
            Err(_) => break,
        }
        if let Some(family) = families
            .last()
            .filter(|family| !cluster.contains(&family.as_str()))
        {
            causes.push(Cause::invalid(
                format!("spec.clusterIPs[{index}]"),
                &json!(address),
                &format!("{family} is not configured on this cluster"),
            ));
        }
    }
    let free = headless && unset(spec, "selector");
    if unset(spec, "ipFamilyPolicy") {
        let two = free || addresses.len() > 1 || families.len() > 1;
        let policy = if two {
            "RequireDualStack"
        } else {
            "SingleStack"
        };
        spec.insert("ipFamilyPolicy".to_owned(), json!(policy));
    }
    let policy = word(spec, "ipFamilyPolicy");
    for (count, field, what) in [
        (families.len(), "spec.ipFamilyPolicy", "ipFamilies"),
        (addresses.len(), "spec.ipFamilyPolicy", "clusterIPs"),
    ] {
        if policy == "SingleStack" && count > 1 {
            causes.push(Cause::invalid(
                field,
                &json!(policy),
                &format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                ),
            ));
            return causes;
        }
    }
    if !free {
        if policy == "RequireDualStack" && !dual {
            causes.push(Cause::invalid(
                "spec.ipFamilyPolicy",
                &json!(policy),
                "this cluster is not configured for dual-stack services",
            ));
        }
        for (index, family) in words(spec, "ipFamilies").iter().enumerate() {
            if !cluster.contains(&family.as_str()) {
                causes.push(Cause::invalid(
                    format!("spec.ipFamilies[{index}]"),
                    &json!(family),
                    "not configured on this cluster",
                ));
            }
        }
    }
    if families.is_empty() {
        families.extend(cluster.first().map(|family| (*family).to_owned()));
    }
    let two = match policy {
        "RequireDualStack" => true,
        "PreferDualStack" => dual || free,
        _ => false,
    };
    if two && let [only] = families.as_slice() {
        let other = if only == "IPv4" { "IPv6" } else { "IPv4" };
        families.push(other.to_owned());
    }
    spec.insert("ipFamilies".to_owned(), json!(families));
    if headless && let Some(list) = make_list(spec, "clusterIPs") {
        *list = vec![json!("None")];
    }
    causes
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

fn words(spec: &Object, key: &str) -> Vec<String> {
    let list = spec.get(key).and_then(Value::as_array);
    let list = list.map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}

fn same(a: &Object, b: &Object, key: &str) -> bool {
    super::same(a.get(key), b.get(key))
}
