//! What a Deployment is to do next.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::limits::{self, Limits};
use super::revision;
use super::rollout::{self, Sets};
use super::scale;
use super::status::{self, News};
use crate::controller::{Again, controller_of};
use crate::pod;
use crate::replicas::Replicated;

/// What is to be done for one Deployment, in this order.
#[derive(Debug)]
pub struct Plan {
    /// The ReplicaSet of a new template.
    pub create: Option<ReplicaSet>,
    /// ReplicaSets that change: as they are, and as they are to be in replicas, annotations and minReadySeconds.
    pub update: Vec<(Arc<ReplicaSet>, ReplicaSet)>,
    /// ReplicaSets that nobody will roll back to any more.
    pub delete: Vec<Arc<ReplicaSet>>,
    /// The revision that the Deployment's annotation must tell, if it does not.
    pub revision: Option<String>,
    /// What to tell.
    pub status: DeploymentStatus,
    /// When the progress deadline passes.
    pub again: Again,
}

/// Decides about the ReplicaSets that the Deployment controls. `pods` are theirs; only `Recreate` needs them.
pub fn plan(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Plan {
    let limits = limits::limits(deployment);
    let recreate = limits::recreates(deployment);
    let paused = deployment
        .spec
        .as_ref()
        .is_some_and(|spec| spec.paused == Some(true));
    let mut work = sort(deployment, sets);
    if deployment.metadata.deletion_timestamp.is_some() {
        return finish(
            deployment,
            limits,
            sets,
            &work,
            News::Nothing,
            Vec::new(),
            now,
        );
    }
    let newest_old = work.old.iter().map(revision::revision).max().unwrap_or(0);
    let mut news = News::Nothing;
    if let Some(new) = &mut work.new {
        adjust(new, deployment, newest_old);
        news = News::Found;
    }
    if paused || !recreate && scale::is_due(&work, limits) {
        let told = deployment
            .status
            .as_ref()
            .and_then(|status| status.replicas)
            .unwrap_or(0);
        scale::scale_all(&mut work, limits, recreate, told);
        let delete = if paused {
            outdated(deployment, sets, &work)
        } else {
            Vec::new()
        };
        let news = if paused { News::Paused } else { News::Scaled };
        return finish(deployment, limits, sets, &work, news, delete, now);
    }
    if recreate {
        rollout::stop_old(&mut work, limits);
        if old_pods_run(sets, &work, pods) {
            return finish(deployment, limits, sets, &work, news, Vec::new(), now);
        }
    }
    if work.new.is_none()
        && let Some(spec) = &deployment.spec
    {
        let mut new = revision::new_set(deployment, &spec.template, spec.min_ready_seconds);
        adjust(&mut new, deployment, newest_old);
        revision::note_size(&mut new, limits);
        work.new = Some(new);
        news = News::Created;
    }
    if recreate {
        rollout::grow_all(&mut work, limits);
    } else {
        rollout::roll(&mut work, limits);
    }
    let delete = if status::is_complete(deployment, limits, &work) {
        outdated(deployment, sets, &work)
    } else {
        Vec::new()
    };
    finish(deployment, limits, sets, &work, news, delete, now)
}

/// The ReplicaSet of the present template (of several the oldest, so that all who look choose the same), and the
/// others by age.
fn sort(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Sets {
    let mut sets: Vec<ReplicaSet> = sets.iter().map(|set| set.as_ref().clone()).collect();
    sets.sort_by_cached_key(|set| (set.metadata.creation_timestamp.clone(), set.name_any()));
    let present = deployment.spec.as_ref().map(|spec| &spec.template);
    let is_new = |set: &ReplicaSet| {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        matches!((template, present), (Some(template), Some(present)) if revision::same_template(template, present))
    };
    let new = sets.iter().position(is_new).map(|at| sets.remove(at));
    Sets { old: sets, new }
}

fn adjust(new: &mut ReplicaSet, deployment: &Deployment, newest_old: i64) {
    revision::annotate(new, deployment, newest_old);
    if let (Some(spec), Some(wanted)) = (&mut new.spec, &deployment.spec)
        && spec.min_ready_seconds.unwrap_or(0) != wanted.min_ready_seconds.unwrap_or(0)
    {
        spec.min_ready_seconds = wanted.min_ready_seconds;
    }
}

/// Whether a Pod of an earlier template has not ended. One that is being deleted still runs.
fn old_pods_run(sets: &[Arc<ReplicaSet>], work: &Sets, pods: &[Arc<Pod>]) -> bool {
    let new = work.new.as_ref().and_then(|new| new.metadata.uid.as_ref());
    let told = sets.iter().filter(|set| set.metadata.uid.as_ref() != new);
    if told
        .filter_map(|set| set.status.as_ref())
        .any(|status| status.replicas > 0)
    {
        return true;
    }
    let runs = |pod: &Arc<Pod>| {
        !pod::has_ended(pod) && controller_of(pod.as_ref()).map(|owner| &owner.uid) != new
    };
    pods.iter().any(runs)
}

/// The oldest ReplicaSets beyond the history's limit. One that has Pods or is about to be changed stays.
fn outdated(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    work: &Sets,
) -> Vec<Arc<ReplicaSet>> {
    let limit = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(10);
    let mut old: Vec<_> = work
        .old
        .iter()
        .filter(|set| set.metadata.deletion_timestamp.is_none())
        .collect();
    let excess = old
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.sort_by_key(|set| revision::revision(set));
    old.truncate(excess);
    let settled = |set: &&ReplicaSet| {
        let status = set.status.clone().unwrap_or_default();
        status.replicas == 0
            && set.replicas() == 0
            && set.metadata.generation <= status.observed_generation
    };
    let names: Vec<_> = old
        .into_iter()
        .filter(settled)
        .map(|set| &set.metadata.uid)
        .collect();
    let unchanged =
        |set: &&Arc<ReplicaSet>| names.contains(&&set.metadata.uid) && set.replicas() == 0;
    sets.iter().filter(unchanged).cloned().collect()
}

fn finish(
    deployment: &Deployment,
    limits: Limits,
    before: &[Arc<ReplicaSet>],
    work: &Sets,
    news: News,
    delete: Vec<Arc<ReplicaSet>>,
    now: Timestamp,
) -> Plan {
    let was = |set: &ReplicaSet| {
        before
            .iter()
            .find(|was| was.metadata.uid == set.metadata.uid)
            .cloned()
    };
    let create = work
        .new
        .as_ref()
        .filter(|new| new.metadata.uid.is_none())
        .cloned();
    // The new one first: should the second write fail, there are rather too many Pods than too few.
    let kept = work
        .new
        .iter()
        .chain(&work.old)
        .filter(|set| set.metadata.uid.is_some());
    let changed = kept.filter_map(|set| {
        was(set)
            .filter(|was| was.as_ref() != set)
            .map(|was| (was, set.clone()))
    });
    let told = work
        .new
        .as_ref()
        .and_then(|new| new.annotations().get(revision::REVISION));
    let revision = told
        .filter(|told| deployment.annotations().get(revision::REVISION) != Some(told))
        .cloned();
    let status = status::status(deployment, limits, work, news, now);
    let again = status::deadline(deployment, limits, &status, now);
    Plan {
        create,
        update: changed.collect(),
        delete,
        revision,
        status,
        again,
    }
}

#[cfg(test)]
mod tests;
