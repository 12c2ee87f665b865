//! Failed Pods of DaemonSets are replaced at once, then after one second, two, four, up to a quarter of an hour.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::DaemonSet;
use std::collections::BTreeMap;
use std::time::Duration;

const FIRST: SignedDuration = SignedDuration::from_secs(1);
const LONGEST: SignedDuration = SignedDuration::from_mins(15);

/// When the last failed Pod of a DaemonSet on a node was removed, and how often in a row. It is kept in memory only:
/// a controller that starts begins anew.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failed: BTreeMap<(String, String), (u32, Timestamp)>,
}

impl Backoff {
    /// How long to wait before the failed Pod is removed. None: it may go.
    pub fn wait(&self, set: &DaemonSet, node: &str, now: Timestamp) -> Option<Duration> {
        let &(times, last) = self.failed.get(&key(set, node))?;
        let left = delay(times) - now.duration_since(last);
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    }

    /// A failed Pod is being removed.
    pub fn note(&mut self, set: &DaemonSet, node: &str, now: Timestamp) {
        self.failed
            .retain(|_, (_, last)| now.duration_since(*last) < LONGEST * 2);
        let (times, last) = self.failed.entry(key(set, node)).or_insert((0, now));
        *times += 1;
        *last = now;
    }
}

fn delay(times: u32) -> SignedDuration {
    FIRST
        .saturating_mul(2_i32.saturating_pow(times.saturating_sub(1)))
        .min(LONGEST)
}

fn key(set: &DaemonSet, node: &str) -> (String, String) {
    let uid = set.metadata.uid.clone().unwrap_or_default();
    // A new template gets a new chance.
    let generation = set.metadata.generation.unwrap_or_default();
    (format!("{uid} {generation}"), node.to_owned())
}
