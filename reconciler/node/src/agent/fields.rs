//! The downward API: what a Pod is told of itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::{quantity, spec};

/// What of a Pod is known only when it has its sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Addresses of the Pod, the primary one first.
    pub pod_ips: Vec<String>,
    /// Addresses of the node.
    pub host_ips: Vec<String>,
    /// What a container without limits may use: thousandths of a CPU.
    pub cpu: u64,
    /// The same: bytes.
    pub memory: u64,
}

/// The value of `fieldRef`.
///
/// # Errors
/// The path is none of those that are supported.
pub fn field(pod: &Pod, path: &str, facts: &Facts) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((map, key)) = path
        .strip_suffix("']")
        .and_then(|path| path.split_once("['"))
    {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(unsupported(path)),
        };
        let value = map.as_ref().and_then(|map| map.get(key)).cloned();
        return Ok(value.unwrap_or_default());
    }
    let pod_spec = spec::spec(pod);
    let value = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(listed(meta.labels.as_ref())),
        "metadata.annotations" => Some(listed(meta.annotations.as_ref())),
        "spec.nodeName" => pod_spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => pod_spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" => facts.host_ips.first().cloned(),
        "status.hostIPs" => Some(facts.host_ips.join(",")),
        "status.podIP" => facts.pod_ips.first().cloned(),
        "status.podIPs" => Some(facts.pod_ips.join(",")),
        _ => return Err(unsupported(path)),
    };
    Ok(value.unwrap_or_default())
}

fn unsupported(path: &str) -> String {
    format!("unsupported fieldPath: {path}")
}

/// `key="value"` in lines, as files of the downward API hold maps.
fn listed(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The value of `resourceFieldRef` for a container of the Pod.
///
/// # Errors
/// No such container, or the resource is none of those that are supported.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    field: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, String> {
    let container = match field
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        Some(name) => spec::container(pod, name).map(|(_, container)| container),
        None => own,
    }
    .ok_or_else(|| {
        format!(
            "container {} not found",
            field.container_name.as_deref().unwrap_or_default()
        )
    })?;
    let resources = container.resources.as_ref();
    let (list, name) = match field.resource.split_once('.') {
        Some(("limits", name)) => (resources.and_then(|all| all.limits.as_ref()), name),
        Some(("requests", name)) => (resources.and_then(|all| all.requests.as_ref()), name),
        _ => {
            return Err(format!(
                "unsupported container resource : {}",
                field.resource
            ));
        }
    };
    let known = list
        .and_then(|list| list.get(name))
        .and_then(|quantity| quantity::thousandths(&quantity.0));
    let value = match (known, field.resource.as_str()) {
        (Some(value), _) => value,
        // Without a limit, all that the node has.
        (None, "limits.cpu") => u128::from(facts.cpu),
        (None, "limits.memory") => u128::from(facts.memory) * 1000,
        (None, _) => 0,
    };
    let divisor = field.divisor.as_ref().map_or("1", |divisor| &divisor.0);
    Ok(quantity::divided(value, divisor).to_string())
}
