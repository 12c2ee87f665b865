//! What a StatefulSet does next: the ordinals that start, those that stop, and those that get the new template.
//!
//! OrderedReady takes one step at a time, upwards when it starts Pods and downwards when it stops them, and waits for
//! each to be available, or gone. Parallel starts and stops all at once. An update is one Pod at a time, from the top,
//! in both.

use super::{identity, status};
use crate::pod::{self, Availability};
use crate::revisions::{self, HASH};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What there is.
pub struct Observed<'a> {
    /// The StatefulSet.
    pub set: &'a StatefulSet,
    /// Its Pods.
    pub pods: &'a [Arc<Pod>],
    /// The claims of its namespace.
    pub claims: &'a [Arc<PersistentVolumeClaim>],
    /// The revision that was rolled out last.
    pub current: &'a ControllerRevision,
    /// The revision of its template.
    pub update: &'a ControllerRevision,
    /// The time.
    pub now: Timestamp,
}

/// Why a Pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its ordinal is one too many.
    Surplus,
    /// Its template is old.
    Old,
    /// Its containers have failed for good.
    Failed,
    /// Its containers have ended, which those of a StatefulSet should not.
    Ended,
}

/// What is to be done, in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Claims whose owners have changed: all their owners, by the claim's name.
    pub own: Vec<(String, Vec<OwnerReference>)>,
    /// Claims to be made.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Pods to be made.
    pub create: Vec<Pod>,
    /// Pods that lack the labels of their ordinal, by name.
    pub label: Vec<(String, BTreeMap<String, String>)>,
    /// Pods that go, by name.
    pub delete: Vec<(String, Reason)>,
    /// The status that tells of what is observed.
    pub status: StatefulSetStatus,
    /// When to look again, though nothing changes.
    pub again: Option<Duration>,
}

/// Plans a StatefulSet that is not being deleted.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let set = observed.set;
    let pods: BTreeMap<i64, &Pod> = observed
        .pods
        .iter()
        .filter_map(|pod| Some((identity::ordinal(set, pod)?, pod.as_ref())))
        .collect();
    let (first, end) = range(set);
    let mut plan = Plan {
        status: status::of(observed, &pods),
        ..Plan::default()
    };
    let waits = pods.values().filter_map(|pod| {
        match pod::availability(pod, min_ready(set), observed.now) {
            Availability::In(left) => Some(left),
            Availability::Yes | Availability::No => None,
        }
    });
    plan.again = waits.min();

    let claims: BTreeMap<&str, &PersistentVolumeClaim> = observed
        .claims
        .iter()
        .filter_map(|claim| Some((claim.metadata.name.as_deref()?, claim.as_ref())))
        .collect();
    own_claims(set, &pods, &claims, &mut plan);
    let step = Step {
        observed,
        pods: &pods,
        claims: &claims,
        ordered: is_ordered(set),
    };
    if step.start(first, end, &mut plan) && step.stop(first, end, &mut plan) {
        step.update(first, end, &mut plan);
    }
    plan
}

/// The first wanted ordinal, and the one after the last.
pub fn range(set: &StatefulSet) -> (i64, i64) {
    let spec = set.spec.as_ref();
    let first = spec
        .and_then(|spec| spec.ordinals.as_ref()?.start)
        .unwrap_or(0);
    let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    (
        i64::from(first),
        i64::from(first) + i64::from(replicas.max(0)),
    )
}

/// `minReadySeconds`
pub fn min_ready(set: &StatefulSet) -> i32 {
    let spec = set.spec.as_ref();
    spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

/// How many ordinals from the first keep the current revision. None: OnDelete.
pub fn partition(set: &StatefulSet) -> Option<i64> {
    let strategy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.update_strategy.as_ref());
    let Some(strategy) = strategy else {
        return Some(0);
    };
    let on_delete = strategy.type_.as_deref() == Some("OnDelete");
    let partition = strategy
        .rolling_update
        .as_ref()
        .and_then(|rolling| rolling.partition);
    (!on_delete).then(|| i64::from(partition.unwrap_or(0)))
}

/// Whether the Pod is of this revision.
pub fn is_of(pod: &Pod, revision: &ControllerRevision) -> bool {
    pod::label(pod, HASH) == revision.name_any()
}

/// Whether the Pod runs, is ready and stays.
pub fn is_healthy(pod: &Pod) -> bool {
    pod::phase(pod) == "Running" && pod::is_ready(pod) && !pod::is_terminating(pod)
}

fn is_ordered(set: &StatefulSet) -> bool {
    let spec = set.spec.as_ref();
    spec.and_then(|spec| spec.pod_management_policy.as_deref()) != Some("Parallel")
}

/// Gives claims their owners, before their Pods go.
fn own_claims(
    set: &StatefulSet,
    pods: &BTreeMap<i64, &Pod>,
    claims: &BTreeMap<&str, &PersistentVolumeClaim>,
    plan: &mut Plan,
) {
    let (first, end) = range(set);
    for (&ordinal, pod) in pods {
        let wanted = (first..end).contains(&ordinal);
        let owner = identity::claim_owner(set, (!wanted).then_some(*pod));
        for (_, name) in identity::claim_names(set, ordinal) {
            let Some(claim) = claims.get(name.as_str()) else {
                continue;
            };
            let has = claim.owner_references();
            let others = has.iter().filter(|one| !identity::is_ours(set, one));
            let want: Vec<OwnerReference> = others.cloned().chain(owner.clone()).collect();
            if want != has {
                plan.own.push((name, want));
            }
        }
    }
}

struct Step<'a> {
    observed: &'a Observed<'a>,
    pods: &'a BTreeMap<i64, &'a Pod>,
    claims: &'a BTreeMap<&'a str, &'a PersistentVolumeClaim>,
    ordered: bool,
}

impl Step<'_> {
    fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = min_ready(self.observed.set);
        is_healthy(pod) && pod::is_available(pod, min_ready, self.observed.now)
    }

    /// Starts the wanted Pods that are not there. False: what comes after has to wait.
    fn start(&self, first: i64, end: i64, plan: &mut Plan) -> bool {
        let set = self.observed.set;
        for ordinal in first..end {
            let Some(pod) = self.pods.get(&ordinal) else {
                self.create(first, ordinal, plan);
                if self.ordered {
                    return false;
                }
                continue;
            };
            let name = pod::name(pod);
            if pod::has_ended(pod) {
                // The next one comes when this one is gone: never two of one ordinal.
                if !pod::is_terminating(pod) {
                    let failed = pod::phase(pod) == "Failed";
                    let reason = if failed {
                        Reason::Failed
                    } else {
                        Reason::Ended
                    };
                    plan.delete.push((name.to_owned(), reason));
                }
                if self.ordered {
                    return false;
                }
                continue;
            }
            self.add_claims(ordinal, plan);
            let labels = identity::labels(set, ordinal);
            if labels
                .iter()
                .any(|(key, value)| pod::label(pod, key) != value)
            {
                plan.label.push((name.to_owned(), labels));
            }
            if self.ordered && !self.is_available(pod) {
                return false;
            }
        }
        true
    }

    fn create(&self, first: i64, ordinal: i64, plan: &mut Plan) {
        let Observed {
            set,
            current,
            update,
            ..
        } = self.observed;
        let keeps = partition(set).is_some_and(|partition| ordinal < first + partition);
        let revision = if keeps { current } else { update };
        let own = || set.spec.as_ref().map(|spec| spec.template.clone());
        let template = revisions::template(revision)
            .or_else(own)
            .unwrap_or_default();
        self.add_claims(ordinal, plan);
        let name = revision.name_any();
        plan.create
            .push(identity::pod(set, &template, &name, ordinal, self.claims));
    }

    /// Adds those of the ordinal's claims that are not there.
    fn add_claims(&self, ordinal: i64, plan: &mut Plan) {
        let set = self.observed.set;
        let owner = identity::claim_owner(set, None);
        let missing = identity::claims(set, ordinal).into_iter();
        let missing = missing.filter(|claim| !self.claims.contains_key(claim.name_any().as_str()));
        plan.claims.extend(missing.map(|mut claim| {
            claim.metadata.owner_references = owner.clone().map(|owner| vec![owner]);
            claim
        }));
    }

    /// Stops Pods whose ordinal is not wanted, from the top. False: what comes after has to wait.
    fn stop(&self, first: i64, end: i64, plan: &mut Plan) -> bool {
        let surplus = |ordinal: &i64| !(first..end).contains(ordinal);
        let surplus: Vec<(&i64, &&Pod)> = self.pods.iter().filter(|(o, _)| surplus(o)).collect();
        let lowest_ill = surplus.iter().find(|(_, pod)| !self.is_available(pod));
        let lowest_ill = lowest_ill.map(|(ordinal, _)| **ordinal);
        for (ordinal, pod) in surplus.iter().rev() {
            if pod::is_terminating(pod) {
                if self.ordered {
                    return false;
                }
                continue;
            }
            // One that is ill may be the last help of another that is ill below it.
            let ill = !self.is_available(pod) && lowest_ill != Some(**ordinal);
            if self.ordered && ill {
                return false;
            }
            plan.delete
                .push((pod::name(pod).to_owned(), Reason::Surplus));
            if self.ordered {
                return false;
            }
        }
        true
    }

    /// Replaces the topmost Pod of an old template, once all above it are well.
    fn update(&self, first: i64, end: i64, plan: &mut Plan) {
        let Some(partition) = partition(self.observed.set) else {
            return;
        };
        for ordinal in (first + partition.min(end - first)..end).rev() {
            let Some(pod) = self.pods.get(&ordinal) else {
                return;
            };
            let going = plan.delete.iter().any(|(name, _)| name == pod::name(pod));
            if going || pod::is_terminating(pod) {
                return;
            }
            if !is_of(pod, self.observed.update) {
                plan.delete.push((pod::name(pod).to_owned(), Reason::Old));
                return;
            }
            if !self.is_available(pod) {
                return;
            }
        }
    }
}
