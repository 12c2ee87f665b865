//! From a Pod to what its sandbox and its containers are made from. Pure.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::spec::{self, Role};
use super::{env, quantity};
use crate::runtime::{ContainerConfig, Image, Mount, PortMapping, SandboxConfig, Security};

/// Where a container leaves its last words if the Pod does not say.
const LAST_WORDS: &str = "/dev/termination-log";

/// Texts of a sandbox that need more than the Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Of the UTS namespace.
    pub hostname: String,
    /// With the subdomain; empty if there is none.
    pub full_name: String,
    /// `/etc/resolv.conf`
    pub resolv_conf: String,
    /// `/etc/hosts`
    pub hosts: String,
}

/// What a sandbox is made from.
pub fn sandbox(pod: &Pod, attempt: u32, names: Names) -> SandboxConfig {
    let pod_spec = spec::spec(pod);
    let flag = |flag: Option<bool>| flag == Some(true);
    let host_network = spec::host_network(pod);
    let ports = spec::all(pod).filter(|(role, _)| *role != Role::Init);
    let port_mappings = ports
        .flat_map(|(_, container)| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(PortMapping {
                host_port: u16::try_from(port.host_port?)
                    .ok()
                    .filter(|port| *port > 0)?,
                container_port: u16::try_from(port.container_port).ok()?,
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .filter(|_| !host_network)
        .collect();
    SandboxConfig {
        pod: spec::reference(pod),
        attempt,
        hostname: names.hostname,
        full_name: names.full_name,
        host_network,
        share_processes: pod_spec.is_some_and(|spec| flag(spec.share_process_namespace)),
        host_pid: pod_spec.is_some_and(|spec| flag(spec.host_pid)),
        host_ipc: pod_spec.is_some_and(|spec| flag(spec.host_ipc)),
        port_mappings,
        resolv_conf: names.resolv_conf,
        hosts: names.hosts,
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        limits: quantity::pod_limits(spec::containers(pod)),
    }
}

/// What a container is made from.
///
/// # Errors
/// It must not run as root, and would.
pub fn container(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: Image,
    variables: BTreeMap<String, String>,
    mounts: Vec<Mount>,
) -> Result<ContainerConfig, String> {
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        let lookup = |name: &str| variables.get(name).cloned();
        words
            .iter()
            .flatten()
            .map(|word| env::expand(word, &lookup))
            .collect()
    };
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt,
        image,
        image_name: container.image.clone().unwrap_or_default(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        limits: quantity::limits(container),
        security: security(pod, container)?,
        termination_message_path: container
            .termination_message_path
            .clone()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| LAST_WORDS.to_owned()),
        message_from_log: container.termination_message_policy.as_deref()
            == Some("FallbackToLogsOnError"),
        env: variables.into_iter().collect(),
    })
}

/// The container's own word counts before the Pod's.
fn security(pod: &Pod, container: &Container) -> Result<Security, String> {
    let of_pod = spec::spec(pod).and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let id = |id: i64| u32::try_from(id).ok();
    let user = own
        .and_then(|own| own.run_as_user)
        .or(of_pod.and_then(|of| of.run_as_user))
        .and_then(id);
    let group = own
        .and_then(|own| own.run_as_group)
        .or(of_pod.and_then(|of| of.run_as_group))
        .and_then(id);
    let not_root = own
        .and_then(|own| own.run_as_non_root)
        .or(of_pod.and_then(|of| of.run_as_non_root));
    if not_root == Some(true) && user.unwrap_or(0) == 0 {
        return Err(format!(
            "{} (pod: {:?}, container: {})",
            if user.is_some() {
                "container's runAsUser breaks non-root policy"
            } else {
                "container has runAsNonRoot and image will run as root; set runAsUser"
            },
            spec::full_name(pod),
            container.name
        ));
    }
    let mut groups: Vec<u32> = of_pod
        .and_then(|of| of.supplemental_groups.as_ref())
        .into_iter()
        .flatten()
        .copied()
        .filter_map(id)
        .collect();
    groups.extend(of_pod.and_then(|of| of.fs_group).and_then(id));
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    Ok(Security {
        privileged: own.and_then(|own| own.privileged) == Some(true),
        user,
        group,
        groups,
        read_only_root: own.and_then(|own| own.read_only_root_filesystem) == Some(true),
        add_capabilities: capabilities
            .and_then(|all| all.add.clone())
            .unwrap_or_default(),
        drop_capabilities: capabilities
            .and_then(|all| all.drop.clone())
            .unwrap_or_default(),
        no_new_privileges: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
    })
}
