//! Which Pods go first when there are too many.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::pod;

/// The annotation that says how dear a Pod is: a whole number, 0 without it, lower ones go first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` of `pods` whose loss hurts least: not bound, not running, not ready, cheap, sharing their node with
/// most of `related`, ready for a short time, restarted often, young. Times are compared by their order of magnitude
/// alone, so that with equals chance decides (by uid) and not always the youngest goes, as Kubernetes does.
pub fn least_missed(
    pods: &[Arc<Pod>],
    related: &[Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut on_node = HashMap::<&str, usize>::new();
    for node in related
        .iter()
        .filter(|pod| pod::is_active(pod))
        .filter_map(|pod| pod::node(pod))
    {
        *on_node.entry(node).or_default() += 1;
    }
    let crowd = |pod: &Pod| {
        pod::node(pod)
            .and_then(|node| on_node.get(node))
            .copied()
            .unwrap_or(0)
    };
    let mut pods = pods.to_vec();
    pods.sort_by_cached_key(|pod| {
        (
            pod::node(pod).is_some(),
            match pod::phase(pod) {
                "Running" => 2,
                "Unknown" => 1,
                _ => 0,
            },
            pod::is_ready(pod),
            cost(pod),
            Reverse(crowd(pod)),
            magnitude(pod::ready_since(pod), now),
            Reverse(restarts(pod)),
            magnitude(
                pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
                now,
            ),
            pod.uid(),
        )
    });
    pods.truncate(count);
    pods
}

fn cost(pod: &Pod) -> i32 {
    pod.annotations()
        .get(DELETION_COST)
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0)
}

/// The order of magnitude (in powers of two of a nanosecond) of the time since `then`; an unknown time is the longest
/// ago.
fn magnitude(then: Option<Timestamp>, now: Timestamp) -> u32 {
    let Some(then) = then else { return u32::MAX };
    let age = u128::try_from(now.as_nanosecond() - then.as_nanosecond()).unwrap_or(0);
    age.checked_ilog2().map_or(0, |log| log + 1)
}
