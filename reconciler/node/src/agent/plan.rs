//! What to do next for a Pod: from its specification and what is observed, without looking at anything else.
//!
//! The newest sandbox counts. If it lives, init containers run in it in order, then the others; a container that has
//! ended starts again as the restart policy and its back-off say. If it has died, all that is left of it is stopped
//! and another is made, in which everything begins anew. When no container will run again the sandbox is stopped, and
//! the containers stay for their logs until the Pod is deleted. Of each container the last that ended is kept.

#[cfg(test)]
pub mod tests;

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::backoff::{self, Backoff, Verdict};
use super::memory::{Memory, Probed};
use super::spec::{self, Restart, Role};
use crate::runtime::{ContainerState, ContainerStatus, SandboxStatus};

/// All that decides what to do for a Pod, and what its status is.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// As in the API.
    pub pod: &'a Pod,
    /// Its sandboxes.
    pub sandboxes: &'a [SandboxStatus],
    /// Its containers.
    pub containers: &'a [ContainerStatus],
    /// What is remembered.
    pub memory: &'a Memory,
    /// The present.
    pub now: Timestamp,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The Pod as a whole has failed; it is to be remembered.
    Fail {
        /// `DeadlineExceeded`
        reason: &'static str,
        /// For people.
        message: &'static str,
    },
    /// End its containers and unmake its network.
    StopSandbox {
        /// The sandbox.
        id: String,
    },
    /// Forget it and what was in it.
    RemoveSandbox {
        /// The sandbox.
        id: String,
    },
    /// Make one.
    MakeSandbox {
        /// Counts.
        attempt: u32,
        /// There was one before.
        changed: bool,
    },
    /// End a container that is to start again.
    Kill {
        /// The container.
        id: String,
        /// Its name in the Pod.
        name: String,
        /// Which probe says so.
        probe: Failed,
    },
    /// Forget it and its log.
    RemoveContainer {
        /// The container.
        id: String,
    },
    /// Make and start one.
    Start {
        /// Its name in the Pod.
        name: String,
        /// Counts.
        attempt: u32,
        /// To be remembered.
        backoff: Option<Backoff>,
    },
}

/// A probe whose failure ends a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It is dead.
    Liveness,
    /// It never came up.
    Startup,
}

/// What to do now, and when to ask again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order. Empty: nothing until something changes, or `wake`.
    pub actions: Vec<Action>,
    /// When to plan again although nothing has happened.
    pub wake: Option<Timestamp>,
    /// Containers that wait for their next start: name, number of the ended one.
    pub waiting: Vec<(String, u32)>,
    /// Containers that wait for the next try to get their image.
    pub pulling: Vec<String>,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }
}

impl<'a> View<'a> {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&'a SandboxStatus> {
        self.sandboxes
            .iter()
            .max_by_key(|sandbox| (sandbox.config.attempt, sandbox.created))
    }

    /// Containers of this name, newest first.
    pub fn named(&self, name: &str) -> Vec<&'a ContainerStatus> {
        let mut found: Vec<_> = self
            .containers
            .iter()
            .filter(|container| container.config.name == name)
            .collect();
        found.sort_by_key(|container| {
            std::cmp::Reverse((container.config.attempt, container.created))
        });
        found
    }

    /// The newest container of this name in the newest sandbox.
    pub fn current(&self, name: &str) -> Option<&'a ContainerStatus> {
        let sandbox = self.sandbox()?;
        self.named(name)
            .into_iter()
            .find(|container| container.sandbox == sandbox.id)
    }

    /// What its probes say.
    pub fn probed(&self, container: &ContainerStatus) -> Probed {
        self.memory
            .probed
            .get(&container.id)
            .copied()
            .unwrap_or_default()
    }

    /// It runs, and its startup probe has passed if it has one.
    pub fn has_started(&self, spec: &Container, container: &ContainerStatus) -> bool {
        container.state == ContainerState::Running
            && (spec.startup_probe.is_none() || self.probed(container).startup == Some(true))
    }

    /// The number of the next container of this name.
    fn next_attempt(&self, name: &str) -> u32 {
        if let Some(newest) = self.named(name).first() {
            return newest.config.attempt.saturating_add(1);
        }
        known_restarts(self.pod, name).map_or(0, |count| count.saturating_add(1))
    }
}

/// How often the API says that a container has been restarted, if it has ever run.
fn known_restarts(pod: &Pod, name: &str) -> Option<u32> {
    let status = spec::status(pod)?;
    [&status.init_container_statuses, &status.container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
        .filter(|status| {
            status
                .container_id
                .as_deref()
                .is_some_and(|id| !id.is_empty())
        })
        .and_then(|status| u32::try_from(status.restart_count).ok())
}

/// It ended well.
pub fn succeeded(container: &ContainerStatus) -> bool {
    container.state == ContainerState::Exited && container.exit_code == Some(0)
}

/// It has ended, whatever became of it.
pub fn ended(container: &ContainerStatus) -> bool {
    matches!(
        container.state,
        ContainerState::Exited | ContainerState::Unknown
    )
}

/// Whether the Pod's containers have all ended for good.
pub fn is_finished(view: &View<'_>) -> bool {
    let restart = spec::restart(view.pod);
    if restart == Restart::Always {
        return false;
    }
    let for_good = |container: &ContainerStatus| {
        ended(container) && (restart == Restart::Never || succeeded(container))
    };
    let newest = |name: &str| view.named(name).first().copied();
    let init_failed = restart == Restart::Never
        && spec::all(view.pod)
            .filter(|(role, _)| *role == Role::Init)
            .filter_map(|(_, container)| newest(&container.name))
            .any(|container| ended(container) && !succeeded(container));
    let containers = spec::containers(view.pod);
    init_failed
        || !containers.is_empty()
            && containers
                .iter()
                .all(|container| newest(&container.name).is_some_and(for_good))
}

/// When the Pod has been active for as long as it may.
fn deadline(view: &View<'_>) -> Option<Timestamp> {
    let seconds = spec::spec(view.pod)?.active_deadline_seconds?;
    let start = spec::status(view.pod)
        .and_then(|status| status.start_time.as_ref())
        .map(|start| start.0)
        .or(view.memory.seen)?;
    Some(backoff::after(
        start,
        std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
    ))
}

/// What to do now.
pub fn plan(view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    if spec::is_over(view.pod) || view.memory.failure.is_some() || is_finished(view) {
        for sandbox in view.sandboxes {
            stop(view, sandbox, &mut plan);
        }
        return plan;
    }
    if let Some(deadline) = deadline(view) {
        if deadline <= view.now {
            plan.actions.push(Action::Fail {
                reason: "DeadlineExceeded",
                message: "Pod was active on the node longer than the specified deadline",
            });
            return plan;
        }
        plan.wake_at(deadline);
    }
    let newest = view.sandbox();
    let Some(live) =
        newest.filter(|sandbox| sandbox.ready && !view.memory.stopped.contains(&sandbox.id))
    else {
        for sandbox in view.sandboxes {
            stop(view, sandbox, &mut plan);
        }
        match &view.memory.sandbox {
            Some(trouble) if trouble.retry > view.now => plan.wake_at(trouble.retry),
            _ => plan.actions.push(Action::MakeSandbox {
                attempt: newest.map_or(0, |sandbox| sandbox.config.attempt.saturating_add(1)),
                changed: newest.is_some(),
            }),
        }
        return plan;
    };
    clear(view, live, &mut plan);
    run(view, &mut plan);
    plan
}

fn stop(view: &View<'_>, sandbox: &SandboxStatus, plan: &mut Plan) {
    if !view.memory.stopped.contains(&sandbox.id) {
        plan.actions.push(Action::StopSandbox {
            id: sandbox.id.clone(),
        });
    }
}

/// Earlier sandboxes and containers go, but for the last container of each name that has ended.
fn clear(view: &View<'_>, live: &SandboxStatus, plan: &mut Plan) {
    let mut kept = BTreeSet::new();
    for (_, container) in spec::all(view.pod) {
        for (position, status) in view.named(&container.name).into_iter().enumerate() {
            if position < 2 || status.state == ContainerState::Running {
                kept.insert(status.sandbox.as_str());
            } else if status.sandbox == live.id {
                plan.actions.push(Action::RemoveContainer {
                    id: status.id.clone(),
                });
            }
        }
    }
    for sandbox in view
        .sandboxes
        .iter()
        .filter(|sandbox| sandbox.id != live.id)
    {
        stop(view, sandbox, plan);
        if !kept.contains(sandbox.id.as_str()) {
            plan.actions.push(Action::RemoveSandbox {
                id: sandbox.id.clone(),
            });
        }
    }
}

/// Init containers in order, then the others.
fn run(view: &View<'_>, plan: &mut Plan) {
    let restart = spec::restart(view.pod);
    let initialized = is_initialized(view);
    for container in spec::init_containers(view.pod) {
        let current = view.current(&container.name);
        let passed = match spec::init_role(container) {
            Role::Sidecar => {
                keep(view, container, true, plan);
                current.is_some_and(|status| view.has_started(container, status))
            }
            _ if initialized => true,
            _ => {
                if current.is_none_or(|status| !succeeded(status)) {
                    keep(view, container, restart != Restart::Never, plan);
                }
                current.is_some_and(succeeded)
            }
        };
        if !passed && !initialized {
            return;
        }
    }
    for container in spec::containers(view.pod) {
        let again = match (restart, view.current(&container.name)) {
            (Restart::Never, _) => false,
            (Restart::Always, _) | (_, None) => true,
            (Restart::OnFailure, Some(status)) => !succeeded(status),
        };
        keep(view, container, again, plan);
    }
}

/// Whether the init containers are through in the newest sandbox.
pub fn is_initialized(view: &View<'_>) -> bool {
    let begun = spec::containers(view.pod)
        .iter()
        .any(|container| view.current(&container.name).is_some());
    begun
        || spec::init_containers(view.pod).iter().all(|container| {
            view.current(&container.name)
                .is_some_and(|status| match spec::init_role(container) {
                    Role::Sidecar => view.has_started(container, status),
                    _ => succeeded(status),
                })
        })
}

/// Starts a container that is not there; if `again`, one that has ended; ends one that its probes call dead.
fn keep(view: &View<'_>, container: &Container, again: bool, plan: &mut Plan) {
    let name = &container.name;
    let current = view.current(name);
    if let Some(status) = current.filter(|status| status.state == ContainerState::Running) {
        let probed = view.probed(status);
        let failed = match (probed.startup, probed.liveness) {
            (Some(false), _) => Failed::Startup,
            (_, Some(false)) => Failed::Liveness,
            _ => return,
        };
        plan.actions.push(Action::Kill {
            id: status.id.clone(),
            name: name.clone(),
            probe: failed,
        });
        return;
    }
    if current.is_some_and(ended) && !again {
        return;
    }
    for trouble in [view.memory.troubles.get(name), view.memory.volumes.as_ref()]
        .into_iter()
        .flatten()
    {
        if trouble.retry > view.now {
            plan.wake_at(trouble.retry);
            match trouble.waits_for_image() {
                Some(at) if at > view.now => plan.wake_at(at),
                Some(_) => plan.pulling.push(name.clone()),
                None => {}
            }
            return;
        }
    }
    let mut attempt = view.next_attempt(name);
    let mut remembered = None;
    match current {
        Some(status) if ended(status) => match wait(view, status) {
            Verdict::Go(backoff) => remembered = Some(backoff),
            Verdict::Wait { until, .. } => {
                plan.wake_at(until);
                plan.waiting.push((name.clone(), status.config.attempt));
                return;
            }
        },
        // Made, and then the agent ended: made anew.
        Some(status) => {
            plan.actions.push(Action::RemoveContainer {
                id: status.id.clone(),
            });
            attempt = status.config.attempt;
        }
        None => {}
    }
    plan.actions.push(Action::Start {
        name: name.clone(),
        attempt,
        backoff: remembered,
    });
}

/// Whether a container that has ended may start again.
pub fn wait(view: &View<'_>, ended: &ContainerStatus) -> Verdict {
    let failed = ended.finished.unwrap_or(ended.created);
    let known = view.memory.restarts.get(&ended.config.name).copied();
    backoff::verdict(known, failed, view.now)
}
