//! The next step from old Pods to new ones.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::limits::Limits;
use super::revision;
use crate::replicas::Replicated;

/// A Deployment's ReplicaSets, as they are to become.
#[derive(Clone, Debug)]
pub struct Sets {
    /// Those of earlier templates, the oldest first.
    pub old: Vec<ReplicaSet>,
    /// That of the present template, if there is one.
    pub new: Option<ReplicaSet>,
}

impl Sets {
    /// All of them, the new one last.
    pub fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    /// How many Pods they want.
    pub fn wanted(&self) -> i32 {
        self.all().map(Replicated::replicas).sum()
    }

    /// How many Pods they may have now: a ReplicaSet that has just been made smaller still has the Pods that it told of.
    pub fn present(&self) -> i32 {
        let told = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
        self.all().map(|set| set.replicas().max(told(set))).sum()
    }
}

/// How many Pods of a ReplicaSet are surely available, and will be once what is too much has been deleted. A status
/// that is older than the wish tells nothing: the ReplicaSet may have shrunk and grown since.
pub fn available(set: &ReplicaSet) -> i32 {
    told(set).unwrap_or(0)
}

/// How many Pods of a ReplicaSet are surely not available.
fn broken(set: &ReplicaSet) -> i32 {
    told(set).map_or(0, |available| set.replicas() - available)
}

fn told(set: &ReplicaSet) -> Option<i32> {
    let status = set
        .status
        .as_ref()
        .filter(|status| status.observed_generation >= set.metadata.generation)?;
    Some(status.available_replicas.unwrap_or(0).min(set.replicas()))
}

/// Sets how many Pods a ReplicaSet wants.
pub fn scale(set: &mut ReplicaSet, replicas: i32, limits: Limits) {
    if let Some(spec) = &mut set.spec {
        spec.replicas = Some(replicas.max(0));
        revision::note_size(set, limits);
    }
}

/// Makes as many new Pods as there may be, and lets go of as many old ones as are not needed.
pub fn roll(sets: &mut Sets, limits: Limits) {
    // What is told is told of the wish as it is: more wanted Pods are not more available ones.
    let available = sets.new.as_ref().map_or(0, available);
    grow(sets, limits);
    shrink(sets, limits, available);
}

fn grow(sets: &mut Sets, limits: Limits) {
    let room = limits.most() - sets.present();
    let Some(new) = &mut sets.new else { return };
    let missing = limits.wanted - new.replicas();
    let change = if missing > 0 {
        missing.min(room).max(0)
    } else {
        missing
    };
    if change != 0 {
        let replicas = new.replicas() + change;
        scale(new, replicas, limits);
    }
}

fn shrink(sets: &mut Sets, limits: Limits, available_new: i32) {
    let new = sets.new.as_ref().map_or(0, Replicated::replicas);
    let available_new = available_new.min(new);
    let spare = sets.wanted() - limits.fewest() - (new - available_new);
    if spare <= 0 {
        return;
    }
    // Those that are not available serve nobody: they go first.
    let mut left = spare;
    for set in &mut sets.old {
        let broken = broken(set).min(left);
        if broken > 0 {
            left -= broken;
            let replicas = set.replicas() - broken;
            scale(set, replicas, limits);
        }
    }
    let available_old: i32 = sets.old.iter().map(available).sum();
    let mut left = available_old + available_new - limits.fewest();
    for set in &mut sets.old {
        let gone = set.replicas().min(left);
        if gone > 0 {
            left -= gone;
            let replicas = set.replicas() - gone;
            scale(set, replicas, limits);
        }
    }
}

/// Lets go of all old Pods at once. The new ones are made by [`grow_all`] when the old ones have ended.
pub fn stop_old(sets: &mut Sets, limits: Limits) {
    for set in sets.old.iter_mut().filter(|set| set.replicas() > 0) {
        scale(set, 0, limits);
    }
}

/// Makes all new Pods at once.
pub fn grow_all(sets: &mut Sets, limits: Limits) {
    if let Some(new) = sets
        .new
        .as_mut()
        .filter(|new| new.replicas() != limits.wanted)
    {
        scale(new, limits.wanted, limits);
    }
}
