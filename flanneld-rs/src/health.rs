//! What `/healthz`, `/readyz` and `/metrics` say.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// Connections served at once; more wait in the listen queue.
const CONNECTIONS: usize = 16;
/// Longest life of a connection.
const LIFETIME: Duration = Duration::from_secs(30);

/// The parts that must all be well for the node to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Start-up is not over.
    Start,
    /// The lease store answers.
    Store,
    /// We hold our lease.
    Lease,
    /// The external interface is there.
    Uplink,
    /// The data path is as planned.
    Backend,
    /// The firewall rules are as planned.
    Firewall,
    /// subnet.env is written.
    SubnetFile,
}

/// What is wrong, by part, and the counters.
#[derive(Debug)]
pub struct Health {
    /// Counters.
    pub metrics: Arc<Metrics>,
    wrong: Mutex<BTreeMap<Part, String>>,
}

impl Health {
    /// Not ready: starting.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        let wrong = BTreeMap::from([(Part::Start, "starting".to_owned())]);
        Arc::new(Self {
            metrics,
            wrong: Mutex::new(wrong),
        })
    }

    /// Notes that a part is well (`Ok`) or what is wrong with it. True when that is news.
    pub fn set(&self, part: Part, state: Result<(), String>) -> bool {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let news = match state {
            Ok(()) => wrong.remove(&part).is_some(),
            Err(why) => wrong.insert(part, why.clone()) != Some(why),
        };
        self.metrics
            .ready
            .store(i64::from(wrong.is_empty()), Relaxed);
        news
    }

    /// What keeps the node from being ready, one line a part.
    pub fn wrong(&self) -> Vec<String> {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong
            .iter()
            .map(|(part, why)| format!("{part:?}: {why}"))
            .collect()
    }

    fn answer(&self, path: &str) -> (StatusCode, String) {
        match path {
            "/healthz" => (StatusCode::OK, "flanneld is running".to_owned()),
            "/readyz" => match self.wrong() {
                wrong if wrong.is_empty() => (StatusCode::OK, "flanneld is ready".to_owned()),
                wrong => {
                    let text = format!("flanneld is not ready yet\n{}\n", wrong.join("\n"));
                    (StatusCode::SERVICE_UNAVAILABLE, text)
                }
            },
            "/metrics" => (StatusCode::OK, self.metrics.render()),
            _ => (
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz and /metrics\n".to_owned(),
            ),
        }
    }

    /// Opens the listener.
    pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address} (--healthz-ip, --healthz-port)"))
    }

    /// Serves until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("health listener: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let health = Arc::clone(&self);
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (status, body) = health.answer(request.uri().path());
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    *response.status_mut() = status;
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(5))
                    .serve_connection(TokioIo::new(stream), service);
                // A client that goes away or dawdles is its own problem.
                let _ = tokio::time::timeout(LIFETIME, connection).await;
                drop(permit);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(at: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_three_pages_answer_and_readiness_comes_and_goes() {
        let health = Health::new(Arc::default());
        let listener = Health::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(Arc::clone(&health).serve(listener));
        assert!(get(at, "/healthz").await.ends_with("flanneld is running"));
        let not_ready = get(at, "/readyz").await;
        assert!(
            not_ready.starts_with("HTTP/1.0 503")
                && not_ready.contains("flanneld is not ready yet"),
            "{not_ready}"
        );
        assert!(health.set(Part::Start, Ok(())));
        assert!(get(at, "/readyz").await.ends_with("flanneld is ready"));
        assert!(get(at, "/metrics").await.contains("flanneld_ready 1"));
        assert!(health.set(Part::Lease, Err("gone".to_owned())));
        assert!(!health.set(Part::Lease, Err("gone".to_owned())));
        assert!(get(at, "/readyz").await.contains("Lease: gone"));
        assert!(get(at, "/x").await.starts_with("HTTP/1.0 404"));
    }
}
