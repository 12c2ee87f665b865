//! Deployment: moves Pods from old ReplicaSets to the one of its present template, without ever having too many or too
//! few.
//!
//! [`plan`](mod@plan) decides from the Deployment and its ReplicaSets alone (and, for `Recreate`, from the Pods that
//! still run); this module carries the decision out. The label `pod-template-hash` is made as Kubernetes makes it, but
//! of another digest, since Kubernetes' own depends on how Go prints a structure; a ReplicaSet is found by comparing
//! templates, never by the hash, so ReplicaSets of either origin are taken over.
//!
//! Not built: `spec.rollbackTo` of the long gone extensions/v1beta1.

mod limits;
mod plan;
mod revision;
mod rollout;
mod scale;
mod status;

use std::sync::Arc;

use futures_util::stream;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use serde_json::json;

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::controller::{self, Again, controller_of, owner};
use crate::kept::Change;
use crate::owned;
use crate::pod;
use crate::replicas::Replicated;
use crate::trouble::{Tried, Trouble};
use plan::Plan;

/// The controller's name in events.
const COMPONENT: &str = "deployment-controller";

/// Runs the Deployment controller.
pub async fn run(cluster: Cluster) {
    let all = cluster.deployments.clone();
    let by_sets = controller::related_changes(&cluster.replica_sets, move |change| {
        controller::owners(change, &all, |owner: &Deployment, set: &ReplicaSet| {
            owned::selects(owner.spec.as_ref().map(|spec| &spec.selector), set)
        })
    });
    let by_pods = controller::related_changes(&cluster.pods, {
        let cluster = cluster.clone();
        move |change| recreating(&cluster, change).into_iter().collect()
    });
    let own = controller::own_changes(&cluster.deployments);
    let requests = stream::select(own, stream::select(by_sets, by_pods));
    cluster.replica_sets.ready().await;
    cluster.pods.ready().await;
    let bring = |deployment| bring(&cluster, deployment);
    controller::run(COMPONENT, &cluster.deployments, requests, bring).await;
}

/// The Deployment that waits for the end of its old Pods, if the change is the end of one.
fn recreating(cluster: &Cluster, change: &Change<Pod>) -> Option<ObjectRef<Deployment>> {
    let ended = change.new.as_ref().is_none_or(|new| pod::has_ended(new));
    let pod = change
        .old
        .as_ref()
        .filter(|old| ended && !pod::has_ended(old))?;
    let namespace = pod.namespace().unwrap_or_default();
    let set = cluster
        .replica_sets
        .get(&namespace, &owner::<ReplicaSet>(pod.as_ref())?.name)?;
    let deployment = owner::<Deployment>(set.as_ref())?;
    let kept = cluster.deployments.get(&namespace, &deployment.name)?;
    limits::recreates(&kept).then_some(deployment)
}

/// Brings one Deployment's ReplicaSets and status to what is wanted.
async fn bring(cluster: &Cluster, deployment: Arc<Deployment>) -> Result<Again, Trouble> {
    let namespace = deployment.namespace().unwrap_or_default();
    let selector = owned::selector(deployment.spec.as_ref().map(|spec| &spec.selector))?;
    if selector.is_none() {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        cluster
            .recorder
            .warning(COMPONENT, deployment.as_ref(), "SelectingAll", message);
        return Ok(None);
    }
    let sets = owned::claim(
        cluster,
        &cluster.replica_sets,
        deployment.as_ref(),
        selector.as_ref(),
    )
    .await?;
    let pods = if limits::recreates(&deployment) {
        pods_of(cluster, &namespace, &sets)
    } else {
        Vec::new()
    };
    let now = Timestamp::now();
    let plan = plan::plan(&deployment, &sets, &pods, now);
    let mut deployment = deployment.as_ref().clone();
    if let Some(new) = &plan.create
        && let Err(trouble) = create(cluster, &deployment, new).await
    {
        if let Some(status) = status::after_failed_create(&deployment, new, &trouble, now) {
            write_status(cluster, &deployment, status).await?;
        }
        return Err(trouble);
    }
    for (was, is) in &plan.update {
        update(cluster, &deployment, was, is).await?;
    }
    for set in &plan.delete {
        delete(cluster, set).await?;
    }
    if let Some(revision) = &plan.revision {
        deployment = annotate(cluster, &deployment, revision).await?;
    }
    let Plan { status, again, .. } = plan;
    if deployment.status.as_ref() != Some(&status) {
        write_status(cluster, &deployment, status).await?;
    }
    Ok(again)
}

fn pods_of(cluster: &Cluster, namespace: &str, sets: &[Arc<ReplicaSet>]) -> Vec<Arc<Pod>> {
    let owned = |pod: &Arc<Pod>| {
        let owner = controller_of(pod.as_ref());
        owner.is_some_and(|owner| {
            sets.iter()
                .any(|set| set.metadata.uid.as_ref() == Some(&owner.uid))
        })
    };
    cluster
        .pods
        .within(namespace)
        .into_iter()
        .filter(owned)
        .collect()
}

/// Makes the ReplicaSet of the present template. One of its name that another owner or template has is a collision,
/// which the caller writes down so that the next try has another name.
async fn create(
    cluster: &Cluster,
    deployment: &Deployment,
    new: &ReplicaSet,
) -> Result<(), Trouble> {
    let (namespace, name) = (deployment.namespace().unwrap_or_default(), new.name_any());
    let api = cluster.api::<ReplicaSet>(&namespace);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    let created = api
        .create(&params, new)
        .await
        .tried(|| format!("create ReplicaSet {namespace}/{name}"));
    match created {
        Ok(created) => {
            cluster.replica_sets.seen(&created).await;
            record_scaling(cluster, deployment, &name, 0, new.replicas());
            Ok(())
        }
        Err(trouble) if trouble.is_conflict() => match api.get_opt(&name).await {
            // Made by an earlier try of which the answer was lost.
            Ok(Some(there)) if is_ours(deployment, &there) => {
                cluster.replica_sets.seen(&there).await;
                Ok(())
            }
            _ => Err(trouble),
        },
        Err(trouble) => {
            if !trouble.ends_with_namespace() {
                let message = status::create_failed(new, &trouble);
                cluster
                    .recorder
                    .warning(COMPONENT, deployment, "ReplicaSetCreateError", message);
            }
            Err(trouble)
        }
    }
}

fn is_ours(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let present = deployment.spec.as_ref().map(|spec| &spec.template);
    controller_of(set).map(|owner| &owner.uid) == deployment.metadata.uid.as_ref()
        && matches!((template, present), (Some(one), Some(other)) if revision::same_template(one, other))
}

async fn update(
    cluster: &Cluster,
    deployment: &Deployment,
    was: &ReplicaSet,
    is: &ReplicaSet,
) -> Result<(), Trouble> {
    let (namespace, name) = (deployment.namespace().unwrap_or_default(), is.name_any());
    let patch = json!({
        "metadata": {"resourceVersion": was.resource_version(), "annotations": is.metadata.annotations},
        "spec": {"replicas": is.replicas(), "minReadySeconds": is.min_ready_seconds()},
    });
    let api = cluster.api::<ReplicaSet>(&namespace);
    let written = api
        .patch(&name, &patch_params(), &Patch::Merge(patch))
        .await;
    let written = written.tried(|| format!("scale ReplicaSet {namespace}/{name}"))?;
    record_scaling(cluster, deployment, &name, was.replicas(), is.replicas());
    cluster.replica_sets.seen(&written).await;
    Ok(())
}

fn record_scaling(cluster: &Cluster, deployment: &Deployment, name: &str, from: i32, to: i32) {
    if from != to {
        let way = if from < to { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {name} from {from} to {to}");
        cluster
            .recorder
            .normal(COMPONENT, deployment, "ScalingReplicaSet", message);
    }
}

async fn delete(cluster: &Cluster, set: &ReplicaSet) -> Result<(), Trouble> {
    let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
    let only = Preconditions {
        uid: set.uid(),
        resource_version: set.resource_version(),
    };
    let params = DeleteParams::background().preconditions(only);
    match cluster
        .api::<ReplicaSet>(&namespace)
        .delete(&name, &params)
        .await
    {
        Ok(_) => cluster.replica_sets.seen_gone(set).await,
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => Err(error).tried(|| format!("delete ReplicaSet {namespace}/{name}"))?,
    }
    Ok(())
}

async fn annotate(
    cluster: &Cluster,
    deployment: &Deployment,
    revision: &str,
) -> Result<Deployment, Trouble> {
    let (namespace, name) = (
        deployment.namespace().unwrap_or_default(),
        deployment.name_any(),
    );
    let metadata = json!({"resourceVersion": deployment.resource_version(), "annotations": {revision::REVISION: revision}});
    let api = cluster.api::<Deployment>(&namespace);
    let written = api
        .patch(
            &name,
            &patch_params(),
            &Patch::Merge(json!({"metadata": metadata})),
        )
        .await;
    written.tried(|| format!("write the revision of Deployment {namespace}/{name}"))
}

async fn write_status(
    cluster: &Cluster,
    deployment: &Deployment,
    status: k8s_openapi::api::apps::v1::DeploymentStatus,
) -> Result<(), Trouble> {
    let (namespace, name) = (
        deployment.namespace().unwrap_or_default(),
        deployment.name_any(),
    );
    let changed = Deployment {
        status: Some(status),
        ..deployment.clone()
    };
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    match cluster
        .api::<Deployment>(&namespace)
        .replace_status(&name, &params, &changed)
        .await
    {
        Ok(written) => cluster.deployments.seen(&written).await,
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => {
            Err(error).tried(|| format!("write the status of Deployment {namespace}/{name}"))?
        }
    }
    Ok(())
}

fn patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    }
}
