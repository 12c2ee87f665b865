//! What the API server asks a node for: logs, exec, attach and port-forward of its Pods, over TLS.
//!
//! The paths are the kubelet's (`/containerLogs/NS/POD/CONTAINER`, `/exec/…`, `/attach/…`, `/portForward/NS/POD`, each
//! also with the Pod's uid, and `/healthz`), and so are the errors: plain text. Only a client that shows a certificate
//! of the cluster's authority is answered, and only for the user `kube-apiserver-kubelet-client` or the group
//! `system:masters`.
//!
//! Streams are WebSockets (`v5.channel.k8s.io`, `v4.channel.k8s.io`; for port-forward `SPDY/3.1+portforward.k8s.io` and
//! `v4.channel.k8s.io`) or SPDY/3.1 (`v4.channel.k8s.io`, `portforward.k8s.io`). All end up as [`link`]s. A slow reader
//! slows its writer down: every queue is bounded. As with the kubelet, streams of one connection wait for each other
//! when one of them is not read for long.

mod exec;
mod forward;
mod link;
mod logs;
mod path;
mod query;
mod reply;
mod spdy;
mod tls;
mod upgrade;
mod websocket;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use tls::{User, server_config};

use crate::directory::{self, Directory, Entry};
use crate::runtime::Runtime;
use path::{Target, Verb};
use query::Query;
use reply::{Reply, refuse, text};

/// For the handshake, and for a request's head.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the server is made of.
pub struct Config {
    /// Where it listens; the port stands in the Node's `status.daemonEndpoints`.
    pub listeners: Vec<TcpListener>,
    /// As of [`server_config`]; connections from now on use the newest.
    pub tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    /// What runs the containers.
    pub runtime: Arc<dyn Runtime>,
    /// Which there are.
    pub directory: Directory,
}

struct State {
    runtime: Arc<dyn Runtime>,
    directory: Directory,
    /// Connections, and streams that have outgrown theirs.
    tasks: Mutex<JoinSet<()>>,
}

/// Serves until `end`; then every stream is cut: what was executed is killed, what was attached to lives on.
///
/// # Errors
/// A listener cannot accept any more.
pub async fn serve(config: Config, end: impl Future<Output = ()>) -> io::Result<()> {
    let state = Arc::new(State {
        runtime: config.runtime,
        directory: config.directory,
        tasks: Mutex::default(),
    });
    let accepts = config
        .listeners
        .iter()
        .map(|listener| Box::pin(accept(listener, &config.tls, &state)));
    let outcome = tokio::select! {
        () = end => Ok(()),
        (error, ..) = futures_util::future::select_all(accepts) => Err(error),
    };
    let mut tasks =
        std::mem::take(&mut *state.tasks.lock().unwrap_or_else(PoisonError::into_inner));
    tasks.shutdown().await;
    outcome
}

async fn accept(
    listener: &TcpListener,
    tls: &watch::Receiver<Arc<rustls::ServerConfig>>,
    state: &Arc<State>,
) -> io::Error {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
                state.spawn(connection(Arc::clone(state), acceptor, tcp));
            }
            // Of that one connection, or of all for a while: as many files are open as may be.
            Err(error) if is_passing(&error) => {
                tracing::warn!("accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return error,
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EPROTO
        )
    )
}

async fn connection(state: Arc<State>, acceptor: TlsAcceptor, tcp: TcpStream) {
    let handshake = async {
        tcp.set_nodelay(true)?;
        tls::keep_alive(&tcp)?;
        acceptor.accept(tcp).await
    };
    let tls = match tokio::time::timeout(PATIENCE, handshake).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!("a client's handshake: {error}"),
        Err(_) => return tracing::debug!("a client's handshake took too long"),
    };
    let user = Arc::new(tls::user(tls.get_ref().1.peer_certificates()));
    let answer = service_fn(move |request| {
        let (state, user) = (Arc::clone(&state), Arc::clone(&user));
        async move { Ok::<_, Infallible>(state.answer(&user, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(tls), answer)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection of the API server broke off: {error}");
    }
}

impl State {
    /// Runs something to its end, or to the server's.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    async fn answer(
        self: Arc<Self>,
        user: &Result<User, String>,
        mut request: Request<Incoming>,
    ) -> Reply {
        let user = match user {
            Ok(user) => user,
            Err(why) => {
                tracing::debug!("401: {why}");
                return text(StatusCode::UNAUTHORIZED, "Unauthorized");
            }
        };
        if !user.may_ask() {
            return text(
                StatusCode::FORBIDDEN,
                format!(
                    "Forbidden (user={}, verb={}, resource=nodes, subresource=proxy)",
                    user.name,
                    request.method().as_str().to_lowercase()
                ),
            );
        }
        let Some(target) = path::parse(request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, "404 page not found");
        };
        if !matches!(*request.method(), Method::GET | Method::POST) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        }
        let Target::Pod(target) = target else {
            return text(StatusCode::OK, "ok");
        };
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let entry = match self.directory.pod(&target.namespace, &target.pod) {
            Ok(entry) if target.uid.as_ref().is_none_or(|uid| *uid == entry.pod.uid) => entry,
            Ok(_) => return *refusal(&directory::Error::NoPod(target.pod)),
            Err(error) => return *refusal(&error),
        };
        let answer = match target.verb {
            Verb::Logs => logs::answer(&self, &entry, &target.container, &query).await,
            Verb::Exec | Verb::Attach => exec::answer(&self, &entry, &target, &query, &mut request),
            Verb::PortForward => forward::answer(&self, &entry, &query, &mut request),
        };
        answer.unwrap_or_else(|refused| *refused)
    }
}

/// An answer to what cannot be had.
fn refusal(error: &directory::Error) -> Box<Reply> {
    use directory::Error;
    let code = match error {
        Error::NoPod(_) | Error::NotRunning(_) => StatusCode::NOT_FOUND,
        Error::NoContainer { .. } | Error::Waiting { .. } | Error::NoPrevious { .. } => {
            StatusCode::BAD_REQUEST
        }
        Error::NoSandbox(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refuse(code, error.to_string())
}

/// What a handler answers: either way it is an answer.
type Answer = Result<Reply, Box<Reply>>;

/// The Pod as the texts of errors name it.
fn full_name(entry: &Entry) -> String {
    format!("{}_{}", entry.pod.name, entry.pod.namespace)
}
