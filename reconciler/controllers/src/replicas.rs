//! ReplicaSet and ReplicationController: as many Pods as are wanted, no more and no fewer.
//!
//! One implementation over two kinds; they differ in their selectors (a ReplicationController's is a map of labels)
//! and in where their fields are. [`plan`](mod@plan) decides; this module carries it out: Pods are made in batches that
//! double, so that a quota or a webhook that refuses them is asked once and not a hundred times.

mod kind;
mod plan;
mod rank;

use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::PostParams;

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::controller::{self, Again};
use crate::kept::Kept;
use crate::owned;
use crate::pod_writes;
use crate::trouble::{Tried, Trouble};
pub(crate) use kind::Replicated;
use plan::{Failure, Plan};

/// Runs the ReplicaSet controller.
pub async fn replica_sets(cluster: Cluster) {
    let kept = cluster.replica_sets.clone();
    run(cluster, kept).await;
}

/// Runs the ReplicationController controller.
pub async fn replication_controllers(cluster: Cluster) {
    let kept = cluster.replication_controllers.clone();
    run(cluster, kept).await;
}

async fn run<R: Replicated>(cluster: Cluster, kept: Kept<R>) {
    let all = kept.clone();
    let by_pods = controller::related_changes(&cluster.pods, move |change| {
        controller::owners(change, &all, |owner: &R, pod: &Pod| {
            owned::selects(owner.selector().as_ref(), pod)
        })
    });
    let requests = stream::select(controller::own_changes(&kept), by_pods);
    cluster.pods.ready().await;
    controller::run(R::COMPONENT, &kept, requests, |owner| {
        bring(&cluster, &kept, owner)
    })
    .await;
}

/// Brings one owner's Pods and status to what is wanted.
async fn bring<R: Replicated>(
    cluster: &Cluster,
    kept: &Kept<R>,
    owner: Arc<R>,
) -> Result<Again, Trouble> {
    let selector = owner.selector();
    let selector = owned::selector(selector.as_ref())?;
    let pods = owned::claim(cluster, &cluster.pods, owner.as_ref(), selector.as_ref()).await?;
    let related = related(cluster, kept, owner.as_ref());
    let now = Timestamp::now();
    let Plan { create, delete, .. } = plan::plan(owner.as_ref(), &pods, &related, now);
    let outcome = if create > 0 {
        let pod = owner
            .template()
            .map(|template| owned::pod_of(owner.as_ref(), template));
        let pods = pod.into_iter().cycle().take(create).collect();
        pod_writes::create_all(cluster, R::COMPONENT, owner.as_ref(), pods).await
    } else {
        let gone = delete
            .iter()
            .map(|pod| pod_writes::delete(cluster, R::COMPONENT, owner.as_ref(), pod, false));
        join_all(gone).await.into_iter().collect()
    };
    let (failure, trouble) = match outcome {
        Ok(()) => (None, None),
        Err(trouble) if trouble.ends_with_namespace() => (None, None),
        Err(trouble) => {
            let reason = if create > 0 {
                "FailedCreate"
            } else {
                "FailedDelete"
            };
            (
                Some(Failure {
                    reason,
                    message: trouble.said(),
                }),
                Some(trouble),
            )
        }
    };
    // The Pods as they are now: the status must not lag a round behind.
    let pods = owned::plan_claim(
        owner.meta(),
        selector.as_ref(),
        cluster.pods.within(&owner.namespace().unwrap_or_default()),
    )
    .owned;
    let Plan { status, again, .. } = plan::plan(owner.as_ref(), &pods, &related, now);
    write_status(
        cluster,
        kept,
        owner.as_ref(),
        plan::with_failure(status, failure, now),
    )
    .await?;
    trouble.map_or(Ok(again), Err)
}

/// The Pods of all owners that the same controller has, for instance of all ReplicaSets of one Deployment: where two
/// of them share a node, one is deleted first.
fn related<R: Replicated>(cluster: &Cluster, kept: &Kept<R>, owner: &R) -> Vec<Arc<Pod>> {
    let namespace = owner.namespace().unwrap_or_default();
    let mine = owner.uid().unwrap_or_default();
    let siblings: Vec<String> = match controller::controller_of(owner) {
        None => vec![mine],
        Some(parent) => {
            let same = |object: &Arc<R>| {
                controller::controller_of(object.as_ref())
                    .is_some_and(|other| other.uid == parent.uid)
            };
            kept.within(&namespace)
                .into_iter()
                .filter(same)
                .filter_map(|object| object.uid())
                .collect()
        }
    };
    let owned = |pod: &Arc<Pod>| {
        controller::controller_of(pod.as_ref()).is_some_and(|owner| siblings.contains(&owner.uid))
    };
    cluster
        .pods
        .within(&namespace)
        .into_iter()
        .filter(owned)
        .collect()
}

async fn write_status<R: Replicated>(
    cluster: &Cluster,
    kept: &Kept<R>,
    owner: &R,
    status: plan::Status,
) -> Result<(), Trouble> {
    let Some(changed) = owner.with_status(status) else {
        return Ok(());
    };
    let (namespace, name) = (owner.namespace().unwrap_or_default(), owner.name_any());
    let api = cluster.api::<R>(&namespace);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    match api.replace_status(&name, &params, &changed).await {
        Ok(written) => kept.seen(&written).await,
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => Err(error)
            .tried(|| format!("write the status of {} {namespace}/{name}", R::kind(&())))?,
    }
    Ok(())
}
