//! When a watch fails: how long to wait, and what to say of it, once a minute at most.

use std::error::Error;
use std::time::Duration;

use kube::runtime::watcher;
use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(60);
/// A failure this long after the one before is a new one; a watch of which nothing is heard may
/// well have worked in between.
const PAST: Duration = Duration::from_secs(120);
/// A server that forgets where we are does it once; one that does it all the time has a problem.
const FORGIVEN: u32 = 3;

/// The failures of one watch.
pub(super) struct Trouble {
    /// What is tried, with the server's name.
    what: String,
    /// Failures in a row.
    failures: u32,
    last: Option<Instant>,
    said: Option<Instant>,
    /// The log says that it fails.
    is_known: bool,
    said_absent: bool,
}

impl Trouble {
    pub(super) fn new(what: String) -> Self {
        Self {
            what,
            failures: 0,
            last: None,
            said: None,
            is_known: false,
            said_absent: false,
        }
    }

    /// It has failed; returns how long to wait before the next attempt.
    pub(super) fn begins(&mut self, error: &watcher::Error, now: Instant) -> Duration {
        let last = self.last.replace(now);
        if last.is_some_and(|last| now - last > PAST) {
            self.failures = 0;
        }
        // That the server has forgotten where we were is nothing but a reason to list anew.
        let harmless = is_expired(error) && self.failures < FORGIVEN;
        if !harmless && self.said.is_none_or(|said| now - said >= QUIET) {
            let (what, cause) = (&self.what, cause(error));
            tracing::warn!("{what}: {cause}; what it said before stays, trying again");
            self.said = Some(now);
            self.is_known = true;
        }
        let whole = SHORTEST.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        // A thousand nodes lose their server at one moment, and shall not come back at one.
        whole.min(LONGEST).mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    pub(super) fn is_over(&mut self) {
        self.failures = 0;
        if std::mem::take(&mut self.is_known) {
            tracing::info!("{}: works again", self.what);
        }
    }

    /// The server has no such kind, and need not have it.
    pub(super) fn is_absent(&mut self, error: &watcher::Error) {
        if !std::mem::replace(&mut self.said_absent, true) {
            let cause = cause(error);
            tracing::info!("{}: {cause}; goes without", self.what);
        }
    }
}

/// Each sentence of the chain that the ones before have not quoted.
fn cause(error: &watcher::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// The status in an answer of the server.
fn code(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{
        InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed,
    };
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => match error {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
        WatchError(status) => Some(status.code),
        NoResourceVersion => None,
    }
}

/// The server does not know any more what happened since we last heard of it.
pub(super) fn is_expired(error: &watcher::Error) -> bool {
    code(error) == Some(410)
}

/// The server has no such kind, or does not let us see it.
pub(super) fn is_absent(error: &watcher::Error) -> bool {
    matches!(code(error), Some(403 | 404))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> watcher::Error {
        watcher::Error::NoResourceVersion
    }

    fn expired() -> watcher::Error {
        let status = kube::core::Status::failure("too old resource version", "Expired");
        watcher::Error::WatchError(Box::new(status.with_code(410)))
    }

    #[test]
    fn waits_grow_to_half_a_minute_and_start_anew() {
        let now = Instant::now();
        let mut trouble = Trouble::new("watch it".to_owned());
        let first = trouble.begins(&failure(), now);
        assert!((SHORTEST / 2..=SHORTEST).contains(&first), "{first:?}");
        for _ in 0..100 {
            assert!(trouble.begins(&failure(), now) <= LONGEST);
        }
        assert!(trouble.begins(&failure(), now) >= LONGEST / 2);
        trouble.is_over();
        assert!(trouble.begins(&failure(), now) <= SHORTEST);
        trouble.begins(&failure(), now);
        assert!(trouble.begins(&failure(), now + PAST * 2) <= SHORTEST);
    }

    #[test]
    fn a_history_that_is_too_short_is_told_only_when_it_does_not_stop() {
        let now = Instant::now();
        let mut trouble = Trouble::new("watch it".to_owned());
        for _ in 0..FORGIVEN {
            trouble.begins(&expired(), now);
            assert!(!trouble.is_known);
        }
        trouble.begins(&expired(), now);
        assert!(trouble.is_known);
        let mut trouble = Trouble::new("watch it".to_owned());
        trouble.begins(&failure(), now);
        assert!(trouble.is_known);
    }
}
