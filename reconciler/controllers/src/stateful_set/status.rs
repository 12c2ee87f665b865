//! The status of a StatefulSet.

use super::plan::{Observed, is_of, min_ready, partition, range};
use crate::pod;
use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// What the Pods add up to. When all are of the new revision and ready, that becomes the current one.
pub fn of(observed: &Observed<'_>, pods: &BTreeMap<i64, &Pod>) -> StatefulSetStatus {
    let was = observed.set.status.as_ref();
    let count = |which: &dyn Fn(&Pod) -> bool| {
        let which = pods.values().filter(|pod| which(pod));
        i32::try_from(which.count()).unwrap_or(i32::MAX)
    };
    let runs = |pod: &Pod| pod::phase(pod) == "Running" && pod::is_ready(pod);
    let stays = |pod: &Pod| !pod::is_terminating(pod);
    let replicas = count(&|_| true);
    let ready = count(&runs);
    let available =
        |pod: &Pod| runs(pod) && pod::is_available(pod, min_ready(observed.set), observed.now);
    let updated = count(&|pod| stays(pod) && is_of(pod, observed.update));
    let mut status = StatefulSetStatus {
        available_replicas: Some(count(&available)),
        collision_count: Some(was.and_then(|was| was.collision_count).unwrap_or(0)),
        conditions: was.and_then(|was| was.conditions.clone()),
        current_replicas: Some(count(&|pod| stays(pod) && is_of(pod, observed.current))),
        current_revision: Some(observed.current.name_any()),
        observed_generation: observed.set.metadata.generation,
        ready_replicas: Some(ready),
        replicas,
        update_revision: Some(observed.update.name_any()),
        updated_replicas: Some(updated),
    };
    let (first, end) = range(observed.set);
    let all = i64::from(replicas) == end - first;
    // An update that stops at a partition is not the current revision.
    if partition(observed.set).is_some() && all && updated == replicas && ready == replicas {
        status.current_revision.clone_from(&status.update_revision);
        status.current_replicas = status.updated_replicas;
    }
    status
}
