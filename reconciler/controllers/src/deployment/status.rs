//! What a Deployment tells: counts, and the conditions that `kubectl rollout status` waits for.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::limits::Limits;
use super::rollout::Sets;
use crate::controller::Again;
use crate::trouble::Trouble;

/// What this round did that the conditions tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The ReplicaSet of the present template is made.
    Created,
    /// It was there.
    Found,
    /// There is none, and none is made.
    Nothing,
    /// The Deployment is paused.
    Paused,
    /// The ReplicaSets follow a new number of Pods.
    Scaled,
}

const PROGRESSING: &str = "Progressing";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const AVAILABLE: &str = "NewReplicaSetAvailable";

/// The status, from the ReplicaSets' own.
pub fn status(
    deployment: &Deployment,
    limits: Limits,
    sets: &Sets,
    news: News,
    now: Timestamp,
) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = counts(deployment, sets);
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let enough = status.available_replicas.unwrap_or(0) >= limits.fewest();
    let (value, reason, message) = if enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    set(
        &mut conditions,
        condition("Available", value, reason, message.into(), now),
    );
    if progress_deadline(deployment).is_none() {
        conditions.retain(|condition| condition.type_ != PROGRESSING);
    } else {
        announce(&mut conditions, sets, news, now);
        if matches!(news, News::Created | News::Found | News::Nothing)
            && deployment.metadata.deletion_timestamp.is_none()
        {
            progress(
                deployment,
                limits,
                sets,
                &before,
                &status,
                &mut conditions,
                now,
            );
        }
    }
    if matches!(news, News::Created | News::Found | News::Nothing) {
        conditions.retain(|condition| condition.type_ != "ReplicaFailure");
        conditions.extend(failure(sets));
    }
    status.conditions = (!conditions.is_empty()).then_some(conditions);
    status
}

fn counts(deployment: &Deployment, sets: &Sets) -> DeploymentStatus {
    let sum = |count: &dyn Fn(&ReplicaSetStatus) -> i32| {
        sets.all()
            .filter_map(|set| set.status.as_ref())
            .map(count)
            .sum::<i32>()
    };
    let available = sum(&|status| status.available_replicas.unwrap_or(0));
    let unavailable = (sets.wanted() - available).max(0);
    let some = |count: i32| (count != 0).then_some(count);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(&|status| status.replicas)),
        updated_replicas: some(
            sets.new
                .as_ref()
                .and_then(|new| new.status.as_ref())
                .map_or(0, |status| status.replicas),
        ),
        ready_replicas: some(sum(&|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some(unavailable),
        terminating_replicas: Some(sum(&|status| status.terminating_replicas.unwrap_or(0))),
        collision_count: deployment
            .status
            .as_ref()
            .and_then(|status| status.collision_count),
        conditions: None,
    }
}

/// Tells that a rollout begins, or that it is paused or resumed.
fn announce(conditions: &mut Vec<DeploymentCondition>, sets: &Sets, news: News, now: Timestamp) {
    let reason = conditions
        .iter()
        .find(|condition| condition.type_ == PROGRESSING)
        .map(reason);
    let name = sets
        .new
        .as_ref()
        .map(ResourceExt::name_any)
        .unwrap_or_default();
    let told = match (news, reason) {
        (News::Paused, Some(TIMED_OUT | "DeploymentPaused")) => return,
        (News::Paused, _) => (
            "Unknown",
            "DeploymentPaused",
            "Deployment is paused".to_owned(),
        ),
        (News::Created, _) => (
            "True",
            "NewReplicaSetCreated",
            format!("Created new replica set \"{name}\""),
        ),
        (_, Some("DeploymentPaused")) => (
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed".to_owned(),
        ),
        (News::Found, None) => (
            "True",
            "FoundNewReplicaSet",
            format!("Found new replica set \"{name}\""),
        ),
        _ => return,
    };
    set(
        conditions,
        condition(PROGRESSING, told.0, told.1, told.2, now),
    );
}

/// Tells whether the rollout is complete, moves, or has stood still for too long.
fn progress(
    deployment: &Deployment,
    limits: Limits,
    sets: &Sets,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &mut Vec<DeploymentCondition>,
    now: Timestamp,
) {
    let current = conditions
        .iter()
        .find(|condition| condition.type_ == PROGRESSING)
        .cloned();
    let told = current.as_ref().map(reason);
    if status.replicas == status.updated_replicas && told == Some(AVAILABLE) {
        return;
    }
    let subject = match &sets.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name_any()),
        None => format!("Deployment \"{}\"", deployment.name_any()),
    };
    if complete(deployment, limits, status) {
        let message = format!("{subject} has successfully progressed.");
        set(
            conditions,
            condition(PROGRESSING, "True", AVAILABLE, message, now),
        );
    } else if moves(before, status) {
        let mut moving = condition(
            PROGRESSING,
            "True",
            "ReplicaSetUpdated",
            format!("{subject} is progressing."),
            now,
        );
        if let Some(current) = current.filter(|current| current.status == "True") {
            moving.last_transition_time = current.last_transition_time;
        }
        // Even where nothing else changes, the time does: the deadline counts from here.
        conditions.retain(|condition| condition.type_ != PROGRESSING);
        conditions.push(moving);
    } else if current.is_some_and(|current| left(deployment, &current, now) == Some(Duration::ZERO))
    {
        let message = format!("{subject} has timed out progressing.");
        set(
            conditions,
            condition(PROGRESSING, "False", TIMED_OUT, message, now),
        );
    }
}

/// Whether all Pods are of the present template and available.
pub fn is_complete(deployment: &Deployment, limits: Limits, sets: &Sets) -> bool {
    complete(deployment, limits, &counts(deployment, sets))
}

fn complete(deployment: &Deployment, limits: Limits, status: &DeploymentStatus) -> bool {
    let is_all = |count: Option<i32>| count.unwrap_or(0) == limits.wanted;
    is_all(status.updated_replicas)
        && is_all(status.replicas)
        && is_all(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

fn moves(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let old = |status: &DeploymentStatus| {
        status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0)
    };
    now.updated_replicas > before.updated_replicas
        || old(now) < old(before)
        || now.ready_replicas > before.ready_replicas
        || now.available_replicas > before.available_replicas
}

/// What a ReplicaSet could not do, the new one's first.
fn failure(sets: &Sets) -> Option<DeploymentCondition> {
    let failed = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions
            .iter()
            .find(|condition| condition.type_ == "ReplicaFailure")
            .cloned()
    };
    let failed = sets.new.iter().chain(&sets.old).find_map(failed)?;
    Some(DeploymentCondition {
        type_: failed.type_,
        status: failed.status,
        reason: failed.reason,
        message: failed.message,
        last_update_time: failed.last_transition_time.clone(),
        last_transition_time: failed.last_transition_time,
    })
}

/// When to look whether the deadline has passed; never when nothing is awaited.
pub fn deadline(
    deployment: &Deployment,
    limits: Limits,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Again {
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == PROGRESSING)?;
    if complete(deployment, limits, status)
        || matches!(
            reason(condition),
            TIMED_OUT | AVAILABLE | "DeploymentPaused"
        )
    {
        return None;
    }
    // The times that are written are whole seconds: look when the deadline has surely passed.
    left(deployment, condition, now).map(|left| left + Duration::from_secs(1))
}

fn progress_deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds;
    seconds.filter(|seconds| *seconds != i32::MAX)
}

/// How long the rollout may still stand still, zero when it has been for too long; none where that is not watched.
fn left(
    deployment: &Deployment,
    condition: &DeploymentCondition,
    now: Timestamp,
) -> Option<Duration> {
    match reason(condition) {
        AVAILABLE => return None,
        TIMED_OUT => return Some(Duration::ZERO),
        _ => {}
    }
    let allowed = Duration::from_secs(u64::try_from(progress_deadline(deployment)?).unwrap_or(0));
    let since = condition.last_update_time.as_ref()?.0;
    let stood = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(allowed.checked_sub(stood).unwrap_or_default())
}

/// The status after the ReplicaSet of the present template could not be made: with another try's name for one that
/// is taken, or with the reason. None where the namespace is being deleted.
pub fn after_failed_create(
    deployment: &Deployment,
    new: &ReplicaSet,
    trouble: &Trouble,
    now: Timestamp,
) -> Option<DeploymentStatus> {
    if trouble.ends_with_namespace() {
        return None;
    }
    let mut status = deployment.status.clone().unwrap_or_default();
    if trouble.is_conflict() {
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    } else {
        progress_deadline(deployment)?;
        let message = create_failed(new, trouble);
        let failed = condition(PROGRESSING, "False", "ReplicaSetCreateError", message, now);
        set(status.conditions.get_or_insert_default(), failed);
    }
    (deployment.status.as_ref() != Some(&status)).then_some(status)
}

/// What the event and the condition say.
pub fn create_failed(new: &ReplicaSet, trouble: &Trouble) -> String {
    format!(
        "Failed to create new replica set \"{}\": {}",
        new.name_any(),
        trouble.said()
    )
}

fn reason(condition: &DeploymentCondition) -> &str {
    condition.reason.as_deref().unwrap_or_default()
}

fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}

/// Sets a condition, the last in the list. One that says the same stays as it is.
fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition) {
    let before = conditions
        .iter()
        .position(|condition| condition.type_ == new.type_);
    if let Some(at) = before {
        let before = &conditions[at];
        if before.status == new.status && before.reason == new.reason {
            return;
        }
        if before.status == new.status {
            new.last_transition_time = before.last_transition_time.clone();
        }
        conditions.remove(at);
    }
    conditions.push(new);
}
