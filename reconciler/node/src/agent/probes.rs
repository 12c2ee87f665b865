//! Probes of the containers of one Pod: a task each, which asks at its times and rings when the verdict changes.
//!
//! The first question is asked as soon as `initialDelaySeconds` are over. Liveness and readiness wait for the startup
//! probe. Requests come from the node, to the Pod's address. `grpc` is refused: such a probe always fails and says so.

mod ask;
mod count;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::ask::{Outcome, Target, ask};
use self::count::Count;
use super::Context;
use super::events;
use super::memory::Probed;
use super::plan::View;
use super::spec::{self, Role};
use super::wake::Wake;
use crate::runtime::ContainerState;

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Has it started?
    Startup,
    /// Is it alive?
    Liveness,
    /// May it be sent requests?
    Readiness,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }

    fn verdict(self, probed: &mut Probed) -> &mut Option<bool> {
        match self {
            Self::Startup => &mut probed.startup,
            Self::Liveness => &mut probed.liveness,
            Self::Readiness => &mut probed.readiness,
        }
    }
}

/// Between the first two tries of a container's first period; the following pauses double.
const EARLY: Duration = Duration::from_millis(50);

/// What the probes say, by the container's id.
type Verdicts = Arc<Mutex<BTreeMap<String, Probed>>>;

fn lock(verdicts: &Verdicts) -> MutexGuard<'_, BTreeMap<String, Probed>> {
    verdicts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those of one Pod.
#[derive(Default)]
pub struct Probes {
    verdicts: Verdicts,
    tasks: BTreeMap<(String, Kind), Task>,
}

/// Ends when it is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Probes {
    /// What they say now.
    pub fn verdicts(&self) -> BTreeMap<String, Probed> {
        lock(&self.verdicts).clone()
    }

    /// Probes what runs, and nothing else. A container that was ready before the agent began stays so until its probe
    /// says otherwise.
    pub fn follow(&mut self, context: &Arc<Context>, view: &View<'_>, wake: &Arc<Wake>) {
        let mut wanted = Vec::new();
        for (_, container) in spec::all(view.pod).filter(|(role, _)| *role != Role::Init) {
            let running = view
                .current(&container.name)
                .filter(|status| status.state == ContainerState::Running);
            let Some(status) = running else { continue };
            let ip = view
                .sandbox()
                .and_then(|sandbox| sandbox.ips.first().copied());
            lock(&self.verdicts)
                .entry(status.id.clone())
                .or_insert_with(|| adopted(view.pod, &status.id));
            let verdict = self.verdicts().get(&status.id).copied().unwrap_or_default();
            let up = container.startup_probe.is_none() || verdict.startup == Some(true);
            for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
                let now = if kind == Kind::Startup {
                    verdict.startup != Some(true)
                } else {
                    up
                };
                if let Some(probe) = kind.of(container).filter(|_| now) {
                    wanted.push((container, status, kind, probe, ip));
                }
            }
        }
        self.tasks.retain(|(id, kind), _| {
            wanted
                .iter()
                .any(|(_, status, of, ..)| status.id == *id && of == kind)
        });
        for (container, status, kind, probe, ip) in wanted {
            let key = (status.id.clone(), kind);
            let task = || {
                let target = Target {
                    id: status.id.clone(),
                    container: container.clone(),
                    ip,
                };
                let began = status.started.unwrap_or(status.created);
                let run = run(
                    context.clone(),
                    view.pod.clone(),
                    target,
                    kind,
                    probe.clone(),
                    began,
                    self.verdicts.clone(),
                    wake.clone(),
                );
                Task(tokio::spawn(run))
            };
            self.tasks.entry(key).or_insert_with(task);
        }
        let known = view.containers;
        lock(&self.verdicts).retain(|id, _| known.iter().any(|status| status.id == *id));
    }

    /// While the Pod ends only its readiness counts.
    pub fn only_readiness(&mut self) {
        self.tasks.retain(|(_, kind), _| *kind == Kind::Readiness);
    }
}

/// What the API says of a container that ran before the agent did.
fn adopted(pod: &Pod, id: &str) -> Probed {
    let status = spec::status(pod);
    let known = status.and_then(|status| {
        [&status.init_container_statuses, &status.container_statuses]
            .into_iter()
            .flatten()
            .flatten()
            .find(|known| {
                let known = known.container_id.as_deref().unwrap_or_default();
                known
                    .split_once("://")
                    .is_some_and(|(_, known)| known == id)
            })
    });
    Probed {
        startup: known
            .filter(|known| known.started == Some(true))
            .map(|_| true),
        liveness: None,
        readiness: known.filter(|known| known.ready).map(|_| true),
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value
            .and_then(|value| u64::try_from(value).ok())
            .unwrap_or(default),
    )
}

#[expect(clippy::too_many_arguments, reason = "all that one task owns")]
async fn run(
    context: Arc<Context>,
    pod: Pod,
    target: Target,
    kind: Kind,
    probe: Probe,
    began: Timestamp,
    verdicts: Verdicts,
    wake: Arc<Wake>,
) {
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let age = Timestamp::now().duration_since(began);
    let age = Duration::try_from(age).unwrap_or_default();
    let mut due = Instant::now() + seconds(probe.initial_delay_seconds, 0).saturating_sub(age);
    let mut count = Count::new(&probe);
    let end_of_first = due + period;
    let mut early = (kind != Kind::Liveness).then_some(EARLY);
    loop {
        tokio::time::sleep_until(due).await;
        let outcome = ask(&context, &probe, &target).await;
        // A program takes a moment to listen: until then it is asked more often, and its failures do not count.
        if let (Outcome::Failure(_), Some(pause)) = (&outcome, early)
            && Instant::now() + pause < end_of_first
        {
            due = Instant::now() + pause;
            early = Some(pause * 2);
            continue;
        }
        if early.take().is_some() {
            due = end_of_first;
        } else {
            due += period;
        }
        if due < Instant::now() {
            due = Instant::now();
        }
        if let Outcome::Failure(text) = &outcome {
            context.recorder.pod(
                &pod,
                Some(&target.container.name),
                events::Kind::Warning,
                "Unhealthy",
                format!("{} probe failed: {text}", kind.title()),
            );
        }
        let Some(verdict) = count.count(outcome == Outcome::Success) else {
            continue;
        };
        let mut all = lock(&verdicts);
        let Some(probed) = all.get_mut(&target.id) else {
            return;
        };
        let place = kind.verdict(probed);
        let changed = *place != Some(verdict);
        *place = Some(verdict);
        drop(all);
        if changed {
            wake.ring();
        }
        if kind == Kind::Startup || kind == Kind::Liveness && !verdict {
            // The container has started, or is about to be ended.
            return;
        }
    }
}
