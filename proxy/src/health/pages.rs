//! The pages of the health and metrics addresses, as kube-proxy has them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::StatusCode;
use hyper::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::server::{Answer, Pages};
use super::{Health, Report};
use crate::config::ModeName;
use crate::metrics;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// What `/proxyMode`, `/configz`, `/flagz` and `/statusz` say.
#[derive(Clone, Debug)]
pub struct About {
    /// The mode in force.
    pub mode: ModeName,
    /// The configuration in force.
    pub configuration: Value,
    /// The flags as written.
    pub flags: Vec<(String, String)>,
    /// When the program began.
    pub started: SystemTime,
}

/// The pages of `--healthz-bind-address`: `/healthz` and `/livez`.
pub fn health_pages(health: Arc<Health>) -> Pages {
    Arc::new(move |path| {
        let report = health.report();
        match path {
            "/healthz" => {
                let is_well = report.healthy && report.node_eligible;
                let answer = health_answer(&report, is_well, Some(report.node_eligible));
                health.metrics.healthz(answer.status.as_u16());
                answer
            }
            "/livez" => {
                let answer = health_answer(&report, report.healthy, None);
                health.metrics.livez(answer.status.as_u16());
                answer
            }
            _ => not_found("/healthz and /livez"),
        }
    })
}

/// The pages of `--metrics-bind-address`.
pub fn metrics_pages(health: Arc<Health>, about: About) -> Pages {
    Arc::new(move |path| match path {
        "/metrics" => match health.metrics.render() {
            Ok(text) => Answer::new(metrics::CONTENT_TYPE, text),
            Err(error) => Answer::new(TEXT, format!("render metrics: {error}\n"))
                .status(StatusCode::INTERNAL_SERVER_ERROR),
        },
        "/healthz" => Answer::new(TEXT, "ok"),
        "/proxyMode" => Answer::new(TEXT, about.mode.as_str()),
        "/configz" => {
            let page = json!({ "kubeproxy.config.k8s.io": about.configuration });
            Answer::new(JSON, page.to_string())
        }
        "/flagz" => Answer::new(TEXT, flags(&about)),
        "/statusz" => Answer::new(TEXT, status(&about, &health.report())),
        _ => not_found("/metrics, /healthz, /proxyMode, /configz, /flagz and /statusz"),
    })
}

fn not_found(there: &str) -> Answer {
    Answer::new(TEXT, format!("there are {there}\n")).status(StatusCode::NOT_FOUND)
}

/// The JSON of kube-proxy's pkg/proxy/healthcheck. While all is well `lastUpdated` is now, as it
/// has been there ever since syncs came with a clock.
fn health_answer(report: &Report, is_well: bool, node_eligible: Option<bool>) -> Answer {
    let last = report
        .families
        .values()
        .filter_map(|family| family.last_updated);
    let last = if is_well { Some(report.at) } else { last.max() };
    let status: Map<_, _> = report
        .families
        .iter()
        .map(|(family, report)| {
            let value = json!({
                "lastUpdated": time(report.last_updated),
                "healthy": report.healthy,
            });
            (family.label().to_owned(), value)
        })
        .collect();
    let mut body = json!({
        "lastUpdated": time(last),
        "currentTime": time(Some(report.at)),
        "healthy": report.healthy,
        "status": status,
    });
    if let Some(eligible) = node_eligible {
        body["nodeEligible"] = json!(eligible);
    }
    json_answer(&body, is_well)
}

/// A JSON page with status 200 or 503.
pub(super) fn json_answer(body: &Value, is_well: bool) -> Answer {
    let mut answer = Answer::new(JSON, body.to_string());
    let no_sniff = HeaderValue::from_static("nosniff");
    answer.headers.push((X_CONTENT_TYPE_OPTIONS, no_sniff));
    if is_well {
        answer
    } else {
        answer.status(StatusCode::SERVICE_UNAVAILABLE)
    }
}

/// RFC 3339 in UTC; Go's zero time for never.
fn time(at: Option<SystemTime>) -> String {
    at.and_then(|at| Timestamp::try_from(at).ok())
        .map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string())
}

fn flags(about: &About) -> String {
    let mut text = "weft-proxy flags\n\n".to_owned();
    for (name, value) in &about.flags {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

fn status(about: &About, report: &Report) -> String {
    let up = report.at.duration_since(about.started).unwrap_or_default();
    let up = crate::config::show_duration(std::time::Duration::from_secs(up.as_secs()));
    let mut text = format!(
        "weft-proxy status\n\nVersion: {}\nStarted: {}\nUp: {up}\nMode: {}\nNode eligible: {}\n",
        env!("CARGO_PKG_VERSION"),
        time(Some(about.started)),
        about.mode,
        report.node_eligible,
    );
    for (family, report) in &report.families {
        let _ = writeln!(
            text,
            "{}: {}, last sync {}",
            family.label(),
            if report.healthy { "healthy" } else { "behind" },
            report
                .last_updated
                .map_or_else(|| "never".to_owned(), |at| time(Some(at))),
        );
    }
    text
}
