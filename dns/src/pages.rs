//! Pages over HTTP: `/metrics` (Prometheus), `/health` (the process serves), `/ready` (it knows the cluster).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;

/// When an address that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Whether the cluster is known.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// Serves until it is dropped. An address that is taken is waited for: names are answered without pages too.
pub async fn serve(address: SocketAddr, registry: Registry, ready: Ready) {
    let mut said = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if said => tracing::debug!("listen for metrics on {address}: {error}"),
            Err(error) => {
                tracing::warn!(
                    "listen for metrics on {address}: {error}; trying again, or name another with --metrics-bind-address"
                );
                said = true;
            }
        }
        tokio::time::sleep(RETRY).await;
    };
    let router = Router::new()
        .route("/health", get(async || "OK"))
        .route("/ready", get(async move || readiness(ready())))
        .route("/metrics", get(async move || metrics(&registry)));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!("serve metrics on {address}: {error}");
    }
}

fn readiness(ready: bool) -> (StatusCode, &'static str) {
    if ready {
        (StatusCode::OK, "OK")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "kubernetes: Services and EndpointSlices have not been listed yet\n",
        )
    }
}

fn metrics(registry: &Registry) -> axum::response::Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => ([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("write the metrics: {error}\n"),
        )
            .into_response(),
    }
}
