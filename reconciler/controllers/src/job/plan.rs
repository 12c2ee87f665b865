//! What a Job does next.

use super::account::{self, Account};
use super::outcome::{self, Outcome};
use super::worker::{self, is_active, is_tracked};
use crate::pod;
use crate::recorder::Severity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The first pause after a failed Pod; it doubles with each in a row.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// The longest.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(10);

/// What is to be done, in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// The status, to be written over the one that was read and no other.
    pub status: JobStatus,
    /// What to tell when the status is written: reason and message.
    pub events: Vec<(Severity, String, String)>,
    /// Pods that lose their finalizer, by name.
    pub release: BTreeSet<String>,
    /// Pods that lose their finalizer and then are deleted: they count for nothing.
    pub stop: BTreeSet<String>,
    /// Pods that are deleted, and count as failed.
    pub fail: BTreeSet<String>,
    /// Pods to be made.
    pub create: Vec<Pod>,
    /// The Job has been over for long enough.
    pub remove: bool,
    /// When to look again, though nothing changes.
    pub again: Option<SignedDuration>,
}

/// Plans a Job with the Pods that it owns.
pub fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let status = job.status.clone().unwrap_or_default();
    let tracked = pods.iter().filter(|pod| is_tracked(pod));
    if outcome::is_over(job) || job.metadata.deletion_timestamp.is_some() {
        let (remove, again) = after_the_end(job, now);
        return Plan {
            status,
            release: tracked.map(|pod| name(pod)).collect(),
            remove,
            again,
            ..Plan::default()
        };
    }
    let account = account::count(job, pods);
    let mut plan = Plan {
        release: account.release.clone(),
        status: observed(status, &account, pods),
        ..Plan::default()
    };
    let active: Vec<&Pod> = pods
        .iter()
        .map(Arc::as_ref)
        .filter(|pod| is_active(pod))
        .collect();
    if let Some(outcome) = outcome::decide(job, pods, &account, now) {
        let gone = plan.status.terminating.unwrap_or(0) == 0 && active.is_empty();
        plan.end(&outcome, &active, gone && account.is_settled(), now);
        return plan;
    }
    if job
        .spec
        .as_ref()
        .is_some_and(|spec| spec.suspend == Some(true))
    {
        plan.suspend(&active, now);
        return plan;
    }
    plan.start(job, now);
    if let Some(deadline) = outcome::deadline(job) {
        plan.look_again(deadline.duration_since(now));
    }
    plan.work(job, pods, &active, &account, now);
    plan
}

fn observed(mut status: JobStatus, account: &Account, pods: &[Arc<Pod>]) -> JobStatus {
    let count = |which: &dyn Fn(&Pod) -> bool| {
        let which = pods.iter().filter(|pod| which(pod));
        i32::try_from(which.count()).unwrap_or(i32::MAX)
    };
    status.active = Some(count(&is_active));
    status.ready = Some(count(&|pod| is_active(pod) && pod::is_ready(pod)));
    let leaving = |pod: &Pod| pod::is_terminating(pod) && !pod::has_ended(pod);
    status.terminating = Some(count(&leaving));
    status.succeeded = Some(account.succeeded);
    status.failed = Some(account.failed);
    let indexes = account.indexes.as_ref().map(super::indexes::render);
    status.completed_indexes = indexes.filter(|text| !text.is_empty());
    status.uncounted_terminated_pods = Some(account.uncounted());
    status
}

/// Whether a Job that is over is to be removed, and if not, when.
fn after_the_end(job: &Job, now: Timestamp) -> (bool, Option<SignedDuration>) {
    let live = job
        .spec
        .as_ref()
        .and_then(|spec| spec.ttl_seconds_after_finished);
    let ended = ["Complete", "Failed"]
        .iter()
        .find_map(|name| outcome::condition(job, name)?.last_transition_time.as_ref());
    let (Some(live), Some(ended), None) = (live, ended, &job.metadata.deletion_timestamp) else {
        return (false, None);
    };
    let left = SignedDuration::from_secs(live.into()) - now.duration_since(ended.0);
    if left.is_positive() {
        (false, Some(left))
    } else {
        (true, None)
    }
}

impl Plan {
    /// The Job is to end: what still works is ended too, and when all has ended and is counted the Job says so.
    fn end(&mut self, outcome: &Outcome, active: &[&Pod], all_ended: bool, now: Timestamp) {
        let why = (outcome.reason.as_str(), outcome.message.as_str());
        let conditions = self.status.conditions.get_or_insert_default();
        outcome::set(conditions, outcome.decided(), "True", why, now);
        let names = active.iter().map(|pod| name(pod)).collect();
        if outcome.success {
            self.stop = names;
        } else {
            self.fail = names;
        }
        if !all_ended {
            return;
        }
        outcome::set(conditions, outcome.ended(), "True", why, now);
        if outcome.success {
            self.status.completion_time = Some(Time(now));
            self.tell(Severity::Normal, "Completed", "Job completed");
        } else {
            self.tell(Severity::Warning, why.0, why.1);
        }
    }

    fn suspend(&mut self, active: &[&Pod], now: Timestamp) {
        self.stop = active.iter().map(|pod| name(pod)).collect();
        let conditions = self.status.conditions.get_or_insert_default();
        let was = conditions.clone();
        outcome::set(
            conditions,
            "Suspended",
            "True",
            ("JobSuspended", "Job suspended"),
            now,
        );
        if *conditions != was {
            self.tell(Severity::Normal, "Suspended", "Job suspended");
        }
    }

    /// The Job works, from now on or again: its time begins.
    fn start(&mut self, job: &Job, now: Timestamp) {
        if outcome::condition(job, "Suspended").is_some() {
            let conditions = self.status.conditions.get_or_insert_default();
            outcome::set(
                conditions,
                "Suspended",
                "False",
                ("JobResumed", "Job resumed"),
                now,
            );
            self.status.start_time = Some(Time(now));
            self.tell(Severity::Normal, "Resumed", "Job resumed");
        } else if self.status.start_time.is_none() {
            self.status.start_time = Some(Time(now));
        }
    }

    /// Makes Pods up to what is wanted at the same time, or stops those that are too many.
    fn work(
        &mut self,
        job: &Job,
        pods: &[Arc<Pod>],
        active: &[&Pod],
        account: &Account,
        now: Timestamp,
    ) {
        let parallelism = job
            .spec
            .as_ref()
            .and_then(|spec| spec.parallelism)
            .unwrap_or(1);
        let wanted = account::completions(job).map_or(parallelism, |completions| {
            parallelism.min(completions - account.all_succeeded())
        });
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let mut working: Vec<&Pod> = active.to_vec();
        // Those that are worth least come last: without node, not ready, young.
        working.sort_by_key(|pod| {
            let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            let placed = pod::node(pod).is_some();
            (!placed, !pod::is_ready(pod), made, name(pod))
        });
        let mut taken = BTreeSet::new();
        if let Some(done) = &account.indexes {
            let completions = account::completions(job).unwrap_or(0);
            working.retain(|pod| {
                let index = worker::index(pod).filter(|i| *i < completions && !done.contains(i));
                let first = index.is_some_and(|index| taken.insert(index));
                if !first {
                    self.stop.insert(name(pod));
                }
                first
            });
        }
        let surplus = working.iter().skip(wanted);
        self.stop.extend(surplus.map(|pod| name(pod)));
        let leaving = |pod: &&Arc<Pod>| pod::is_terminating(pod) && !pod::has_ended(pod);
        let leaving: Vec<_> = pods.iter().filter(leaving).collect();
        let mut missing = wanted.saturating_sub(working.len());
        if account::replaces_failed_only(job) {
            missing = missing.saturating_sub(leaving.len());
            taken.extend(leaving.iter().filter_map(|pod| worker::index(pod)));
        }
        if missing == 0 {
            return;
        }
        let pause = pause(job, pods, now);
        if pause.is_positive() {
            self.look_again(pause);
            return;
        }
        self.create = match &account.indexes {
            None => (0..missing).map(|_| worker::pod(job, None)).collect(),
            Some(done) => (0..account::completions(job).unwrap_or(0))
                .filter(|index| !done.contains(index) && !taken.contains(index))
                .take(missing)
                .map(|index| worker::pod(job, Some(index)))
                .collect(),
        };
    }

    fn tell(&mut self, severity: Severity, reason: &str, message: &str) {
        self.events
            .push((severity, reason.to_owned(), message.to_owned()));
    }

    fn look_again(&mut self, after: SignedDuration) {
        self.again = Some(self.again.map_or(after, |earlier| earlier.min(after)));
    }
}

/// How long to wait before the next Pod: by the number of Pods that have failed since the last one that succeeded,
/// from the end of the last. It is read from the Pods, which stay after they have failed, so nothing is forgotten when
/// the controller starts anew.
fn pause(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> SignedDuration {
    let succeeded = pods.iter().filter(|pod| pod::phase(pod) == "Succeeded");
    let success = succeeded.filter_map(|pod| worker::ended_at(pod)).max();
    let failed: Vec<Timestamp> = pods
        .iter()
        // One that was stopped on purpose has lost its finalizer before it began to leave.
        .filter(|pod| {
            pod::phase(pod) == "Failed" || (account::is_failed(job, pod) && is_tracked(pod))
        })
        .filter_map(|pod| worker::ended_at(pod))
        .filter(|at| success.is_none_or(|success| *at > success))
        .collect();
    let Some(last) = failed.iter().max() else {
        return SignedDuration::ZERO;
    };
    let doublings = u32::try_from(failed.len() - 1).unwrap_or(u32::MAX);
    let pause = FIRST_PAUSE
        .saturating_mul(2_i32.saturating_pow(doublings))
        .min(LONGEST_PAUSE);
    pause - now.duration_since(*last)
}

fn name(pod: &Pod) -> String {
    pod::name(pod).to_owned()
}
