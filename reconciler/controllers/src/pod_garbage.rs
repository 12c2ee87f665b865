//! Pods that nobody would ever remove: those of nodes that are gone, those being deleted on a node that is out of
//! service, and the oldest of too many that have ended.
//!
//! A node must be gone for a while, and the server must say so when asked, before its Pods are deleted without grace:
//! it may only be registering anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{StreamExt, iter, select};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::nodes::plan::second;
use crate::placement::taints;
use crate::pod;
use crate::trouble::{Tried, Trouble};

/// Pods that have ended and are kept, as in Kubernetes.
pub const ENDED: usize = 12_500;
/// Requests at a time; each is a connection.
const AT_ONCE: usize = 8;
/// Until something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Since when a node is missing, by its name.
pub type Missing = BTreeMap<String, Instant>;

/// Why a Pod is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its node is gone.
    NodeGone,
    /// It is being deleted, and its node is out of service.
    OutOfService,
    /// It has ended, as too many others have.
    TooMany,
}

/// What is due.
#[derive(Debug, Default)]
pub struct Due {
    /// Pods that go now.
    pub remove: Vec<(Arc<Pod>, Why)>,
    /// When more may be due.
    pub wake: Option<Instant>,
}

/// Takes in which nodes Pods name that are not there.
pub fn miss(missing: &mut Missing, nodes: &[Arc<Node>], pods: &[Arc<Pod>], now: Instant) {
    let there: std::collections::BTreeSet<&str> = nodes
        .iter()
        .filter_map(|node| node.metadata.name.as_deref())
        .collect();
    let named = pods.iter().filter_map(|pod| pod::node(pod));
    let mut new = Missing::new();
    for name in named.filter(|name| !there.contains(name)) {
        let since = missing.get(name).copied().unwrap_or(now);
        new.entry(name.to_owned()).or_insert(since);
    }
    *missing = new;
}

/// Plans for all Pods. Of those that have ended, `most` are kept.
pub fn plan(
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    missing: &Missing,
    quarantine: Duration,
    most: usize,
    now: Instant,
) -> Due {
    let mut due = Due::default();
    let out = |node: &Node| {
        let taints = node
            .spec
            .iter()
            .flat_map(|spec| spec.taints.iter().flatten());
        taints::ready(node) != "True"
            && taints
                .into_iter()
                .any(|taint| taint.key == taints::OUT_OF_SERVICE)
    };
    let out: Vec<&str> = nodes
        .iter()
        .filter(|node| out(node))
        .filter_map(|node| node.metadata.name.as_deref())
        .collect();
    let mut ended = Vec::new();
    for pod in pods {
        let node = pod::node(pod);
        let deleting = pod.metadata.deletion_timestamp.is_some();
        if let Some(since) = node.and_then(|node| missing.get(node)) {
            if *since + quarantine <= now {
                due.remove.push((Arc::clone(pod), Why::NodeGone));
            } else {
                due.wake = due.wake.into_iter().chain([*since + quarantine]).min();
            }
        } else if deleting && node.is_some_and(|node| out.contains(&node)) {
            due.remove.push((Arc::clone(pod), Why::OutOfService));
        } else if pod::has_ended(pod) && !deleting {
            ended.push(pod);
        }
    }
    if let Some(many) = ended.len().checked_sub(most).filter(|many| *many > 0) {
        ended.sort_by_cached_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref();
            (created.map(|time| time.0), pod.metadata.name.clone())
        });
        due.remove.extend(
            ended
                .into_iter()
                .take(many)
                .map(|pod| (Arc::clone(pod), Why::TooMany)),
        );
    }
    due
}

/// Removes such Pods until it is dropped. A node must be gone for `quarantine`.
pub async fn run(cluster: Cluster, quarantine: Duration) {
    tokio::join!(cluster.nodes.ready(), cluster.pods.ready());
    let changes = select(
        cluster.nodes.changes().map(|_| ()),
        cluster.pods.changes().map(|_| ()),
    );
    let mut changes = std::pin::pin!(changes.ready_chunks(4096));
    let mut missing = Missing::new();
    let mut wake: Option<Instant> = None;
    loop {
        tokio::select! {
            Some(_) = changes.next() => {}
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
        wake = round(&cluster, &mut missing, quarantine)
            .await
            .unwrap_or_else(|trouble| {
                tracing::warn!("remove Pods that nobody would: {trouble}");
                Some(Instant::now() + AGAIN)
            });
    }
}

async fn round(
    cluster: &Cluster,
    missing: &mut Missing,
    quarantine: Duration,
) -> Result<Option<Instant>, Trouble> {
    let (nodes, pods) = (cluster.nodes.all(), cluster.pods.all());
    let now = Instant::now();
    miss(missing, &nodes, &pods, now);
    let overdue = missing
        .iter()
        .filter(|(_, since)| **since + quarantine <= now);
    let overdue: Vec<String> = overdue.map(|(name, _)| name.clone()).collect();
    for name in overdue {
        let asked = cluster.api_all::<Node>().get_metadata_opt(&name).await;
        if asked.tried(|| format!("ask for Node {name}"))?.is_some() {
            // The watch will show it.
            missing.insert(name, Instant::now());
        }
    }
    let due = plan(&nodes, &pods, missing, quarantine, ENDED, now);
    let removing = due
        .remove
        .into_iter()
        .map(|(pod, why)| remove(cluster, pod, why));
    let mut removed = iter(removing).buffer_unordered(AT_ONCE);
    let mut failed = None;
    while let Some(result) = removed.next().await {
        failed = failed.or(result.err());
    }
    failed.map_or(Ok(due.wake), Err)
}

/// Marks a Pod as failed and removes it without grace.
async fn remove(cluster: &Cluster, pod: Arc<Pod>, why: Why) -> Result<(), Trouble> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let message = match why {
        Why::NodeGone => "PodGC: node no longer exists",
        Why::OutOfService => "PodGC: node is out of service",
        Why::TooMany => "PodGC: too many Pods have ended",
    };
    tracing::info!("remove Pod {namespace}/{name}: {message}");
    let api = cluster.api::<Pod>(&namespace);
    let done = async {
        if !pod::has_ended(&pod) {
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
                "lastTransitionTime": second(Timestamp::now()),
            });
            let patch = json!({
                "metadata": {"uid": pod.uid()}, "status": {"phase": "Failed", "conditions": [condition]},
            });
            api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
                .await?;
        }
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        api.delete(&name, &params).await
    };
    match done.await {
        Ok(_) => {
            cluster.pods.seen_gone(&pod).await;
            Ok(())
        }
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        Err(error) => Err(error).tried(|| format!("remove Pod {namespace}/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn pod(name: &str, more: &Value) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len())},
            "spec": {"nodeName": more["node"], "containers": []}, "status": {"phase": more["phase"]},
        });
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        if more["deleting"] == true {
            pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone();
        }
        Arc::new(pod)
    }

    fn names(due: &Due) -> Vec<&str> {
        due.remove
            .iter()
            .map(|(pod, _)| pod.metadata.name.as_deref().unwrap())
            .collect()
    }

    const QUARANTINE: Duration = Duration::from_secs(40);

    #[test]
    fn pods_of_a_node_that_stays_away_go() {
        let start = Instant::now();
        let pods = [
            pod("a", &json!({"node": "gone"})),
            pod("b", &json!({})),
            pod("c", &json!({"node": "n1"})),
        ];
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
        let nodes = [Arc::new(node)];
        let mut missing = Missing::new();
        miss(&mut missing, &nodes, &pods, start);
        let due = plan(&nodes, &pods, &missing, QUARANTINE, 10, start);
        assert!(due.remove.is_empty());
        assert_eq!(due.wake, Some(start + QUARANTINE));
        miss(&mut missing, &nodes, &pods, start + QUARANTINE);
        let due = plan(&nodes, &pods, &missing, QUARANTINE, 10, start + QUARANTINE);
        assert_eq!(names(&due), ["a"]);
        // It was back in between.
        let back: Node = serde_json::from_value(json!({"metadata": {"name": "gone"}})).unwrap();
        miss(&mut missing, &[Arc::new(back)], &pods, start + QUARANTINE);
        miss(&mut missing, &nodes, &pods, start + QUARANTINE);
        assert!(
            plan(&nodes, &pods, &missing, QUARANTINE, 10, start + QUARANTINE)
                .remove
                .is_empty()
        );
    }

    #[test]
    fn pods_that_are_being_deleted_on_a_node_out_of_service_go() {
        let node = json!({"metadata": {"name": "n1"}, "spec": {"taints": [
            {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"},
        ]}});
        let nodes = [Arc::new(serde_json::from_value(node).unwrap())];
        let pods = [
            pod("a", &json!({"node": "n1"})),
            pod("b", &json!({"node": "n1", "deleting": true})),
        ];
        let due = plan(
            &nodes,
            &pods,
            &Missing::new(),
            QUARANTINE,
            10,
            Instant::now(),
        );
        assert_eq!(names(&due), ["b"]);
    }

    #[test]
    fn of_too_many_that_have_ended_the_oldest_go() {
        let pods = [
            pod("aaa", &json!({"phase": "Failed"})),
            pod("a", &json!({"phase": "Succeeded"})),
            pod("aa", &json!({"phase": "Succeeded"})),
            pod("b", &json!({"phase": "Running"})),
        ];
        let due = plan(&[], &pods, &Missing::new(), QUARANTINE, 1, Instant::now());
        assert_eq!(names(&due), ["a", "aa"]);
    }
}
