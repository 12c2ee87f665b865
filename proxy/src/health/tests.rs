//! The pages over real sockets on loopback.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{Pages, Purpose};
use super::*;
use crate::config::ModeName;

/// Status and headers as text, and the body.
pub(super) async fn get(at: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

async fn serve(pages: Pages) -> SocketAddr {
    let listener = server::open(([127, 0, 0, 1], 0).into(), false).unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(server::serve(listener, pages));
    at
}

pub(super) fn health(sync_period: Duration) -> Arc<Health> {
    Health::new(sync_period, Arc::new(Metrics::new().unwrap()))
}

#[tokio::test]
async fn healthz_and_livez_say_what_kube_proxys_say() {
    let health = health(Duration::from_secs(30));
    let at = serve(health_pages(Arc::clone(&health))).await;
    health.queued(Family::V4);
    health.updated(Family::V4, Moment::now());
    let (head, body) = get(at, "/healthz").await;
    assert!(head.starts_with("http/1.0 200"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["healthy"], &body["nodeEligible"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(body["lastUpdated"], body["currentTime"]);
    assert_eq!(body["status"]["IPv4"]["healthy"], true);
    let text = body["status"]["IPv4"]["lastUpdated"].as_str().unwrap();
    assert!(text.starts_with("20") && text.ends_with('Z'), "{text}");
    // A node that leaves is alive all the same.
    health.set_node_eligible(false);
    let (head, body) = get(at, "/healthz").await;
    assert!(head.starts_with("http/1.0 503"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["healthy"], &body["nodeEligible"]),
        (&json!(true), &json!(false))
    );
    let (head, body) = get(at, "/livez").await;
    assert!(head.starts_with("http/1.0 200"), "{head}");
    assert!(!body.contains("nodeEligible"), "{body}");
    assert!(get(at, "/metrics").await.0.starts_with("http/1.0 404"));
    let text = health.metrics.render().unwrap();
    for line in [
        r#"proxy_healthz_total{code="200"} 1"#,
        r#"proxy_healthz_total{code="503"} 1"#,
        r#"proxy_livez_total{code="200"} 1"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn a_change_that_waits_too_long_fails_both() {
    let health = health(Duration::ZERO);
    let at = serve(health_pages(Arc::clone(&health))).await;
    health.queued(Family::V6);
    for path in ["/healthz", "/livez"] {
        let (head, body) = get(at, path).await;
        assert!(head.starts_with("http/1.0 503"), "{head}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["healthy"], false);
        assert_eq!(body["status"]["IPv6"]["healthy"], false);
        assert_eq!(body["lastUpdated"], "0001-01-01T00:00:00Z");
    }
    health.updated(Family::V6, Moment::now());
    assert!(get(at, "/livez").await.0.starts_with("http/1.0 200"));
}

#[tokio::test]
async fn the_pages_of_the_metrics_address() {
    let health = health(Duration::from_secs(30));
    let about = About {
        mode: ModeName::Nftables,
        configuration: json!({ "mode": "nftables" }),
        flags: vec![("v".to_owned(), "2".to_owned())],
        started: SystemTime::now() - Duration::from_secs(61),
    };
    health.metrics.changes(3, 0);
    health.updated(Family::V4, Moment::now());
    let at = serve(metrics_pages(health, about)).await;
    for (path, media_type, wanted) in [
        (
            "/metrics",
            "text/plain; version=0.0.4",
            "service_changes_total 3\n",
        ),
        ("/healthz", "text/plain", "ok"),
        ("/proxyMode", "text/plain", "nftables"),
        (
            "/configz",
            "application/json",
            r#"{"kubeproxy.config.k8s.io":{"mode":"nftables"}}"#,
        ),
        ("/flagz", "text/plain", "\nv=2\n"),
        ("/statusz", "text/plain", "Up: 1m1s\nMode: nftables\n"),
        ("/statusz", "text/plain", "IPv4: healthy, last sync 20"),
    ] {
        let (head, body) = get(at, path).await;
        assert!(head.starts_with("http/1.0 200"), "{path}: {head}");
        assert!(
            head.contains(&format!("content-type: {media_type}")),
            "{path}: {head}"
        );
        assert!(body.contains(wanted), "{path}: {body}");
    }
    assert_eq!(get(at, "/proxyMode").await.1, "nftables");
    let (head, body) = get(at, "/nothing").await;
    assert!(
        head.starts_with("http/1.0 404") && body.contains("/proxyMode"),
        "{head} {body}"
    );
}

fn purpose(address: SocketAddr) -> Purpose {
    Purpose {
        metric: "healthz",
        text: "health (--healthz-bind-address)".to_owned(),
        address,
        only_v6: false,
    }
}

#[tokio::test]
async fn an_address_in_use_is_fatal_only_if_asked_for() {
    let health = health(Duration::from_secs(30));
    let taken = server::open(([127, 0, 0, 1], 0).into(), false).unwrap();
    let at = taken.local_addr().unwrap();
    let metrics = Arc::clone(&health.metrics);
    let pages = health_pages(Arc::clone(&health));
    let error = server::keep(purpose(at), Arc::clone(&pages), metrics, true).await;
    let text = format!("{:#}", error.unwrap_err());
    for word in [
        "--healthz-bind-address",
        &at.to_string(),
        "--bind-address-hard-fail",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    // Tried again until the other one lets go.
    let metrics = Arc::clone(&health.metrics);
    tokio::spawn(server::keep(purpose(at), pages, metrics, false));
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(taken);
    let answer = tokio::time::timeout(Duration::from_secs(10), async {
        while TcpStream::connect(at).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        get(at, "/livez").await
    });
    assert!(answer.await.unwrap().0.starts_with("http/1.0 200"));
    let text = health.metrics.render().unwrap();
    assert!(
        text.contains(r#"kubeproxy_listen_failures_total{listener="healthz"} 2"#),
        "{text}"
    );
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_keep_others_out() {
    let health = health(Duration::from_secs(30));
    let at = serve(health_pages(health)).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    // Sixteen are served at once; each silent one is cut off after five seconds.
    let answer = tokio::time::timeout(Duration::from_secs(20), get(at, "/livez"));
    assert!(answer.await.unwrap().0.starts_with("http/1.0 200"));
    drop(silent);
}
