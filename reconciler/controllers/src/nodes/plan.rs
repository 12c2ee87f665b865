//! Which nodes are lost, and what their conditions and taints should be: pure functions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::placement::taints;
use crate::pod;

/// The namespace of nodes' Leases.
pub const LEASES: &str = "kube-node-lease";
/// What a node says of itself and nobody knows when it is silent.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Conditions that keep Pods away while they are true, and the taints by which they do.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];

/// When each node, by uid, was last heard.
#[derive(Debug, Default)]
pub struct Memory {
    heard: BTreeMap<String, Heard>,
}

#[derive(Debug)]
struct Heard {
    renewed: Option<Timestamp>,
    heartbeat: Option<Timestamp>,
    at: Instant,
}

impl Memory {
    /// Takes in what was observed: a time that is new has been written just now. Nodes that are gone are forgotten.
    pub fn hear(&mut self, nodes: &[Arc<Node>], leases: &[Arc<Lease>], now: Instant) {
        let uid = |node: &Node| node.metadata.uid.clone().unwrap_or_default();
        let known: BTreeMap<String, &Arc<Node>> =
            nodes.iter().map(|node| (uid(node), node)).collect();
        self.heard.retain(|uid, _| known.contains_key(uid));
        for (uid, node) in known {
            let lease = leases
                .iter()
                .find(|lease| lease.metadata.name == node.metadata.name);
            let spec = lease.and_then(|lease| lease.spec.as_ref());
            let renewed = spec
                .and_then(|spec| spec.renew_time.as_ref())
                .map(|time| time.0);
            let heartbeat = condition(node, "Ready")
                .and_then(|condition| condition.last_heartbeat_time.as_ref())
                .map(|time| time.0);
            let heard = self.heard.entry(uid).or_insert_with(|| Heard {
                renewed,
                heartbeat,
                at: now,
            });
            // Observations may come in any order: an older time tells nothing.
            if renewed > heard.renewed || heartbeat > heard.heartbeat {
                heard.at = now;
            }
            heard.renewed = heard.renewed.max(renewed);
            heard.heartbeat = heard.heartbeat.max(heartbeat);
        }
    }

    /// Takes all nodes as heard now.
    pub fn refresh(&mut self, now: Instant) {
        for heard in self.heard.values_mut() {
            heard.at = now;
        }
    }

    /// Whether a node that is not known as silent has been so for too long.
    pub fn overdue(&self, nodes: &[Arc<Node>], grace: Duration, now: Instant) -> bool {
        nodes
            .iter()
            .any(|node| self.deadline(node, grace) <= Some(now) && !unknown(node).is_empty())
    }

    fn deadline(&self, node: &Node, grace: Duration) -> Option<Instant> {
        let heard = self
            .heard
            .get(node.metadata.uid.as_deref().unwrap_or_default());
        heard.map(|heard| heard.at + grace)
    }
}

/// What a node should become.
#[derive(Debug)]
pub struct Change {
    /// As it is.
    pub node: Arc<Node>,
    /// Conditions to be written; none if they are as they should be.
    pub conditions: Vec<NodeCondition>,
    /// All its taints, if they are not as they should be.
    pub taints: Option<Vec<Taint>>,
}

/// What is to be done, and when to plan again though nothing has changed.
#[derive(Debug, Default)]
pub struct Plan {
    /// One for each node that is not as it should be.
    pub changes: Vec<Change>,
    /// The moment at which the next node may be lost.
    pub wake: Option<Instant>,
}

/// Plans for all nodes. `clock` is what is written into conditions and taints.
pub fn plan(
    nodes: &[Arc<Node>],
    memory: &Memory,
    grace: Duration,
    now: Instant,
    clock: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let lost = |node: &Node| {
        memory
            .deadline(node, grace)
            .is_some_and(|deadline| deadline <= now)
    };
    let ready = |node: &Node| {
        if lost(node) {
            "Unknown".to_owned()
        } else {
            taints::ready(node).to_owned()
        }
    };
    let disrupted = !nodes.iter().any(|node| ready(node) == "True");
    for node in nodes {
        let mut conditions = Vec::new();
        if lost(node) {
            conditions = unknown(node)
                .into_iter()
                .map(|kind| unheard(node, kind, clock))
                .collect();
        } else {
            plan.wake = plan
                .wake
                .into_iter()
                .chain(memory.deadline(node, grace))
                .min();
        }
        let has = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.clone())
            .unwrap_or_default();
        let wanted = wanted(node, &ready(node), disrupted);
        let mut taints: Vec<Taint> = has
            .iter()
            .filter(|taint| {
                !managed(taint) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str()))
            })
            .cloned()
            .collect();
        for (key, effect) in wanted {
            if !taints
                .iter()
                .any(|taint| taint.key == key && taint.effect == effect)
            {
                taints.push(Taint {
                    key: key.to_owned(),
                    effect: effect.to_owned(),
                    value: None,
                    time_added: Some(Time(whole(clock))),
                });
            }
        }
        let taints = (taints != has).then_some(taints);
        if !conditions.is_empty() || taints.is_some() {
            plan.changes.push(Change {
                node: Arc::clone(node),
                conditions,
                taints,
            });
        }
    }
    plan
}

/// The taints of this controller that a node should have.
fn wanted(node: &Node, ready: &str, disrupted: bool) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let key = match ready {
        "True" => None,
        "False" => Some(taints::NOT_READY),
        _ => Some(taints::UNREACHABLE),
    };
    if let Some(key) = key {
        wanted.push((key, taints::NO_SCHEDULE));
        if !disrupted {
            wanted.push((key, taints::NO_EXECUTE));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((taints::UNSCHEDULABLE, taints::NO_SCHEDULE));
    }
    for (kind, key) in PRESSURES {
        // Of a silent node it is not known.
        if ready != "Unknown" && condition(node, kind).is_some_and(|one| one.status == "True") {
            wanted.push((key, taints::NO_SCHEDULE));
        }
    }
    wanted
}

/// Whether this controller puts such a taint and takes it away.
fn managed(taint: &Taint) -> bool {
    let state = [taints::NOT_READY, taints::UNREACHABLE].contains(&taint.key.as_str());
    let kept_away =
        taint.key == taints::UNSCHEDULABLE || PRESSURES.iter().any(|(_, key)| taint.key == *key);
    match taint.effect.as_str() {
        taints::NO_SCHEDULE => state || kept_away,
        taints::NO_EXECUTE => state,
        _ => false,
    }
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// The conditions of a lost node that do not say so yet.
fn unknown(node: &Node) -> Vec<&'static str> {
    CONDITIONS
        .into_iter()
        .filter(|kind| condition(node, kind).is_none_or(|one| one.status != "Unknown"))
        .collect()
}

fn unheard(node: &Node, kind: &str, clock: Timestamp) -> NodeCondition {
    let had = condition(node, kind);
    let (reason, message) = match had {
        Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
        None => (
            "NodeStatusNeverUpdated",
            "Kubelet never posted node status.",
        ),
    };
    NodeCondition {
        type_: kind.to_owned(),
        status: "Unknown".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: had.map_or(node.metadata.creation_timestamp.clone(), |had| {
            had.last_heartbeat_time.clone()
        }),
        last_transition_time: Some(Time(whole(clock))),
    }
}

/// The Pods that count as ready though nobody hears their node.
pub fn unready(nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let lost: Vec<_> = nodes
        .iter()
        .filter(|node| condition(node, "Ready").is_some_and(|ready| ready.status == "Unknown"))
        .filter_map(|node| node.metadata.name.as_deref())
        .collect();
    if lost.is_empty() {
        return Vec::new();
    }
    let ready = |pod: &Pod| {
        let mut conditions = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    pods.iter()
        .filter(|pod| pod::node(pod).is_some_and(|node| lost.contains(&node)))
        .filter(|pod| !pod::has_ended(pod) && ready(pod))
        .cloned()
        .collect()
}

/// A time in whole seconds, as Kubernetes writes it.
fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// `2026-11-21T06:31:14Z`
pub fn second(time: Timestamp) -> String {
    whole(time).to_string()
}

#[cfg(test)]
mod tests;
