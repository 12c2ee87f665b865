//! Whether the proxy keeps up, and the pages that say so: `/healthz` and `/livez` for load balancers
//! and the kubelet, `/metrics` and the rest for operators, and the health ports of Services.

pub mod node_ports;
mod pages;
mod progress;
pub mod server;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use node_ports::NodePortHealth;
pub use pages::{About, health_pages, metrics_pages};
pub use progress::{FamilyReport, Moment, Progress, Report};

use crate::metrics::Metrics;
use crate::model::Family;

/// What all pages draw on.
#[derive(Debug)]
pub struct Health {
    /// The counters.
    pub metrics: Arc<Metrics>,
    progress: Mutex<Progress>,
}

impl Health {
    /// Healthy until a queued change is older than twice `sync_period`.
    pub fn new(sync_period: Duration, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            progress: Mutex::new(Progress::new(2 * sync_period)),
        })
    }

    /// A change for a family waits to be written.
    pub fn queued(&self, family: Family) {
        let now = Moment::now();
        self.progress().queued(family, now);
        self.metrics.queued(family, now.wall);
    }

    /// A sync that began at `began` has written everything that was queued before.
    pub fn updated(&self, family: Family, began: Moment) {
        self.progress().updated(family, began, Moment::now());
    }

    /// Whether new connections shall be sent to this node; false while it is deleted or drained.
    /// True until it is told otherwise.
    pub fn set_node_eligible(&self, eligible: bool) {
        self.progress().set_node_eligible(eligible);
    }

    /// How things are.
    pub fn report(&self) -> Report {
        self.progress().report(Moment::now())
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
