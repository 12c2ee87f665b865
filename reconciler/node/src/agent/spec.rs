//! Reading Pods: what is asked of a specification everywhere.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::runtime::PodRef;

/// What happens to containers that have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// They start again.
    Always,
    /// Those that failed start again.
    OnFailure,
    /// They do not.
    Never,
}

/// What a container is in its Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next.
    Init,
    /// An init container with `restartPolicy: Always`: goes on beside the others.
    Sidecar,
    /// The rest.
    Regular,
}

/// The Pod's own name for the runtime.
pub fn reference(pod: &Pod) -> PodRef {
    PodRef {
        namespace: namespace(pod).to_owned(),
        name: name(pod).to_owned(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
    }
}

/// `metadata.name`
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `metadata.namespace`
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `web_default(1b4e…)`, as kubelets name Pods in messages.
pub fn full_name(pod: &Pod) -> String {
    format!(
        "{}_{}({})",
        name(pod),
        namespace(pod),
        pod.metadata.uid.as_deref().unwrap_or_default()
    )
}

/// The specification, if there is one.
pub fn spec(pod: &Pod) -> Option<&PodSpec> {
    pod.spec.as_ref()
}

/// The Pod's restart policy.
pub fn restart(pod: &Pod) -> Restart {
    match spec(pod).and_then(|spec| spec.restart_policy.as_deref()) {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    }
}

/// Init containers, in order.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod)
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default()
}

/// The others.
pub fn containers(pod: &Pod) -> &[Container] {
    spec(pod).map_or(&[], |spec| &spec.containers)
}

/// All containers with their roles, init containers first.
pub fn all(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    init_containers(pod)
        .iter()
        .map(|container| (init_role(container), container))
        .chain(
            containers(pod)
                .iter()
                .map(|container| (Role::Regular, container)),
        )
}

/// A container by name.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Role, &'a Container)> {
    all(pod).find(|(_, container)| container.name == name)
}

/// Of an init container.
pub fn init_role(container: &Container) -> Role {
    if container.restart_policy.as_deref() == Some("Always") {
        Role::Sidecar
    } else {
        Role::Init
    }
}

/// `spec.hostNetwork`
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).and_then(|spec| spec.host_network) == Some(true)
}

/// `status.phase` in the API is the last one.
pub fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// `status.phase` in the API.
pub fn phase(pod: &Pod) -> &str {
    status(pod)
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// `status` in the API.
pub fn status(pod: &Pod) -> Option<&PodStatus> {
    pod.status.as_ref()
}

/// Seconds that its containers get to end by themselves: of the deletion, else of the Pod.
pub fn grace(pod: &Pod) -> i64 {
    pod.metadata
        .deletion_grace_period_seconds
        .or_else(|| spec(pod).and_then(|spec| spec.termination_grace_period_seconds))
        .unwrap_or(30)
}

/// A time as the API keeps it: whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
