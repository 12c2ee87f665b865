//! DaemonSets: one Pod on each node that the template's selector, affinity and tolerations allow, as nodes come and go.
//!
//! No scheduler is needed: a Pod is made with its node's name in it. A Pod whose node is gone is deleted without
//! waiting for anybody to end it. A new template goes out as `updateStrategy` says, and every template is kept as a
//! ControllerRevision. Pods that have failed are removed and made anew, with growing pauses.
//!
//! Resources are not looked at: a node's agent refuses what it has no room for, and the Pod then counts as failed.

pub mod backoff;
pub mod daemon;
pub mod plan;
pub mod rollout;
pub mod status;
#[cfg(test)]
mod tests;

use crate::cluster::Cluster;
use crate::controller::{self, Again};
use crate::kept::Change;
use crate::trouble::Trouble;
use crate::{owned, pod, pod_writes, revisions, status_write};
use backoff::Backoff;
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use plan::{Observed, Plan, Reason};
use std::sync::{Arc, Mutex, PoisonError};

const SOURCE: &str = "daemonset-controller";

/// Runs the controller; it does not end.
pub async fn run(cluster: Cluster) {
    cluster.daemon_sets.ready().await;
    cluster.nodes.ready().await;
    cluster.pods.ready().await;
    cluster.revisions.ready().await;
    let (sets, all) = (cluster.daemon_sets.clone(), cluster.daemon_sets.clone());
    let of_pod =
        move |change: &Change<Pod>| controller::owners(change, &sets, |set, pod| selects(set, pod));
    let of_node = move |change: &Change<Node>| {
        let ignored = !matters(change);
        let sets = all.all().into_iter().filter(|_| !ignored);
        sets.map(|set| ObjectRef::from_obj(set.as_ref())).collect()
    };
    let requests = stream::select_all([
        controller::own_changes(&cluster.daemon_sets).boxed(),
        controller::related_changes(&cluster.pods, of_pod).boxed(),
        controller::related_changes(&cluster.nodes, of_node).boxed(),
    ]);
    let backoff = Mutex::new(Backoff::default());
    controller::run("daemon sets", &cluster.daemon_sets, requests, |set| {
        reconcile(&cluster, &backoff, set)
    })
    .await;
}

fn selects(set: &DaemonSet, pod: &Pod) -> bool {
    owned::selects(set.spec.as_ref().map(|spec| &spec.selector), pod)
}

/// Whether a node's change can matter to a DaemonSet. Its heartbeat does not.
fn matters(change: &Change<Node>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return true;
    };
    old.metadata.labels != new.metadata.labels
        || crate::placement::taints::of(old) != crate::placement::taints::of(new)
}

async fn reconcile(
    cluster: &Cluster,
    backoff: &Mutex<Backoff>,
    set: Arc<DaemonSet>,
) -> Result<Again, Trouble> {
    let Some(spec) = &set.spec else {
        return Ok(None);
    };
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let Some(selector) = owned::selector(Some(&spec.selector))? else {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        cluster
            .recorder
            .warning(SOURCE, set.as_ref(), "SelectingAll", message);
        return Ok(None);
    };
    let known: Vec<Arc<ControllerRevision>> =
        owned::claim(cluster, &cluster.revisions, set.as_ref(), Some(&selector)).await?;
    let newest = revisions::newest(set.as_ref(), &spec.template, &known, revisions::HASH);
    let newest = revisions::write(cluster, set.as_ref(), newest).await?;
    let pods = owned::claim(cluster, &cluster.pods, set.as_ref(), Some(&selector)).await?;
    let nodes = cluster.nodes.all();
    let hash = newest
        .labels()
        .get(revisions::HASH)
        .cloned()
        .unwrap_or_default();
    let wanted = daemon::pod(&set, &hash);
    let plan = {
        let backoff = backoff.lock().unwrap_or_else(PoisonError::into_inner);
        plan::plan(&Observed {
            set: &set,
            nodes: &nodes,
            pods: &pods,
            wanted: &wanted,
            backoff: &backoff,
            now: Timestamp::now(),
        })
    };
    let again = plan.again;
    let status = plan.status.clone();
    let done = apply(cluster, backoff, &set, &pods, &wanted, plan).await;
    status_write::write(
        cluster,
        &cluster.daemon_sets,
        set.as_ref(),
        &set.status,
        &status,
    )
    .await?;
    done?;
    let live = pods
        .iter()
        .map(|pod| format!("{}-{}", set.name_any(), pod::label(pod, revisions::HASH)))
        .chain([newest.name_any()])
        .collect();
    let limit = spec.revision_history_limit.unwrap_or(10);
    let expired = revisions::expired(&known, &live, limit);
    let namespace = set.namespace().unwrap_or_default();
    revisions::delete(cluster, &namespace, &expired).await?;
    Ok(again)
}

async fn apply(
    cluster: &Cluster,
    backoff: &Mutex<Backoff>,
    set: &DaemonSet,
    pods: &[Arc<Pod>],
    wanted: &Pod,
    plan: Plan,
) -> Result<(), Trouble> {
    for pod in pods {
        let Some(reason) = plan.delete.get(pod::name(pod)) else {
            continue;
        };
        let node = pod::node(pod).unwrap_or_default();
        let place = format!("{} on node {node}", qualified(pod));
        match reason {
            Reason::Failed => {
                let message = format!("Found failed daemon pod {place}, will try to kill it");
                cluster
                    .recorder
                    .warning(SOURCE, set, "FailedDaemonPod", message);
                let mut backoff = backoff.lock().unwrap_or_else(PoisonError::into_inner);
                backoff.note(set, node, Timestamp::now());
            }
            Reason::Succeeded => {
                let message = format!("Found succeeded daemon pod {place}, will try to delete it");
                cluster
                    .recorder
                    .normal(SOURCE, set, "SucceededDaemonPod", message);
            }
            Reason::Surplus | Reason::NoNode => {}
        }
        let at_once = *reason == Reason::NoNode;
        pod_writes::delete(cluster, SOURCE, set, pod, at_once).await?;
    }
    let made = plan
        .create
        .iter()
        .map(|node| daemon::place(wanted.clone(), node));
    pod_writes::create_all(cluster, SOURCE, set, made.collect()).await
}

fn qualified(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}
