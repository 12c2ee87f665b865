//! What a ReplicaSet or ReplicationController is to do: how many Pods to make, which to delete, what to tell.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::kind::Replicated;
use super::rank;
use crate::pod::{self, Availability};

/// Pods made or deleted in one go, as Kubernetes has it.
const BURST: usize = 500;

/// What is to be done for one owner.
#[derive(Debug)]
pub struct Plan {
    /// Pods to make.
    pub create: usize,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// What to tell of the Pods as they were given.
    pub status: Status,
    /// When a Pod will have been ready for long enough.
    pub again: Option<Duration>,
}

/// The status of either kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Pods that run or will run.
    pub replicas: i32,
    /// Those with all labels of the template.
    pub fully_labeled: i32,
    /// Those that are ready.
    pub ready: i32,
    /// Those that have been for `minReadySeconds`.
    pub available: i32,
    /// Those that are being deleted.
    pub terminating: Option<i32>,
    /// The generation of the specification that this status follows.
    pub observed_generation: Option<i64>,
    /// At most one: `ReplicaFailure`.
    pub conditions: Vec<Condition>,
}

/// A condition of either kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// `ReplicaFailure`
    pub type_: String,
    /// `True`
    pub status: String,
    /// `FailedCreate` or `FailedDelete`
    pub reason: String,
    /// What the server said.
    pub message: String,
    /// When the status became so.
    pub since: Option<Time>,
}

/// Why Pods could not be made or deleted.
#[derive(Debug)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`
    pub reason: &'static str,
    /// What the server said.
    pub message: String,
}

/// Decides about the Pods that `owner` controls. `related` are the Pods of all owners of the same parent, its own
/// among them.
pub fn plan<R: Replicated>(
    owner: &R,
    pods: &[Arc<Pod>],
    related: &[Arc<Pod>],
    now: Timestamp,
) -> Plan {
    let active: Vec<_> = pods
        .iter()
        .filter(|pod| pod::is_active(pod))
        .cloned()
        .collect();
    let wanted = usize::try_from(owner.replicas()).unwrap_or(0);
    let (mut create, mut delete) = (0, Vec::new());
    if owner.meta().deletion_timestamp.is_none() {
        create = wanted.saturating_sub(active.len()).min(BURST);
        let excess = active.len().saturating_sub(wanted).min(BURST);
        if excess > 0 {
            delete = rank::least_missed(&active, related, excess, now);
        }
    }
    let (status, again) = status(owner, pods, &active, now);
    Plan {
        create,
        delete,
        status,
        again,
    }
}

fn status<R: Replicated>(
    owner: &R,
    pods: &[Arc<Pod>],
    active: &[Arc<Pod>],
    now: Timestamp,
) -> (Status, Option<Duration>) {
    let labels = owner
        .template()
        .and_then(|template| template.metadata.as_ref()?.labels.clone())
        .unwrap_or_default();
    let labeled = |pod: &&Arc<Pod>| {
        labels
            .iter()
            .all(|(key, value)| pod.labels().get(key) == Some(value))
    };
    let mut available = 0;
    let mut again = None;
    for pod in active {
        match pod::availability(pod, owner.min_ready_seconds(), now) {
            Availability::Yes => available += 1,
            Availability::In(left) => {
                again = Some(again.map_or(left, |again: Duration| again.min(left)))
            }
            Availability::No => {}
        }
    }
    let status = Status {
        replicas: count(active.iter()),
        fully_labeled: count(active.iter().filter(labeled)),
        ready: count(active.iter().filter(|pod| pod::is_ready(pod))),
        available,
        terminating: Some(count(
            pods.iter()
                .filter(|pod| pod::is_terminating(pod) && !pod::has_ended(pod)),
        )),
        observed_generation: owner.meta().generation,
        conditions: owner.status().conditions,
    };
    (status, again)
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

/// The status with the condition `ReplicaFailure` as the last try to make or delete Pods left it.
pub fn with_failure(mut status: Status, failure: Option<Failure>, now: Timestamp) -> Status {
    let before = status
        .conditions
        .iter()
        .position(|condition| condition.type_ == "ReplicaFailure");
    let before = before.map(|at| status.conditions.remove(at));
    if let Some(Failure { reason, message }) = failure {
        // As in Kubernetes, the first failure stays until one try has none, unless its reason changes.
        let condition = before
            .filter(|before| before.reason == reason)
            .unwrap_or_else(|| Condition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                reason: reason.into(),
                message,
                since: Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
            });
        status.conditions.push(condition);
    }
    status
}

#[cfg(test)]
mod tests;
