//! `/healthz`, `/livez`, `/readyz` and `/metrics`.

use std::time::Duration;

use super::Api;
use super::request::Query;
use super::rest::answer::{self, Reply};

const TEXT: &str = "text/plain; charset=utf-8";
/// A store that does not answer within this is not ready.
const PATIENCE: Duration = Duration::from_secs(3);

/// One of the pages, if the path is one.
pub async fn page(api: &Api, path: &str, query: &Query) -> Option<Reply> {
    if path == "/metrics" {
        let text = api.metrics.render();
        return Some(answer::reply(
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            text,
        ));
    }
    let (page, one) = match path.strip_prefix('/')?.split_once('/') {
        Some((page, one)) => (page, Some(one)),
        None => (path.strip_prefix('/')?, None),
    };
    let names: &[&str] = match page {
        "livez" => &["ping"],
        "healthz" | "readyz" => &["ping", "etcd"],
        _ => return None,
    };
    let names: Vec<&str> = match one {
        Some(one) => names.iter().copied().filter(|name| *name == one).collect(),
        None => names.to_vec(),
    };
    if names.is_empty() {
        return None;
    }
    let mut lines = String::new();
    let mut well = true;
    for name in names {
        let failure = check(api, name).await;
        well &= failure.is_none();
        lines += &match failure {
            None => format!("[+]{name} ok\n"),
            // Anybody may read this page: what is wrong is in the log.
            Some(why) => {
                tracing::warn!("{page}: {name}: {why}");
                format!("[-]{name} failed: reason withheld\n")
            }
        };
    }
    Some(match (well, query.on("verbose")) {
        (true, false) => answer::reply(200, TEXT, "ok"),
        (true, true) => answer::reply(200, TEXT, format!("{lines}{page} check passed\n")),
        (false, _) => answer::reply(500, TEXT, format!("{lines}{page} check failed\n")),
    })
}

async fn check(api: &Api, name: &str) -> Option<String> {
    if name == "ping" {
        return None;
    }
    match tokio::time::timeout(PATIENCE, api.store.revision()).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the store does not answer".to_owned()),
    }
}
