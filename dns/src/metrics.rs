//! Counters and histograms of the server, under CoreDNS's names, labels and buckets (its `prometheus` and `kubernetes`
//! plugins), so that dashboards and alerts made for it go on working.
//!
//! Label values that name CoreDNS's parts keep its words: `server` is `dns://ADDRESS:PORT`, `zone` the cluster's domain, `.`
//! for what is forwarded, `dropped` for what was turned away before it was looked at; `view` is empty; `plugin` is who wrote
//! the answer: `kubernetes`, `forward`, `autopath`, `loop`, or nothing.
//!
//! A query looks up no label: each listening address has its series in arrays, made when first needed.

use std::array;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As a datagram.
    Udp,
    /// Over a connection.
    Tcp,
}

impl Transport {
    /// As CoreDNS writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Whose names were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneLabel {
    /// The cluster's.
    Cluster,
    /// Others.
    Root,
    /// Nobody's: turned away first.
    Dropped,
}

/// Who wrote an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The server itself: errors.
    Server,
    /// The cluster's zone.
    Zone,
    /// The forwarder.
    Forward,
    /// The search of the client's search path.
    Search,
    /// The search for forwarding loops.
    Loop,
}

const WRITERS: [&str; 5] = ["", "kubernetes", "forward", "autopath", "loop"];

/// The types that have a series of their own; the rest are `other`.
const TYPES: [(RecordType, &str); 18] = [
    (RecordType::A, "A"),
    (RecordType::AAAA, "AAAA"),
    (RecordType::SRV, "SRV"),
    (RecordType::PTR, "PTR"),
    (RecordType::CNAME, "CNAME"),
    (RecordType::TXT, "TXT"),
    (RecordType::HTTPS, "HTTPS"),
    (RecordType::NS, "NS"),
    (RecordType::SOA, "SOA"),
    (RecordType::MX, "MX"),
    (RecordType::DS, "DS"),
    (RecordType::DNSKEY, "DNSKEY"),
    (RecordType::RRSIG, "RRSIG"),
    (RecordType::NSEC, "NSEC"),
    (RecordType::NSEC3, "NSEC3"),
    (RecordType::IXFR, "IXFR"),
    (RecordType::AXFR, "AXFR"),
    (RecordType::ANY, "ANY"),
];

/// The codes that have a series of their own, at their number; rarer ones are looked up.
const CODES: [&str; 6] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
];

/// The name of a code, as CoreDNS and `dig` write it.
pub fn code_name(code: ResponseCode) -> &'static str {
    match u16::from(code) {
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        16 => "BADVERS",
        number => CODES.get(usize::from(number)).copied().unwrap_or("other"),
    }
}

/// All series.
pub struct Metrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
    do_requests: IntCounterVec,
    responses: IntCounterVec,
    /// Tasks that panicked.
    pub panics: IntCounter,
    /// From the change of an object, as the annotation of its slice tells, to its answers; one for each kind of Service.
    programming: HistogramVec,
    /// Queries over a client's limit, which got no answer.
    pub dropped_queries: IntCounter,
    /// Queries over a client's limit for names outside the cluster, which were refused.
    pub refused_forwards: IntCounter,
    /// Connections over a client's limit, which were closed.
    pub closed_connections: IntCounter,
    cluster: String,
}

impl Metrics {
    /// Registers the series with `registry`; `domain` is the cluster's. Errors: one of the names is taken there.
    pub fn new(registry: &Registry, domain: &Name) -> prometheus::Result<Self> {
        // CoreDNS's buckets: from 0.25 ms to 8 s, and the sizes that matter to DNS.
        let times = exponential_buckets(0.00025, 2.0, 16)?;
        let sizes: Vec<f64> = vec![
            0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16e3, 32e3,
            48e3, 64e3,
        ];
        let counter =
            |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
                let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(counter.clone()))?;
                Ok(counter)
            };
        let histogram = |name: &str,
                         help: &str,
                         buckets: Vec<f64>,
                         labels: &[&str]|
         -> prometheus::Result<HistogramVec> {
            let histogram =
                HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let panics = IntCounter::new("coredns_panics_total", "Tasks of the server that panicked.")?;
        registry.register(Box::new(panics.clone()))?;
        let build = IntGaugeVec::new(
            Opts::new("coredns_build_info", "The program that serves; always 1."),
            &["version", "revision", "goversion"],
        )?;
        registry.register(Box::new(build.clone()))?;
        build
            .with_label_values(&[concat!("weft-dns-", env!("CARGO_PKG_VERSION")), "", ""])
            .set(1);
        let over = counter(
            "weft_dns_over_limit_total",
            "Queries dropped, queries refused and connections closed as their client had too many.",
            &["done"],
        )?;
        Ok(Self {
            dropped_queries: over.with_label_values(&["dropped"]),
            closed_connections: over.with_label_values(&["closed"]),
            refused_forwards: over.with_label_values(&["refused"]),
            requests: counter(
                "coredns_dns_requests_total",
                "Queries, by zone, protocol, address family and type.",
                &["server", "zone", "view", "proto", "family", "type"],
            )?,
            duration: histogram(
                "coredns_dns_request_duration_seconds",
                "Time from a query's arrival to its answer.",
                times,
                &["server", "zone", "view"],
            )?,
            request_size: histogram(
                "coredns_dns_request_size_bytes",
                "Size of queries.",
                sizes.clone(),
                &["server", "zone", "view", "proto"],
            )?,
            response_size: histogram(
                "coredns_dns_response_size_bytes",
                "Size of answers.",
                sizes,
                &["server", "zone", "view", "proto"],
            )?,
            do_requests: counter(
                "coredns_dns_do_requests_total",
                "Queries that want DNSSEC records (DO).",
                &["server", "view", "zone"],
            )?,
            responses: counter(
                "coredns_dns_responses_total",
                "Answers, by zone, code and who wrote them.",
                &["server", "zone", "view", "rcode", "plugin"],
            )?,
            panics,
            programming: histogram(
                "coredns_kubernetes_dns_programming_duration_seconds",
                "Time from the change of a Service's endpoints to answers that show it.",
                exponential_buckets(0.001, 2.0, 20)?,
                &["service_kind"],
            )?,
            cluster: domain.to_lowercase().to_ascii(),
        })
    }

    /// An object that changed `ago` is answered as it is now. `kind` is `cluster_ip`, `headless_with_selector` or
    /// `headless_without_selector`.
    pub fn programmed(&self, kind: &str, ago: Duration) {
        self.programming
            .with_label_values(&[kind])
            .observe(ago.as_secs_f64());
    }

    /// The series of a listening address.
    pub fn server(self: &Arc<Self>, address: SocketAddr) -> Server {
        Server {
            name: format!("dns://{address}"),
            family: if address.is_ipv4() { "1" } else { "2" },
            series: array::from_fn(|_| ZoneSeries::default()),
            metrics: self.clone(),
        }
    }
}

#[derive(Default)]
struct ZoneSeries {
    requests: [[OnceLock<IntCounter>; TYPES.len() + 1]; 2],
    duration: OnceLock<Histogram>,
    request_size: [OnceLock<Histogram>; 2],
    response_size: [OnceLock<Histogram>; 2],
    do_requests: OnceLock<IntCounter>,
    responses: [[OnceLock<IntCounter>; CODES.len()]; WRITERS.len()],
}

/// The series of one listening address.
pub struct Server {
    name: String,
    family: &'static str,
    series: [ZoneSeries; 3],
    metrics: Arc<Metrics>,
}

/// What is counted of a query and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// How it came.
    pub transport: Transport,
    /// Whose names it asked for.
    pub zone: ZoneLabel,
    /// Who wrote the answer.
    pub writer: Writer,
    /// Its type.
    pub record_type: RecordType,
    /// It wants DNSSEC records.
    pub dnssec_ok: bool,
    /// Its size in bytes.
    pub size: usize,
    /// The size of its answer in bytes.
    pub answer_size: usize,
    /// The code of its answer.
    pub code: ResponseCode,
    /// How long it took.
    pub took: Duration,
}

impl Server {
    /// Counts a query that was answered.
    pub fn count(&self, seen: &Seen) {
        let metrics = &self.metrics;
        let server = self.name.as_str();
        let (at, zone) = match seen.zone {
            ZoneLabel::Cluster => (0, metrics.cluster.as_str()),
            ZoneLabel::Root => (1, "."),
            ZoneLabel::Dropped => (2, "dropped"),
        };
        let proto = seen.transport.as_str();
        let way = seen.transport as usize;
        let kind = TYPES
            .iter()
            .position(|(known, _)| *known == seen.record_type)
            .unwrap_or(TYPES.len());
        let [cluster, root, dropped] = &self.series;
        let series = [cluster, root, dropped][at];
        series.requests[way][kind]
            .get_or_init(|| {
                let name = TYPES.get(kind).map_or("other", |(_, name)| name);
                metrics
                    .requests
                    .with_label_values(&[server, zone, "", proto, self.family, name])
            })
            .inc();
        series
            .duration
            .get_or_init(|| metrics.duration.with_label_values(&[server, zone, ""]))
            .observe(seen.took.as_secs_f64());
        series.request_size[way]
            .get_or_init(|| {
                metrics
                    .request_size
                    .with_label_values(&[server, zone, "", proto])
            })
            .observe(bytes(seen.size));
        series.response_size[way]
            .get_or_init(|| {
                metrics
                    .response_size
                    .with_label_values(&[server, zone, "", proto])
            })
            .observe(bytes(seen.answer_size));
        if seen.dnssec_ok {
            series
                .do_requests
                .get_or_init(|| metrics.do_requests.with_label_values(&[server, "", zone]))
                .inc();
        }
        let writer = seen.writer as usize;
        let response = || {
            metrics.responses.with_label_values(&[
                server,
                zone,
                "",
                code_name(seen.code),
                WRITERS[writer],
            ])
        };
        match series.responses[writer].get(usize::from(u16::from(seen.code))) {
            Some(known) => known.get_or_init(response).inc(),
            None => response().inc(),
        }
    }

    /// All series, for what is not of an address.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

/// A size for a histogram. Packets are less than 2^16 bytes.
fn bytes(size: usize) -> f64 {
    f64::from(u32::try_from(size).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
