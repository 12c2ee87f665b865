//! Ends containers: what they asked to be done first, SIGTERM, and when their time is over SIGKILL.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use tokio::time::Instant;

use super::events::Kind;
use super::spec::{self, Role};
use super::{Context, hooks};
use crate::runtime::{ContainerState, ContainerStatus, Error};

/// After its preStop hook a container gets at least this.
const AFTER_HOOK: Duration = Duration::from_secs(2);

/// When SIGKILL is sent. It may come nearer while containers end.
pub type Deadline = watch::Receiver<Instant>;

/// A deadline that stays.
pub fn fixed(grace: Duration) -> Deadline {
    watch::channel(Instant::now() + grace).1
}

/// Ends all that run: the regular ones side by side, then sidecars one after another, the last first.
pub async fn all(
    context: &Context,
    pod: Option<&Pod>,
    containers: &[ContainerStatus],
    ip: Option<IpAddr>,
    deadline: Deadline,
) {
    let running = containers
        .iter()
        .filter(|status| status.state == ContainerState::Running);
    let place = |status: &ContainerStatus| {
        let mut sidecars = pod.into_iter().flat_map(spec::all);
        sidecars.position(|(role, container)| {
            role == Role::Sidecar && container.name == status.config.name
        })
    };
    let (mut sidecars, regular): (Vec<_>, Vec<_>) =
        running.partition(|status| place(status).is_some());
    let message = |status: &ContainerStatus| format!("Stopping container {}", status.config.name);
    join_all(
        regular
            .into_iter()
            .map(|status| one(context, pod, status, ip, deadline.clone(), message(status))),
    )
    .await;
    sidecars.sort_by_key(|status| std::cmp::Reverse(place(status)));
    for status in sidecars {
        one(context, pod, status, ip, deadline.clone(), message(status)).await;
    }
}

/// Ends one. `message` is what its event says.
pub async fn one(
    context: &Context,
    pod: Option<&Pod>,
    status: &ContainerStatus,
    ip: Option<IpAddr>,
    mut deadline: Deadline,
    message: String,
) {
    let name = &status.config.name;
    let container = pod
        .and_then(|pod| spec::container(pod, name))
        .map(|(_, container)| container);
    if let Some(pod) = pod {
        context
            .recorder
            .pod(pod, Some(name), Kind::Normal, "Killing", message);
    }
    let hooked = match (pod, container) {
        (Some(pod), Some(container)) => {
            before(context, pod, container, status, ip, &mut deadline).await
        }
        _ => false,
    };
    let least = if hooked { AFTER_HOOK } else { Duration::ZERO };
    loop {
        let grace = deadline
            .borrow_and_update()
            .saturating_duration_since(Instant::now())
            .max(least);
        let stopping = context.runtime.stop_container(&status.id, grace);
        tokio::select! {
            stopped = stopping => {
                match stopped {
                    Ok(()) | Err(Error::NotFound(_)) => {}
                    Err(error) => tracing::warn!("stop container {name} of pod {}/{}: {error}", status.pod.namespace, status.pod.name),
                }
                return;
            }
            // Less time than before: again, with what is left.
            () = changed(&mut deadline) => {}
        }
    }
}

/// Runs the preStop hook, if there is one and time for it.
async fn before(
    context: &Context,
    pod: &Pod,
    container: &Container,
    status: &ContainerStatus,
    ip: Option<IpAddr>,
    deadline: &mut Deadline,
) -> bool {
    let hook = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let Some(hook) = hook.filter(|_| *deadline.borrow() > Instant::now()) else {
        return false;
    };
    let run = hooks::run(context, hook, container, &status.id, ip);
    let mut run = std::pin::pin!(run);
    loop {
        let end = *deadline.borrow_and_update();
        tokio::select! {
            done = &mut run => {
                if let Err(error) = done {
                    context.recorder.pod(pod, Some(&container.name), Kind::Warning, "FailedPreStopHook", format!("PreStopHook failed: {error}"));
                }
                return true;
            }
            () = tokio::time::sleep_until(end) => return true,
            () = changed(deadline) => {}
        }
    }
}

async fn changed(deadline: &mut Deadline) {
    if deadline.changed().await.is_err() {
        // It is fixed.
        std::future::pending().await
    }
}
