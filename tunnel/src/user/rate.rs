//! How many answers a worker gives: what others send must not make it, or those it answers, busy.

use std::time::Instant;

/// Answers a second, and at once.
const RATE: f64 = 1000.0;
pub(super) const BURST: f64 = 100.0;

/// A token bucket.
pub(super) struct Rate {
    tokens: f64,
    at: Instant,
}

impl Rate {
    pub(super) fn new() -> Self {
        Self {
            tokens: BURST,
            at: Instant::now(),
        }
    }

    /// Whether one more may be given now.
    pub(super) fn take(&mut self) -> bool {
        let now = Instant::now();
        let new = now.duration_since(self.at).as_secs_f64() * RATE;
        self.at = now;
        self.tokens = (self.tokens + new).min(BURST);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_rate_limited() {
        let mut rate = Rate::new();
        let start = Instant::now();
        let given = (0..100_000).filter(|_| rate.take()).count() as f64;
        let most = BURST + start.elapsed().as_secs_f64() * RATE;
        assert!(given >= BURST && given <= most + 1.0, "{given} of {most}");
    }
}
