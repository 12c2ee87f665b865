//! What a tunnel of our own has carried, for `/metrics`.
//!
//! A backend whose packets pass through this program (or through programs it put into the kernel)
//! hands out a [`Traffic`] that stays readable from any thread: nothing is copied on a timer, so that
//! the numbers are those of the moment of the scrape.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tunnel::{Counters, DropReason};

/// Who carries packets, and where each of them counts.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Labels of `tunnel_info`, such as `("data_path", "ebpf")`; values without quotes or backslashes.
    pub info: Vec<(&'static str, String)>,
    /// By the name of the path, `user` or `ebpf`. Sums never go down while the daemon lives, so a path
    /// that is out of use stays in the list.
    pub paths: Vec<(&'static str, Arc<dyn Count>)>,
}

/// Something that counts packets; read at every scrape.
pub trait Count: Send + Sync + std::fmt::Debug {
    /// As of now.
    fn sums(&self) -> Sums;
}

/// Packets and bytes of inner IP packets since the daemon's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Given to the underlay.
    pub sent: (u64, u64),
    /// Given to the device.
    pub received: (u64, u64),
    /// Packets that went nowhere, in the order of [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl Sums {
    /// Both together.
    pub fn plus(mut self, other: Self) -> Self {
        for (mine, others) in [
            (&mut self.sent, other.sent),
            (&mut self.received, other.received),
        ] {
            mine.0 += others.0;
            mine.1 += others.1;
        }
        for (mine, others) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += others;
        }
        self
    }

    /// What of this came after `before`.
    pub fn since(mut self, before: Self) -> Self {
        for (mine, others) in [
            (&mut self.sent, before.sent),
            (&mut self.received, before.received),
        ] {
            mine.0 = mine.0.saturating_sub(others.0);
            mine.1 = mine.1.saturating_sub(others.1);
        }
        for (mine, others) in self.dropped.iter_mut().zip(before.dropped) {
            *mine = mine.saturating_sub(others);
        }
        self
    }
}

/// Counters that come and go, as one that only grows.
#[derive(Debug, Default)]
pub struct Succession(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    past: Sums,
    present: Option<Arc<dyn Count>>,
    /// What the present one had from its predecessors, and is in `past` already.
    known: Sums,
    /// There was one.
    begun: bool,
}

impl Succession {
    /// What the present one has counted is kept.
    pub fn end(&self) {
        self.lock().end();
    }

    /// This one counts from now on. `carried` is what it took over from those before it: only the very
    /// first one brings it in, from a former process; later it is here already, whether or not the
    /// predecessor was still found.
    pub fn replace(&self, next: Arc<dyn Count>, carried: Sums) {
        let mut state = self.lock();
        state.end();
        if state.begun {
            state.known = carried;
        }
        state.present = Some(next);
        state.begun = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sums(&self) -> Sums {
        let now = self.present.as_ref().map(|present| present.sums());
        self.past.plus(now.unwrap_or_default().since(self.known))
    }

    fn end(&mut self) {
        self.past = self.sums();
        (self.present, self.known) = (None, Sums::default());
    }
}

impl Count for Succession {
    fn sums(&self) -> Sums {
        self.lock().sums()
    }
}

impl Count for Counters {
    fn sums(&self) -> Sums {
        Sums {
            sent: self.sent(),
            received: self.received(),
            dropped: DropReason::ALL.map(|reason| self.dropped(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_succession_only_grows() {
        let all = Succession::default();
        let counting = |packets| {
            let counters = Counters::default();
            counters.count_sent(packets, 10 * packets);
            counters.count_dropped(DropReason::TooBig, 1);
            Arc::new(counters)
        };
        // A former process had counted one of these.
        all.replace(counting(3), counting(1).sums());
        assert_eq!(all.sums().sent, (3, 30));
        // The next one has taken over what the first had.
        all.replace(counting(5), counting(3).sums());
        assert_eq!(all.sums().sent, (5, 50));
        all.end();
        all.end();
        assert_eq!(all.sums().sent, (5, 50));
        // Nothing was found to take over.
        all.replace(counting(2), Sums::default());
        assert_eq!(all.sums().sent, (7, 70));
        // Ended, and yet found by the next one.
        all.end();
        all.replace(counting(8), counting(2).sums());
        assert_eq!(all.sums().sent, (13, 130));
        let sums = all.sums();
        // One drop each: the second and the last had it from their predecessors.
        assert_eq!(sums.dropped.iter().sum::<u64>(), 2);
    }
}
