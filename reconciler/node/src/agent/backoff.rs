//! Waiting longer after each failure: 10 s, doubled up to 5 min, forgotten after 10 min without one.

use std::time::Duration;

use jiff::Timestamp;

/// The first wait.
pub const FIRST: Duration = Duration::from_secs(10);
/// The longest.
pub const LONGEST: Duration = Duration::from_secs(300);
/// After this time without a failure all is forgiven.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// What is remembered of the failures of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// To wait after the next failure.
    pub delay: Duration,
    /// When the delay was last raised.
    pub since: Timestamp,
}

/// What may be done after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again, and remember this.
    Go(Backoff),
    /// Not before `until`.
    Wait {
        /// When to try again.
        until: Timestamp,
        /// The whole wait.
        delay: Duration,
    },
}

/// Whether something that failed at `failed` may be tried again at `now`.
pub fn verdict(known: Option<Backoff>, failed: Timestamp, now: Timestamp) -> Verdict {
    let first = Backoff {
        delay: FIRST,
        since: failed,
    };
    // A failure long after the last one begins anew.
    let Some(known) = known.filter(|known| failed <= after(known.since, FORGOTTEN)) else {
        return Verdict::Go(first);
    };
    let until = after(failed, known.delay);
    if now < until {
        return Verdict::Wait {
            until,
            delay: known.delay,
        };
    }
    Verdict::Go(Backoff {
        delay: (known.delay * 2).min(LONGEST),
        since: failed,
    })
}

/// A moment later; the end of time stays the end of time.
pub fn after(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// As Go prints durations: `10s`, `1m20s`, `5m0s`.
pub fn text(wait: Duration) -> String {
    let seconds = wait.as_secs();
    if seconds < 60 {
        format!("{seconds}s")
    } else if seconds < 3600 {
        format!("{}m{}s", seconds / 60, seconds % 60)
    } else {
        format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}
