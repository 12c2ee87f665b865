//! Makes sandboxes and starts containers, with the events that tell of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Seen, Worker, facts};
use crate::agent::dns::{self, Site};
use crate::agent::events::Kind;
use crate::agent::memory::Trouble;
use crate::agent::start::{self, Names};
use crate::agent::{Context, backoff, env, hooks, spec, stop};
use crate::runtime::{ContainerConfig, Error, Image, SandboxStatus};

/// The first wait when something that the container is made from is missing.
const CONFIG: Duration = Duration::from_secs(2);

/// Why there is no sandbox.
pub struct Refused {
    pub reason: &'static str,
    pub message: String,
}

/// Makes a sandbox.
pub async fn sandbox(context: &Context, pod: &Pod, attempt: u32) -> Result<SandboxStatus, Refused> {
    if !spec::host_network(pod)
        && let Some(why) = context.runtime.network_unready().await
    {
        return Err(Refused {
            reason: "NetworkNotReady",
            message: format!(
                "network is not ready: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{why}"
            ),
        });
    }
    let failed = |message: String| Refused {
        reason: "FailedCreatePodSandBox",
        message: format!("Failed to create pod sandbox: {message}"),
    };
    let names = names(context, pod).await.map_err(failed)?;
    let config = start::sandbox(pod, attempt, names);
    // It is never closed.
    let _slot = context.sandboxes.acquire().await;
    context
        .runtime
        .run_sandbox(&config)
        .await
        .map_err(|error| failed(error.to_string()))
}

async fn names(context: &Context, pod: &Pod) -> Result<Names, String> {
    let config = &context.config;
    let read = |path: std::path::PathBuf| async move { tokio::fs::read_to_string(path).await };
    let own = read(config.resolv_conf.clone())
        .await
        .map_err(|error| format!("read {}: {error}", config.resolv_conf.display()))?;
    let site = Site {
        servers: &config.cluster_dns,
        domain: &config.cluster_domain,
        resolv_conf: &own,
    };
    let (resolv_conf, complaints) = dns::resolv_conf(pod, site);
    for (reason, message) in complaints {
        context
            .recorder
            .pod(pod, None, Kind::Warning, reason, message);
    }
    let (hostname, full_name) = dns::hostname(pod, &config.cluster_domain)?;
    let hosts = if spec::host_network(pod) {
        read("/etc/hosts".into()).await.ok()
    } else {
        None
    };
    Ok(Names {
        hostname: if spec::host_network(pod) {
            config.node_name.clone()
        } else {
            hostname
        },
        full_name: full_name.unwrap_or_default(),
        resolv_conf,
        hosts: dns::hosts(pod, hosts.as_deref()),
    })
}

/// Gets the images ready. What fails fails again, and is told, when its container is to start.
pub async fn images(context: &Context, pod: &Pod) {
    let names = spec::all(pod).filter_map(|(_, container)| container.image.as_deref());
    join_all(names.map(|name| async move {
        if let Err(error) = context.runtime.ensure_image(name, false).await {
            tracing::debug!("image {name}: {error}");
        }
    }))
    .await;
}

impl Worker {
    /// Starts a container; whether one has been made.
    pub(super) async fn start(
        &mut self,
        pod: &Arc<Pod>,
        seen: &Seen,
        name: &str,
        attempt: u32,
    ) -> bool {
        let Some((_, container)) = spec::container(pod, name) else {
            return false;
        };
        if !self.are_volumes_made {
            self.make_volumes(pod, &facts(&self.context, seen)).await;
            if !self.are_volumes_made {
                return false;
            }
        }
        let Some(image) = self.image(pod, container).await else {
            return false;
        };
        let config = match self.config(pod, container, attempt, image, seen).await {
            Ok(config) => config,
            Err(message) => {
                self.fail(pod, name, "CreateContainerConfigError", message, CONFIG);
                return false;
            }
        };
        let Some(sandbox) = seen
            .sandboxes
            .iter()
            .max_by_key(|sandbox| sandbox.config.attempt)
        else {
            return false;
        };
        let runtime = self.context.runtime.clone();
        let id = match runtime.create_container(&sandbox.id, &config).await {
            Ok(id) => id,
            Err(error) => {
                self.fail(pod, name, "CreateContainerError", error.to_string(), CONFIG);
                return false;
            }
        };
        let recorder = self.context.recorder.clone();
        recorder.pod(
            pod,
            Some(name),
            Kind::Normal,
            "Created",
            format!("Created container: {name}"),
        );
        if let Err(error) = runtime.start_container(&id).await {
            let message = format!("failed to start container {id:?}: {error}");
            self.fail(pod, name, "RunContainerError", message, Duration::ZERO);
            return true;
        }
        recorder.pod(
            pod,
            Some(name),
            Kind::Normal,
            "Started",
            format!("Started container {name}"),
        );
        self.memory.troubles.remove(name);
        self.after_start(pod, container, seen, &id).await;
        true
    }

    /// Runs the postStart hook; a container whose hook fails is ended.
    async fn after_start(&mut self, pod: &Arc<Pod>, container: &Container, seen: &Seen, id: &str) {
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(hook) = hook else { return };
        let ip = super::act::address(seen);
        let mut input = self.input.clone();
        let interrupted = async {
            // Told by the API that the Pod is to end: its hook need not.
            let ends = |input: &super::Input| {
                input.gone
                    || input
                        .pod
                        .as_ref()
                        .is_some_and(|pod| pod.metadata.deletion_timestamp.is_some())
            };
            if input.wait_for(ends).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let result = tokio::select! {
            result = hooks::run(&self.context, hook, container, id, ip) => result,
            () = interrupted => return,
        };
        let Err(error) = result else { return };
        let message = format!("PostStartHook failed: {error}");
        self.context.recorder.pod(
            pod,
            Some(&container.name),
            Kind::Warning,
            "FailedPostStartHook",
            message,
        );
        if let Ok(status) = self.context.runtime.container(id).await {
            let grace = Duration::from_secs(u64::try_from(spec::grace(pod)).unwrap_or(0));
            let message = "FailedPostStartHook".to_owned();
            stop::one(
                &self.context,
                Some(pod),
                &status,
                ip,
                stop::fixed(grace),
                message,
            )
            .await;
        }
    }

    async fn image(&mut self, pod: &Pod, container: &Container) -> Option<Image> {
        let name = container.image.as_deref().unwrap_or_default();
        let policy = container.image_pull_policy.as_deref();
        let recorder = self.context.recorder.clone();
        let field = Some(&*container.name);
        let error = match self
            .context
            .runtime
            .ensure_image(name, policy == Some("Always"))
            .await
        {
            Ok(image) => {
                let message = format!("Container image {name:?} already present on machine");
                recorder.pod(pod, field, Kind::Normal, "Pulled", message);
                return Some(image);
            }
            Err(error) => error,
        };
        match &error {
            Error::InvalidImageName(text) => {
                let message = format!(
                    "Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: {text}"
                );
                recorder.pod(pod, field, Kind::Warning, "InspectFailed", message.clone());
                self.fail(
                    pod,
                    &container.name,
                    "InvalidImageName",
                    message,
                    backoff::FIRST,
                );
            }
            error if policy == Some("Never") => {
                let message = format!(
                    "Container image {name:?} is not present with pull policy of Never: {error}"
                );
                recorder.pod(
                    pod,
                    field,
                    Kind::Warning,
                    "ErrImageNeverPull",
                    message.clone(),
                );
                self.fail(
                    pod,
                    &container.name,
                    "ErrImageNeverPull",
                    message,
                    backoff::FIRST,
                );
            }
            error => {
                let message = format!("Failed to pull image {name:?}: {error}");
                recorder.pod(pod, field, Kind::Warning, "Failed", message.clone());
                self.fail(
                    pod,
                    &container.name,
                    "ErrImagePull",
                    message,
                    backoff::FIRST,
                );
            }
        }
        None
    }

    async fn config(
        &self,
        pod: &Pod,
        container: &Container,
        attempt: u32,
        image: Image,
        seen: &Seen,
    ) -> Result<ContainerConfig, String> {
        let links = spec::spec(pod).and_then(|spec| spec.enable_service_links) != Some(false);
        let services = self
            .context
            .services
            .variables(spec::namespace(pod), links)
            .await?;
        let held = self.held.as_ref().ok_or("its objects are not known yet")?;
        held.known(Duration::from_secs(10)).await?;
        let known = facts(&self.context, seen);
        let variables = env::environment(pod, container, services, held, &known)?;
        let mounts = self.volumes.mounts(pod, container, &variables)?;
        start::container(pod, container, attempt, image, variables, mounts)
    }

    /// Remembers a failure and tells of it.
    fn fail(&mut self, pod: &Pod, name: &str, reason: &str, message: String, first: Duration) {
        let text = match reason {
            "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName" => format!("Error: {reason}"),
            _ => format!("Error: {message}"),
        };
        self.context
            .recorder
            .pod(pod, Some(name), Kind::Warning, "Failed", text);
        let earlier = self.memory.troubles.get(name);
        let again = earlier
            .is_some_and(|earlier| earlier.reason.contains("Image") == reason.contains("Image"));
        let earlier = earlier.filter(|_| again);
        let trouble = Trouble::new(reason, message, earlier, first, Timestamp::now());
        self.memory.troubles.insert(name.to_owned(), trouble);
    }
}
