//! The life of nodes: one that is silent is marked and tainted, its Pods are marked and, when they tolerate it no
//! longer, evicted; one that comes back is cleared.
//!
//! A node is heard when its Lease in `kube-node-lease` or its condition Ready is renewed; when, is told by this
//! process's clock, so clocks that differ do not matter and a start gives every node a fresh grace. Nothing is polled:
//! the next moment at which something may fall due is slept for. Before a node is called lost the server is asked once
//! more; while it does not answer, nobody is lost. When no node at all is ready the fault is rather between them and
//! the server: then none is tainted `NoExecute`, so nothing is evicted.

pub mod eviction;
pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{StreamExt, iter, select_all};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::kept::Change;
use crate::placement::taints;
use crate::recorder::Severity;
use crate::trouble::{Tried, Trouble};
use eviction::Eviction;
use plan::{LEASES, Memory};

/// The components that events name.
const NODES: &str = "node-controller";
const EVICTION: &str = "taint-eviction-controller";
/// Requests at a time; each is a connection.
const AT_ONCE: usize = 8;
/// Until something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Looks after nodes until it is dropped. A node may be silent for `grace`.
pub async fn run(cluster: Cluster, grace: Duration) {
    tokio::join!(
        cluster.nodes.ready(),
        cluster.leases.ready(),
        cluster.pods.ready()
    );
    let told = cluster.clone();
    let nodes = cluster
        .nodes
        .changes()
        .map(move |change| tell(&told, &change));
    let leases = cluster.leases.changes().filter_map(async |change| {
        let lease = change.latest()?;
        (lease.metadata.namespace.as_deref() == Some(LEASES)).then_some(())
    });
    let pods = cluster.pods.changes().map(|_| ());
    let changes = select_all([nodes.boxed(), leases.boxed(), pods.boxed()]);
    let mut changes = changes.ready_chunks(4096);
    let mut memory = Memory::default();
    let mut eviction = Eviction::default();
    let mut wake: Option<Instant> = None;
    loop {
        tokio::select! {
            Some(_) = changes.next() => {}
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
        wake = round(&cluster, &mut memory, &mut eviction, grace)
            .await
            .unwrap_or_else(|trouble| {
                tracing::warn!("look after nodes: {trouble}");
                Some(Instant::now() + AGAIN)
            });
    }
}

/// Does what is due; when the next thing falls due.
async fn round(
    cluster: &Cluster,
    memory: &mut Memory,
    eviction: &mut Eviction,
    grace: Duration,
) -> Result<Option<Instant>, Trouble> {
    let nodes = cluster.nodes.all();
    memory.hear(&nodes, &cluster.leases.within(LEASES), Instant::now());
    if memory.overdue(&nodes, grace, Instant::now()) {
        let leases = cluster.client.clone();
        let leases = kube::Api::<Lease>::namespaced(leases, LEASES);
        match leases.list(&ListParams::default()).await {
            Ok(list) => {
                let leases: Vec<_> = list.items.into_iter().map(Arc::new).collect();
                memory.hear(&nodes, &leases, Instant::now());
            }
            Err(error) => {
                // Whoever cannot reach the server cannot be heard either.
                memory.refresh(Instant::now());
                return Err(error).tried(|| "list Leases of nodes");
            }
        }
    }
    let plan = plan::plan(&nodes, memory, grace, Instant::now(), Timestamp::now());
    let mut failed = None;
    for change in &plan.changes {
        if let Err(trouble) = write(cluster, change).await {
            // A conflict: the node has changed, which brings the next round.
            failed =
                failed.or((!trouble.is_conflict() && !trouble.is_not_found()).then_some(trouble));
        }
    }
    // What has just been written counts.
    let (nodes, pods) = (cluster.nodes.all(), cluster.pods.all());
    eviction.see(&nodes, Instant::now());
    let due = eviction.plan(&nodes, &pods, Instant::now());
    let unready = plan::unready(&nodes, &pods);
    let marking = unready.into_iter().map(|pod| mark(cluster, pod));
    let mut marked = iter(marking).buffer_unordered(AT_ONCE);
    while let Some(result) = marked.next().await {
        failed = failed.or(result.err());
    }
    let evicting = due.evict.into_iter().map(|pod| evict(cluster, pod));
    let mut evicted = iter(evicting).buffer_unordered(AT_ONCE);
    while let Some(result) = evicted.next().await {
        failed = failed.or(result.err());
    }
    match failed {
        Some(trouble) => Err(trouble),
        None => Ok([plan.wake, due.wake].into_iter().flatten().min()),
    }
}

/// Events about a node that comes, goes, or is no longer ready.
fn tell(cluster: &Cluster, change: &Change<Node>) {
    let event = |node: &Node, reason: &str, message: String| {
        let about: ObjectReference = node.object_ref(&());
        cluster
            .recorder
            .record(NODES, about, Severity::Normal, reason, message);
    };
    let name = |node: &Node| node.name_any();
    match (&change.old, &change.new) {
        (None, Some(node)) => {
            let message = format!(
                "Node {0} event: Registered Node {0} in Controller",
                name(node)
            );
            event(node, "RegisteredNode", message);
        }
        (Some(node), None) => {
            let message = format!(
                "Node {0} event: Removing Node {0} from Controller",
                name(node)
            );
            event(node, "RemovingNode", message);
        }
        (Some(old), Some(node))
            if taints::ready(old) == "True" && taints::ready(node) != "True" =>
        {
            let message = format!("Node {} status is now: NodeNotReady", name(node));
            event(node, "NodeNotReady", message);
        }
        _ => {}
    }
}

/// Writes a node's conditions, then its taints.
async fn write(cluster: &Cluster, change: &plan::Change) -> Result<(), Trouble> {
    let api = cluster.api_all::<Node>();
    let name = change.node.name_any();
    let mut node = Arc::clone(&change.node);
    if !change.conditions.is_empty() {
        tracing::info!("node {name} is silent");
        let patch =
            json!({"metadata": {"uid": node.uid()}, "status": {"conditions": change.conditions}});
        let patched = api
            .patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .tried(|| format!("mark Node {name} as silent"))?;
        cluster.nodes.seen(&patched).await;
        let spec = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
        if spec(&patched) != spec(&node) {
            // Somebody else has changed them, which brings the next round.
            return Ok(());
        }
        node = Arc::new(patched);
    }
    if let Some(taints) = &change.taints {
        // All taints are written at once, so only over those that were read.
        let patch = json!({
            "metadata": {"uid": node.uid(), "resourceVersion": node.resource_version()},
            "spec": {"taints": taints},
        });
        let patched = api
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .tried(|| format!("taint Node {name}"))?;
        cluster.nodes.seen(&patched).await;
    }
    Ok(())
}

/// Marks a Pod of a lost node as not ready, so that Services leave it out.
async fn mark(cluster: &Cluster, pod: Arc<Pod>) -> Result<(), Trouble> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let patch = json!({
        "metadata": {"uid": pod.uid()},
        "status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": plan::second(Timestamp::now())}]},
    });
    let api = cluster.api::<Pod>(&namespace);
    let patched = api
        .patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .tried(|| format!("mark Pod {namespace}/{name} of a lost node as not ready"));
    match patched {
        Ok(patched) => {
            cluster
                .recorder
                .warning(NODES, pod.as_ref(), "NodeNotReady", "Node is not ready");
            cluster.pods.seen(&patched).await;
            Ok(())
        }
        Err(trouble) if trouble.is_conflict() || trouble.is_not_found() => Ok(()),
        Err(trouble) => Err(trouble),
    }
}

/// Deletes a Pod that does not tolerate its node.
async fn evict(cluster: &Cluster, pod: Arc<Pod>) -> Result<(), Trouble> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let api = cluster.api::<Pod>(&namespace);
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": plan::second(Timestamp::now()),
    });
    let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
    let done = async {
        api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
            .await?;
        let only = Preconditions {
            uid: pod.uid(),
            resource_version: None,
        };
        api.delete(&name, &DeleteParams::default().preconditions(only))
            .await
    };
    let done = done.await.tried(|| format!("evict Pod {namespace}/{name}"));
    match done {
        Ok(_) => {
            let message = format!("Marking for deletion Pod {namespace}/{name}");
            cluster
                .recorder
                .normal(EVICTION, pod.as_ref(), "TaintManagerEviction", message);
            cluster.pods.seen_gone(&pod).await;
            Ok(())
        }
        Err(trouble) if trouble.is_conflict() || trouble.is_not_found() => Ok(()),
        Err(trouble) => Err(trouble),
    }
}
