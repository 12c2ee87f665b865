//! The one thread that touches the kernel: it owns the backend and the firewall and does one job
//! after the other, so that neither needs a lock and the daemon's loop never blocks on them.

mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::backend::{Announcement, Backend, Desired, Report};
use crate::blackhole::Blackhole;
use crate::firewall::{Firewall, Wanted};
use crate::health::Part;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::peers::PeerChange;
use crate::uplink::Uplink;
use queue::{Job, Queue};

/// A job that takes longer is stuck as far as anybody can tell.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long the end of the daemon waits for the job in hand.
const STOP: Duration = Duration::from_secs(5);

/// Everything that must be true.
#[derive(Clone, Debug)]
pub struct Goal {
    /// For the backend.
    pub desired: Desired,
    /// For the firewall.
    pub rules: Wanted,
}

/// What must be known before the lease can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// For the lease.
    pub announcement: Announcement,
    /// For subnet.env.
    pub mtu: u32,
}

/// What one job did.
#[derive(Debug)]
pub struct Done {
    /// Errors by part; a part that is missing was not looked at.
    pub errors: BTreeMap<Part, Vec<String>>,
    /// The whole state was looked at, not just a change.
    pub full: bool,
    /// What the backend announces now.
    pub announcement: Announcement,
}

/// A handle on the thread; dropping it lets the job in hand end and stops the backend.
pub struct Datapath {
    queue: Arc<Queue>,
    /// Closed when the thread has ended.
    ended: mpsc::Receiver<()>,
}

struct Worker {
    queue: Arc<Queue>,
    backend: Box<dyn Backend>,
    firewall: Box<dyn Firewall>,
    blackhole: Option<Blackhole>,
    metrics: Arc<Metrics>,
}

impl Datapath {
    /// Starts the thread in the caller's network namespace.
    pub fn start(
        backend: Box<dyn Backend>,
        firewall: Box<dyn Firewall>,
        blackhole: Option<Blackhole>,
        metrics: Arc<Metrics>,
        done: UnboundedSender<Done>,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let (alive, ended) = mpsc::channel();
        let mut worker = Worker {
            queue: Arc::clone(&queue),
            backend,
            firewall,
            blackhole,
            metrics,
        };
        std::thread::Builder::new()
            .name("datapath".to_owned())
            .spawn(move || {
                let end = End(Arc::clone(&worker.queue));
                while let Some(job) = end.0.next() {
                    let outcome = worker.run(job);
                    worker.metrics.set_traffic(worker.backend.traffic());
                    // The receiver is gone only when the daemon is ending.
                    if let Some(outcome) = outcome {
                        let _ = done.send(outcome);
                    }
                }
                worker.backend.stop();
                drop(alive);
            })?;
        Ok(Self { queue, ended })
    }

    /// Makes what the announcement depends on.
    pub fn prepare(&self, uplink: Uplink, previous: Option<Lease>) -> Preparation {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Job::Prepare {
            uplink,
            previous,
            reply,
        });
        Preparation(answer)
    }

    /// Compares everything with the goal. After a kernel event the firewall gets its quick check only.
    pub fn reconcile(&self, goal: &Arc<Goal>, trigger: &'static str) {
        self.queue.push(Job::Reconcile {
            goal: Arc::clone(goal),
            trigger,
            thorough: trigger != "event",
        });
    }

    /// Carries out changes of peers.
    pub fn update(&self, goal: &Arc<Goal>, changes: Vec<PeerChange>) {
        self.queue.push(Job::Update {
            goal: Arc::clone(goal),
            changes,
        });
    }

    /// Checks the firewall rules and the blackhole route, unless that is already on its way.
    pub fn rules(&self, goal: &Arc<Goal>) {
        self.queue.push(Job::Rules {
            goal: Arc::clone(goal),
        });
    }

    /// The part whose job has not come back for longer than `limit`.
    pub fn overdue(&self, limit: Duration) -> Option<Part> {
        self.queue.overdue(limit)
    }
}

/// A preparation under way; dropping it means that its outcome is of no more interest.
pub struct Preparation(oneshot::Receiver<anyhow::Result<Prepared>>);

impl Preparation {
    /// Waits for the outcome. Dropping the future loses nothing.
    pub async fn outcome(&mut self) -> anyhow::Result<Prepared> {
        (&mut self.0)
            .await
            .map_err(|_| anyhow::anyhow!("the data path thread has died"))?
    }
}

/// Closes the queue with the thread, however it ends: nobody may wait for a reply that cannot come.
struct End(Arc<Queue>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.queue.close();
        // An operator's command that hangs must not keep the daemon from ending.
        if self.ended.recv_timeout(STOP) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the data path thread is still busy; ending without it");
        }
    }
}

impl Worker {
    fn run(&mut self, job: Job) -> Option<Done> {
        let mut errors = BTreeMap::new();
        let full = matches!(job, Job::Reconcile { .. });
        match job {
            Job::Prepare {
                uplink,
                previous,
                reply,
            } => {
                self.queue.enter(Part::Backend);
                let prepared = self.backend.prepare(&uplink, previous.as_ref());
                let mtu = self.backend.mtu(&uplink);
                // Nobody waits any more when the daemon is ending.
                let _ = reply.send(prepared.map(|announcement| Prepared { announcement, mtu }));
                return None;
            }
            Job::Reconcile {
                goal,
                trigger,
                thorough,
            } => {
                errors.insert(Part::Backend, self.backend(&goal, trigger));
                errors.insert(Part::Firewall, self.rules(&goal, trigger, thorough));
            }
            Job::Update { goal, changes } => {
                self.queue.enter(Part::Backend);
                let report = self.timed("backend", "peers", |worker| {
                    worker.backend.update(&goal.desired, &changes)
                });
                errors.insert(Part::Backend, report.errors);
            }
            Job::Rules { goal } => {
                if self.backend.has_ended() {
                    errors.insert(Part::Backend, self.backend(&goal, "resync"));
                }
                errors.insert(Part::Firewall, self.rules(&goal, "resync", false));
            }
        }
        Some(Done {
            errors,
            full,
            announcement: self.backend.announcement(),
        })
    }

    fn backend(&mut self, goal: &Goal, trigger: &'static str) -> Vec<String> {
        self.queue.enter(Part::Backend);
        let report = self.timed("backend", trigger, |worker| {
            worker.backend.reconcile(&goal.desired)
        });
        report.errors
    }

    fn rules(&mut self, goal: &Goal, trigger: &'static str, thorough: bool) -> Vec<String> {
        self.queue.enter(Part::Firewall);
        let report = self.timed("firewall", trigger, |worker| {
            let mut report = worker.firewall.reconcile(&goal.rules, thorough);
            if let Some(blackhole) = &mut worker.blackhole {
                report.merge(blackhole.reconcile(&goal.desired.own.subnet));
            }
            report
        });
        report.errors
    }

    /// Runs one part, counts it and logs what it changed.
    fn timed(
        &mut self,
        part: &'static str,
        trigger: &'static str,
        run: impl FnOnce(&mut Self) -> Report,
    ) -> Report {
        let started = Instant::now();
        let report = run(self);
        let took = started.elapsed();
        self.metrics.run(part, trigger, took, &report);
        if report.total() > 0 {
            let counts: Vec<String> = report
                .changes
                .iter()
                .map(|(kind, count)| format!("{count} × {kind}"))
                .collect();
            let ms = took.as_millis();
            tracing::info!("{part} ({trigger}): {} in {ms} ms", counts.join(", "));
            for sample in &report.samples {
                tracing::debug!("{part}: {sample}");
            }
        }
        report
    }
}

#[cfg(test)]
mod tests;
