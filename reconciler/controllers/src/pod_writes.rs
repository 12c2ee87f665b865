//! The Pods that a controller makes and removes, with the events that tell of it.

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::kept::Kind;
use crate::pod;
use crate::trouble::{Tried, Trouble};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{DeleteParams, PostParams, Preconditions};

/// Makes Pods for `owner`: one first, and when that worked more and more at the same time, so that a Pod that the
/// server refuses is not tried a hundred times. All that were made have come back by the watch when this returns.
///
/// # Errors
/// The first refusal; what was made before stays.
pub async fn create_all<O: Kind>(
    cluster: &Cluster,
    source: &'static str,
    owner: &O,
    pods: Vec<Pod>,
) -> Result<(), Trouble> {
    let mut waiting = pods.into_iter();
    let mut at_once = 1;
    loop {
        let batch: Vec<Pod> = waiting.by_ref().take(at_once).collect();
        if batch.is_empty() {
            return Ok(());
        }
        let made = batch
            .into_iter()
            .map(|pod| create(cluster, source, owner, pod));
        join_all(made)
            .await
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        at_once *= 2;
    }
}

/// Makes one Pod, and waits until it has come back by the watch.
///
/// # Errors
/// The server refuses it. An event of the owner tells why.
pub async fn create<O: Kind>(
    cluster: &Cluster,
    source: &'static str,
    owner: &O,
    pod: Pod,
) -> Result<Pod, Trouble> {
    let made = post(cluster, &pod).await;
    let recorder = &cluster.recorder;
    match &made {
        Ok(made) => {
            let message = format!("Created pod: {}", pod::name(made));
            recorder.normal(source, owner, "SuccessfulCreate", message);
        }
        Err(trouble) if trouble.ends_with_namespace() => {}
        Err(trouble) => {
            let message = format!("Error creating: {}", trouble.said());
            recorder.warning(source, owner, "FailedCreate", message);
        }
    }
    made
}

/// Makes one Pod without an event, and waits until it has come back by the watch.
///
/// # Errors
/// The server refuses it.
pub async fn post(cluster: &Cluster, pod: &Pod) -> Result<Pod, Trouble> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let made = cluster.api::<Pod>(namespace).create(&params, pod).await;
    let made = made.tried(|| {
        let name = pod.metadata.name.as_ref();
        let name = name.or(pod.metadata.generate_name.as_ref());
        format!("create Pod {namespace}/{}", name.map_or("", String::as_str))
    })?;
    cluster.pods.seen(&made).await;
    Ok(made)
}

/// Begins a Pod's deletion, unless it is another one by now, and waits until that has come back. `at_once`: nobody is
/// left who would end its containers.
///
/// # Errors
/// The server refuses it. An event of the owner tells why. A Pod that is gone is no error.
pub async fn delete<O: Kind>(
    cluster: &Cluster,
    source: &'static str,
    owner: &O,
    pod: &Pod,
    at_once: bool,
) -> Result<(), Trouble> {
    let recorder = &cluster.recorder;
    match remove(cluster, pod, at_once).await {
        Ok(()) => {
            let message = format!("Deleted pod: {}", pod::name(pod));
            recorder.normal(source, owner, "SuccessfulDelete", message);
            Ok(())
        }
        Err(trouble) => {
            let message = format!("Error deleting: {}", trouble.said());
            recorder.warning(source, owner, "FailedDelete", message);
            Err(trouble)
        }
    }
}

/// As [`delete`], without an event.
///
/// # Errors
/// The server refuses it. A Pod that is gone is no error.
pub async fn remove(cluster: &Cluster, pod: &Pod, at_once: bool) -> Result<(), Trouble> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let params = DeleteParams {
        grace_period_seconds: at_once.then_some(0),
        preconditions: Some(Preconditions {
            uid: pod.meta().uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let name = pod::name(pod);
    match cluster.api::<Pod>(namespace).delete(name, &params).await {
        // 409: the Pod of this name is another one.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        answer => {
            answer.tried(|| format!("delete Pod {namespace}/{name}"))?;
            cluster.pods.seen_gone(pod).await;
            Ok(())
        }
    }
}
