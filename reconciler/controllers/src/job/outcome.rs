//! How a Job ends: the conditions that say so, and what decides.

use super::account::{Account, completions};
use super::worker::{is_active, restarts};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;

/// Why a Job ends, with the words for conditions and events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it has done what it was to do.
    pub success: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Outcome {
    fn failure(reason: &str, message: &str) -> Self {
        Self {
            success: false,
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }

    /// The condition that is there as soon as it is decided.
    pub fn decided(&self) -> &'static str {
        if self.success {
            "SuccessCriteriaMet"
        } else {
            "FailureTarget"
        }
    }

    /// The condition that is there when all Pods have ended and are counted.
    pub fn ended(&self) -> &'static str {
        if self.success { "Complete" } else { "Failed" }
    }
}

/// A Job's condition of this type, if it is True.
pub fn condition<'a>(job: &'a Job, name: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == name && condition.status == "True")
}

/// Whether the Job has ended.
pub fn is_over(job: &Job) -> bool {
    condition(job, "Complete").is_some() || condition(job, "Failed").is_some()
}

/// Adds a condition, or changes the one of its type. The time is kept while the status is.
pub fn set(
    conditions: &mut Vec<JobCondition>,
    name: &str,
    status: &str,
    why: (&str, &str),
    now: Timestamp,
) {
    let old = conditions.iter_mut().find(|old| old.type_ == name);
    if old.as_ref().is_some_and(|old| old.status == status) {
        return;
    }
    let time = Some(Time(now));
    let new = JobCondition {
        last_probe_time: time.clone(),
        last_transition_time: time,
        message: Some(why.1.to_owned()),
        reason: Some(why.0.to_owned()),
        status: status.to_owned(),
        type_: name.to_owned(),
    };
    match old {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

/// Whether the Job is to end now, and how. What was decided stays.
pub fn decide(job: &Job, pods: &[Arc<Pod>], account: &Account, now: Timestamp) -> Option<Outcome> {
    for (name, success) in [("FailureTarget", false), ("SuccessCriteriaMet", true)] {
        if let Some(condition) = condition(job, name) {
            return Some(Outcome {
                success,
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
            });
        }
    }
    let limit = backoff_limit(job);
    if account.all_failed() > limit || too_many_restarts(job, pods, limit) {
        let message = "Job has reached the specified backoff limit";
        return Some(Outcome::failure("BackoffLimitExceeded", message));
    }
    if deadline(job).is_some_and(|deadline| deadline <= now) {
        let message = "Job was active longer than specified deadline";
        return Some(Outcome::failure("DeadlineExceeded", message));
    }
    let succeeded = account.all_succeeded();
    let enough = completions(job).map_or(succeeded > 0, |wanted| succeeded >= wanted);
    enough.then(|| Outcome {
        success: true,
        reason: "CompletionsReached".to_owned(),
        message: "Reached expected number of succeeded pods".to_owned(),
    })
}

/// When a running Job has had its time.
pub fn deadline(job: &Job) -> Option<Timestamp> {
    let spec = job.spec.as_ref()?;
    if spec.suspend == Some(true) {
        return None;
    }
    let start = job.status.as_ref()?.start_time.as_ref()?.0;
    let seconds = spec.active_deadline_seconds?;
    start.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn backoff_limit(job: &Job) -> i32 {
    let spec = job.spec.as_ref();
    spec.and_then(|spec| spec.backoff_limit).unwrap_or(6)
}

/// Containers that are restarted in their Pod never make the Pod fail, so the restarts count instead.
fn too_many_restarts(job: &Job, pods: &[Arc<Pod>], limit: i32) -> bool {
    let pod = job
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    if pod.and_then(|pod| pod.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let active = pods.iter().filter(|pod| is_active(pod));
    let sum: i64 = active.map(|pod| restarts(pod)).sum();
    if limit == 0 {
        sum > 0
    } else {
        sum >= i64::from(limit)
    }
}
