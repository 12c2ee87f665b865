//! What upstreams and the cache did, under CoreDNS's names (its plugins `forward` and `cache`), and what it has no name
//! for under ours.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::cache::Kind;
use super::exchange::Fault;

/// CoreDNS's buckets for times: 0.25 ms to 8.2 s, each twice the one before.
const BUCKETS: (f64, f64, usize) = (0.00025, 2.0, 16);

/// The series.
pub(super) struct Metrics {
    requests: IntCounterVec,
    responses: IntCounterVec,
    durations: HistogramVec,
    proxy_durations: HistogramVec,
    health_failures: IntCounterVec,
    proxy_health_failures: IntCounterVec,
    faults: IntCounterVec,
    looping: IntGaugeVec,
    /// Questions for which every upstream was set aside.
    pub broken: IntCounter,
    /// Questions beyond the limit.
    pub rejects: IntCounter,
    entries: [IntGauge; 2],
    hits: [IntCounter; 2],
    evictions: [IntCounter; 2],
    /// Questions that the cache was looked through for.
    pub cache_requests: IntCounter,
    /// Those that it had nothing for.
    pub misses: IntCounter,
    /// Answers that were asked for again before their end.
    pub prefetches: IntCounter,
    /// Answers given after their end.
    pub stale: IntCounter,
    drops: IntCounter,
}

struct Maker<'a> {
    registry: &'a Registry,
    server: &'a str,
}

impl Maker<'_> {
    fn register<T: Collector + Clone + 'static>(&self, series: T) -> prometheus::Result<T> {
        self.registry.register(Box::new(series.clone()))?;
        Ok(series)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn times(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
        let (start, factor, count) = BUCKETS;
        let buckets = prometheus::exponential_buckets(start, factor, count)?;
        let opts = HistogramOpts::new(name, help).buckets(buckets);
        self.register(HistogramVec::new(opts, labels)?)
    }

    /// A series of the cache, with the labels that CoreDNS gives it.
    fn cache(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        let series = self.counters(name, help, &["server", "zones", "view"])?;
        series.get_metric_with_label_values(&[self.server, ".", ""])
    }

    /// One for each kind of answer.
    fn by_kind(&self, name: &str, help: &str) -> prometheus::Result<[IntCounter; 2]> {
        let series = self.counters(name, help, &["server", "type", "zones", "view"])?;
        let of =
            |kind: Kind| series.get_metric_with_label_values(&[self.server, kind.label(), ".", ""]);
        Ok([of(Kind::Success)?, of(Kind::Denial)?])
    }
}

impl Metrics {
    /// `server`: the label of the cache's series.
    pub(super) fn new(registry: &Registry, server: &str) -> prometheus::Result<Self> {
        let make = Maker { registry, server };
        let entries = make.register(IntGaugeVec::new(
            Opts::new("coredns_cache_entries", "Answers in the cache."),
            &["server", "type", "zones", "view"],
        )?)?;
        let entries_of =
            |kind: Kind| entries.get_metric_with_label_values(&[server, kind.label(), ".", ""]);
        Ok(Self {
            requests: make.counters(
                "coredns_forward_requests_total",
                "Questions sent to an upstream.",
                &["to"],
            )?,
            responses: make.counters(
                "coredns_forward_responses_total",
                "Answers of an upstream, by code.",
                &["rcode", "to"],
            )?,
            durations: make.times(
                "coredns_forward_request_duration_seconds",
                "The time that an upstream took to answer.",
                &["to", "rcode"],
            )?,
            proxy_durations: make.times(
                "coredns_proxy_request_duration_seconds",
                "The time that an upstream took to answer.",
                &["proxy_name", "to", "rcode"],
            )?,
            health_failures: make.counters(
                "coredns_forward_healthcheck_failures_total",
                "Probes that an upstream which was set aside did not answer.",
                &["to"],
            )?,
            proxy_health_failures: make.counters(
                "coredns_proxy_healthcheck_failures_total",
                "Probes that an upstream which was set aside did not answer.",
                &["proxy_name", "to"],
            )?,
            faults: make.counters(
                "weft_dns_upstream_faults_total",
                "Answers of an upstream that were none, by cause.",
                &["to", "cause"],
            )?,
            looping: make.register(IntGaugeVec::new(
                Opts::new(
                    "weft_dns_upstream_looping",
                    "1: the upstream brings questions back to this server and is not asked.",
                ),
                &["to"],
            )?)?,
            broken: make.counter(
                "coredns_forward_healthcheck_broken_total",
                "Questions for which every upstream was set aside; they were asked all the same.",
            )?,
            rejects: make.counter(
                "coredns_forward_max_concurrent_rejects_total",
                "Questions refused because too many waited for upstreams.",
            )?,
            entries: [entries_of(Kind::Success)?, entries_of(Kind::Denial)?],
            hits: make.by_kind(
                "coredns_cache_hits_total",
                "Questions that the cache answered.",
            )?,
            evictions: make.by_kind(
                "coredns_cache_evictions_total",
                "Answers that left the cache for others.",
            )?,
            cache_requests: make.cache(
                "coredns_cache_requests_total",
                "Questions that the cache was looked through for.",
            )?,
            misses: make.cache(
                "coredns_cache_misses_total",
                "Questions that the cache had no answer for.",
            )?,
            prefetches: make.cache(
                "coredns_cache_prefetch_total",
                "Answers asked for again before their end.",
            )?,
            stale: make.cache(
                "coredns_cache_served_stale_total",
                "Answers given after their end, for want of newer ones.",
            )?,
            drops: make.cache(
                "coredns_cache_drops_total",
                "Answers that were to another question.",
            )?,
        })
    }

    /// A question goes to an upstream.
    pub(super) fn asked(&self, to: &str) {
        self.requests.with_label_values(&[to]).inc();
    }

    /// It answered.
    pub(super) fn answered(&self, to: &str, code: ResponseCode, time: Duration) {
        let rcode = rcode(code);
        let time = time.as_secs_f64();
        self.responses.with_label_values(&[rcode, to]).inc();
        self.durations.with_label_values(&[to, rcode]).observe(time);
        self.proxy_durations
            .with_label_values(&["forward", to, rcode])
            .observe(time);
    }

    /// What it sent was no answer, or it sent nothing.
    pub(super) fn fault(&self, to: &str, fault: &Fault) {
        self.faults.with_label_values(&[to, fault.cause()]).inc();
        if matches!(fault, Fault::OtherQuestion | Fault::Unrelated) {
            self.drops.inc();
        }
    }

    /// It did not answer a probe.
    pub(super) fn probe_failed(&self, to: &str) {
        self.health_failures.with_label_values(&[to]).inc();
        self.proxy_health_failures
            .with_label_values(&["forward", to])
            .inc();
    }

    /// Whether it brings questions back.
    pub(super) fn looping(&self, to: &str, looping: bool) {
        self.looping.with_label_values(&[to]).set(looping.into());
    }

    /// The cache had an answer.
    pub(super) fn hit(&self, kind: Kind) {
        self.hits[place(kind)].inc();
    }

    /// An answer went into the cache, for which others left.
    pub(super) fn evicted(&self, kind: Kind, count: usize) {
        self.evictions[place(kind)].inc_by(count as u64);
    }

    /// So many are in the cache.
    pub(super) fn entries(&self, kind: Kind, count: usize) {
        self.entries[place(kind)].set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

fn place(kind: Kind) -> usize {
    match kind {
        Kind::Success => 0,
        Kind::Denial => 1,
    }
}

/// The name of a code as the registry has it (RFC 6895 section 2.3).
fn rcode(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}
