//! The series by name, registered once.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::buckets;
use super::userspace::Userspace;

const FAMILY: &[&str] = &["ip_family"];

/// One field for each series.
pub(super) struct Series {
    pub registry: Registry,
    pub sync: HistogramVec,
    pub sync_full: HistogramVec,
    pub sync_partial: HistogramVec,
    pub sync_failures: IntCounterVec,
    pub last_synced: GaugeVec,
    pub last_queued: GaugeVec,
    pub programming: HistogramVec,
    pub endpoint_pending: IntGauge,
    pub endpoint_changes: IntCounter,
    pub service_pending: IntGauge,
    pub service_changes: IntCounter,
    pub no_local_endpoints: IntGaugeVec,
    pub restore_failures: IntCounterVec,
    pub partial_restore_failures: IntCounterVec,
    pub iptables_total: IntGaugeVec,
    pub iptables_last: IntGaugeVec,
    pub nftables_sync_failures: IntCounterVec,
    pub nftables_cleanup_failures: IntCounterVec,
    pub healthz: IntCounterVec,
    pub livez: IntCounterVec,
    pub conntrack: HistogramVec,
    pub conntrack_deleted: IntCounterVec,
    pub invalid_dropped: IntCounter,
    pub localhost_accepted: IntCounter,
    pub objects: IntGaugeVec,
    pub clashes: IntGaugeVec,
    pub ignored: IntCounterVec,
    pub repairs: IntCounterVec,
    pub listen_failures: IntCounterVec,
    pub userspace: Userspace,
}

/// Makes and registers series.
pub(super) struct Maker {
    registry: Registry,
}

impl Maker {
    fn register<T: Collector + Clone + 'static>(&self, series: T) -> prometheus::Result<T> {
        self.registry.register(Box::new(series.clone()))?;
        Ok(series)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(opts(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(opts(name, help))?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(opts(name, help), labels)?)
    }

    fn times(&self, name: &str, help: &str) -> prometheus::Result<GaugeVec> {
        self.register(GaugeVec::new(opts(name, help), FAMILY)?)
    }

    fn durations(
        &self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
    ) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets);
        self.register(HistogramVec::new(opts, FAMILY)?)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("kubeproxy")
}

impl Series {
    pub(super) fn new() -> prometheus::Result<Self> {
        let make = Maker {
            registry: Registry::new(),
        };
        Ok(Self {
            sync: make.durations(
                "sync_proxy_rules_duration_seconds",
                "How long syncs took",
                buckets::sync(),
            )?,
            sync_full: make.durations(
                "sync_full_proxy_rules_duration_seconds",
                "How long syncs took that compared everything",
                buckets::sync(),
            )?,
            sync_partial: make.durations(
                "sync_partial_proxy_rules_duration_seconds",
                "How long syncs of changes took",
                buckets::sync(),
            )?,
            sync_failures: make.counters(
                "sync_proxy_rules_failures_total",
                "Syncs that left something undone",
                FAMILY,
            )?,
            last_synced: make.times(
                "sync_proxy_rules_last_timestamp_seconds",
                "When the last sync without errors ended",
            )?,
            last_queued: make.times(
                "sync_proxy_rules_last_queued_timestamp_seconds",
                "When a sync was last asked for",
            )?,
            programming: make.durations(
                "network_programming_duration_seconds",
                "From the change in the control plane to the rules written",
                buckets::programming(),
            )?,
            endpoint_pending: make.gauge(
                "sync_proxy_rules_endpoint_changes_pending",
                "Changes of EndpointSlices that wait for a sync",
            )?,
            endpoint_changes: make.counter(
                "sync_proxy_rules_endpoint_changes_total",
                "Changes of EndpointSlices seen",
            )?,
            service_pending: make.gauge(
                "sync_proxy_rules_service_changes_pending",
                "Changes of Services that wait for a sync",
            )?,
            service_changes: make.counter(
                "sync_proxy_rules_service_changes_total",
                "Changes of Services seen",
            )?,
            no_local_endpoints: make.gauges(
                "sync_proxy_rules_no_local_endpoints_total",
                "Service ports with a Local policy and with endpoints on other nodes only",
                &["traffic_policy", "ip_family"],
            )?,
            restore_failures: make.counters(
                "sync_proxy_rules_iptables_restore_failures_total",
                "Failures of iptables-restore",
                FAMILY,
            )?,
            partial_restore_failures: make.counters(
                "sync_proxy_rules_iptables_partial_restore_failures_total",
                "Failures of iptables-restore with changes only",
                FAMILY,
            )?,
            iptables_total: make.gauges(
                "sync_proxy_rules_iptables_total",
                "Rules of ours in iptables",
                &["table", "ip_family"],
            )?,
            iptables_last: make.gauges(
                "sync_proxy_rules_iptables_last",
                "Rules that the last sync wrote",
                &["table", "ip_family"],
            )?,
            nftables_sync_failures: make.counters(
                "sync_proxy_rules_nftables_sync_failures_total",
                "Failures of nftables transactions",
                FAMILY,
            )?,
            nftables_cleanup_failures: make.counters(
                "sync_proxy_rules_nftables_cleanup_failures_total",
                "Failures of nftables transactions that remove what is stale",
                FAMILY,
            )?,
            healthz: make.counters(
                "proxy_healthz_total",
                "Answers of /healthz by status code",
                &["code"],
            )?,
            livez: make.counters(
                "proxy_livez_total",
                "Answers of /livez by status code",
                &["code"],
            )?,
            conntrack: make.durations(
                "conntrack_reconciler_sync_duration_seconds",
                "How long it took to find and delete stale flows",
                buckets::sync(),
            )?,
            conntrack_deleted: make.counters(
                "conntrack_reconciler_deleted_entries_total",
                "Stale flows deleted",
                FAMILY,
            )?,
            invalid_dropped: make.counter(
                "iptables_ct_state_invalid_dropped_packets_total",
                "Packets dropped by iptables for being INVALID",
            )?,
            localhost_accepted: make.counter(
                "iptables_localhost_nodeports_accepted_packets_total",
                "Packets for node ports on loopback, in iptables mode",
            )?,
            objects: make.gauges(
                "objects",
                "What is programmed: services, service ports, endpoints",
                &["object", "ip_family"],
            )?,
            clashes: make.gauges(
                "clashes",
                "Addresses and ports that more than one service port claims; the oldest has it",
                FAMILY,
            )?,
            ignored: make.counters(
                "ignored_objects_total",
                "Objects, or parts of them, that were ignored for being wrong",
                &["kind", "reason"],
            )?,
            repairs: make.counters(
                "repairs_total",
                "Foreign changes to what is ours that were undone",
                FAMILY,
            )?,
            listen_failures: make.counters(
                "listen_failures_total",
                "Listeners of ours that could not be opened",
                &["listener"],
            )?,
            userspace: Userspace::new(&make)?,
            registry: make.registry,
        })
    }
}
