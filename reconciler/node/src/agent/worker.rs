//! One Pod's worker: observes, plans, acts, tells; one step after another, until the Pod is gone.

mod act;
mod begin;
mod end;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::Context;
use super::events::Kind;
use super::fields::Facts;
use super::memory::Memory;
use super::objects::Held;
use super::plan::{self, View};
use super::probes::Probes;
use super::publish::Publisher;
use super::spec;
use super::status::{self, Host};
use super::volumes::Volumes;
use super::wake::Wake;
use crate::directory::Entry;
use crate::runtime::{ContainerStatus, Error, PodRef, SandboxStatus};

/// Steps without a pause; then others get their turn.
const ROUNDS: usize = 50;
/// Before the runtime is asked again after it failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What the API says of a Pod.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The Pod; absent if the API never told of it.
    pub pod: Option<Arc<Pod>>,
    /// It is no more in the API.
    pub gone: bool,
}

/// What the runtime has of a Pod.
#[derive(Clone, Debug, Default)]
struct Seen {
    sandboxes: Vec<SandboxStatus>,
    containers: Vec<ContainerStatus>,
}

/// A worker.
pub struct Worker {
    context: Arc<Context>,
    reference: PodRef,
    input: watch::Receiver<Input>,
    wake: Arc<Wake>,
    memory: Memory,
    probes: Probes,
    volumes: Volumes,
    /// They have been made since the agent began.
    are_volumes_made: bool,
    held: Option<Held>,
    /// Labels and annotations that the volumes were made with.
    told_meta: Option<Meta>,
    publisher: Publisher,
    /// Of containers, by the number of the ended one, that they wait for their next start.
    said_waiting: BTreeMap<String, u32>,
    /// The same of images, by when getting them failed.
    said_pulling: BTreeMap<String, Timestamp>,
}

type Meta = (
    Option<BTreeMap<String, String>>,
    Option<BTreeMap<String, String>>,
);

impl Worker {
    /// A worker that has not looked yet.
    ///
    /// # Errors
    /// The Pod's uid is no name for a folder.
    pub fn new(
        context: Arc<Context>,
        reference: PodRef,
        input: watch::Receiver<Input>,
        wake: Arc<Wake>,
    ) -> Result<Self, String> {
        Ok(Self {
            volumes: Volumes::new(&context.config.data, &reference.uid)?,
            publisher: Publisher::new(context.client.clone(), reference.clone()),
            context,
            reference,
            input,
            wake,
            memory: Memory::default(),
            probes: Probes::default(),
            are_volumes_made: false,
            held: None,
            told_meta: None,
            said_waiting: BTreeMap::new(),
            said_pulling: BTreeMap::new(),
        })
    }

    /// Works until nothing of the Pod is left, or the agent ends.
    pub async fn run(mut self) {
        let mut closing = self.context.closing.clone();
        loop {
            let input = self.input.borrow_and_update().clone();
            let wake = match input.pod {
                Some(pod) if !input.gone && pod.metadata.deletion_timestamp.is_none() => {
                    self.sync(&pod).await
                }
                _ => {
                    tokio::select! {
                        () = self.end() => {}
                        // What is half ended is taken up by the next agent.
                        _ = closing.wait_for(|closing| *closing) => {}
                    }
                    return;
                }
            };
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep(until(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.rung() => {}
                changed = self.input.changed() => if changed.is_err() { return },
                () = sleep => {}
                _ = closing.wait_for(|closing| *closing) => return,
            }
        }
    }

    /// Whether what is being done has become pointless.
    fn is_interrupted(&self) -> bool {
        let input = self.input.borrow();
        let is_deleted = |pod: &Arc<Pod>| pod.metadata.deletion_timestamp.is_some();
        input.gone || input.pod.as_ref().is_some_and(is_deleted) || *self.context.closing.borrow()
    }

    /// Steps until there is nothing to do; when to look again.
    async fn sync(&mut self, pod: &Arc<Pod>) -> Option<Timestamp> {
        self.memory.seen.get_or_insert_with(Timestamp::now);
        if self.held.is_none() {
            self.held = Some(Held::new(&self.context.objects, pod, &self.wake));
        }
        self.forgive(pod);
        for _ in 0..ROUNDS {
            let seen = match self.observe().await {
                Ok(seen) => seen,
                Err(error) => {
                    tracing::warn!("observe pod {}: {error}", spec::full_name(pod));
                    return Some(soon(PAUSE));
                }
            };
            let (plan, _) = self.consider(pod, &seen);
            self.show(pod, &seen, false);
            for (name, attempt) in &plan.waiting {
                if self.said_waiting.insert(name.clone(), *attempt) != Some(*attempt) {
                    let message = format!(
                        "Back-off restarting failed container {name} in pod {}",
                        spec::full_name(pod)
                    );
                    self.context
                        .recorder
                        .pod(pod, Some(name), Kind::Warning, "BackOff", message);
                }
            }
            for name in &plan.pulling {
                self.tell_pulling(pod, name);
            }
            if plan.actions.is_empty() {
                let renewal = self.follow_volumes(pod, &seen).await;
                return [plan.wake, renewal].into_iter().flatten().min();
            }
            for action in plan.actions {
                if self.is_interrupted() {
                    return None;
                }
                if let Err(wait) = self.act(pod, &seen, action).await {
                    return Some(soon(wait));
                }
            }
            if self.is_interrupted() {
                return None;
            }
            // A fresher Pod may have come, with other conditions.
            if self.input.has_changed().unwrap_or(true) {
                return Some(Timestamp::now());
            }
        }
        Some(soon(PAUSE))
    }

    /// Tells once for each failure that an image is waited for.
    fn tell_pulling(&mut self, pod: &Pod, name: &str) {
        let failed = self.memory.troubles.get(name).map(|trouble| trouble.failed);
        let known = self.said_pulling.get(name).copied();
        let Some(failed) = failed.filter(|failed| known != Some(*failed)) else {
            return;
        };
        self.said_pulling.insert(name.to_owned(), failed);
        let image = spec::container(pod, name).and_then(|(_, container)| container.image.clone());
        let message = format!("Back-off pulling image {:?}", image.unwrap_or_default());
        let recorder = &self.context.recorder;
        recorder.pod(pod, Some(name), Kind::Normal, "BackOff", message);
        recorder.pod(
            pod,
            Some(name),
            Kind::Warning,
            "Failed",
            "Error: ImagePullBackOff",
        );
    }

    /// What has changed may cure what failed.
    fn forgive(&mut self, pod: &Pod) {
        let now = Timestamp::now();
        let retry = self.wake.take_retry();
        let stale = self.wake.take_stale();
        let meta = (
            pod.metadata.labels.clone(),
            pod.metadata.annotations.clone(),
        );
        if stale || self.told_meta.as_ref() != Some(&meta) {
            self.are_volumes_made = false;
            self.told_meta = Some(meta);
        }
        let cured = |reason: &str| match reason {
            "ErrImagePull" | "ImagePullBackOff" => retry,
            "CreateContainerConfigError" => stale,
            _ => false,
        };
        for trouble in self.memory.troubles.values_mut() {
            if cured(&trouble.reason) {
                trouble.retry = now;
            }
        }
        if let Some(trouble) = self.memory.sandbox.as_mut().filter(|_| retry) {
            trouble.retry = now;
        }
        if let Some(trouble) = self.memory.volumes.as_mut().filter(|_| stale) {
            trouble.retry = now;
        }
    }

    async fn observe(&self) -> Result<Seen, Error> {
        let runtime = &self.context.runtime;
        let uid = &self.reference.uid;
        let mut seen = Seen {
            sandboxes: runtime.sandboxes().await?,
            containers: runtime.containers().await?,
        };
        seen.sandboxes
            .retain(|sandbox| sandbox.config.pod.uid == *uid);
        seen.containers
            .retain(|container| container.pod.uid == *uid);
        Ok(seen)
    }

    /// What to do, and the status, from what has been seen.
    fn consider(&mut self, pod: &Pod, seen: &Seen) -> (plan::Plan, Timestamp) {
        self.memory.probed = self.probes.verdicts();
        let now = Timestamp::now();
        let newest = seen
            .sandboxes
            .iter()
            .max_by_key(|sandbox| sandbox.config.attempt);
        if let Some(sandbox) = newest.filter(|sandbox| !sandbox.ips.is_empty()) {
            self.memory.ips.clone_from(&sandbox.ips);
        }
        let view = view(pod, seen, &self.memory, now);
        self.probes.follow(&self.context, &view, &self.wake);
        (plan::plan(&view), now)
    }

    /// Tells the API and the directory.
    fn show(&self, pod: &Pod, seen: &Seen, last: bool) {
        let view = view(pod, seen, &self.memory, Timestamp::now());
        let host = Host {
            ips: &self.context.config.node_ips,
            runtime: self.context.runtime.name().0,
        };
        let status = status::status(&view, host, last);
        let waiting = |name: &str| {
            [&status.init_container_statuses, &status.container_statuses]
                .into_iter()
                .flatten()
                .flatten()
                .find(|status| status.name == name)
                .and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone())
                .unwrap_or_default()
        };
        let names: Vec<_> = spec::all(pod)
            .map(|(_, container)| (container.name.clone(), waiting(&container.name)))
            .collect();
        let mut containers = Vec::new();
        for (name, _) in &names {
            containers.extend(view.named(name).into_iter().cloned());
        }
        self.context.config.directory.put(Entry {
            pod: self.reference.clone(),
            default_container: default_container(pod),
            names,
            sandbox: view.sandbox().cloned(),
            containers,
        });
        self.publisher.put(pod, &status);
    }

    /// Makes volumes follow what they are made from; when to look again.
    async fn follow_volumes(&mut self, pod: &Pod, seen: &Seen) -> Option<Timestamp> {
        let now = Timestamp::now();
        let is_due = self.volumes.renewal().is_some_and(|renewal| renewal <= now);
        let runs = seen.sandboxes.iter().any(|sandbox| sandbox.ready);
        let waits = self
            .memory
            .volumes
            .as_ref()
            .is_some_and(|trouble| trouble.retry > now);
        if runs && !waits && (!self.are_volumes_made || is_due) {
            self.make_volumes(pod, &facts(&self.context, seen)).await;
        }
        let trouble = self.memory.volumes.as_ref().map(|trouble| trouble.retry);
        if runs {
            trouble.or(self.volumes.renewal())
        } else {
            None
        }
    }
}

fn view<'a>(pod: &'a Pod, seen: &'a Seen, memory: &'a Memory, now: Timestamp) -> View<'a> {
    View {
        pod,
        sandboxes: &seen.sandboxes,
        containers: &seen.containers,
        memory,
        now,
    }
}

/// `kubectl.kubernetes.io/default-container`, else the first.
fn default_container(pod: &Pod) -> String {
    pod.metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get("kubectl.kubernetes.io/default-container"))
        .filter(|name| spec::container(pod, name).is_some())
        .cloned()
        .or_else(|| {
            spec::containers(pod)
                .first()
                .map(|first| first.name.clone())
        })
        .unwrap_or_default()
}

fn facts(context: &Context, seen: &Seen) -> Facts {
    let newest = seen
        .sandboxes
        .iter()
        .max_by_key(|sandbox| sandbox.config.attempt);
    let ips = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect();
    let reserved = context.config.reserved;
    Facts {
        pod_ips: newest.map(|sandbox| ips(&sandbox.ips)).unwrap_or_default(),
        host_ips: ips(&context.config.node_ips),
        cpu: (context.machine.cpus * 1000).saturating_sub(reserved.cpu),
        memory: context.machine.memory.saturating_sub(reserved.memory),
    }
}

fn soon(wait: Duration) -> Timestamp {
    super::backoff::after(Timestamp::now(), wait)
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}
