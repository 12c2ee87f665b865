//! The status of a DaemonSet.

use super::daemon::Fit;
use super::plan::{ByNode, Observed, is_new, min_ready};
use crate::pod;
use k8s_openapi::api::apps::v1::DaemonSetStatus;
use std::collections::BTreeMap;

/// What the nodes and Pods add up to. A node counts by its oldest Pod.
pub fn of(
    observed: &Observed<'_>,
    by_node: &ByNode<'_>,
    fits: &BTreeMap<&str, Fit>,
) -> DaemonSetStatus {
    let was = observed.set.status.as_ref();
    let mut status = DaemonSetStatus {
        collision_count: was.and_then(|status| status.collision_count),
        conditions: was.and_then(|status| status.conditions.clone()),
        observed_generation: observed.set.metadata.generation,
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for (node, fit) in fits {
        let pods = by_node.get(node);
        if *fit != Fit::Run {
            status.number_misscheduled += i32::from(pods.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = pods.and_then(|pods| pods.first()) else {
            continue;
        };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pod::is_ready(pod));
        let min_ready = min_ready(observed.set);
        available += i32::from(pod::is_available(pod, min_ready, observed.now));
        updated += i32::from(is_new(observed, pod));
    }
    status.number_available = Some(available);
    status.updated_number_scheduled = Some(updated);
    status.number_unavailable = Some(status.desired_number_scheduled - available);
    status
}
