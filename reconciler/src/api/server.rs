//! Connections: TLS, HTTP/1.1 and HTTP/2, and their limits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, broadcast};
use tokio_rustls::TlsAcceptor;

use super::rest::answer::Reply;
use super::status::Status;
use super::{Api, auth, handler};

/// Connections at a time; more wait to be accepted.
const CONNECTIONS: usize = 8192;
/// For a client to show who it is, and to send the headers of a request.
const GREETING: Duration = Duration::from_secs(10);
/// For answers that are under way when the server ends.
const FAREWELL: Duration = Duration::from_secs(5);
/// Requests at a time on one connection: each watch of a client is one.
const STREAMS: u32 = 1000;
const HEADERS: usize = 64 << 10;

/// Serves on all listeners until `end` is heard; then ends watches, lets other answers finish, and returns.
pub async fn serve(
    api: Arc<Api>,
    listeners: Vec<TcpListener>,
    acceptor: TlsAcceptor,
    end: broadcast::Sender<()>,
) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut accepting = tokio::task::JoinSet::new();
    let (to, mut accepted) = tokio::sync::mpsc::channel(1);
    for listener in listeners {
        accepting.spawn(accept(
            listener,
            Arc::clone(&room),
            to.clone(),
            end.subscribe(),
        ));
    }
    drop(to);
    while let Some((tcp, from, place)) = accepted.recv().await {
        let (api, acceptor, watcher) = (Arc::clone(&api), acceptor.clone(), graceful.watcher());
        // A connection ends by itself or by the graceful end.
        tokio::spawn(async move {
            let _place = place;
            let _open = api.metrics.connection();
            if let Err(error) = connection(api, tcp, acceptor, watcher).await {
                tracing::debug!("connection of {from}: {error}");
            }
        });
    }
    api.changes.close();
    if tokio::time::timeout(FAREWELL, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests took too long to end, and were cut off");
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(
    listener: TcpListener,
    room: Arc<Semaphore>,
    to: tokio::sync::mpsc::Sender<Accepted>,
    mut end: broadcast::Receiver<()>,
) {
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = end.recv() => return,
        };
        match accepted {
            Some((Ok((tcp, from)), place)) => {
                if to.send((tcp, from, place)).await.is_err() {
                    return;
                }
            }
            Some((Err(error), _)) => {
                // Out of descriptors, mostly: others will close theirs.
                tracing::warn!("accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            None => return,
        }
    }
}

async fn connection(
    api: Arc<Api>,
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tcp.set_nodelay(true)?;
    let from = tcp.peer_addr()?;
    let tls = tokio::time::timeout(GREETING, acceptor.accept(tcp)).await??;
    let (_, session) = tls.get_ref();
    let peer = session
        .peer_certificates()
        .and_then(|chain| auth::certificate(chain.first()?))
        .map(Arc::new);
    let asked = Arc::new(AtomicBool::new(false));
    let has_asked = Arc::clone(&asked);
    let service = service_fn(move |mut request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(from);
        let (api, peer) = (Arc::clone(&api), peer.clone());
        async move { Ok::<_, Infallible>(answer(api, peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(GREETING)
        .max_buf_size(HEADERS)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS as u32)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let serving = builder
        .serve_connection_with_upgrades(TokioIo::new(tls), service)
        .into_owned();
    let mut serving = pin!(watcher.watch(serving));
    // hyper waits for the first bytes, which tell the protocol, as long as it takes.
    if let Ok(done) = tokio::time::timeout(GREETING, &mut serving).await {
        return done;
    }
    if !asked.load(Ordering::Relaxed) {
        return Err("nothing was asked in time".into());
    }
    serving.await
}

/// What changes something runs in a task of its own: a client that goes meanwhile leaves nothing half done.
async fn answer(api: Arc<Api>, peer: Option<Arc<auth::User>>, request: Request<Incoming>) -> Reply {
    let safe = request.method().is_safe();
    let answering = handler::handle(api, peer, request);
    if safe {
        return answering.await;
    }
    match tokio::spawn(answering).await {
        Ok(reply) => reply,
        Err(error) => Status::internal(error).into(),
    }
}
