//! Services.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::json;

use super::at::At;
use super::{container, endpoints, metadata, names};
use crate::api::defaults::same;
use crate::api::status::Cause;

/// A Service, new or changed.
pub fn service(root: &At<'_>, causes: &mut Vec<Cause>) {
    let spec = root.field("spec");
    let (kind, ports) = (spec.field("type"), spec.field("ports"));
    let headless = is_headless(&spec);
    let external = kind.text() == "ExternalName";
    if ports.count() == 0 && !headless && !external {
        ports.required(causes, "");
    }
    match kind.text() {
        "LoadBalancer" | "NodePort" if headless => {
            causes.push(Cause::invalid(
                "spec.clusterIPs[0]",
                &json!("None"),
                &format!("may not be set to 'None' for {} services", kind.text()),
            ));
        }
        "ExternalName" => external_name(&spec, causes),
        _ => {}
    }
    let mut seen = HashSet::new();
    for port in ports.items() {
        self::port(&port, ports.count() > 1, &mut seen, causes);
    }
    metadata::labels(&spec.field("selector"), causes);
    affinity(&spec, causes);
    if !external {
        addresses(&spec, causes);
    }
    for address in spec.field("externalIPs").items() {
        let wrong = names::address(address.text());
        if wrong.is_empty() {
            endpoints::not_special(&address, causes);
        }
        address.invalid_text(causes, wrong);
    }
    kind.one_of(
        causes,
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    doubled(&ports, kind.text() == "ClusterIP", causes);
    balancer(&spec, causes);
    traffic(&spec, causes);
}

fn is_headless(spec: &At<'_>) -> bool {
    let addresses = spec.field("clusterIPs");
    spec.field("clusterIP").text() == "None"
        || addresses.count() == 1 && addresses.index(0).text() == "None"
}

fn external_name(spec: &At<'_>, causes: &mut Vec<Cause>) {
    for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let field = spec.field(key);
        if !field.is_empty() {
            field.forbidden(causes, "may not be set for ExternalName services");
        }
    }
    let name = spec.field("externalName");
    let text = name.text().strip_suffix('.').unwrap_or(name.text());
    if text.is_empty() {
        name.required(causes, "");
    } else {
        name.invalid_text(causes, names::subdomain(text));
    }
}

fn port(port: &At<'_>, named: bool, seen: &mut HashSet<String>, causes: &mut Vec<Cause>) {
    let name = port.field("name");
    if !name.is_empty() {
        name.invalid_text(causes, names::label(name.text()));
        if !seen.insert(name.text().to_owned()) {
            name.duplicate(causes);
        }
    } else if named {
        name.required(causes, "");
    }
    port.field("port").port(causes);
    port.field("protocol").one_of(causes, container::PROTOCOLS);
    port.field("targetPort").port_or_name(causes);
    let protocol = port.field("appProtocol");
    if protocol.is_set() {
        protocol.invalid_text(causes, names::qualified(protocol.text()));
    }
    let node = port.field("nodePort");
    if node.number() != Some(0) {
        node.between(causes, 1, 65535);
    }
}

fn affinity(spec: &At<'_>, causes: &mut Vec<Cause>) {
    let affinity = spec.field("sessionAffinity");
    affinity.one_of(causes, &["ClientIP", "None"]);
    let config = spec.field("sessionAffinityConfig");
    if affinity.text() == "None" && config.is_set() {
        config.forbidden(causes, "must not be set when session affinity is None");
    }
    if affinity.text() == "ClientIP" {
        let client = config.field("clientIP");
        let seconds = client.field("timeoutSeconds");
        if !seconds.is_set() {
            seconds.required(causes, "when session affinity type is ClientIP");
        } else if seconds
            .number()
            .is_none_or(|seconds| !(1..=86400).contains(&seconds))
        {
            seconds.invalid(causes, "must be greater than 0 and less than 86400");
        }
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` must agree.
fn addresses(spec: &At<'_>, causes: &mut Vec<Cause>) {
    let (one, several) = (spec.field("clusterIP"), spec.field("clusterIPs"));
    let families = spec.field("ipFamilies");
    if one.is_empty() && several.count() > 0 {
        several.invalid(causes, "must be empty when `clusterIP` is not specified");
    } else if !one.is_empty() && several.count() > 0 && one.text() != several.index(0).text() {
        several.invalid(causes, "first value must match `clusterIP`");
    }
    let mut seen = HashSet::new();
    for family in families.items() {
        family.one_of_if_set(causes, &["IPv4", "IPv6"]);
        if !seen.insert(family.text().to_owned()) {
            family.duplicate(causes);
        }
    }
    spec.field("ipFamilyPolicy").one_of_if_set(
        causes,
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
    if several.count() > 2 {
        several.invalid(causes, "may only hold up to 2 values");
    }
    let mut kinds = HashSet::new();
    for (index, address) in several.items().enumerate() {
        if address.text() == "None" {
            if several.count() > 1 {
                several.invalid(causes, "'None' must be the first and only value");
            }
            return;
        }
        let Ok(parsed) = address.text().parse::<IpAddr>() else {
            address.invalid_text(causes, names::address(address.text()));
            continue;
        };
        if !kinds.insert(parsed.is_ipv4()) {
            several.invalid(causes, "may specify no more than one IP for each IP family");
        }
        let family = if parsed.is_ipv4() { "IPv4" } else { "IPv6" };
        let expected = families.index(index);
        if !expected.is_empty() && expected.text() != family {
            let expected = expected.text();
            address.invalid(
                causes,
                &format!("expected an {expected} value as indicated by `ipFamilies[{index}]`"),
            );
        }
    }
}

/// No two ports alike, neither in the cluster nor on the nodes.
fn doubled(ports: &At<'_>, internal: bool, causes: &mut Vec<Cause>) {
    let used = |key: &'static str| {
        move |port: &At<'_>| {
            let number = port.field(key).number().filter(|number| *number != 0)?;
            Some((port.field("protocol").text().to_owned(), number))
        }
    };
    let (on_nodes, in_cluster) = (used("nodePort"), used("port"));
    if internal {
        for port in ports.items().filter(|port| on_nodes(port).is_some()) {
            let node = port.field("nodePort");
            node.forbidden(causes, "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen = HashSet::new();
    for port in ports.items() {
        if on_nodes(&port).is_some_and(|key| !seen.insert(key)) {
            port.field("nodePort").duplicate(causes);
        }
    }
    seen.clear();
    for port in ports.items() {
        let Some(key) = in_cluster(&port) else {
            continue;
        };
        if !seen.insert(key.clone()) {
            let value = json!({"protocol": key.0, "port": key.1});
            causes.push(Cause::duplicate(port.path(), &value));
        }
    }
}

fn balancer(spec: &At<'_>, causes: &mut Vec<Cause>) {
    let balanced = spec.field("type").text() == "LoadBalancer";
    let ranges = spec.field("loadBalancerSourceRanges");
    if ranges.count() > 0 {
        // The reference spells these paths like this.
        let ranges = spec.field("LoadBalancerSourceRanges").with(ranges.value);
        if !balanced {
            ranges.forbidden(causes, "may only be used when `type` is 'LoadBalancer'");
        }
        for range in ranges.items() {
            range.invalid_text(causes, names::network(range.text().trim()));
        }
    }
    for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        let field = spec.field(key);
        if field.is_set() && !balanced {
            field.forbidden(causes, "may only be used when `type` is 'LoadBalancer'");
        }
    }
    let class = spec.field("loadBalancerClass");
    if class.is_set() {
        class.invalid_text(causes, names::qualified(class.text()));
    }
}

fn traffic(spec: &At<'_>, causes: &mut Vec<Cause>) {
    let kind = spec.field("type").text();
    let (outside, inside) = (
        spec.field("externalTrafficPolicy"),
        spec.field("internalTrafficPolicy"),
    );
    let reached = match kind {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => spec.field("externalIPs").count() > 0,
        _ => false,
    };
    if reached {
        outside.one_of(causes, &["Cluster", "Local"]);
    } else if !outside.is_empty() {
        outside.invalid(causes, "may only be set for externally-accessible services");
    }
    let check = spec.field("healthCheckNodePort");
    let checked = kind == "LoadBalancer" && outside.text() == "Local";
    if check.number().is_some_and(|port| port != 0) {
        if checked {
            check.port(causes);
        } else {
            check.invalid(
                causes,
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            );
        }
    }
    if !inside.is_set() && kind != "ExternalName" {
        inside.required(causes, "");
    }
    inside.one_of_if_set(causes, &["Cluster", "Local"]);
    spec.field("trafficDistribution")
        .one_of_if_set(causes, &["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

/// What may not change in a Service.
pub fn update(new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let external = |spec: &At<'_>| spec.field("type").text() == "ExternalName";
    if !external(&spec) && !external(&before) {
        kept(&spec, &before, "clusterIPs", "clusterIP", causes);
        kept(&spec, &before, "ipFamilies", "ipFamily", causes);
    }
    let (class, earlier) = (
        spec.field("loadBalancerClass"),
        before.field("loadBalancerClass"),
    );
    let balanced = |spec: &At<'_>| spec.field("type").text() == "LoadBalancer";
    if balanced(&spec) && balanced(&before) && !same(Some(class.value), Some(earlier.value)) {
        class.invalid(causes, "may not change once set");
    }
    let checked =
        |spec: &At<'_>| balanced(spec) && spec.field("externalTrafficPolicy").text() == "Local";
    let (check, earlier) = (
        spec.field("healthCheckNodePort"),
        before.field("healthCheckNodePort"),
    );
    if checked(&spec) && checked(&before) && check.number() != earlier.number() {
        check.forbidden(causes, "field is immutable");
    }
}

/// The first value of a list stays; a second may come and go with the policy.
fn kept(spec: &At<'_>, before: &At<'_>, key: &str, one: &str, causes: &mut Vec<Cause>) {
    let (now, then) = (spec.field(key), before.field(key));
    if is_headless(spec) && is_headless(before) {
        return;
    }
    let mut changed = |index: usize, what: &str| {
        causes.push(Cause::invalid(
            format!("spec.{key}[{index}]"),
            now.value,
            what,
        ));
    };
    if now.count() == 0 && then.count() > 0 {
        changed(0, &format!("primary {one} can not be unset"));
        return;
    }
    let compared = if now.count() == then.count() {
        then.count()
    } else {
        then.count().min(1)
    };
    for index in 0..compared {
        if now.index(index).text() != then.index(index).text() {
            changed(index, "may not change once set");
        }
    }
    let policy = spec.field("ipFamilyPolicy");
    if then.count() > 1 && now.count() == 1 && policy.text() != "SingleStack" {
        policy.invalid(
            causes,
            &format!("must be set to 'SingleStack' when releasing the secondary {one}"),
        );
    }
}
