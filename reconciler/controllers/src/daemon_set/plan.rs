//! What a DaemonSet does next: the Pods that come and go by its nodes, and by its rollout.

use super::backoff::Backoff;
use super::daemon::{Fit, fit};
use super::{rollout, status};
use crate::pod::{self, Availability};
use crate::revisions::HASH;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What there is.
pub struct Observed<'a> {
    /// The DaemonSet.
    pub set: &'a DaemonSet,
    /// All nodes.
    pub nodes: &'a [Arc<Node>],
    /// Its Pods.
    pub pods: &'a [Arc<Pod>],
    /// The Pod that its newest revision describes, without a node.
    pub wanted: &'a Pod,
    /// Which Pods have failed where, and when.
    pub backoff: &'a Backoff,
    /// The time.
    pub now: Timestamp,
}

/// Why a Pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Its node is not wanted, it is one too many, or its template is old.
    Surplus,
    /// Its node is no more, and nobody is left who would end it.
    NoNode,
    /// Its containers have failed for good.
    Failed,
    /// Its containers have ended well, which those of a daemon should not.
    Succeeded,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// The nodes that get a Pod.
    pub create: BTreeSet<String>,
    /// The Pods that go, by name.
    pub delete: BTreeMap<String, Reason>,
    /// The status that tells of what is observed.
    pub status: DaemonSetStatus,
    /// When to look again, though nothing changes.
    pub again: Option<Duration>,
}

/// The Pods of each node, oldest first; those that have ended and are being deleted count no more.
pub type ByNode<'a> = BTreeMap<&'a str, Vec<&'a Pod>>;

/// Plans a DaemonSet that is not being deleted.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let by_node = by_node(observed.pods);
    let fits: BTreeMap<&str, Fit> = observed
        .nodes
        .iter()
        .filter_map(|node| {
            let name = node.metadata.name.as_deref()?;
            Some((name, fit(observed.wanted, node)))
        })
        .collect();
    let mut plan = Plan::default();
    for (&node, fit) in &fits {
        match (fit, by_node.get(node)) {
            (Fit::Run, None) => {
                plan.create.insert(node.to_owned());
            }
            (Fit::Run | Fit::Stay, Some(pods)) => keep_one(observed, node, pods, &mut plan),
            (Fit::Never, Some(pods)) => {
                let staying = pods.iter().filter(|pod| !pod::is_terminating(pod));
                plan.remove(staying.copied(), Reason::Surplus);
            }
            (Fit::Stay | Fit::Never, None) => {}
        }
    }
    let lost = by_node.iter().filter(|(node, _)| !fits.contains_key(*node));
    for (_, pods) in lost {
        plan.remove(pods.iter().copied(), Reason::NoNode);
    }
    rollout::plan(observed, &by_node, &fits, &mut plan);
    plan.status = status::of(observed, &by_node, &fits);
    for pod in observed.pods {
        let min_ready = min_ready(observed.set);
        if let Availability::In(left) = pod::availability(pod, min_ready, observed.now) {
            plan.look_again(left);
        }
    }
    plan
}

impl Plan {
    fn remove<'a>(&mut self, pods: impl Iterator<Item = &'a Pod>, reason: Reason) {
        self.delete
            .extend(pods.map(|pod| (pod::name(pod).to_owned(), reason)));
    }

    /// Removes Pods whose place others have, or that make room.
    pub fn replace<'a>(&mut self, pods: impl IntoIterator<Item = &'a Pod>) {
        self.remove(pods.into_iter(), Reason::Surplus);
    }

    fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |earlier| earlier.min(after)));
    }
}

/// On a node where one Pod is to be, or may stay: those that have ended go, and of several the oldest stays. While a
/// rollout surges, one of the old template and one of the new may be there, until the new one is available.
fn keep_one(observed: &Observed<'_>, node: &str, pods: &[&Pod], plan: &mut Plan) {
    let mut running = Vec::new();
    for pod in pods.iter().filter(|pod| !pod::is_terminating(pod)) {
        match pod::phase(pod) {
            "Failed" => match observed.backoff.wait(observed.set, node, observed.now) {
                Some(wait) => plan.look_again(wait),
                None => plan.remove([*pod].into_iter(), Reason::Failed),
            },
            "Succeeded" => plan.remove([*pod].into_iter(), Reason::Succeeded),
            _ => running.push(*pod),
        }
    }
    if rollout::max_surge(observed.set, 1) == 0 {
        plan.replace(running.into_iter().skip(1));
        return;
    }
    let (new, old): (Vec<&Pod>, Vec<&Pod>) =
        running.into_iter().partition(|pod| is_new(observed, pod));
    plan.replace(new.iter().skip(1).chain(old.iter().skip(1)).copied());
    if let (Some(new), Some(old)) = (new.first(), old.first()) {
        let available = pod::is_available(new, min_ready(observed.set), observed.now);
        if available || !pod::is_ready(old) {
            plan.replace([*old]);
        }
    }
}

/// Whether the Pod is of the newest template.
pub fn is_new(observed: &Observed<'_>, pod: &Pod) -> bool {
    pod::label(pod, HASH) == pod::label(observed.wanted, HASH)
}

/// `minReadySeconds`
pub fn min_ready(set: &DaemonSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or_default()
}

fn by_node(pods: &[Arc<Pod>]) -> ByNode<'_> {
    let mut by_node = ByNode::new();
    for pod in pods {
        let over = pod::has_ended(pod) && pod::is_terminating(pod);
        if let (false, Some(node)) = (over, node(pod)) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    for pods in by_node.values_mut() {
        pods.sort_by_key(|pod| {
            let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (made, pod.metadata.name.as_deref())
        });
    }
    by_node
}

/// The node that a Pod is on, or that its affinity names (a Pod of another's making that no scheduler has placed).
fn node(pod: &Pod) -> Option<&str> {
    pod::node(pod).or_else(|| {
        let affinity = pod
            .spec
            .as_ref()?
            .affinity
            .as_ref()?
            .node_affinity
            .as_ref()?;
        let required = affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()?;
        let mut fields = required
            .node_selector_terms
            .iter()
            .flat_map(|term| term.match_fields.iter().flatten());
        let field = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
        field.values.as_ref()?.first().map(String::as_str)
    })
}
