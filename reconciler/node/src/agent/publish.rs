//! Tells a Pod's status to the API: the newest, one request at a time, again and again until it is taken.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::status::own;
use super::{cause, spec, within};
use crate::runtime::PodRef;

/// Of one Pod; ends with it.
pub struct Publisher {
    wanted: watch::Sender<Wanted>,
    told: watch::Receiver<Told>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Wanted {
    status: Option<PodStatus>,
    number: u64,
}

/// What has been taken, and the version of the object that came of it.
#[derive(Clone, Default)]
struct Told {
    number: u64,
    version: u64,
    gone: bool,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Publisher {
    /// Has told nothing yet.
    pub fn new(client: Client, pod: PodRef) -> Self {
        let (wanted, from) = watch::channel(Wanted::default());
        let (to, told) = watch::channel(Told::default());
        let task = tokio::spawn(publish(client, pod, from, to));
        Self { wanted, told, task }
    }

    /// Wants the API to have this. `pod`: as the API had it when last seen.
    pub fn put(&self, pod: &Pod, status: &PodStatus) {
        let is_there = spec::status(pod).is_some_and(|known| own(known) == *status);
        let same = {
            let (wanted, told) = (self.wanted.borrow(), self.told.borrow());
            match &wanted.status {
                None => is_there,
                // On its way; or what was seen of the Pod is older than what has been told since.
                Some(newest) => {
                    newest == status
                        && (wanted.number > told.number || version(pod) <= told.version || is_there)
                }
            }
        };
        if !same {
            self.wanted.send_modify(|wanted| {
                wanted.number += 1;
                wanted.status = Some(status.clone());
            });
        }
    }

    /// Waits until the newest has been taken, or the Pod is gone.
    pub async fn flush(&self) {
        let number = self.wanted.borrow().number;
        let mut told = self.told.clone();
        // An end of the task is the end of the Pod.
        let _ = told
            .wait_for(|told| told.number >= number || told.gone)
            .await;
    }
}

/// Of the object; they grow.
fn version(pod: &Pod) -> u64 {
    let text = pod.metadata.resource_version.as_deref().unwrap_or_default();
    text.parse().unwrap_or(0)
}

async fn publish(
    client: Client,
    pod: PodRef,
    mut from: watch::Receiver<Wanted>,
    to: watch::Sender<Told>,
) {
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace);
    let mut pause = Duration::from_millis(200);
    while from.changed().await.is_ok() {
        loop {
            let wanted = from.borrow_and_update().clone();
            let Some(status) = &wanted.status else { break };
            let patch = match patch(&pod, status) {
                Ok(patch) => patch,
                Err(error) => {
                    tracing::error!("status of pod {}/{}: {error}", pod.namespace, pod.name);
                    break;
                }
            };
            let patched = within(api.patch_status(
                &pod.name,
                &PatchParams::default(),
                &Patch::Strategic(&patch),
            ))
            .await;
            match patched {
                Ok(object) => {
                    pause = Duration::from_millis(200);
                    to.send_modify(|told| {
                        told.number = wanted.number;
                        told.version = version(&object);
                    });
                    break;
                }
                // Gone, or another of this name.
                Err(kube::Error::Api(error))
                    if matches!(error.code, 404 | 409) && is_gone(&error.message, error.code) =>
                {
                    to.send_modify(|told| told.gone = true);
                    break;
                }
                Err(error) => {
                    tracing::warn!(
                        "status of pod {}/{}: {}",
                        pod.namespace,
                        pod.name,
                        cause(&error)
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        }
    }
}

/// A conflict because of the uid will not go away.
fn is_gone(message: &str, code: u16) -> bool {
    code == 404 || message.to_lowercase().contains("uid")
}

/// Absent fields are taken away, lists of addresses replaced, conditions of others kept.
fn patch(pod: &PodRef, status: &PodStatus) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(status)?;
    if let Some(fields) = value.as_object_mut() {
        for field in [
            "reason",
            "message",
            "podIP",
            "podIPs",
            "initContainerStatuses",
        ] {
            fields.entry(field).or_insert(Value::Null);
        }
        for field in ["podIPs", "hostIPs"] {
            if let Some(list) = fields.get_mut(field).and_then(Value::as_array_mut) {
                list.insert(0, json!({"$patch": "replace"}));
            }
        }
        for condition in fields
            .get_mut("conditions")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(condition) = condition.as_object_mut() {
                for field in ["reason", "message"] {
                    condition.entry(field).or_insert(Value::Null);
                }
            }
        }
    }
    Ok(json!({"metadata": {"uid": pod.uid}, "status": value}))
}
