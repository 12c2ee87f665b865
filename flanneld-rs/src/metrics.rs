//! Counters and gauges for `/metrics`, in Prometheus text form.

mod tunnel;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::backend::{Report, Traffic};

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Everything that is counted. Shared by all threads.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Leases in the store, ours and unreadable ones included.
    pub leases: AtomicI64,
    /// Peers the backend serves.
    pub peers: AtomicI64,
    /// Leases that are not served: unreadable, or they would cut this node off.
    pub ignored_leases: AtomicI64,
    /// 1 while the store answers.
    pub store_up: AtomicI64,
    /// 1 while `/readyz` says yes.
    pub ready: AtomicI64,
    /// Times our lease was found gone.
    pub lease_lost: AtomicU64,
    store_ok: AtomicU64,
    store_failed: AtomicU64,
    store_seconds: Histogram,
    runs: Mutex<Runs>,
    traffic: Mutex<Option<Traffic>>,
}

#[derive(Debug, Default)]
struct Runs {
    by_trigger: BTreeMap<&'static str, u64>,
    changes: BTreeMap<(&'static str, &'static str), u64>,
    errors: BTreeMap<&'static str, u64>,
    seconds: BTreeMap<&'static str, f64>,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    fn observe(&self, took: Duration) {
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            if took.as_secs_f64() <= *bound {
                bucket.fetch_add(1, Relaxed);
            }
        }
        self.count.fetch_add(1, Relaxed);
        self.micros
            .fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Metrics {
    /// Notes one call to the lease store.
    pub fn store_call(&self, took: Duration, ok: bool) {
        self.store_seconds.observe(took);
        if ok {
            &self.store_ok
        } else {
            &self.store_failed
        }
        .fetch_add(1, Relaxed);
    }

    /// Notes one run of the backend or the firewall. `trigger` says why it ran.
    pub fn run(&self, part: &'static str, trigger: &'static str, took: Duration, report: &Report) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        *runs.by_trigger.entry(trigger).or_default() += 1;
        *runs.seconds.entry(part).or_default() += took.as_secs_f64();
        *runs.errors.entry(part).or_default() += report.errors.len() as u64;
        for (kind, count) in &report.changes {
            *runs.changes.entry((part, kind)).or_default() += count;
        }
    }

    /// Who carries packets from now on; `None` when the kernel alone does.
    pub fn set_traffic(&self, traffic: Option<Traffic>) {
        *self.traffic.lock().unwrap_or_else(PoisonError::into_inner) = traffic;
    }

    /// The whole page.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let gauges = [
            ("leases", "Leases in the store.", &self.leases),
            ("peers", "Peers served by the backend.", &self.peers),
            (
                "ignored_leases",
                "Leases not served: unreadable, or in conflict with this node.",
                &self.ignored_leases,
            ),
            (
                "store_up",
                "1 while the lease store answers.",
                &self.store_up,
            ),
            ("ready", "1 while /readyz answers 200.", &self.ready),
        ];
        for (name, help, value) in gauges {
            head(&mut out, name, "gauge", help);
            line(&mut out, name, "", value.load(Relaxed));
        }
        head(
            &mut out,
            "lease_lost_total",
            "counter",
            "Times our lease was found gone.",
        );
        line(
            &mut out,
            "lease_lost_total",
            "",
            self.lease_lost.load(Relaxed),
        );
        head(
            &mut out,
            "store_requests_total",
            "counter",
            "Requests to the lease store.",
        );
        line(
            &mut out,
            "store_requests_total",
            "result=\"ok\"",
            self.store_ok.load(Relaxed),
        );
        line(
            &mut out,
            "store_requests_total",
            "result=\"error\"",
            self.store_failed.load(Relaxed),
        );
        self.render_latency(&mut out);
        self.render_runs(&mut out);
        let traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(traffic) = &*traffic {
            tunnel::render(traffic, &mut out);
        }
        out
    }

    fn render_latency(&self, out: &mut String) {
        let name = "store_request_seconds";
        head(
            out,
            name,
            "histogram",
            "Time of one request to the lease store.",
        );
        for (bound, bucket) in BUCKETS.iter().zip(&self.store_seconds.buckets) {
            line(
                out,
                "store_request_seconds_bucket",
                &format!("le=\"{bound}\""),
                bucket.load(Relaxed),
            );
        }
        let count = self.store_seconds.count.load(Relaxed);
        line(out, "store_request_seconds_bucket", "le=\"+Inf\"", count);
        let sum = Duration::from_micros(self.store_seconds.micros.load(Relaxed)).as_secs_f64();
        line(out, "store_request_seconds_sum", "", sum);
        line(out, "store_request_seconds_count", "", count);
    }

    fn render_runs(&self, out: &mut String) {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        head(
            out,
            "reconcile_runs_total",
            "counter",
            "Runs of the backend and the firewall by trigger.",
        );
        for (trigger, count) in &runs.by_trigger {
            line(
                out,
                "reconcile_runs_total",
                &format!("trigger=\"{trigger}\""),
                count,
            );
        }
        head(
            out,
            "reconcile_seconds_total",
            "counter",
            "Time spent in these runs.",
        );
        for (part, seconds) in &runs.seconds {
            line(
                out,
                "reconcile_seconds_total",
                &format!("part=\"{part}\""),
                seconds,
            );
        }
        head(
            out,
            "reconcile_changes_total",
            "counter",
            "Changes made, by kind.",
        );
        for ((part, kind), count) in &runs.changes {
            line(
                out,
                "reconcile_changes_total",
                &format!("part=\"{part}\",kind=\"{kind}\""),
                count,
            );
        }
        head(
            out,
            "reconcile_errors_total",
            "counter",
            "Changes that failed.",
        );
        for (part, count) in &runs.errors {
            line(
                out,
                "reconcile_errors_total",
                &format!("part=\"{part}\""),
                count,
            );
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "# HELP flanneld_{name} {help}\n# TYPE flanneld_{name} {kind}\n"
    );
}

fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(out, "flanneld_{name} {value}"),
        labels => writeln!(out, "flanneld_{name}{{{labels}}} {value}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_series_in_prometheus_form() {
        let metrics = Metrics::default();
        metrics.store_call(Duration::from_millis(3), true);
        metrics.store_call(Duration::from_secs(9), false);
        let mut report = Report::default();
        report.changed("add route", String::new);
        report.failed("x");
        metrics.run("backend", "timer", Duration::from_millis(250), &report);
        let page = metrics.render();
        for wanted in [
            "flanneld_peers 0",
            "flanneld_store_requests_total{result=\"error\"} 1",
            "flanneld_store_request_seconds_bucket{le=\"0.002\"} 0",
            "flanneld_store_request_seconds_bucket{le=\"0.005\"} 1",
            "flanneld_store_request_seconds_bucket{le=\"+Inf\"} 2",
            "flanneld_store_request_seconds_count 2",
            "flanneld_reconcile_runs_total{trigger=\"timer\"} 1",
            "flanneld_reconcile_seconds_total{part=\"backend\"} 0.25",
            "flanneld_reconcile_changes_total{part=\"backend\",kind=\"add route\"} 1",
            "flanneld_reconcile_errors_total{part=\"backend\"} 1",
        ] {
            assert!(
                page.lines().any(|line| line == wanted),
                "{wanted} is missing in\n{page}"
            );
        }
        assert!(
            page.lines()
                .all(|line| line.starts_with("# ") || line.starts_with("flanneld_"))
        );
    }
}
