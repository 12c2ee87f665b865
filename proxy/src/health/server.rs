//! A small HTTP/1 server for pages without parameters: all listeners of the proxy are served by it.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
};
use std::os::fd::AsRawFd;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::metrics::Metrics;

/// Connections served at once by a listener; more wait in its queue.
const CONNECTIONS: usize = 16;
/// Longest life of a connection.
const LIFETIME: Duration = Duration::from_secs(30);
/// How long the head of a request may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// When an address that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// An answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers; the server adds Content-Length and Date.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// A text of a media type, with status 200.
    pub fn new(media_type: &'static str, body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: vec![(CONTENT_TYPE, HeaderValue::from_static(media_type))],
            body: body.into(),
        }
    }

    /// The same with a status.
    pub fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

/// From the path of a request to its answer. It must not block.
pub type Pages = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// A listener: what it is for, and where.
#[derive(Clone, Debug)]
pub struct Purpose {
    /// A word for the metric.
    pub metric: &'static str,
    /// For the log: `listen for {text} on {address}`.
    pub text: String,
    /// Where.
    pub address: SocketAddr,
    /// An unspecified IPv6 address does not serve IPv4 too.
    pub only_v6: bool,
}

/// Opens a listener, in the network namespace of the calling thread.
pub fn open(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    if only_v6 && address.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::MAXCONN)?;
    TcpListener::from_std(StdListener::from(socket))
}

/// Opens a listener, at once or as soon as that is possible, and serves it until dropped. A failure
/// is logged when it is news, and counted; with `hard_fail` the first one is returned.
///
/// The first try is made before this returns: when it went well, clients may connect.
pub fn keep(
    purpose: Purpose,
    pages: Pages,
    metrics: Arc<Metrics>,
    hard_fail: bool,
) -> impl Future<Output = anyhow::Result<Infallible>> + Send + 'static {
    let mut opened = open(purpose.address, purpose.only_v6);
    async move {
        let Purpose { text, address, .. } = &purpose;
        let mut said = None;
        loop {
            match opened {
                Ok(listener) => {
                    tracing::info!("listening for {text} on {address}");
                    return Ok(serve(listener, pages).await);
                }
                Err(error) => {
                    metrics.listen_failed(purpose.metric);
                    let message = format!("listen for {text} on {address}: {error}");
                    if hard_fail {
                        anyhow::bail!("{message} (--bind-address-hard-fail)");
                    }
                    if said.as_ref() != Some(&message) {
                        tracing::error!("{message}; trying again every {} s", RETRY.as_secs());
                        said = Some(message);
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
            opened = open(*address, purpose.only_v6);
        }
    }
}

/// Serves until dropped, which ends its connections too.
pub async fn serve(listener: TcpListener, pages: Pages) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                connections.spawn(connection(TokioIo::new(stream), pages));
            }
            Err(error) => {
                tracing::warn!("accept a connection for a page: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connection(stream: TokioIo<tokio::net::TcpStream>, pages: Pages) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer = pages(request.uri().path());
        let mut response = Response::new(Full::new(Bytes::from(answer.body)));
        *response.status_mut() = answer.status;
        response.headers_mut().extend(answer.headers);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(stream, service);
    // A client that goes away or dawdles is its own problem.
    let _ = tokio::time::timeout(LIFETIME, connection).await;
}
