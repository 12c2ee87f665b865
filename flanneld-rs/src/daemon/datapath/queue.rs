//! The jobs that wait for the data path thread. A newer job takes the place of those it covers, so
//! that the queue stays short however long the thread is busy.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Goal, Prepared};
use crate::health::Part;
use crate::lease::Lease;
use crate::peers::PeerChange;
use crate::uplink::Uplink;

/// What the thread is asked to do.
pub(super) enum Job {
    Prepare {
        uplink: Uplink,
        previous: Option<Lease>,
        reply: oneshot::Sender<anyhow::Result<Prepared>>,
    },
    Reconcile {
        goal: Arc<Goal>,
        trigger: &'static str,
        /// The firewall is looked at in full too.
        thorough: bool,
    },
    Update {
        goal: Arc<Goal>,
        changes: Vec<PeerChange>,
    },
    Rules {
        goal: Arc<Goal>,
    },
}

/// Jobs in order, and what the thread does now.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
    /// The part in hand and since when.
    phase: Option<(Part, Instant)>,
    /// The job in hand only checks the rules.
    checks_rules: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job; one that comes after the end is dropped, and its reply with it.
    pub(super) fn push(&self, job: Job) {
        let mut state = self.lock();
        if !state.closed {
            let checks_rules = state.checks_rules;
            merge(&mut state.jobs, job, checks_rules);
            self.news.notify_one();
        }
    }

    /// Waits for the next job; `None` at the end.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        (state.phase, state.checks_rules) = (None, false);
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                state.checks_rules = matches!(job, Job::Rules { .. });
                return Some(job);
            }
            state = self
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The thread begins work on a part.
    pub(super) fn enter(&self, part: Part) {
        self.lock().phase = Some((part, Instant::now()));
    }

    /// The part that has been in hand for longer than `limit`.
    pub(super) fn overdue(&self, limit: Duration) -> Option<Part> {
        let (part, since) = self.lock().phase?;
        (since.elapsed() > limit).then_some(part)
    }

    /// Drops all jobs and takes no more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.jobs.clear();
        self.news.notify_all();
    }
}

fn merge(jobs: &mut VecDeque<Job>, job: Job, checks_rules: bool) {
    match job {
        Job::Reconcile {
            goal,
            trigger,
            mut thorough,
        } => {
            // A full look at a newer goal covers everything before it but the preparations.
            jobs.retain(|job| match job {
                Job::Prepare { .. } => true,
                Job::Reconcile { thorough: was, .. } => {
                    thorough |= was;
                    false
                }
                Job::Update { .. } | Job::Rules { .. } => false,
            });
            jobs.push_back(Job::Reconcile {
                goal,
                trigger,
                thorough,
            });
        }
        Job::Update { goal, changes } => match jobs.back_mut() {
            Some(Job::Reconcile { goal: older, .. }) => *older = goal,
            _ => jobs.push_back(Job::Update { goal, changes }),
        },
        Job::Rules { .. } => {
            let covered = |job: &Job| matches!(job, Job::Rules { .. } | Job::Reconcile { .. });
            if !checks_rules && !jobs.iter().any(covered) {
                jobs.push_back(job);
            }
        }
        Job::Prepare { .. } => {
            jobs.retain(|job| !matches!(job, Job::Prepare { reply, .. } if reply.is_closed()));
            jobs.push_back(job);
        }
    }
}
