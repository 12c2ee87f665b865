//! Counters and times, under kube-proxy's names where it has them (pkg/proxy/metrics) and with its
//! prefix `kubeproxy_` where it has none.

mod buckets;
mod series;
mod userspace;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::TextEncoder;

use crate::model::Family;
use series::Series;
pub use userspace::UserspaceTotals;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All of them.
pub struct Metrics {
    series: Series,
    refresh: Mutex<Vec<Refresh>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// filter.
    Filter,
    /// nat.
    Nat,
}

impl Table {
    fn label(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// Which policy leaves a Service without endpoints on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// `internalTrafficPolicy`.
    Internal,
    /// `externalTrafficPolicy`.
    External,
}

impl TrafficPolicy {
    fn label(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::External => "external",
        }
    }
}

impl Metrics {
    /// All at zero. Fails only if two series had one name.
    pub fn new() -> prometheus::Result<Self> {
        Ok(Self {
            series: Series::new()?,
            refresh: Mutex::default(),
        })
    }

    /// Calls `refresh` before each rendering, for figures that are kept elsewhere. It must not call
    /// [`Metrics::render`] or this.
    pub fn on_render(&self, refresh: impl Fn(&Self) + Send + Sync + 'static) {
        let mut list = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(Box::new(refresh));
    }

    /// The text format of Prometheus.
    pub fn render(&self) -> prometheus::Result<String> {
        let list = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        for refresh in list.iter() {
            refresh(self);
        }
        TextEncoder::new().encode_to_string(&self.series.registry.gather())
    }

    /// A change waits for a sync since `at`.
    pub fn queued(&self, family: Family, at: SystemTime) {
        let gauge = &self.series.last_queued;
        gauge.with_label_values(&[family.label()]).set(seconds(at));
    }

    /// A sync ended at `at` and took so long; `full`: it compared everything.
    pub fn synced(&self, family: Family, full: bool, took: Duration, at: SystemTime, ok: bool) {
        let labels = &[family.label()];
        let part = if full {
            &self.series.sync_full
        } else {
            &self.series.sync_partial
        };
        for histogram in [&self.series.sync, part] {
            histogram
                .with_label_values(labels)
                .observe(took.as_secs_f64());
        }
        if ok {
            let gauge = &self.series.last_synced;
            gauge.with_label_values(labels).set(seconds(at));
        } else {
            self.series.sync_failures.with_label_values(labels).inc();
        }
    }

    /// A change of endpoints, made by the control plane at `triggered`, has been written at `written`
    /// (`network_programming_duration_seconds`). Clocks of two machines: before is taken as at once.
    pub fn programmed(&self, family: Family, triggered: SystemTime, written: SystemTime) {
        let took = written.duration_since(triggered).unwrap_or_default();
        self.series
            .programming
            .with_label_values(&[family.label()])
            .observe(took.as_secs_f64());
    }

    /// So many changes of Services and of EndpointSlices were seen since the start.
    pub fn changes(&self, services: u64, endpoints: u64) {
        set_total(&self.series.service_changes, services);
        set_total(&self.series.endpoint_changes, endpoints);
    }

    /// So many changes of Services and of EndpointSlices wait for a sync.
    pub fn pending(&self, services: usize, endpoints: usize) {
        self.series.service_pending.set(gauge(services));
        self.series.endpoint_pending.set(gauge(endpoints));
    }

    /// So many service ports have endpoints, but none on this node, and a policy of Local.
    pub fn no_local_endpoints(&self, family: Family, policy: TrafficPolicy, ports: usize) {
        self.series
            .no_local_endpoints
            .with_label_values(&[policy.label(), family.label()])
            .set(gauge(ports));
    }

    /// What there is at the moment: Services, service ports and endpoints of a family.
    pub fn sizes(&self, family: Family, services: usize, ports: usize, endpoints: usize) {
        for (object, count) in [
            ("service", services),
            ("service_port", ports),
            ("endpoint", endpoints),
        ] {
            self.series
                .objects
                .with_label_values(&[object, family.label()])
                .set(gauge(count));
        }
    }

    /// So many fronts are claimed by more than one service port at the moment.
    pub fn clashes(&self, family: Family, fronts: usize) {
        self.series
            .clashes
            .with_label_values(&[family.label()])
            .set(gauge(fronts));
    }

    /// An object, or part of it, was ignored; `kind` and `reason` are words from a fixed set.
    pub fn ignored(&self, kind: &str, reason: &str) {
        self.series.ignored.with_label_values(&[kind, reason]).inc();
    }

    /// Foreign changes to what is ours were noticed and undone.
    pub fn repaired(&self, family: Family) {
        self.series
            .repairs
            .with_label_values(&[family.label()])
            .inc();
    }

    /// iptables-restore failed; `partial`: for a text with changes only.
    pub fn iptables_restore_failed(&self, family: Family, partial: bool) {
        let counter = if partial {
            &self.series.partial_restore_failures
        } else {
            &self.series.restore_failures
        };
        counter.with_label_values(&[family.label()]).inc();
    }

    /// How many rules of iptables there are, and how many the last sync wrote.
    pub fn iptables_rules(&self, family: Family, table: Table, total: usize, last: usize) {
        let labels = &[table.label(), family.label()];
        let (all, written) = (&self.series.iptables_total, &self.series.iptables_last);
        all.with_label_values(labels).set(gauge(total));
        written.with_label_values(labels).set(gauge(last));
    }

    /// A transaction of nftables failed; `cleanup`: one that removes what is stale.
    pub fn nftables_failed(&self, family: Family, cleanup: bool) {
        let counter = if cleanup {
            &self.series.nftables_cleanup_failures
        } else {
            &self.series.nftables_sync_failures
        };
        counter.with_label_values(&[family.label()]).inc();
    }

    /// Stale flows were looked for, which took so long, and so many deleted.
    pub fn conntrack(&self, family: Family, took: Duration, deleted: usize) {
        let labels = &[family.label()];
        let (times, flows) = (&self.series.conntrack, &self.series.conntrack_deleted);
        times.with_label_values(labels).observe(took.as_secs_f64());
        flows.with_label_values(labels).inc_by(deleted as u64);
    }

    /// `/healthz` was answered with this code.
    pub fn healthz(&self, code: u16) {
        self.series
            .healthz
            .with_label_values(&[&code.to_string()])
            .inc();
    }

    /// `/livez` was answered with this code.
    pub fn livez(&self, code: u16) {
        self.series
            .livez
            .with_label_values(&[&code.to_string()])
            .inc();
    }

    /// A listener of ours could not be opened; `what`: `healthz`, `metrics`, `node_port_health` or
    /// `node_port`.
    pub fn listen_failed(&self, what: &str) {
        self.series.listen_failures.with_label_values(&[what]).inc();
    }

    /// The totals of the forwarding process, kept there.
    pub fn userspace(&self, family: Family, totals: &UserspaceTotals) {
        self.series.userspace.set(family.label(), totals);
    }

    /// Packets of connections dropped for being INVALID, as iptables counts them.
    pub fn invalid_dropped(&self, packets: u64) {
        set_total(&self.series.invalid_dropped, packets);
    }

    /// Packets for node ports on loopback, as iptables counts them.
    pub fn localhost_accepted(&self, packets: u64) {
        set_total(&self.series.localhost_accepted, packets);
    }
}

/// Brings a counter up to a total that is kept elsewhere; it never goes down.
fn set_total(counter: &prometheus::IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests;
