//! How many Pods of a Job have succeeded and failed: each counted once, whatever happens between two writes.
//!
//! As in Kubernetes. Every Pod is made with a finalizer, so none can vanish before it is counted. A Pod that has ended
//! is first written into `status.uncountedTerminatedPods`, then loses its finalizer, and then its entry is replaced by
//! one more in `status.succeeded` or `status.failed`. The status is written only over the very revision that was read,
//! and a kept Pod never goes back in time: so an entry that was counted is not made again. An index that has succeeded
//! needs no entry, since a set does not count twice.

use super::indexes;
use super::worker::{self, is_tracked};
use crate::pod;
use k8s_openapi::api::batch::v1::{Job, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// `status.succeeded`
    pub succeeded: i32,
    /// `status.failed`
    pub failed: i32,
    /// Pods that succeeded and have no part in `succeeded` yet, by uid.
    pub uncounted_succeeded: BTreeSet<String>,
    /// Pods that failed and have no part in `failed` yet, by uid.
    pub uncounted_failed: BTreeSet<String>,
    /// The indexes that succeeded, of an Indexed Job.
    pub indexes: Option<BTreeSet<i32>>,
    /// Pods whose end the status tells once it is written, so that they may lose their finalizer, by name.
    pub release: BTreeSet<String>,
}

/// Counts the Job's Pods on top of its status. `ending`: active Pods are being deleted because the Job has failed.
pub fn count(job: &Job, pods: &[Arc<Pod>]) -> Account {
    let status = job.status.as_ref();
    let completions = completions(job);
    let written = status.and_then(|status| status.completed_indexes.as_deref());
    let indexed = is_indexed(job).then(|| {
        let limit = completions.unwrap_or(0);
        indexes::parse(written.unwrap_or_default(), limit)
    });
    let mut account = Account {
        succeeded: status.and_then(|status| status.succeeded).unwrap_or(0),
        failed: status.and_then(|status| status.failed).unwrap_or(0),
        indexes: indexed,
        ..Account::default()
    };
    let uncounted = status.and_then(|status| status.uncounted_terminated_pods.as_ref());
    let tracked: BTreeSet<&String> = pods
        .iter()
        .filter(|pod| is_tracked(pod))
        .filter_map(|pod| pod.metadata.uid.as_ref())
        .collect();
    for uid in uncounted
        .iter()
        .flat_map(|both| both.succeeded.iter().flatten())
    {
        if tracked.contains(uid) {
            account.uncounted_succeeded.insert(uid.clone());
        } else {
            account.succeeded += 1;
        }
    }
    for uid in uncounted
        .iter()
        .flat_map(|both| both.failed.iter().flatten())
    {
        if tracked.contains(uid) {
            account.uncounted_failed.insert(uid.clone());
        } else {
            account.failed += 1;
        }
    }
    for pod in pods.iter().filter(|pod| is_tracked(pod)) {
        account.add(job, pod);
    }
    if let Some(indexes) = &account.indexes {
        account.succeeded = i32::try_from(indexes.len()).unwrap_or(i32::MAX);
    }
    account
}

impl Account {
    fn add(&mut self, job: &Job, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let succeeded = pod::phase(pod) == "Succeeded";
        if !succeeded && !is_failed(job, pod) {
            return;
        }
        self.release.insert(pod::name(pod).to_owned());
        if self.uncounted_succeeded.contains(&uid) || self.uncounted_failed.contains(&uid) {
            return;
        }
        let completions = completions(job).unwrap_or(0);
        match (&mut self.indexes, succeeded) {
            (None, true) => _ = self.uncounted_succeeded.insert(uid),
            (None, false) => _ = self.uncounted_failed.insert(uid),
            (Some(indexes), succeeded) => {
                // A Pod without one of the wanted indexes counts for nothing.
                let index = worker::index(pod).filter(|index| *index < completions);
                match (index, succeeded) {
                    (Some(index), true) => _ = indexes.insert(index),
                    (Some(_), false) => _ = self.uncounted_failed.insert(uid),
                    (None, _) => {}
                }
            }
        }
    }

    /// All that have succeeded.
    pub fn all_succeeded(&self) -> i32 {
        self.succeeded + i32::try_from(self.uncounted_succeeded.len()).unwrap_or(i32::MAX)
    }

    /// All that have failed.
    pub fn all_failed(&self) -> i32 {
        self.failed + i32::try_from(self.uncounted_failed.len()).unwrap_or(i32::MAX)
    }

    /// Whether nothing waits to be counted.
    pub fn is_settled(&self) -> bool {
        self.uncounted_succeeded.is_empty() && self.uncounted_failed.is_empty()
    }

    /// As the status has it.
    pub fn uncounted(&self) -> UncountedTerminatedPods {
        let list = |set: &BTreeSet<String>| {
            (!set.is_empty()).then(|| set.iter().cloned().collect::<Vec<_>>())
        };
        UncountedTerminatedPods {
            failed: list(&self.uncounted_failed),
            succeeded: list(&self.uncounted_succeeded),
        }
    }
}

/// Whether the Pod counts as failed: it has, or it is being deleted before it has succeeded, unless the Job waits for
/// such Pods to end (`podReplacementPolicy: Failed`).
pub fn is_failed(job: &Job, pod: &Pod) -> bool {
    let phase = pod::phase(pod);
    phase == "Failed"
        || (phase != "Succeeded" && pod::is_terminating(pod) && !replaces_failed_only(job))
}

/// `podReplacementPolicy: Failed`
pub fn replaces_failed_only(job: &Job) -> bool {
    let spec = job.spec.as_ref();
    spec.and_then(|spec| spec.pod_replacement_policy.as_deref()) == Some("Failed")
}

/// `completionMode: Indexed`
pub fn is_indexed(job: &Job) -> bool {
    let spec = job.spec.as_ref();
    spec.and_then(|spec| spec.completion_mode.as_deref()) == Some("Indexed")
}

/// How many Pods are to succeed. None: a work queue, of which the first that succeeds ends the Job.
pub fn completions(job: &Job) -> Option<i32> {
    job.spec.as_ref()?.completions
}
