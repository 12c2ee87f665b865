//! A Pod's status from what is observed: phase, conditions, the states of its containers.

mod conditions;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::core::v1::{
    ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, HostIP, PodIP,
    PodStatus,
};

use super::backoff::{self, Verdict};
use super::plan::{self, View};
use super::spec::{self, Restart, Role};
use crate::runtime::{ContainerState, ContainerStatus};

/// Of a container that has ended unseen.
const LOST: &str = "The container could not be located when the pod was terminated";

/// What of the status is not in the Pod.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Addresses of the node, the primary one first.
    pub ips: &'a [IpAddr],
    /// Prefix of container ids: `weft`.
    pub runtime: &'a str,
}

/// The status. `last`: the Pod is being deleted, and its containers have been stopped.
pub fn status(view: &View<'_>, host: Host<'_>, last: bool) -> PodStatus {
    let known = spec::status(view.pod).cloned().unwrap_or_default();
    if spec::is_over(view.pod) && view.containers.is_empty() {
        return known;
    }
    let (mut init, mut regular) = (Vec::new(), Vec::new());
    for (role, container) in spec::all(view.pod) {
        let status = container_status(view, role, container, host);
        match role {
            Role::Regular => regular.push(status),
            Role::Init | Role::Sidecar => init.push(status),
        }
    }
    let phase = phase(view, &known, &init, &regular, last);
    let (reason, message) = view.memory.failure.clone().unzip();
    let mut ips: Vec<String> = view
        .sandbox()
        .filter(|sandbox| sandbox.ready || phase != "Pending")
        .map(|sandbox| sandbox.ips.iter().map(ToString::to_string).collect())
        .unwrap_or_default();
    if ips.is_empty() && (last || matches!(phase, "Succeeded" | "Failed")) {
        // Its network is unmade; where it was stays to be read. The API may not know it yet.
        ips = view.memory.ips.iter().map(ToString::to_string).collect();
        if ips.is_empty() {
            ips = known
                .pod_ips
                .iter()
                .flatten()
                .map(|known| known.ip.clone())
                .collect();
        }
    }
    if matches!(phase, "Succeeded" | "Failed") && plan::is_initialized(view) {
        for status in &mut regular {
            give_up(status);
        }
    }
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason: reason.or(known.reason.filter(|_| spec::is_over(view.pod))),
        message: message.or(known.message.filter(|_| spec::is_over(view.pod))),
        host_ip: host.ips.first().map(ToString::to_string),
        host_ips: Some(
            host.ips
                .iter()
                .map(|ip| HostIP { ip: ip.to_string() })
                .collect(),
        ),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: known.start_time.or(view.memory.seen.map(spec::time)),
        qos_class: known.qos_class,
        observed_generation: view.pod.metadata.generation,
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(regular),
        ..PodStatus::default()
    };
    status.conditions = Some(conditions::conditions(view, &status));
    status
}

/// A status as the API has it, reduced to what this agent writes: equal to what it wrote if nobody changed it.
pub fn own(known: &PodStatus) -> PodStatus {
    PodStatus {
        phase: known.phase.clone(),
        reason: known.reason.clone(),
        message: known.message.clone(),
        host_ip: known.host_ip.clone(),
        host_ips: known.host_ips.clone(),
        pod_ip: known.pod_ip.clone(),
        pod_ips: known.pod_ips.clone(),
        start_time: known.start_time.clone(),
        qos_class: known.qos_class.clone(),
        observed_generation: known.observed_generation,
        init_container_statuses: known.init_container_statuses.clone(),
        container_statuses: known.container_statuses.clone(),
        conditions: Some(conditions::own(known)),
        ..PodStatus::default()
    }
}

fn phase(
    view: &View<'_>,
    known: &PodStatus,
    init: &[api::ContainerStatus],
    regular: &[api::ContainerStatus],
    last: bool,
) -> &'static str {
    if view.memory.failure.is_some() || known.phase.as_deref() == Some("Failed") {
        return "Failed";
    }
    if known.phase.as_deref() == Some("Succeeded") {
        return "Succeeded";
    }
    if last || plan::is_finished(view) {
        let well = |status: &api::ContainerStatus| {
            terminated(status).is_some_and(|state| state.exit_code == 0)
        };
        let done = spec::init_containers(view.pod)
            .iter()
            .zip(init)
            .filter(|(container, _)| spec::init_role(container) == Role::Init)
            .all(|(_, status)| well(status));
        return if done && !regular.is_empty() && regular.iter().all(well) {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    // What waits for its next start has run: the Pod runs.
    let begun = |status: &api::ContainerStatus| {
        let state = status.state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || status
                .last_state
                .as_ref()
                .is_some_and(|state| state.terminated.is_some())
    };
    if !regular.is_empty() && regular.iter().all(begun) && plan::is_initialized(view) {
        "Running"
    } else {
        "Pending"
    }
}

/// What never ran in a Pod that is over counts as ended: nothing waits any more.
fn give_up(status: &mut api::ContainerStatus) {
    if terminated(status).is_none() {
        status.state = Some(api::ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some(LOST.to_owned()),
                ..ContainerStateTerminated::default()
            }),
            ..api::ContainerState::default()
        });
    }
}

fn terminated(status: &api::ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn container_status(
    view: &View<'_>,
    role: Role,
    container: &api::Container,
    host: Host<'_>,
) -> api::ContainerStatus {
    let name = &container.name;
    let all = view.named(name);
    let known = known(view, name);
    let newest = all
        .iter()
        .copied()
        .find(|status| status.state != ContainerState::Created);
    // Of a sandbox that has died: it counts as ended before the one that is to come, unless it was the last.
    let current = newest.filter(|newest| {
        view.current(name)
            .is_some_and(|status| status.id == newest.id)
            || plan::is_finished(view)
            || view.memory.failure.is_some()
            || !view.sandbox().is_some_and(|sandbox| sandbox.ready)
    });
    let previous = all
        .iter()
        .copied()
        .filter(|status| {
            plan::ended(status) && current.is_none_or(|current| current.id != status.id)
        })
        .map(|status| ended_state(status, host))
        .next();
    let mut last_state = previous
        .or_else(|| known.and_then(|known| known.last_state.clone()))
        .unwrap_or_default();
    let state = match current {
        Some(status) if status.state == ContainerState::Running => api::ContainerState {
            running: Some(ContainerStateRunning {
                started_at: status.started.map(spec::time),
            }),
            ..api::ContainerState::default()
        },
        Some(status) => match restarting(view, role, status) {
            Some(waiting) => {
                last_state = ended_state(status, host);
                waiting
            }
            None => ended_state(status, host),
        },
        None => not_begun(view, role, name),
    };
    let is_running = state.running.is_some();
    let started = current.is_some_and(|status| view.has_started(container, status));
    let ready = match role {
        Role::Init => current.is_some_and(plan::succeeded),
        Role::Sidecar | Role::Regular => {
            started
                && (container.readiness_probe.is_none()
                    || current.is_some_and(|status| view.probed(status).readiness == Some(true)))
        }
    };
    let shown = current.or(newest);
    api::ContainerStatus {
        name: name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: shown
            .map(|status| status.config.image.id.clone())
            .unwrap_or_default(),
        container_id: shown.map(|status| id(status, host)),
        restart_count: shown
            .map(|status| status.config.attempt)
            .and_then(|count| i32::try_from(count).ok())
            .or(known.map(|known| known.restart_count))
            .unwrap_or(0),
        ready,
        started: Some(if role == Role::Init {
            is_running
        } else {
            started
        }),
        state: Some(state),
        last_state: Some(last_state),
        ..api::ContainerStatus::default()
    }
}

fn known<'a>(view: &View<'a>, name: &str) -> Option<&'a api::ContainerStatus> {
    let status = spec::status(view.pod)?;
    [&status.init_container_statuses, &status.container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
}

fn id(status: &ContainerStatus, host: Host<'_>) -> String {
    format!("{}://{}", host.runtime, status.id)
}

fn waiting(reason: &str, message: Option<String>) -> api::ContainerState {
    api::ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..api::ContainerState::default()
    }
}

/// Why a container that never ran here does not run.
fn not_begun(view: &View<'_>, role: Role, name: &str) -> api::ContainerState {
    if let Some(trouble) = view.memory.troubles.get(name) {
        if trouble
            .waits_for_image()
            .is_some_and(|since| since <= view.now)
        {
            let image = spec::container(view.pod, name)
                .and_then(|(_, container)| container.image.as_deref());
            let message = format!(
                "Back-off pulling image {:?}: ErrImagePull: {}",
                image.unwrap_or_default(),
                trouble.message
            );
            return waiting("ImagePullBackOff", Some(message));
        }
        return waiting(&trouble.reason, Some(trouble.message.clone()));
    }
    let initializing = match role {
        Role::Regular => !spec::init_containers(view.pod).is_empty() && !plan::is_initialized(view),
        Role::Init | Role::Sidecar => spec::init_containers(view.pod)
            .first()
            .is_some_and(|first| first.name != name),
    };
    waiting(
        if initializing {
            "PodInitializing"
        } else {
            "ContainerCreating"
        },
        None,
    )
}

/// The state of a container that has ended and will start again, if it has to wait for that.
fn restarting(
    view: &View<'_>,
    role: Role,
    status: &ContainerStatus,
) -> Option<api::ContainerState> {
    let again = match (role, spec::restart(view.pod)) {
        (Role::Init, _) if plan::succeeded(status) => false,
        (Role::Sidecar, _) | (_, Restart::Always) => true,
        (_, Restart::OnFailure) => !plan::succeeded(status),
        (_, Restart::Never) => false,
    };
    let over = view.memory.failure.is_some()
        || spec::is_over(view.pod)
        || view.pod.metadata.deletion_timestamp.is_some()
        || plan::is_finished(view);
    if !again || over {
        return None;
    }
    let name = &status.config.name;
    let trouble = view.memory.troubles.get(name);
    match plan::wait(view, status) {
        Verdict::Wait { delay, .. } => Some(waiting(
            "CrashLoopBackOff",
            Some(format!(
                "back-off {} restarting failed container={name} pod={}",
                backoff::text(delay),
                spec::full_name(view.pod)
            )),
        )),
        Verdict::Go(_) => {
            trouble.map(|trouble| waiting(&trouble.reason, Some(trouble.message.clone())))
        }
    }
}

fn ended_state(status: &ContainerStatus, host: Host<'_>) -> api::ContainerState {
    let unknown = status.state == ContainerState::Unknown;
    let message = if unknown && status.message.is_empty() {
        LOST
    } else {
        &status.message
    };
    let reason = match (&*status.reason, unknown) {
        ("", true) => "ContainerStatusUnknown",
        ("", false) if status.exit_code == Some(0) => "Completed",
        ("", false) => "Error",
        (reason, _) => reason,
    };
    api::ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: status.exit_code.unwrap_or(137),
            signal: (status.signal != 0).then_some(status.signal),
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
            started_at: Some(spec::time(status.started.unwrap_or(status.created))),
            finished_at: Some(spec::time(status.finished.unwrap_or(status.created))),
            container_id: Some(id(status, host)),
        }),
        ..api::ContainerState::default()
    }
}
