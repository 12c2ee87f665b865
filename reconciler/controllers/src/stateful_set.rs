//! StatefulSets: Pods with names, places and claims that stay, started and stopped in order.
//!
//! A Pod is named NAME-ORDINAL, and the server has one object of a name: there are never two Pods of one ordinal, and
//! an ordinal's next Pod comes when the last one is gone. `volumeClaimTemplates` become claims named
//! CLAIM-NAME-ORDINAL, which outlive the Pod and, unless `persistentVolumeClaimRetentionPolicy` says Delete, the set.
//! A claim that has been used is a folder on one node (see [`crate::claim`]), so the ordinal's next Pod requires that
//! node; while the node is away, the Pod waits.
//!
//! Left out: `maxUnavailable` (an update is one Pod at a time). A broken template blocks an ordered update until its
//! Pod is deleted by hand, as it does in Kubernetes.

pub mod identity;
pub mod plan;
pub mod status;
#[cfg(test)]
mod tests;

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::controller::{self, Again};
use crate::kept::Change;
use crate::trouble::{Tried, Trouble};
use crate::{owned, pod, pod_writes, revisions, status_write};
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use plan::{Observed, Plan, Reason};
use serde_json::json;
use std::sync::Arc;

const SOURCE: &str = "statefulset-controller";
/// The label of a StatefulSet's revisions with their hash.
const REVISION_HASH: &str = "controller.kubernetes.io/hash";

/// Runs the controller; it does not end.
pub async fn run(cluster: Cluster) {
    cluster.stateful_sets.ready().await;
    cluster.pods.ready().await;
    cluster.claims.ready().await;
    cluster.revisions.ready().await;
    let sets = cluster.stateful_sets.clone();
    let of_pod = move |change: &Change<Pod>| {
        controller::owners(change, &sets, |set: &StatefulSet, pod: &Pod| {
            owned::selects(set.spec.as_ref().map(|spec| &spec.selector), pod)
        })
    };
    let requests = stream::select_all([
        controller::own_changes(&cluster.stateful_sets).boxed(),
        controller::related_changes(&cluster.pods, of_pod).boxed(),
    ]);
    controller::run("stateful sets", &cluster.stateful_sets, requests, |set| {
        reconcile(&cluster, set)
    })
    .await;
}

async fn reconcile(cluster: &Cluster, set: Arc<StatefulSet>) -> Result<Again, Trouble> {
    let Some(spec) = &set.spec else {
        return Ok(None);
    };
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let Some(selector) = owned::selector(Some(&spec.selector))? else {
        return Ok(None);
    };
    let known = owned::claim(cluster, &cluster.revisions, set.as_ref(), Some(&selector)).await?;
    let newest = revisions::newest(set.as_ref(), &spec.template, &known, REVISION_HASH);
    let update = revisions::write(cluster, set.as_ref(), newest).await?;
    let current = set
        .status
        .as_ref()
        .and_then(|status| status.current_revision.as_ref());
    let current = known
        .iter()
        .find(|revision| Some(&revision.name_any()) == current)
        .map_or_else(|| update.clone(), |revision| revision.as_ref().clone());
    let pods = owned::claim(cluster, &cluster.pods, set.as_ref(), Some(&selector)).await?;
    let namespace = set.namespace().unwrap_or_default();
    let plan = plan::plan(&Observed {
        set: &set,
        pods: &pods,
        claims: &cluster.claims.within(&namespace),
        current: &current,
        update: &update,
        now: Timestamp::now(),
    });
    let (again, status) = (plan.again, plan.status.clone());
    let done = apply(cluster, &set, &pods, plan).await;
    status_write::write(
        cluster,
        &cluster.stateful_sets,
        set.as_ref(),
        &set.status,
        &status,
    )
    .await?;
    done?;
    tidy(cluster, &set, &known, &pods, &[&current, &update]).await?;
    Ok(again)
}

/// Deletes the revisions that nobody has and the history does not keep.
async fn tidy(
    cluster: &Cluster,
    set: &StatefulSet,
    known: &[Arc<ControllerRevision>],
    pods: &[Arc<Pod>],
    used: &[&ControllerRevision],
) -> Result<(), Trouble> {
    let live = pods
        .iter()
        .map(|pod| pod::label(pod, revisions::HASH).to_owned())
        .chain(used.iter().map(|revision| revision.name_any()))
        .collect();
    let limit = set
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit);
    let expired = revisions::expired(known, &live, limit.unwrap_or(10));
    let namespace = set.namespace().unwrap_or_default();
    revisions::delete(cluster, &namespace, &expired).await
}

async fn apply(
    cluster: &Cluster,
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    plan: Plan,
) -> Result<(), Trouble> {
    let namespace = set.namespace().unwrap_or_default();
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let claims = cluster.api::<PersistentVolumeClaim>(&namespace);
    for (name, owners) in plan.own {
        let patch = json!({"metadata": {"ownerReferences": owners}});
        let written = claims.patch(&name, &params, &Patch::Merge(patch)).await;
        let written = written.tried(|| format!("own PersistentVolumeClaim {namespace}/{name}"))?;
        cluster.claims.seen(&written).await;
    }
    for claim in plan.claims {
        make_claim(cluster, set, &claim).await?;
    }
    for (name, labels) in plan.label {
        let patch = json!({"metadata": {"labels": labels}});
        let api = cluster.api::<Pod>(&namespace);
        let written = api.patch(&name, &params, &Patch::Merge(patch)).await;
        let written = written.tried(|| format!("label Pod {namespace}/{name}"))?;
        cluster.pods.seen(&written).await;
    }
    for pod in plan.create {
        let made = pod_writes::post(cluster, &pod).await;
        tell(cluster, set, "Create", pod::name(&pod), &made);
        made.map_err(name_taken)?;
    }
    for (name, reason) in plan.delete {
        let Some(pod) = pods.iter().find(|pod| pod::name(pod) == name) else {
            continue;
        };
        let of = format!("StatefulSet {namespace}/{} is recreating", set.name_any());
        match reason {
            Reason::Failed => {
                let message = format!("{of} failed Pod {name}");
                cluster
                    .recorder
                    .warning(SOURCE, set, "RecreatingFailedPod", message);
            }
            Reason::Ended => {
                let message = format!("{of} terminated Pod {name}");
                cluster
                    .recorder
                    .normal(SOURCE, set, "RecreatingTerminatedPod", message);
            }
            Reason::Surplus | Reason::Old => {}
        }
        let gone = pod_writes::remove(cluster, pod, false).await;
        tell(cluster, set, "Delete", &name, &gone);
        gone?;
    }
    Ok(())
}

/// The name is a stranger's: that is no conflict that a second look resolves, so it is tried again with pauses.
fn name_taken(trouble: Trouble) -> Trouble {
    if trouble.is_conflict() {
        return Trouble::object(&trouble.operation, trouble.said());
    }
    trouble
}

async fn make_claim(
    cluster: &Cluster,
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
) -> Result<(), Trouble> {
    let (namespace, name) = (set.namespace().unwrap_or_default(), claim.name_any());
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let api = cluster.api::<PersistentVolumeClaim>(&namespace);
    let made = api.create(&params, claim).await;
    let made = made.tried(|| format!("create PersistentVolumeClaim {namespace}/{name}"));
    let pod = name.rsplit('-').next().unwrap_or_default();
    let of = format!("Claim {name} Pod {}-{pod} in StatefulSet", set.name_any());
    match made {
        Ok(made) => {
            cluster.claims.seen(&made).await;
            let message = format!("Create {of} {} success", set.name_any());
            cluster
                .recorder
                .normal(SOURCE, set, "SuccessfulCreate", message);
            Ok(())
        }
        Err(trouble) => {
            let message = format!(
                "Create {of} {} failed error: {}",
                set.name_any(),
                trouble.said()
            );
            cluster
                .recorder
                .warning(SOURCE, set, "FailedCreate", message);
            Err(name_taken(trouble))
        }
    }
}

/// The event of a Pod's coming or going. `verb` is Create or Delete.
fn tell<T>(cluster: &Cluster, set: &StatefulSet, verb: &str, pod: &str, done: &Result<T, Trouble>) {
    let what = format!("{verb} Pod {pod} in StatefulSet {}", set.name_any());
    let recorder = &cluster.recorder;
    match done {
        Ok(_) => recorder.normal(
            SOURCE,
            set,
            &format!("Successful{verb}"),
            format!("{what} successful"),
        ),
        Err(trouble) => {
            let message = format!("{what} failed error: {}", trouble.said());
            recorder.warning(SOURCE, set, &format!("Failed{verb}"), message);
        }
    }
}
