//! Which Pods have to leave their node, and when: those that do not tolerate one of its `NoExecute` taints, or no
//! longer.
//!
//! Tolerated seconds are counted from when this process first saw the taint, as in Kubernetes: a start never evicts at
//! once what is tolerated for a while. Pods that have ended stay: they hold nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use tokio::time::Instant;

use crate::placement::taints;
use crate::pod;

/// By a node's uid and a taint's key and value: since when.
#[derive(Debug, Default)]
pub struct Eviction {
    since: BTreeMap<(String, String, String), Instant>,
}

/// What is due.
#[derive(Debug, Default)]
pub struct Due {
    /// Pods that go now.
    pub evict: Vec<Arc<Pod>>,
    /// When the next one goes.
    pub wake: Option<Instant>,
}

fn key(node: &Node, taint: &Taint) -> (String, String, String) {
    (
        node.metadata.uid.clone().unwrap_or_default(),
        taint.key.clone(),
        taint.value.clone().unwrap_or_default(),
    )
}

fn executing(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == taints::NO_EXECUTE)
}

impl Eviction {
    /// Takes in the taints that are there now.
    pub fn see(&mut self, nodes: &[Arc<Node>], now: Instant) {
        let mut since = BTreeMap::new();
        for node in nodes {
            for taint in executing(node) {
                let key = key(node, taint);
                let first = self.since.get(&key).copied().unwrap_or(now);
                since.insert(key, first);
            }
        }
        self.since = since;
    }

    /// Plans for all Pods.
    pub fn plan(&self, nodes: &[Arc<Node>], pods: &[Arc<Pod>], now: Instant) -> Due {
        let mut due = Due::default();
        let tainted: BTreeMap<&str, &Arc<Node>> = nodes
            .iter()
            .filter(|node| executing(node).next().is_some())
            .filter_map(|node| Some((node.metadata.name.as_deref()?, node)))
            .collect();
        if tainted.is_empty() {
            return due;
        }
        for pod in pods {
            let Some(node) = pod::node(pod).and_then(|name| tainted.get(name)) else {
                continue;
            };
            if pod.metadata.deletion_timestamp.is_some() || pod::has_ended(pod) {
                continue;
            }
            match self.leaves(pod, node, now) {
                Some(at) if at <= now => due.evict.push(Arc::clone(pod)),
                at => due.wake = due.wake.into_iter().chain(at).min(),
            }
        }
        due
    }

    /// When a Pod has to leave its node.
    fn leaves(&self, pod: &Pod, node: &Node, now: Instant) -> Option<Instant> {
        let tolerations = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.tolerations.as_deref());
        let tolerations = tolerations.unwrap_or_default();
        executing(node)
            .filter_map(|taint| {
                let mut matching = tolerations
                    .iter()
                    .filter(|one| taints::tolerates(one, taint));
                let Some(toleration) = matching.next() else {
                    return Some(now);
                };
                let seconds = u64::try_from(toleration.toleration_seconds?.max(0)).unwrap_or(0);
                let since = self.since.get(&key(node, taint)).copied().unwrap_or(now);
                // What is past all clocks is for ever.
                since.checked_add(Duration::from_secs(seconds))
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(taints: Value) -> Vec<Arc<Node>> {
        let node = json!({"metadata": {"name": "n1", "uid": "n1"}, "spec": {"taints": taints}});
        vec![Arc::new(serde_json::from_value(node).unwrap())]
    }

    fn pod(tolerations: Value) -> Vec<Arc<Pod>> {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "nodeName": "n1", "containers": [], "tolerations": tolerations,
        }});
        vec![Arc::new(serde_json::from_value(pod).unwrap())]
    }

    #[test]
    fn a_pod_leaves_when_it_no_longer_tolerates_its_node() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let lost = node(json!([
            {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
        ]));
        let mut eviction = Eviction::default();
        eviction.see(&lost, start);
        let usual = pod(json!([{
            "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
        }]));
        eviction.see(&lost, after(100));
        let due = eviction.plan(&lost, &usual, after(299));
        assert!(due.evict.is_empty());
        assert_eq!(due.wake, Some(after(300)));
        assert_eq!(eviction.plan(&lost, &usual, after(300)).evict.len(), 1);
        // The node came back in between: counted anew.
        eviction.see(&node(json!([])), after(300));
        eviction.see(&lost, after(301));
        assert_eq!(
            eviction.plan(&lost, &usual, after(302)).wake,
            Some(after(601))
        );
        // Forever, and not at all.
        let always = pod(json!([{"operator": "Exists"}]));
        let due = eviction.plan(&lost, &always, after(9999));
        assert!(due.evict.is_empty() && due.wake.is_none());
        assert_eq!(
            eviction
                .plan(&lost, &pod(json!([])), after(301))
                .evict
                .len(),
            1
        );
    }

    #[test]
    fn what_has_ended_or_is_being_deleted_stays() {
        let lost = node(json!([{"key": "a", "effect": "NoExecute"}]));
        let eviction = Eviction::default();
        let mut pods = pod(json!([]));
        pods.extend(pod(json!([])));
        Arc::make_mut(&mut pods[0]).status =
            serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
        Arc::make_mut(&mut pods[1]).metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(eviction.plan(&lost, &pods, Instant::now()).evict.is_empty());
    }
}
