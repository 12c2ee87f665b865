//! Containers: names, images, ports, environment, mounts, probes, hooks, resources.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::at::At;
use super::{names, probe, volume};
use crate::api::quantity::Quantity;
use crate::api::status::Cause;

/// `TCP` and its like.
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// What a container is part of.
pub struct Surroundings<'a> {
    /// The volumes of its Pod.
    pub volumes: At<'a>,
    /// Names of volumes that a StatefulSet adds, of its claims.
    pub claims: &'a [&'a str],
    /// Whether its Pod is one, not a template.
    pub pod: bool,
    /// How long the Pod is given to end.
    pub grace: Option<i64>,
}

/// All containers of a Pod.
pub fn all(spec: &At<'_>, around: &Surroundings<'_>, causes: &mut Vec<Cause>) {
    let (main, first, added) = (
        spec.field("containers"),
        spec.field("initContainers"),
        spec.field("ephemeralContainers"),
    );
    let mut seen = HashSet::new();
    if main.count() == 0 {
        main.required(causes, "");
    }
    for container in main.items() {
        every(&container, around, causes);
        unique(&container, &mut seen, causes);
        probe::probes_and_hooks(&container, around.grace, causes);
        let policy = container.field("restartPolicy");
        if policy.is_set() {
            policy.one_of_if_set(causes, &["Always", "OnFailure", "Never"]);
        }
    }
    host_ports(main.items(), causes);
    for container in first.items() {
        every(&container, around, causes);
        let policy = container.field("restartPolicy");
        policy.one_of_if_set(causes, &["Always", "OnFailure", "Never"]);
        unique(&container, &mut seen, causes);
        host_ports([container].into_iter(), causes);
        if policy.text() == "Always" {
            probe::probes_and_hooks(&container, around.grace, causes);
            continue;
        }
        for key in [
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
        ] {
            let part = container.field(key);
            if part.is_set() {
                part.forbidden(
                    causes,
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
        }
    }
    for container in added.items() {
        every(&container, around, causes);
        let target = container.field("targetContainerName");
        if !target.is_empty()
            && !main
                .items()
                .chain(first.items())
                .any(|other| other.field("name").text() == target.text())
        {
            causes.push(Cause::not_found(target.path(), target.value));
        }
        unique(&container, &mut seen, causes);
        for key in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "resources",
        ] {
            let part = container.field(key);
            if !part.is_empty() {
                part.forbidden(causes, "cannot be set for an Ephemeral Container");
            }
        }
    }
}

/// What holds for every container.
fn every(container: &At<'_>, around: &Surroundings<'_>, causes: &mut Vec<Cause>) {
    name(&container.field("name"), causes);
    let image = container.field("image");
    if image.is_empty() {
        image.required(causes, "");
    } else if around.pod && image.text().trim() != image.text() {
        image.invalid(causes, "must not have leading or trailing whitespace");
    }
    container
        .field("terminationMessagePolicy")
        .one_of(causes, &["File", "FallbackToLogsOnError"]);
    ports(&container.field("ports"), causes);
    environment(container, causes);
    mounts(container, around, causes);
    container
        .field("imagePullPolicy")
        .one_of(causes, &["Always", "IfNotPresent", "Never"]);
    resources(&container.field("resources"), causes);
    let security = container.field("securityContext");
    if security.field("privileged").is_true()
        && security.field("allowPrivilegeEscalation").value == &Value::Bool(false)
    {
        security.invalid(
            causes,
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        );
    }
    for key in ["runAsUser", "runAsGroup"] {
        security.field(key).between(causes, 0, i64::from(u32::MAX));
    }
}

/// A label of DNS that must be there.
pub fn name(name: &At<'_>, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        name.required(causes, "");
    } else {
        name.invalid_text(causes, names::label(name.text()));
    }
}

fn unique<'a>(container: &At<'a>, seen: &mut HashSet<&'a str>, causes: &mut Vec<Cause>) {
    let name = container.value.get("name").and_then(Value::as_str);
    if let Some(text) = name.filter(|text| !text.is_empty())
        && !seen.insert(text)
    {
        container.field("name").duplicate(causes);
    }
}

fn ports(ports: &At<'_>, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.is_empty() {
            let wrong = names::port_name(name.text());
            if !wrong.is_empty() {
                name.invalid_text(causes, wrong);
            } else if !seen.insert(name.text().to_owned()) {
                name.duplicate(causes);
            }
        }
        let number = port.field("containerPort");
        if matches!(number.number(), None | Some(0)) {
            number.required(causes, "");
        } else {
            number.port(causes);
        }
        let host = port.field("hostPort");
        if host.number() != Some(0) {
            host.between(causes, 1, 65535);
        }
        port.field("protocol").one_of(causes, PROTOCOLS);
    }
}

fn host_ports<'a>(containers: impl Iterator<Item = At<'a>>, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for container in containers {
        for port in container.field("ports").items() {
            let host = port.field("hostPort");
            let Some(number) = host.number().filter(|number| *number != 0) else {
                continue;
            };
            let (protocol, address) = (port.field("protocol"), port.field("hostIP"));
            let key = format!("{}/{}/{number}", protocol.text(), address.text());
            if !seen.insert(key.clone()) {
                causes.push(Cause::duplicate(host.path(), &json!(key)));
            }
        }
    }
}

fn environment(container: &At<'_>, causes: &mut Vec<Cause>) {
    for variable in container.field("env").items() {
        let name = variable.field("name");
        if name.is_empty() {
            name.required(causes, "");
        } else {
            name.invalid_text(causes, names::variable(name.text()));
        }
        let source = variable.field("valueFrom");
        if source.is_set() {
            value_source(&source, &variable.field("value"), causes);
        }
    }
    for source in container.field("envFrom").items() {
        let prefix = source.field("prefix");
        prefix.invalid_text(causes, names::variable(prefix.text()));
        let parts = ["configMapRef", "secretRef"];
        let set: Vec<_> = parts
            .into_iter()
            .filter(|key| source.field(key).is_set())
            .collect();
        for key in &set {
            let reference = source.field(key);
            let name = reference.field("name");
            if name.is_empty() {
                name.required(causes, "");
            } else {
                name.invalid_text(causes, names::subdomain(name.text()));
            }
        }
        match set.len() {
            0 => causes.push(Cause::invalid(
                source.path(),
                &json!(""),
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            1 => {}
            _ => causes.push(Cause::invalid(
                source.path(),
                &json!(""),
                "may not have more than one field specified at a time",
            )),
        }
    }
}

fn value_source(source: &At<'_>, value: &At<'_>, causes: &mut Vec<Cause>) {
    const FIELDS: &[&str] = &[
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let mut count = 0;
    let field = source.field("fieldRef");
    if field.is_set() {
        count += 1;
        volume::field_ref(&field, FIELDS, causes);
    }
    if source.field("resourceFieldRef").is_set() {
        count += 1;
        let reference = source.field("resourceFieldRef");
        volume::resource_ref(&reference, false, causes);
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        let reference = source.field(key);
        if !reference.is_set() {
            continue;
        }
        count += 1;
        let (name, key) = (reference.field("name"), reference.field("key"));
        name.invalid_text(causes, names::subdomain(name.text()));
        if key.is_empty() {
            key.required(causes, "");
        } else {
            key.invalid_text(causes, names::config_key(key.text()));
        }
    }
    count += usize::from(source.field("fileKeyRef").is_set());
    let mut wrong = |detail| causes.push(Cause::invalid(source.path(), &json!(""), detail));
    if count == 0 {
        wrong(
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        );
    }
    if !value.is_empty() && count > 0 {
        wrong("may not be specified when `value` is not empty");
    } else if count > 1 {
        wrong("may not have more than one field specified at a time");
    }
}

fn mounts(container: &At<'_>, around: &Surroundings<'_>, causes: &mut Vec<Cause>) {
    let known = |name: &str| {
        let mut volumes = around.volumes.items();
        around.claims.contains(&name) || volumes.any(|volume| volume.field("name").text() == name)
    };
    for (list, path_key) in [
        ("volumeMounts", "mountPath"),
        ("volumeDevices", "devicePath"),
    ] {
        let mut seen = HashSet::new();
        for mount in container.field(list).items() {
            let (name, path) = (mount.field("name"), mount.field(path_key));
            if name.is_empty() {
                name.required(causes, "");
            }
            if !known(name.text()) {
                causes.push(Cause::not_found(name.path(), &json!(name.text())));
            }
            if path.is_empty() {
                path.required(causes, "");
            }
            if !seen.insert(path.text().to_owned()) {
                path.invalid_text(causes, vec!["must be unique".to_owned()]);
            }
            for key in ["subPath", "subPathExpr"] {
                volume::descending(&mount.field(key), causes);
            }
            let propagation = mount.field("mountPropagation");
            if propagation.is_set() {
                let words = &["Bidirectional", "HostToContainer", "None"];
                propagation.one_of_if_set(causes, words);
            }
        }
    }
}

/// Limits and requests: amounts, and no request above its limit.
pub fn resources(resources: &At<'_>, causes: &mut Vec<Cause>) {
    let (limits, requests) = (resources.field("limits"), resources.field("requests"));
    for (name, limit) in limits.entries() {
        resource(name, &limit, causes);
    }
    for (name, request) in requests.entries() {
        let amount = resource(name, &request, causes);
        let limit = limits.value.get(name).and_then(Quantity::of);
        let shared = is_shared(name);
        match (amount, limit) {
            (Some(amount), Some(limit)) if amount > limit && shared => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                causes.push(Cause::invalid(requests.path(), request.value, &detail));
            }
            (Some(amount), Some(limit)) if amount != limit && !shared => {
                let detail = format!("must be equal to {name} limit of {limit}");
                causes.push(Cause::invalid(requests.path(), request.value, &detail));
            }
            (Some(_), None) if !shared => {
                limits.required(causes, "Limit must be set for non overcommitable resources")
            }
            _ => {}
        }
    }
}

/// Whether more of it may be promised than there is.
fn is_shared(name: &str) -> bool {
    !name.contains('/') && !name.starts_with("hugepages-")
}

fn resource(name: &str, amount: &At<'_>, causes: &mut Vec<Cause>) -> Option<Quantity> {
    for wrong in names::qualified(name) {
        causes.push(Cause::invalid(amount.path(), &json!(name), &wrong));
    }
    let known = ["cpu", "memory", "ephemeral-storage"].contains(&name);
    if !name.contains('/') && !known && !name.starts_with("hugepages-") {
        causes.push(Cause::invalid(
            amount.path(),
            &json!(name),
            "must be a standard resource for containers",
        ));
    }
    let quantity = amount.amount(causes);
    if name.contains('/') && quantity.is_some_and(|quantity| !quantity.is_whole()) {
        amount.invalid(causes, "must be an integer");
    }
    quantity
}
