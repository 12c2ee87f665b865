//! When to renew our lease, as a state machine without a clock: `now` is passed in.
//!
//! A lease is renewed `margin` before it expires. A failed attempt is repeated with growing pauses
//! (at most a minute). A lease that is gone, or that expired before a renewal got through, must be
//! acquired again; that too is tried until it succeeds. Nothing here ends the daemon.

use std::time::{Duration, Instant};

/// Longest pause between two attempts while the lease is still valid.
const RENEW_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause between two attempts while we hold no lease.
const ACQUIRE_PAUSE: Duration = Duration::from_secs(5);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until the given moment; `None`: nothing at all (a reservation).
    Wait(Option<Instant>),
    /// Rewrite the lease with a new expiry.
    Renew,
    /// We hold no lease: claim one.
    Acquire,
}

/// The state of our hold on the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    margin: Duration,
    hold: Hold,
    failures: u32,
    /// Not before this moment, after a failure.
    pause_until: Option<Instant>,
    /// Something to publish does not wait for the margin.
    due: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Nothing,
    Reserved,
    Until { renew_at: Instant, expiry: Instant },
}

impl Renewal {
    /// We hold nothing yet.
    pub fn new(margin: Duration) -> Self {
        Self {
            margin,
            hold: Hold::Nothing,
            failures: 0,
            pause_until: None,
            due: false,
        }
    }

    /// The lease was written at `now` and lives for `ttl` (`None`: a reservation).
    pub fn written(&mut self, now: Instant, ttl: Option<Duration>) {
        let until = |ttl: Duration| {
            // A store that grants less than the margin asks for earlier renewal.
            let margin = if self.margin < ttl {
                self.margin
            } else {
                ttl / 2
            };
            Hold::Until {
                renew_at: now + (ttl - margin),
                expiry: now + ttl,
            }
        };
        *self = Self {
            hold: ttl.map_or(Hold::Reserved, until),
            ..Self::new(self.margin)
        };
    }

    /// The value to publish has changed: write it at once.
    pub fn publish(&mut self) {
        self.due = true;
    }

    /// The key is gone or has become someone else's. True when we held it until now.
    pub fn lost(&mut self) -> bool {
        let held = self.holds();
        *self = Self {
            due: self.due,
            ..Self::new(self.margin)
        };
        held
    }

    /// An attempt failed at `now`.
    pub fn failed(&mut self, now: Instant) {
        let longest = if self.hold == Hold::Nothing {
            ACQUIRE_PAUSE
        } else {
            RENEW_PAUSE
        };
        let pause = Duration::from_secs(1 << self.failures.min(6)).min(longest);
        self.failures += 1;
        self.pause_until = Some(now + pause);
    }

    /// Do nothing before `until`, except wait.
    pub fn pause(&mut self, until: Instant) {
        self.pause_until = Some(until);
    }

    /// True when what we hold is a reservation.
    pub fn is_reserved(&self) -> bool {
        self.hold == Hold::Reserved
    }

    /// The store is back: do not wait out the pause.
    pub fn store_is_back(&mut self) {
        (self.failures, self.pause_until) = (0, None);
    }

    /// True while the lease is ours as far as we know.
    pub fn holds(&self) -> bool {
        self.hold != Hold::Nothing
    }

    /// What to do at `now`. An expired lease counts as lost.
    pub fn poll(&mut self, now: Instant) -> Action {
        if matches!(self.hold, Hold::Until { expiry, .. } if expiry <= now) {
            self.hold = Hold::Nothing;
        }
        let wanted_at = match self.hold {
            Hold::Nothing => now,
            Hold::Reserved | Hold::Until { .. } if self.due => now,
            Hold::Reserved => return Action::Wait(None),
            Hold::Until { renew_at, .. } => renew_at,
        };
        let at = self
            .pause_until
            .map_or(wanted_at, |pause| pause.max(wanted_at));
        match self.hold {
            _ if at > now => Action::Wait(Some(match self.hold {
                Hold::Until { expiry, .. } => at.min(expiry),
                _ => at,
            })),
            Hold::Nothing => Action::Acquire,
            _ => Action::Renew,
        }
    }
}

#[cfg(test)]
mod tests;
