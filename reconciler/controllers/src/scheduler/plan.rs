//! Which Pod goes to which node: a pure function of the nodes, the Pods, and what was bound a moment ago.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};

use super::homes::Homes;
use super::room::{Room, Wanted};
use crate::pod;

/// The scheduler that Pods name which this one places.
pub const NAME: &str = "default-scheduler";
/// Of the sum that decides; as in Kubernetes.
const WEIGHTS: Weights = Weights {
    free: 1,
    spread: 2,
    preference: 2,
    dislike: 3,
};

struct Weights {
    free: i64,
    spread: i64,
    preference: i64,
    dislike: i64,
}

/// The nodes that Pods, by uid, were given a moment ago, which the observed Pods need not show yet.
pub type Assumed = BTreeMap<String, String>;

/// What is to be done about a Pod.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It goes to a node.
    Bind {
        /// The Pod.
        pod: Arc<Pod>,
        /// The node's name.
        node: String,
    },
    /// No node takes it; why.
    Unschedulable {
        /// The Pod.
        pod: Arc<Pod>,
        /// As Kubernetes words it.
        message: String,
    },
}

/// Whether a Pod waits for this scheduler.
pub fn waits(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let name = spec.scheduler_name.as_deref().unwrap_or(NAME);
    let gated = spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty());
    pod::node(pod).is_none()
        && name == NAME
        && !gated
        && pod.metadata.deletion_timestamp.is_none()
        && !pod::has_ended(pod)
}

/// Decides about every Pod that waits, is not assumed to be somewhere, and is not among `later`: the more important
/// first, then the older. Each decision counts for those after it.
pub fn plan(
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    claims: &[Arc<PersistentVolumeClaim>],
    assumed: &Assumed,
    later: &BTreeSet<String>,
) -> Vec<Decision> {
    let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
    let mut waiting: Vec<_> = pods
        .iter()
        .filter(|pod| waits(pod))
        .filter(|pod| !assumed.contains_key(&uid(pod)) && !later.contains(&uid(pod)))
        .collect();
    if waiting.is_empty() {
        return Vec::new();
    }
    waiting.sort_by_cached_key(|pod| {
        let priority = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.priority)
            .unwrap_or(0);
        let metadata = &pod.metadata;
        (
            std::cmp::Reverse(priority),
            metadata.creation_timestamp.as_ref().map(|time| time.0),
            metadata.namespace.clone(),
            metadata.name.clone(),
        )
    });
    let mut rooms: BTreeMap<&str, Room<'_>> = nodes
        .iter()
        .filter(|node| node.metadata.deletion_timestamp.is_none())
        .map(|node| Room::of(node))
        .map(|room| (room.name, room))
        .collect();
    let mut homes = Homes::of(claims);
    for pod in pods.iter().filter(|pod| !pod::has_ended(pod)) {
        let known = pod::node(pod).or_else(|| assumed.get(&uid(pod)).map(String::as_str));
        let Some(node) = known else { continue };
        homes.settle(pod, node);
        if let Some(room) = rooms.get_mut(node) {
            room.take(&Wanted::of(pod));
        }
    }
    let mut decisions = Vec::new();
    for pod in waiting {
        let pod = Arc::clone(pod);
        let mut wanted = Wanted::of(&pod);
        let placed = homes
            .nodes(&pod)
            .map_err(|cause| unavailable(&rooms, &cause));
        let placed = placed.and_then(|nodes| {
            wanted.homes = nodes;
            place(&rooms, &wanted)
        });
        match placed {
            Ok(node) => {
                homes.settle(&pod, &node);
                if let Some(room) = rooms.get_mut(node.as_str()) {
                    room.take(&wanted);
                }
                decisions.push(Decision::Bind { pod, node });
            }
            Err(message) => decisions.push(Decision::Unschedulable { pod, message }),
        }
    }
    decisions
}

fn unavailable(rooms: &BTreeMap<&str, Room<'_>>, why: &str) -> String {
    format!("0/{} nodes are available: {why}.", rooms.len())
}

/// Drops what the observed Pods show by now: a Pod is bound, or gone.
pub fn forget(assumed: &mut Assumed, pods: &[Arc<Pod>]) {
    if assumed.is_empty() {
        return;
    }
    let waiting: BTreeSet<_> = pods
        .iter()
        .filter(|pod| pod::node(pod).is_none())
        .filter_map(|pod| pod.metadata.uid.as_deref())
        .collect();
    assumed.retain(|uid, _| waiting.contains(uid.as_str()));
}

/// The best node for a Pod, or why there is none.
fn place(rooms: &BTreeMap<&str, Room<'_>>, wanted: &Wanted<'_>) -> Result<String, String> {
    if rooms.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut fit = Vec::new();
    for room in rooms.values() {
        let refused = room.refuses(wanted);
        if refused.is_empty() {
            fit.push(room);
        }
        for reason in refused {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    let most = |count: &dyn Fn(&Room<'_>) -> i64| fit.iter().map(|room| count(room)).max();
    let siblings = most(&|room| room.siblings(wanted)).unwrap_or(0);
    let prefers = |room: &Room<'_>| crate::placement::affinity::preference(wanted.pod, room.node);
    let preference = most(&prefers).unwrap_or(0);
    let dislikes = most(&|room| room.dislikes(wanted)).unwrap_or(0);
    let part = |count: i64, of: i64| (count * 100).checked_div(of).unwrap_or(0);
    let score = |room: &Room<'_>| {
        let points = WEIGHTS.free * room.free(wanted)
            + WEIGHTS.spread * (100 - part(room.siblings(wanted), siblings))
            + WEIGHTS.preference * part(prefers(room), preference)
            + WEIGHTS.dislike * (100 - part(room.dislikes(wanted), dislikes));
        (points, std::cmp::Reverse(room.pods()))
    };
    // Of equal ones the first by name.
    if let Some(best) = fit.iter().rev().max_by_key(|room| score(room)) {
        return Ok(best.name.to_owned());
    }
    let mut reasons: Vec<_> = reasons
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    reasons.sort();
    Err(unavailable(rooms, &reasons.join(", ")))
}

#[cfg(test)]
mod tests;
