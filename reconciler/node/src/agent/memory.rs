//! What the agent remembers of a Pod beyond what the runtime and the API say; all of it may be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::backoff::{self, Backoff};

/// Of one Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Restarts of containers, by name.
    pub restarts: BTreeMap<String, Backoff>,
    /// Containers that could not be started, by name.
    pub troubles: BTreeMap<String, Trouble>,
    /// Why no sandbox could be made.
    pub sandbox: Option<Trouble>,
    /// Why the volumes are not there.
    pub volumes: Option<Trouble>,
    /// Sandboxes that have been stopped on purpose.
    pub stopped: BTreeSet<String>,
    /// Why the Pod as a whole has failed: reason and message.
    pub failure: Option<(String, String)>,
    /// What the probes of containers say, by the runtime's id.
    pub probed: BTreeMap<String, Probed>,
    /// When the agent first saw the Pod.
    pub seen: Option<Timestamp>,
    /// The addresses that it had last.
    pub ips: Vec<IpAddr>,
}

/// Something that failed and is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// `ErrImagePull`
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it failed.
    pub failed: Timestamp,
    /// When to try again.
    pub retry: Timestamp,
    /// How long to wait after the next failure.
    pub delay: Duration,
}

/// What the probes of one container say. Absent: no probe, or no verdict yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Has it started?
    pub startup: Option<bool>,
    /// Is it alive?
    pub liveness: Option<bool>,
    /// May it be sent requests?
    pub readiness: Option<bool>,
}

/// After so long a failed pull counts as waiting for the next.
const PULLING: Duration = Duration::from_secs(1);

impl Trouble {
    /// From when on an image is no longer tried but waited for; absent if it is about something else.
    pub fn waits_for_image(&self) -> Option<Timestamp> {
        (self.reason == "ErrImagePull").then(|| backoff::after(self.failed, PULLING))
    }

    /// A failure at `now`, after `earlier` ones of the same kind; the first wait is `first`.
    pub fn new(
        reason: &str,
        message: String,
        earlier: Option<&Self>,
        first: Duration,
        now: Timestamp,
    ) -> Self {
        let delay = earlier.map_or(first, |earlier| earlier.delay);
        Self {
            reason: reason.to_owned(),
            message,
            failed: now,
            retry: backoff::after(now, delay),
            delay: (delay * 2).min(backoff::LONGEST),
        }
    }
}
