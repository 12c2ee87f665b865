//! Carries out one action of a plan.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{PAUSE, Seen, Worker, facts};
use crate::agent::events::Kind;
use crate::agent::memory::Trouble;
use crate::agent::plan::{Action, Failed};
use crate::agent::volumes::From;
use crate::agent::{spec, stop};

/// The first wait after a sandbox could not be made, and after volumes could not.
const AGAIN: Duration = Duration::from_secs(1);

impl Worker {
    /// Acts. An error is a time to wait before anything else is tried.
    pub(super) async fn act(
        &mut self,
        pod: &Arc<Pod>,
        seen: &Seen,
        action: Action,
    ) -> Result<(), Duration> {
        let runtime = self.context.runtime.clone();
        match action {
            Action::Fail { reason, message } => {
                self.context
                    .recorder
                    .pod(pod, None, Kind::Normal, reason, message);
                self.memory.failure = Some((reason.to_owned(), message.to_owned()));
                Ok(())
            }
            Action::StopSandbox { id } => self.stop_sandbox(Some(pod), seen, &id).await,
            Action::RemoveSandbox { id } => runtime.remove_sandbox(&id).await.map_err(|error| {
                tracing::warn!(
                    "remove sandbox {id} of pod {}: {error}",
                    spec::full_name(pod)
                );
                PAUSE
            }),
            Action::MakeSandbox { attempt, changed } => {
                self.make_sandbox(pod, attempt, changed).await;
                Ok(())
            }
            Action::Kill { id, name, probe } => {
                let Some(status) = seen.containers.iter().find(|status| status.id == id) else {
                    return Ok(());
                };
                let message = format!(
                    "Container {name} failed {} probe, will be restarted",
                    match probe {
                        Failed::Liveness => "liveness",
                        Failed::Startup => "startup",
                    }
                );
                let deadline = stop::fixed(probe_grace(pod, &name, probe));
                stop::one(
                    &self.context,
                    Some(pod),
                    status,
                    address(seen),
                    deadline,
                    message,
                )
                .await;
                Ok(())
            }
            Action::RemoveContainer { id } => {
                runtime.remove_container(&id).await.map_err(|error| {
                    tracing::warn!(
                        "remove container {id} of pod {}: {error}",
                        spec::full_name(pod)
                    );
                    PAUSE
                })
            }
            Action::Start {
                name,
                attempt,
                backoff,
            } => {
                let began = self.start(pod, seen, &name, attempt).await;
                if began && let Some(backoff) = backoff {
                    self.memory.restarts.insert(name, backoff);
                }
                Ok(())
            }
        }
    }

    /// Ends what runs in a sandbox, and the sandbox.
    pub(super) async fn stop_sandbox(
        &mut self,
        pod: Option<&Pod>,
        seen: &Seen,
        id: &str,
    ) -> Result<(), Duration> {
        let inside: Vec<_> = seen
            .containers
            .iter()
            .filter(|status| status.sandbox == id)
            .cloned()
            .collect();
        let grace = pod.map_or(1, spec::grace);
        let deadline = stop::fixed(Duration::from_secs(u64::try_from(grace).unwrap_or(0)));
        stop::all(&self.context, pod, &inside, address(seen), deadline).await;
        self.unmake_sandbox(pod, id).await
    }

    pub(super) async fn unmake_sandbox(
        &mut self,
        pod: Option<&Pod>,
        id: &str,
    ) -> Result<(), Duration> {
        match self.context.runtime.stop_sandbox(id).await {
            Ok(()) => {
                self.memory.stopped.insert(id.to_owned());
                Ok(())
            }
            Err(error) => {
                let reference = &self.reference;
                tracing::warn!(
                    "stop sandbox of pod {}/{}: {error}",
                    reference.namespace,
                    reference.name
                );
                if let Some(pod) = pod {
                    let message = format!("error killing pod: {error}");
                    self.context
                        .recorder
                        .pod(pod, None, Kind::Warning, "FailedKillPod", message);
                }
                Err(PAUSE)
            }
        }
    }

    async fn make_sandbox(&mut self, pod: &Arc<Pod>, attempt: u32, changed: bool) {
        if changed {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.context
                .recorder
                .pod(pod, None, Kind::Normal, "SandboxChanged", message);
        }
        let before = Seen::default();
        let known = facts(&self.context, &before);
        let context = self.context.clone();
        let making = super::begin::sandbox(&context, pod, attempt);
        // What takes long goes side by side.
        let images = super::begin::images(&context, pod);
        let (made, (), ()) = tokio::join!(making, self.make_volumes(pod, &known), images);
        match made {
            Ok(_) => self.memory.sandbox = None,
            Err(refused) => {
                self.context.recorder.pod(
                    pod,
                    None,
                    Kind::Warning,
                    refused.reason,
                    refused.message.clone(),
                );
                let earlier = self.memory.sandbox.as_ref();
                self.memory.sandbox = Some(Trouble::new(
                    refused.reason,
                    refused.message,
                    earlier,
                    AGAIN,
                    Timestamp::now(),
                ));
            }
        }
    }

    /// Makes the volumes, or says why not.
    pub(super) async fn make_volumes(&mut self, pod: &Pod, known: &crate::agent::fields::Facts) {
        let context = self.context.clone();
        let Some(held) = &self.held else { return };
        let made = match held.known(Duration::from_secs(10)).await {
            Ok(()) => {
                let from = From {
                    client: &context.client,
                    claims: &context.claims,
                    objects: held,
                    facts: known,
                };
                self.volumes.ensure(pod, from).await
            }
            Err(cause) => Err(vec![crate::agent::volumes::Failed {
                volume: String::new(),
                cause,
            }]),
        };
        let Err(failed) = made else {
            self.are_volumes_made = true;
            self.memory.volumes = None;
            return;
        };
        let mut message = String::new();
        for failed in failed {
            message = format!(
                "MountVolume.SetUp failed for volume {:?} : {}",
                failed.volume, failed.cause
            );
            context
                .recorder
                .pod(pod, None, Kind::Warning, "FailedMount", message.clone());
        }
        let earlier = self.memory.volumes.as_ref();
        self.memory.volumes = Some(Trouble::new(
            "FailedMount",
            message,
            earlier,
            AGAIN,
            Timestamp::now(),
        ));
    }
}

/// The Pod's address.
pub(super) fn address(seen: &Seen) -> Option<IpAddr> {
    seen.sandboxes
        .iter()
        .max_by_key(|sandbox| sandbox.config.attempt)
        .and_then(|sandbox| sandbox.ips.first().copied())
}

fn probe_grace(pod: &Pod, name: &str, probe: Failed) -> Duration {
    let container = spec::container(pod, name).map(|(_, container)| container);
    let probe = container.and_then(|container| match probe {
        Failed::Liveness => container.liveness_probe.as_ref(),
        Failed::Startup => container.startup_probe.as_ref(),
    });
    let seconds = probe
        .and_then(|probe| probe.termination_grace_period_seconds)
        .unwrap_or_else(|| spec::grace(pod));
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
