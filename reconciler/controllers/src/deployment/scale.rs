//! A Deployment that is scaled while it is paused or amid a rollout: its ReplicaSets grow and shrink in proportion, so
//! that the share of users that see the new Pods stays.

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::limits::Limits;
use super::revision;
use super::rollout::{self, Sets, scale};
use crate::replicas::Replicated;

/// Whether the Deployment wants another number of Pods than when its ReplicaSets were scaled last.
pub fn is_due(sets: &Sets, limits: Limits) -> bool {
    let mut active = sets.all().filter(|set| set.replicas() > 0);
    active.any(|set| {
        revision::number(set, revision::DESIRED)
            .is_some_and(|desired| desired != i64::from(limits.wanted))
    })
}

/// Scales the only ReplicaSet with Pods (or, where none has any, the newest); else those of the past to nothing once
/// the new one is complete; else all in proportion. `replicas_told` is the Deployment's own count of its Pods, from
/// before; `recreate` leaves the last to the rollout.
pub fn scale_all(sets: &mut Sets, limits: Limits, recreate: bool, replicas_told: i32) {
    let active = sets.all().filter(|set| set.replicas() > 0).count();
    if active <= 1 {
        if let Some(only) = only(sets, active)
            && (only.replicas() != limits.wanted || active == 1)
        {
            scale(only, limits.wanted, limits);
        }
    } else if is_complete(sets.new.as_ref(), limits) {
        for set in sets.old.iter_mut().filter(|set| set.replicas() > 0) {
            scale(set, 0, limits);
        }
    } else if !recreate {
        in_proportion(sets, limits, replicas_told);
    }
}

/// The one with Pods, or, where none has any, the newest.
fn only(sets: &mut Sets, active: usize) -> Option<&mut ReplicaSet> {
    let Sets { old, new } = sets;
    if active == 1 {
        return old.iter_mut().chain(new).find(|set| set.replicas() > 0);
    }
    new.as_mut().or(old.last_mut())
}

fn is_complete(new: Option<&ReplicaSet>, limits: Limits) -> bool {
    let Some(new) = new else { return false };
    let desired = revision::number(new, revision::DESIRED);
    new.replicas() == limits.wanted
        && rollout::available(new) == limits.wanted
        && desired == Some(i64::from(limits.wanted))
}

fn in_proportion(sets: &mut Sets, limits: Limits, replicas_told: i32) {
    let allowed = if limits.wanted > 0 { limits.most() } else { 0 };
    let to_add = allowed - sets.wanted();
    let Sets { old, new } = sets;
    // From new to old or the other way, by what is to be told at a tie: growth favours the new, loss takes the old.
    let mut active: Vec<_> = old
        .iter_mut()
        .chain(new)
        .filter(|set| set.replicas() > 0)
        .collect();
    if to_add > 0 {
        active.reverse();
    }
    active.sort_by_key(|set| Reverse(set.replicas()));
    let mut added = 0;
    let mut sizes = Vec::new();
    for set in &active {
        let share = share(set, limits, replicas_told);
        let left = to_add - added;
        let share = if to_add > 0 {
            share.clamp(0, left)
        } else {
            share.clamp(left, 0)
        };
        added += share;
        sizes.push(set.replicas() + share);
    }
    // What rounding leaves goes to the largest.
    if let Some(largest) = sizes.first_mut() {
        *largest += to_add - added;
    }
    for (set, size) in active.into_iter().zip(sizes) {
        scale(set, size, limits);
    }
}

/// What a ReplicaSet gains (or loses, below zero) when it keeps its part of the whole.
fn share(set: &ReplicaSet, limits: Limits, replicas_told: i32) -> i32 {
    let replicas = i64::from(set.replicas());
    if limits.wanted == 0 {
        return -set.replicas();
    }
    let before = revision::number(set, revision::MOST)
        .filter(|most| *most > 0)
        .unwrap_or(i64::from(replicas_told));
    if before <= 0 {
        return 0;
    }
    // Rounded half up; no number here is negative.
    let size = (replicas * i64::from(limits.most()) * 2 + before) / (before * 2);
    i32::try_from(size - replicas).unwrap_or(0)
}
