//! Counters and times, under kube-apiserver's names where it has them.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::handler::Words;

/// All of them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    watches: IntGaugeVec,
    connections: IntGauge,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// Two have one name.
    pub fn new() -> prometheus::Result<Self> {
        let words = ["verb", "resource", "subresource"];
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new(
                    "apiserver_request_total",
                    "Requests answered, by verb, resource and code.",
                ),
                &["verb", "resource", "subresource", "code"],
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "apiserver_request_duration_seconds",
                    "From a request's headers to its answer's.",
                )
                .buckets(vec![
                    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
                ]),
                &words,
            )?,
            watches: IntGaugeVec::new(
                Opts::new(
                    "apiserver_longrunning_requests",
                    "Watches that are open, by resource.",
                ),
                &["resource"],
            )?,
            connections: IntGauge::new("weft_apiserver_connections", "Connections that are open.")?,
        };
        metrics
            .registry
            .register(Box::new(metrics.requests.clone()))?;
        metrics
            .registry
            .register(Box::new(metrics.durations.clone()))?;
        metrics
            .registry
            .register(Box::new(metrics.watches.clone()))?;
        metrics
            .registry
            .register(Box::new(metrics.connections.clone()))?;
        Ok(metrics)
    }

    /// A request has been answered.
    pub fn answered(&self, words: &Words, code: u16, after: Duration) {
        let labels = [words.verb, words.resource, words.subresource];
        let code = code.to_string();
        self.requests
            .with_label_values(&[labels[0], labels[1], labels[2], &code])
            .inc();
        self.durations
            .with_label_values(&labels)
            .observe(after.as_secs_f64());
    }

    /// Counts a watch for as long as the answer lives.
    pub fn watch(&self, resource: &str) -> Open {
        Open::new(self.watches.with_label_values(&[resource]))
    }

    /// Counts a connection for as long as the answer lives.
    pub fn connection(&self) -> Open {
        Open::new(self.connections.clone())
    }

    /// The page.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| format!("# {error}\n"))
    }
}

/// Something that is counted while it is open.
#[derive(Debug)]
pub struct Open(IntGauge);

impl Open {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
