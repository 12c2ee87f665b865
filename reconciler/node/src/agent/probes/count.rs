//! From outcomes to verdicts: so many in a row. Pure.

use k8s_openapi::api::core::v1::Probe;

/// Outcomes in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    last: Option<bool>,
    times: i32,
    to_succeed: i32,
    to_fail: i32,
}

impl Count {
    /// None yet.
    pub fn new(probe: &Probe) -> Self {
        Self {
            last: None,
            times: 0,
            to_succeed: probe.success_threshold.unwrap_or(1).max(1),
            to_fail: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }

    /// One more; the verdict, if there are enough of the same.
    pub fn count(&mut self, success: bool) -> Option<bool> {
        if self.last != Some(success) {
            self.last = Some(success);
            self.times = 0;
        }
        self.times = self.times.saturating_add(1);
        let enough = if success {
            self.to_succeed
        } else {
            self.to_fail
        };
        (self.times >= enough).then_some(success)
    }
}
