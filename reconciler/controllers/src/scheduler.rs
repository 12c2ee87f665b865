//! The scheduler: gives each Pod that waits a node.
//!
//! It looks at all nodes and Pods whenever one of them changes and a Pod waits, decides about all that wait in one go
//! ([`plan`]), and binds several at a time. What it has decided counts as taken until the observed Pods show it, so a
//! late observation never makes a node take more than it has.
//!
//! Rules: cordoned nodes, taints, `nodeSelector`, required node affinity, host ports, resources, the count of Pods.
//! Among the nodes left: the most CPU and memory left, the fewest Pods of the same owner, preferred node affinity,
//! `PreferNoSchedule`. A Pod with claims goes to the node that has their folders. It does not look at affinity between
//! Pods and topology spread constraints, and it preempts nobody: a more important Pod goes first, but waits for room like
//! any other.

pub mod homes;
pub mod plan;
pub mod room;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt, select_all};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::recorder::Severity;
use plan::{Assumed, Decision, NAME};

/// Requests at a time; each is a connection.
const AT_ONCE: usize = 16;
/// The first and the longest pause after a failure, or before a new reason is told.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// A Pod waits this long before it is told why.
const FIRST: Duration = Duration::from_millis(50);
/// An unchanged reason is told again after this time.
const REMIND: Duration = Duration::from_secs(300);

/// Schedules until it is dropped.
pub async fn run(cluster: Cluster) {
    tokio::join!(
        cluster.pods.ready(),
        cluster.nodes.ready(),
        cluster.claims.ready()
    );
    let changes = select_all([
        cluster.pods.changes().map(|_| ()).boxed(),
        cluster.nodes.changes().map(|_| ()).boxed(),
        cluster.claims.changes().map(|_| ()).boxed(),
    ]);
    let mut changes = changes.ready_chunks(4096);
    let mut scheduler = Scheduler::default();
    let mut running = FuturesUnordered::new();
    let mut look = true;
    loop {
        if look {
            scheduler.look(&cluster, Instant::now());
        }
        while running.len() < AT_ONCE
            && let Some(task) = scheduler.tasks.pop_front()
        {
            running.push(carry_out(&cluster, task));
        }
        let wake = scheduler.wake.unwrap_or_else(Instant::now);
        tokio::select! {
            Some(_) = changes.next() => look = true,
            Some(done) = running.next(), if !running.is_empty() => {
                scheduler.done(done, Instant::now());
                look = false;
            }
            () = sleep_until(wake), if scheduler.wake.is_some() => look = true,
        }
    }
}

/// What is remembered between looks.
#[derive(Default)]
struct Scheduler {
    assumed: Assumed,
    /// By uid, how often binding has failed, and when it is tried again.
    failed: BTreeMap<String, (u32, Instant)>,
    /// By uid, why a Pod waits, when that was told, and how often the reason has changed.
    told: BTreeMap<String, (String, Instant, u32)>,
    tasks: VecDeque<Task>,
    /// When to look though nothing has changed.
    wake: Option<Instant>,
}

/// A write that follows from a decision.
enum Task {
    Bind { pod: Arc<Pod>, node: String },
    Explain { pod: Arc<Pod>, message: String },
}

/// How a write went.
struct Done {
    uid: String,
    bound: Option<bool>,
}

fn pause(count: u32) -> Duration {
    if count == 0 {
        return FIRST;
    }
    (PAUSE.0 * 2_u32.saturating_pow((count - 1).min(8))).min(PAUSE.1)
}

impl Scheduler {
    fn look(&mut self, cluster: &Cluster, now: Instant) {
        let (nodes, pods) = (cluster.nodes.all(), cluster.pods.all());
        plan::forget(&mut self.assumed, &pods);
        let waiting: BTreeSet<&str> = pods
            .iter()
            .filter(|pod| plan::waits(pod))
            .filter_map(|pod| pod.metadata.uid.as_deref())
            .collect();
        self.told.retain(|uid, _| waiting.contains(uid.as_str()));
        self.failed.retain(|uid, _| waiting.contains(uid.as_str()));
        self.wake = None;
        let mut later = BTreeSet::new();
        for (uid, (_, at)) in &self.failed {
            if *at > now {
                later.insert(uid.clone());
                self.wake = Some(self.wake.map_or(*at, |wake| wake.min(*at)));
            } else {
                // By now the observed Pods would show a binding that took effect after all.
                self.assumed.remove(uid);
            }
        }
        for decision in plan::plan(&nodes, &pods, &cluster.claims.all(), &self.assumed, &later) {
            match decision {
                Decision::Bind { pod, node } => {
                    self.assumed
                        .insert(pod.uid().unwrap_or_default(), node.clone());
                    self.tasks.push_back(Task::Bind { pod, node });
                }
                Decision::Unschedulable { pod, message } => self.explain(pod, message, now),
            }
        }
    }

    /// Tells why a Pod waits: when that is new, but not every moment.
    fn explain(&mut self, pod: Arc<Pod>, message: String, now: Instant) {
        let uid = pod.uid().unwrap_or_default();
        let (at, count) = match self.told.get(&uid) {
            Some((told, at, count)) if *told == message => (*at + REMIND, *count),
            Some((_, at, count)) => (*at + pause(*count), *count),
            None => {
                // What it needs may be on its way on another watch.
                self.told.insert(uid.clone(), (String::new(), now, 0));
                (now + FIRST, 0)
            }
        };
        if at > now {
            self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
            return;
        }
        self.told.insert(uid, (message.clone(), now, count + 1));
        self.tasks.push_back(Task::Explain { pod, message });
    }

    fn done(&mut self, done: Done, now: Instant) {
        match done.bound {
            Some(true) => {
                self.failed.remove(&done.uid);
            }
            Some(false) => {
                let count = self.failed.get(&done.uid).map_or(0, |(count, _)| *count) + 1;
                let at = now + pause(count);
                self.failed.insert(done.uid, (count, at));
                self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
            }
            // The reason stays to be told.
            None => {}
        }
    }
}

fn carry_out(cluster: &Cluster, task: Task) -> BoxFuture<'_, Done> {
    match task {
        Task::Bind { pod, node } => Box::pin(bind(cluster, pod, node)),
        Task::Explain { pod, message } => Box::pin(explain(cluster, pod, message)),
    }
}

async fn bind(cluster: &Cluster, pod: Arc<Pod>, node: String) -> Done {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let uid = pod.uid().unwrap_or_default();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let api = cluster.api::<Pod>(&namespace);
    let sent = api
        .create_subresource::<Value, Value>("binding", &name, &PostParams::default(), &binding)
        .await;
    let bound = match sent {
        Ok(_) => {
            let message = format!("Successfully assigned {namespace}/{name} to {node}");
            tell(
                cluster,
                &pod,
                Severity::Normal,
                ("Binding", "Scheduled"),
                message,
            );
            true
        }
        // It is gone, being deleted, or bound: the observed Pods will say so.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {
            tracing::debug!("bind Pod {namespace}/{name} to {node}: {}", status.message);
            false
        }
        Err(error) => {
            tracing::warn!("bind Pod {namespace}/{name} to {node}: {error}");
            let message = format!("binding rejected: {error}");
            tell(
                cluster,
                &pod,
                Severity::Warning,
                ("Binding", "FailedScheduling"),
                message,
            );
            false
        }
    };
    Done {
        uid,
        bound: Some(bound),
    }
}

fn tell(
    cluster: &Cluster,
    pod: &Pod,
    severity: Severity,
    what: (&'static str, &str),
    message: String,
) {
    cluster.recorder.action(NAME, pod, severity, what, message);
}

/// Writes the condition and the event that say why a Pod waits.
async fn explain(cluster: &Cluster, pod: Arc<Pod>, message: String) -> Done {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let uid = pod.uid().unwrap_or_default();
    let what = ("Scheduling", "FailedScheduling");
    tell(cluster, &pod, Severity::Warning, what, message.clone());
    if let Some(condition) = condition(&pod, &message, Timestamp::now()) {
        let patch = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
        let api = cluster.api::<Pod>(&namespace);
        match api
            .patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
            Err(error) => tracing::warn!("say why Pod {namespace}/{name} waits: {error}"),
        }
    }
    Done { uid, bound: None }
}

/// The condition that a Pod should have and does not.
fn condition(pod: &Pod, message: &str, now: Timestamp) -> Option<Value> {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let had = conditions
        .clone()
        .find(|condition| condition.type_ == "PodScheduled");
    let same = had.is_some_and(|had| {
        had.status == "False"
            && had.reason.as_deref() == Some("Unschedulable")
            && had.message.as_deref() == Some(message)
    });
    if same {
        return None;
    }
    let since = had
        .filter(|had| had.status == "False")
        .and_then(|had| had.last_transition_time.as_ref())
        .map_or(now, |time| time.0);
    Some(json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }))
}
