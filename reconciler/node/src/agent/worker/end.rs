//! The end of a Pod: its containers, then its status, its network and its volumes, and last its object in the API.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{PAUSE, Seen, Worker};
use crate::agent::{cause, spec, stop, within};

/// For a Pod of which nothing more is known than that it is no more in the API.
const STRAY: Duration = Duration::from_secs(2);
/// Nobody gets less to end by himself, not even when the Pod has been taken away by force.
const LEAST: Duration = Duration::from_secs(1);
/// Between tries.
const LONGEST: Duration = Duration::from_secs(30);

impl Worker {
    /// Ends the Pod. Returns when nothing of it is left.
    pub(super) async fn end(&mut self) {
        self.probes.only_readiness();
        let mut pause = PAUSE;
        let mut seen = loop {
            match self.observe().await {
                Ok(seen) => break seen,
                Err(error) => {
                    tracing::warn!(
                        "observe pod {}/{}: {error}",
                        self.reference.namespace,
                        self.reference.name
                    );
                    self.rest(&mut pause).await;
                }
            }
        };
        let had_containers = !seen.containers.is_empty();
        self.stop_containers(&seen).await;
        if let Ok(fresh) = self.observe().await {
            seen = fresh;
        }
        if had_containers && let Some(pod) = self.present() {
            self.show(&pod, &seen, true);
        }
        self.clear(&seen).await;
        self.context.claims.release(&self.reference.uid);
        self.flush().await;
        self.context.config.directory.remove(&self.reference);
        self.delete().await;
    }

    /// The Pod as the API has it, if it still has it.
    fn present(&self) -> Option<Arc<Pod>> {
        let input = self.input.borrow();
        input.pod.clone().filter(|_| !input.gone)
    }

    async fn rest(&self, pause: &mut Duration) {
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(LONGEST);
    }

    /// How long containers get.
    fn grace(&self) -> Duration {
        let input = self.input.borrow();
        match &input.pod {
            Some(pod) => {
                Duration::from_secs(u64::try_from(spec::grace(pod)).unwrap_or(0)).max(LEAST)
            }
            None => STRAY,
        }
    }

    /// Ends the containers, telling of each; less grace that is asked for in between counts at once.
    async fn stop_containers(&mut self, seen: &Seen) {
        let began = Instant::now();
        let (hurry, deadline) = watch::channel(began + self.grace());
        let pod = self.input.borrow().pod.clone();
        let context = self.context.clone();
        let stopping = stop::all(
            &context,
            pod.as_deref(),
            &seen.containers,
            super::act::address(seen),
            deadline,
        );
        let mut stopping = std::pin::pin!(stopping);
        loop {
            tokio::select! {
                () = &mut stopping => return,
                changed = self.input.changed() => {
                    if changed.is_err() {
                        stopping.await;
                        return;
                    }
                    self.input.borrow_and_update();
                    let end = began + self.grace();
                    hurry.send_if_modified(|known| {
                        let sooner = end < *known;
                        *known = end.min(*known);
                        sooner
                    });
                }
                () = self.wake.rung() => {
                    // One has ended, or its readiness has changed.
                    let (Some(pod), Ok(seen)) = (self.present(), self.observe().await) else { continue };
                    self.memory.probed = self.probes.verdicts();
                    self.show(&pod, &seen, false);
                }
            }
        }
    }

    /// Unmakes all that the node has of it, again and again until nothing is left.
    async fn clear(&mut self, seen: &Seen) {
        let pod = self.input.borrow().pod.clone();
        let mut pause = PAUSE;
        for sandbox in &seen.sandboxes {
            while self
                .unmake_sandbox(pod.as_deref(), &sandbox.id)
                .await
                .is_err()
            {
                self.rest(&mut pause).await;
            }
        }
        let mut pause = PAUSE;
        while let Err(error) = self.volumes.remove().await {
            let reference = &self.reference;
            tracing::warn!(
                "remove volumes of pod {}/{}: {error}",
                reference.namespace,
                reference.name
            );
            self.rest(&mut pause).await;
        }
        let mut pause = PAUSE;
        for sandbox in &seen.sandboxes {
            while let Err(error) = self.context.runtime.remove_sandbox(&sandbox.id).await {
                let reference = &self.reference;
                tracing::warn!(
                    "remove sandbox of pod {}/{}: {error}",
                    reference.namespace,
                    reference.name
                );
                self.rest(&mut pause).await;
            }
        }
    }

    async fn wait_until_gone(&self) {
        let mut input = self.input.clone();
        if input.wait_for(|input| input.gone).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until the API has the last status, or has the Pod no more.
    async fn flush(&self) {
        tokio::select! {
            () = self.publisher.flush() => {}
            () = self.wait_until_gone() => {}
        }
    }

    /// Takes the Pod out of the API; another Pod of its name stays.
    async fn delete(&self) {
        if self.present().is_none() {
            return;
        }
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.reference.namespace);
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.reference.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let mut pause = Duration::from_millis(200);
        loop {
            let deleting = within(api.delete(&self.reference.name, &parameters));
            let deleted = tokio::select! {
                deleted = deleting => deleted,
                () = self.wait_until_gone() => return,
            };
            match deleted {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(error) => {
                    let reference = &self.reference;
                    tracing::warn!(
                        "delete pod {}/{}: {}",
                        reference.namespace,
                        reference.name,
                        cause(&error)
                    );
                    self.rest(&mut pause).await;
                }
            }
        }
    }
}
