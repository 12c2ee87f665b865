//! A server that is asked: how fast it usually is, and whether it is to be asked at all. Time is a parameter.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which a server is set aside (as CoreDNS's `max_fails`).
const FAILS: u32 = 2;
/// Refusals in a row after which a server comes after all that answer.
const REFUSALS: u32 = 3;
/// The time between probes of a server that is set aside grows up to this many times the first.
const SLOWEST: u32 = 30;
/// The next server is asked when one takes longer than it usually does; within these limits.
const HEDGE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// And after this when nothing is known of it.
const HEDGE_NEW: Duration = Duration::from_millis(150);

/// A server. It outlives a reload.
pub(super) struct Upstream {
    pub address: SocketAddr,
    /// The address as metrics and logs have it.
    pub name: String,
    state: Mutex<State>,
}

/// What is known of a server.
#[derive(Debug, Default)]
struct State {
    /// The time it takes to answer: a moving mean, and the mean distance from it (RFC 6298 section 2).
    usual: Option<(Duration, Duration)>,
    fails: u32,
    refusals: u32,
    /// When to probe it, while it is set aside.
    probe_at: Option<Instant>,
    /// Between its probes. Only an answer to a question resets it: a server that answers probes alone is not to come and
    /// go all the time.
    wait: Option<Duration>,
    looping: bool,
}

/// Where a server stands among others; the least is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Set aside: asked only when no other is left.
    pub aside: bool,
    refuses: bool,
    usual: Duration,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            name: address.to_string(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: it brings questions back to us and must not be asked. One that was never asked comes first, to be known.
    pub(super) fn rank(&self) -> Option<Rank> {
        let state = self.state();
        (!state.looping).then(|| Rank {
            aside: state.probe_at.is_some(),
            refuses: state.refusals >= REFUSALS,
            usual: state.usual.map_or(Duration::ZERO, |(usual, _)| usual),
        })
    }

    /// How long to wait for it before another one is asked as well.
    pub(super) fn hedge(&self) -> Duration {
        self.state()
            .usual
            .map_or(HEDGE_NEW, |(usual, spread)| usual + 4 * spread)
            .clamp(HEDGE.0, HEDGE.1)
    }

    /// It answered in `time`. `refused`: with REFUSED, SERVFAIL or the like. Whether it was set aside until now.
    pub(super) fn answered(&self, time: Duration, refused: bool) -> bool {
        let mut state = self.state();
        state.measure(time);
        state.fails = 0;
        state.refusals = if refused {
            state.refusals.saturating_add(1)
        } else {
            0
        };
        state.wait = None;
        state.probe_at.take().is_some()
    }

    /// It answered a probe: it is asked again, and set aside at its next failure.
    pub(super) fn probed(&self) {
        let mut state = self.state();
        state.fails = FAILS - 1;
        state.probe_at = None;
    }

    /// Another one was faster, when this one had not answered for `time`, which is not long enough to be a failure.
    pub(super) fn lagged(&self, time: Duration) {
        let mut state = self.state();
        if state.usual.is_none_or(|(usual, _)| time > usual) {
            state.measure(time);
        }
    }

    /// It failed to answer. Whether it is set aside for that, from now on; `wait`: until its first probe.
    pub(super) fn failed(&self, now: Instant, wait: Duration) -> bool {
        let mut state = self.state();
        state.fails = state.fails.saturating_add(1);
        if state.fails < FAILS || state.probe_at.is_some() {
            return false;
        }
        state.put_off(now, wait);
        true
    }

    /// Whether it is set aside and to be probed now; the next time is then later.
    pub(super) fn is_due(&self, now: Instant, wait: Duration) -> bool {
        let mut state = self.state();
        let due = state.probe_at.is_some_and(|at| now >= at);
        if due {
            state.put_off(now, wait);
        }
        due
    }

    /// When it is to be probed, if it is set aside.
    pub(super) fn due(&self) -> Option<Instant> {
        self.state().probe_at
    }

    /// Whether it brings questions back to us. The answer is what was known before.
    pub(super) fn set_looping(&self, looping: bool) -> bool {
        std::mem::replace(&mut self.state().looping, looping)
    }
}

impl State {
    /// The next probe: twice as late as the last.
    fn put_off(&mut self, now: Instant, first: Duration) {
        let wait = match self.wait {
            None => first,
            Some(wait) => (wait * 2).min(first * SLOWEST),
        };
        self.wait = Some(wait);
        self.probe_at = Some(now + wait);
    }

    fn measure(&mut self, time: Duration) {
        self.usual = Some(match self.usual {
            None => (time, time / 2),
            Some((usual, spread)) => {
                let distance = usual.abs_diff(time);
                ((7 * usual + time) / 8, (3 * spread + distance) / 4)
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(500);

    fn upstream() -> Upstream {
        Upstream::new(SocketAddr::from(([127, 0, 0, 1], 53)))
    }

    #[test]
    fn two_failures_in_a_row_set_it_aside_and_an_answer_brings_it_back() {
        let (one, now) = (upstream(), Instant::now());
        assert!(!one.failed(now, WAIT));
        assert!(!one.answered(WAIT, false));
        assert!(!one.failed(now, WAIT));
        assert!(one.failed(now, WAIT));
        assert!(!one.failed(now, WAIT), "told once");
        assert!(one.rank().is_some_and(|rank| rank.aside));
        assert!(one.answered(WAIT, false));
        assert!(one.rank().is_some_and(|rank| !rank.aside));
    }

    #[test]
    fn probes_grow_rarer() {
        let (one, mut now) = (upstream(), Instant::now());
        one.failed(now, WAIT);
        one.failed(now, WAIT);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let due = one.due().unwrap();
            assert!(!one.is_due(due - Duration::from_millis(1), WAIT));
            assert!(one.is_due(due, WAIT));
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
    }

    #[test]
    fn one_that_answers_nothing_but_probes_is_taken_back_more_and_more_rarely() {
        let (one, now) = (upstream(), Instant::now());
        one.failed(now, WAIT);
        let mut waits = Vec::new();
        for _ in 0..4 {
            assert!(one.failed(now, WAIT));
            waits.push((one.due().unwrap() - now).as_millis());
            one.probed();
            assert_eq!(one.due(), None);
        }
        assert_eq!(waits, [500, 1000, 2000, 4000]);
        one.answered(WAIT, false);
        one.failed(now, WAIT);
        assert!(one.failed(now, WAIT));
        assert_eq!(one.due(), Some(now + WAIT));
    }

    #[test]
    fn the_faster_comes_first_and_one_that_lags_loses_its_place() {
        let (fast, slow) = (upstream(), upstream());
        for _ in 0..10 {
            fast.answered(Duration::from_millis(2), false);
            slow.answered(Duration::from_millis(40), false);
        }
        assert!(fast.rank() < slow.rank());
        assert!(
            fast.hedge() < Duration::from_millis(15),
            "{:?}",
            fast.hedge()
        );
        for _ in 0..20 {
            fast.lagged(Duration::from_millis(80));
        }
        assert!(fast.rank() > slow.rank());
    }

    #[test]
    fn one_that_refuses_comes_after_those_that_answer() {
        let (refuses, slow) = (upstream(), upstream());
        slow.answered(Duration::from_millis(40), false);
        for _ in 0..REFUSALS {
            refuses.answered(Duration::from_millis(1), true);
        }
        assert!(refuses.rank() > slow.rank());
        refuses.answered(Duration::from_millis(1), false);
        assert!(refuses.rank() < slow.rank());
    }

    #[test]
    fn one_that_loops_has_no_place() {
        let one = upstream();
        assert!(!one.set_looping(true));
        assert_eq!(one.rank(), None);
        assert!(one.set_looping(false));
        assert!(one.rank().is_some());
    }
}
