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
}

/// Counters that come and go, as one that only grows.
#[derive(Debug, Default)]
pub struct Succession(Mutex<(Sums, Option<Arc<dyn Count>>)>);

impl Succession {
    /// What the present one has counted is kept.
    pub fn end(&self) {
        let (past, present) = &mut *self.lock();
        if let Some(present) = present.take() {
            *past = past.plus(present.sums());
        }
    }

    /// This one counts now, on from where the present one is.
    pub fn replace(&self, next: Arc<dyn Count>) {
        self.lock().1 = Some(next);
    }

    fn lock(&self) -> MutexGuard<'_, (Sums, Option<Arc<dyn Count>>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count for Succession {
    fn sums(&self) -> Sums {
        let (past, present) = &*self.lock();
        let now = present.as_ref().map(|present| present.sums());
        past.plus(now.unwrap_or_default())
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
        all.replace(counting(3));
        // The next one has taken over what the first had.
        all.replace(counting(5));
        assert_eq!(all.sums().sent, (5, 50));
        all.end();
        all.end();
        assert_eq!(all.sums().sent, (5, 50));
        all.replace(counting(2));
        let sums = all.sums();
        assert_eq!(sums.sent, (7, 70));
        assert_eq!(sums.dropped.iter().sum::<u64>(), 2);
    }
}
