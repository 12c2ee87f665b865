//! Conditions of a Pod. A condition's time is when its truth last changed.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};

use crate::agent::plan::View;
use crate::agent::spec::{self, Role};

/// Those that this agent writes.
const OWN: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// Truth, reason, message.
struct Told {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Told {
    fn holds() -> Self {
        Self {
            holds: true,
            reason: None,
            message: None,
        }
    }

    fn not(reason: &'static str, message: Option<String>) -> Self {
        Self {
            holds: false,
            reason: Some(reason),
            message,
        }
    }
}

/// All of them, for a status that lacks only these.
pub fn conditions(view: &View<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let network = if view
        .sandbox()
        .is_some_and(|sandbox| sandbox.ready && !view.memory.stopped.contains(&sandbox.id))
    {
        Told::holds()
    } else {
        Told {
            holds: false,
            reason: None,
            message: None,
        }
    };
    let containers = containers_ready(view, status);
    let ready = ready(view, &containers);
    let told = [
        network,
        initialized(view, status),
        ready,
        containers,
        Told::holds(),
    ];
    OWN.iter()
        .zip(told)
        .map(|(kind, told)| condition(view, kind, told))
        .collect()
}

/// Of a status in the API, in our order.
pub fn own(known: &PodStatus) -> Vec<PodCondition> {
    let known = known.conditions.as_deref().unwrap_or_default();
    OWN.iter()
        .filter_map(|kind| known.iter().find(|known| known.type_ == *kind))
        .map(|known| PodCondition {
            last_probe_time: None,
            ..known.clone()
        })
        .collect()
}

fn condition(view: &View<'_>, kind: &str, told: Told) -> PodCondition {
    let truth = if told.holds { "True" } else { "False" };
    let since = spec::status(view.pod)
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
        .iter()
        .find(|known| known.type_ == kind && known.status == truth)
        .and_then(|known| known.last_transition_time.clone())
        .unwrap_or_else(|| spec::time(view.now));
    PodCondition {
        type_: kind.to_owned(),
        status: truth.to_owned(),
        last_transition_time: Some(since),
        reason: told.reason.map(str::to_owned),
        message: told.message,
        observed_generation: view.pod.metadata.generation,
        ..PodCondition::default()
    }
}

fn initialized(view: &View<'_>, status: &PodStatus) -> Told {
    let statuses = status
        .init_container_statuses
        .as_deref()
        .unwrap_or_default();
    if status.phase.as_deref() == Some("Succeeded") {
        return Told {
            reason: (!statuses.is_empty()).then_some("PodCompleted"),
            ..Told::holds()
        };
    }
    let missing: Vec<&str> = spec::init_containers(view.pod)
        .iter()
        .zip(statuses)
        .filter(|(container, status)| match spec::init_role(container) {
            Role::Sidecar => status.started != Some(true),
            _ => !status.ready,
        })
        .map(|(_, status)| &*status.name)
        .collect();
    if missing.is_empty() {
        return Told::holds();
    }
    Told::not(
        "ContainersNotInitialized",
        Some(format!(
            "containers with incomplete status: [{}]",
            missing.join(" ")
        )),
    )
}

fn containers_ready(view: &View<'_>, status: &PodStatus) -> Told {
    match status.phase.as_deref() {
        Some("Succeeded") => return Told::not("PodCompleted", None),
        Some("Failed") => return Told::not("PodFailed", None),
        _ => {}
    }
    let sidecars = spec::init_containers(view.pod)
        .iter()
        .zip(
            status
                .init_container_statuses
                .as_deref()
                .unwrap_or_default(),
        )
        .filter(|(container, _)| spec::init_role(container) == Role::Sidecar)
        .map(|(_, status)| status);
    let unready: Vec<&str> = sidecars
        .chain(status.container_statuses.as_deref().unwrap_or_default())
        .filter(|status: &&ContainerStatus| !status.ready)
        .map(|status| &*status.name)
        .collect();
    if unready.is_empty() {
        return Told::holds();
    }
    Told::not(
        "ContainersNotReady",
        Some(format!(
            "containers with unready status: [{}]",
            unready.join(" ")
        )),
    )
}

/// The containers are, and what other programs say of the Pod.
fn ready(view: &View<'_>, containers: &Told) -> Told {
    if !containers.holds {
        return Told {
            holds: false,
            reason: containers.reason,
            message: containers.message.clone(),
        };
    }
    let known = spec::status(view.pod)
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let gates = spec::spec(view.pod)
        .and_then(|spec| spec.readiness_gates.as_deref())
        .unwrap_or_default();
    let complaints: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match known.iter().find(|known| known.type_ == *kind) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate {kind:?} does not exist."
                )),
                Some(known) if known.status != "True" => Some(format!(
                    "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                    known.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if complaints.is_empty() {
        Told::holds()
    } else {
        Told::not("ReadinessGatesNotReady", Some(complaints.join(", ")))
    }
}
