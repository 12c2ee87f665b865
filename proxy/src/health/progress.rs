//! How far syncs lag behind changes. Pure: time comes as an argument.

use std::collections::BTreeMap;
use std::ops::Add;
use std::time::{Duration, Instant, SystemTime};

use crate::model::Family;

/// A point in time on both clocks: one to measure with, one to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// It never jumps.
    pub steady: Instant,
    /// The time of day.
    pub wall: SystemTime,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self {
            steady: self.steady + duration,
            wall: self.wall + duration,
        }
    }
}

/// Changes that wait and syncs that were done, by family.
#[derive(Clone, Debug)]
pub struct Progress {
    /// How long a change may wait.
    patience: Duration,
    node_eligible: bool,
    families: BTreeMap<Family, Lag>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    /// The last sync's end.
    updated: Option<SystemTime>,
    /// The oldest change that waits.
    waiting: Option<Instant>,
    /// The youngest change.
    latest: Option<Instant>,
}

/// How things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// When this was found.
    pub at: SystemTime,
    /// No change of any family waits too long.
    pub healthy: bool,
    /// New connections may be sent to this node.
    pub node_eligible: bool,
    /// By family, those that were ever heard of.
    pub families: BTreeMap<Family, FamilyReport>,
}

/// How things are with a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyReport {
    /// When the last sync ended; `None`: there was none.
    pub last_updated: Option<SystemTime>,
    /// No change waits too long.
    pub healthy: bool,
}

impl Progress {
    /// Nothing waits; a change may wait for `patience`.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            node_eligible: true,
            families: BTreeMap::new(),
        }
    }

    /// A change waits from now on.
    pub fn queued(&mut self, family: Family, now: Moment) {
        let lag = self.families.entry(family).or_default();
        lag.waiting.get_or_insert(now.steady);
        lag.latest = Some(now.steady);
    }

    /// What waited when a sync began, at `began`, is done.
    pub fn updated(&mut self, family: Family, began: Moment, now: Moment) {
        let lag = self.families.entry(family).or_default();
        lag.updated = Some(now.wall);
        lag.waiting = lag.latest.filter(|latest| *latest > began.steady);
    }

    /// Whether new connections may be sent to this node.
    pub fn set_node_eligible(&mut self, eligible: bool) {
        self.node_eligible = eligible;
    }

    /// How things are.
    pub fn report(&self, now: Moment) -> Report {
        let families: BTreeMap<_, _> = self
            .families
            .iter()
            .map(|(family, lag)| {
                let is_late = lag.waiting.is_some_and(|since| {
                    now.steady.saturating_duration_since(since) >= self.patience
                });
                let report = FamilyReport {
                    last_updated: lag.updated,
                    healthy: !is_late,
                };
                (*family, report)
            })
            .collect();
        Report {
            at: now.wall,
            healthy: families.values().all(|family| family.healthy),
            node_eligible: self.node_eligible,
            families,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn healthy(progress: &Progress, at: Moment) -> bool {
        progress.report(at).healthy
    }

    #[test]
    fn a_change_may_wait_for_so_long_and_no_longer() {
        let start = Moment::now();
        let mut progress = Progress::new(60 * SECOND);
        assert!(healthy(&progress, start + 3600 * SECOND), "nothing waits");
        progress.queued(Family::V4, start);
        progress.queued(Family::V4, start + 50 * SECOND);
        assert!(healthy(&progress, start + 59 * SECOND));
        assert!(
            !healthy(&progress, start + 60 * SECOND),
            "the oldest counts"
        );
        progress.updated(Family::V4, start + 61 * SECOND, start + 62 * SECOND);
        assert!(healthy(&progress, start + 3600 * SECOND));
    }

    #[test]
    fn a_change_that_came_during_a_sync_still_waits() {
        let start = Moment::now();
        let mut progress = Progress::new(60 * SECOND);
        progress.queued(Family::V4, start);
        let began = start + SECOND;
        progress.queued(Family::V4, start + 2 * SECOND);
        progress.updated(Family::V4, began, start + 3 * SECOND);
        assert!(healthy(&progress, start + 61 * SECOND));
        assert!(!healthy(&progress, start + 62 * SECOND));
    }

    #[test]
    fn one_family_behind_is_enough_and_is_named() {
        let start = Moment::now();
        let mut progress = Progress::new(60 * SECOND);
        progress.updated(Family::V4, start, start);
        progress.queued(Family::V6, start);
        let report = progress.report(start + 60 * SECOND);
        assert!(!report.healthy);
        assert!(report.families[&Family::V4].healthy);
        assert_eq!(report.families[&Family::V4].last_updated, Some(start.wall));
        assert!(!report.families[&Family::V6].healthy);
        assert_eq!(report.families[&Family::V6].last_updated, None);
    }

    #[test]
    fn a_node_that_leaves_says_nothing_of_health() {
        let mut progress = Progress::new(60 * SECOND);
        assert!(progress.report(Moment::now()).node_eligible);
        progress.set_node_eligible(false);
        let report = progress.report(Moment::now());
        assert!(!report.node_eligible && report.healthy);
    }
}
