//! Pods, and the templates that workloads make them from.

use serde_json::{Value, json};

use super::at::At;
use super::{container, metadata, names, scheduling, volume};
use crate::api::defaults::{qos_class, same};
use crate::api::status::Cause;

/// A Pod.
pub fn pod(root: &At<'_>, causes: &mut Vec<Cause>) {
    let spec = root.field("spec");
    let metadata = root.field("metadata");
    let annotations = metadata.field("annotations");
    if let Some((_, mirror)) = annotations
        .entries()
        .find(|(key, _)| *key == "kubernetes.io/config.mirror")
        && spec.field("nodeName").is_empty()
    {
        mirror.invalid(
            causes,
            "must set spec.nodeName if mirror pod annotation is set",
        );
    }
    self::spec(&spec, true, &[], causes);
}

/// The template of a workload: labels, annotations and a Pod's spec, whose containers may also mount `claims`.
pub fn template(template: &At<'_>, claims: &[&str], causes: &mut Vec<Cause>) {
    let meta = template.field("metadata");
    // The reference leaves `metadata` out of these two paths.
    for (key, check) in [
        ("labels", metadata::labels as fn(&At<'_>, &mut Vec<Cause>)),
        ("annotations", metadata::annotations),
    ] {
        let value = meta.field(key).value;
        check(&template.field(key).with(value), causes);
    }
    spec(&template.field("spec"), false, claims, causes);
    let spec = template.field("spec");
    let added = spec.field("ephemeralContainers");
    if !added.is_empty() {
        added.forbidden(causes, "ephemeral containers not allowed in pod template");
    }
}

/// What a Pod is to be. `pod`: it is one, and no template.
fn spec(spec: &At<'_>, pod: bool, claims: &[&str], causes: &mut Vec<Cause>) {
    let volumes = spec.field("volumes");
    volume::volumes(&volumes, causes);
    let around = container::Surroundings {
        volumes,
        claims,
        pod,
        grace: spec.field("terminationGracePeriodSeconds").number(),
    };
    container::all(spec, &around, causes);
    container::resources(&spec.field("resources"), causes);
    if spec.field("hostNetwork").is_true() {
        host_network(spec, pod, causes);
    }
    spec.field("restartPolicy")
        .one_of(causes, &["Always", "OnFailure", "Never"]);
    spec.field("dnsPolicy").one_of(
        causes,
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    metadata::labels(&spec.field("nodeSelector"), causes);
    if spec.field("hostPID").is_true() && spec.field("shareProcessNamespace").is_true() {
        spec.field("shareProcessNamespace").invalid(
            causes,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    scheduling::affinity(&spec.field("affinity"), causes);
    dns(spec, causes);
    for (list, key) in [
        ("readinessGates", "conditionType"),
        ("schedulingGates", "name"),
    ] {
        for gate in spec.field(list).items() {
            let name = gate.field(key);
            name.invalid_text(causes, names::qualified(name.text()));
        }
    }
    scheduling::spreading(&spec.field("topologySpreadConstraints"), causes);
    optional_name(&spec.field("serviceAccountName"), names::subdomain, causes);
    optional_name(&spec.field("nodeName"), names::subdomain, causes);
    spec.field("activeDeadlineSeconds")
        .between(causes, 1, i64::from(i32::MAX));
    optional_name(&spec.field("hostname"), names::label, causes);
    optional_name(&spec.field("subdomain"), names::label, causes);
    scheduling::tolerations(&spec.field("tolerations"), causes);
    for alias in spec.field("hostAliases").items() {
        let address = alias.field("ip");
        address.invalid_text(causes, names::address(address.text()));
        for name in alias.field("hostnames").items() {
            name.invalid_text(causes, names::subdomain(name.text()));
        }
    }
    optional_name(&spec.field("priorityClassName"), names::subdomain, causes);
    optional_name(&spec.field("runtimeClassName"), names::subdomain, causes);
    spec.field("preemptionPolicy")
        .one_of_if_set(causes, &["PreemptLowerPriority", "Never"]);
    for (_, amount) in spec.field("overhead").entries() {
        amount.amount(causes);
    }
}

fn optional_name(name: &At<'_>, rule: fn(&str) -> Vec<String>, causes: &mut Vec<Cause>) {
    if !name.is_empty() {
        name.invalid_text(causes, rule(name.text()));
    }
}

fn host_network(spec: &At<'_>, pod: bool, causes: &mut Vec<Cause>) {
    for container in spec.field("containers").items() {
        for port in container.field("ports").items() {
            let host = port.field("hostPort");
            let number = host.number().unwrap_or(0);
            if (pod || number != 0) && Some(number) != port.field("containerPort").number() {
                causes.push(Cause::invalid(
                    host.path(),
                    &json!(number),
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
    }
}

fn dns(spec: &At<'_>, causes: &mut Vec<Cause>) {
    let config = spec.field("dnsConfig");
    let servers = config.field("nameservers");
    if spec.field("dnsPolicy").text() == "None" {
        if !config.is_set() {
            config.required(causes, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.count() == 0 {
            servers.required(
                causes,
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
            return;
        }
    }
    if servers.count() > 3 {
        servers.invalid(causes, "must not have more than 3 nameservers");
    }
    for server in servers.items() {
        server.invalid_text(causes, names::address(server.text()));
    }
    let searches = config.field("searches");
    if searches.count() > 32 {
        searches.invalid(causes, "must not have more than 32 search paths");
    }
    for search in searches.items() {
        // A leading `_` is for records of services.
        let plain = search.text().trim_end_matches('.').replace('_', "a");
        if search.text() != "." {
            search.invalid_text(causes, names::subdomain(&plain));
        }
    }
    for option in config.field("options").items() {
        if option.field("name").is_empty() {
            option.required(causes, "must not be empty");
        }
    }
}

/// What an update of a Pod may not do. The words of the reference, without the comparison that it prints after them.
const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What may change in a Pod that exists.
pub fn update(new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    for list in ["containers", "initContainers"] {
        let (now, then) = (spec.field(list), before.field(list));
        if now.count() != then.count() {
            now.forbidden(causes, "pod updates may not add or remove containers");
            return;
        }
    }
    let (deadline, earlier) = (
        spec.field("activeDeadlineSeconds"),
        before.field("activeDeadlineSeconds"),
    );
    match (deadline.number(), earlier.number()) {
        (Some(now), Some(then)) if now > then => {
            deadline.invalid(causes, "must be less than or equal to previous value");
            return;
        }
        (None, Some(_)) => {
            deadline.invalid(
                causes,
                "must not update from a positive integer to nil value",
            );
        }
        _ => {}
    }
    added_tolerations(&spec, &before, causes);
    for (index, gate) in spec.field("schedulingGates").items().enumerate() {
        let name = gate.field("name");
        let known = before.field("schedulingGates");
        if !known
            .items()
            .any(|gate| gate.field("name").text() == name.text())
        {
            causes.push(Cause::forbidden(
                format!("spec.schedulingGates[{index}].name"),
                &format!(
                    "only deletion is allowed, but found new scheduling gate '{}'",
                    name.text()
                ),
            ));
        }
    }
    if !unchanged(&spec, &before) {
        spec.forbidden(causes, FIXED);
    }
}

fn added_tolerations(spec: &At<'_>, before: &At<'_>, causes: &mut Vec<Cause>) {
    let without_seconds = |toleration: &Value| {
        let mut map = toleration.as_object().cloned().unwrap_or_default();
        map.remove("tolerationSeconds");
        Value::Object(map)
    };
    let (now, then) = (spec.field("tolerations"), before.field("tolerations"));
    if same(Some(now.value), Some(then.value)) {
        return;
    }
    let kept: Vec<_> = now
        .items()
        .map(|item| without_seconds(item.value))
        .collect();
    for old in then.items() {
        let old = without_seconds(old.value);
        if !kept.iter().any(|new| same(Some(new), Some(&old))) {
            now.forbidden(
                causes,
                "existing toleration can not be modified except its tolerationSeconds",
            );
            return;
        }
    }
}

/// Whether nothing changes that may not.
fn unchanged(new: &At<'_>, old: &At<'_>) -> bool {
    let (Some(now), Some(then)) = (new.value.as_object(), old.value.as_object()) else {
        return same(Some(new.value), Some(old.value));
    };
    let gated = !old.field("schedulingGates").is_empty();
    let keys = now.keys().chain(then.keys());
    keys.map(String::as_str).all(|key| match key {
        "activeDeadlineSeconds" | "tolerations" | "schedulingGates" => true,
        // The scheduler has not looked at it yet.
        "nodeSelector" | "affinity" if gated => true,
        "terminationGracePeriodSeconds"
            if old.field(key).number().is_some_and(|seconds| seconds < 0)
                && new.field(key).number() == Some(1) =>
        {
            true
        }
        "containers" | "initContainers" => {
            let (now, then) = (new.field(key), old.field(key));
            now.items().zip(then.items()).all(|(now, then)| {
                let (Some(a), Some(b)) = (now.value.as_object(), then.value.as_object()) else {
                    return same(Some(now.value), Some(then.value));
                };
                let mut keys = a.keys().chain(b.keys());
                keys.all(|key| key == "image" || same(a.get(key), b.get(key)))
            })
        }
        _ => same(now.get(key), then.get(key)),
    })
}

/// What may change when ephemeral containers are added: those that are there stay as they are.
pub fn ephemeral(new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let (now, then) = (
        spec.field("ephemeralContainers"),
        before.field("ephemeralContainers"),
    );
    for container in then.items() {
        let name = container.field("name");
        let kept = now
            .items()
            .find(|other| other.field("name").text() == name.text());
        let what = match kept {
            None => "removed",
            Some(kept) if !same(Some(kept.value), Some(container.value)) => "changed",
            Some(_) => continue,
        };
        now.forbidden(
            causes,
            &format!(
                "existing ephemeral containers {:?} may not be {what}\n",
                name.text()
            ),
        );
    }
}

/// What may change when a Pod is resized: how much CPU and memory its containers have, but not its class of service.
pub fn resize(new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let class = |spec: &At<'_>| spec.value.as_object().map_or("BestEffort", qos_class);
    if class(&spec) != class(&before) {
        causes.push(Cause::invalid(
            spec.path(),
            &json!(class(&before)),
            "Pod QOS Class may not change as a result of resizing",
        ));
    }
    for list in ["containers", "initContainers"] {
        let (now, then) = (spec.field(list), before.field(list));
        for (container, earlier) in now.items().zip(then.items()) {
            let (resources, earlier) = (container.field("resources"), earlier.field("resources"));
            let mut other = false;
            for key in ["requests", "limits"] {
                let (now, then) = (resources.field(key), earlier.field(key));
                if then
                    .entries()
                    .any(|(name, _)| now.value.get(name).is_none())
                {
                    now.forbidden(causes, &format!("resource {key} cannot be removed"));
                }
                other |= now.entries().chain(then.entries()).any(|(name, _)| {
                    !["cpu", "memory"].contains(&name)
                        && !same(now.value.get(name), then.value.get(name))
                });
            }
            if other {
                spec.forbidden(causes, "only cpu and memory resources are mutable");
            }
        }
    }
}
