//! Queries as datagrams: what memory knows is answered in the loop itself, the rest by tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{count_panic, stop_told};
use crate::handler::{Handler, Origin, Step};
use crate::metrics::{Server, Transport};

/// The largest query that is read, in bytes. A longer one arrives cut, and is then no valid message.
const LARGEST_QUERY: usize = 4096;

/// Packets that are taken in one go, before other tasks get their turn.
const BURST: usize = 64;

/// Queries that wait for upstreams. The forwarder has its own limit; this one is for those that share its answers.
const PENDING: usize = 8192;

/// Bursts that are taken at the end.
const LAST_BURSTS: usize = 256;

/// How long the socket is left alone after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the socket until `stopped`; then takes what has arrived already, and ends when that is answered.
pub async fn serve(
    socket: Arc<UdpSocket>,
    handler: Arc<Handler>,
    server: Arc<Server>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let (mut packet, mut out) = (vec![0; LARGEST_QUERY], Vec::with_capacity(LARGEST_QUERY));
    loop {
        let ready = tokio::select! {
            ready = socket.readable() => ready,
            () = stop_told(&mut stopped) => break,
        };
        if let Err(error) = ready.and_then(|()| {
            take(
                &socket,
                &handler,
                &server,
                &mut tasks,
                &mut packet,
                &mut out,
            )
        }) {
            tracing::warn!(%error, "cannot receive queries over UDP; trying again");
            tokio::time::sleep(PAUSE).await;
        }
        while let Some(ended) = tasks.try_join_next() {
            count_panic(ended, &handler);
        }
        // A busy socket never blocks: others need their turn all the same.
        tokio::task::yield_now().await;
    }
    // What waits in the socket would be lost with it. Clients that go on asking do not keep us for ever.
    for _ in 0..LAST_BURSTS {
        if !matches!(
            take(
                &socket,
                &handler,
                &server,
                &mut tasks,
                &mut packet,
                &mut out
            ),
            Ok(true)
        ) {
            break;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        count_panic(ended, &handler);
    }
}

/// Takes and answers what has arrived, a burst at most; whether there may be more.
fn take(
    socket: &Arc<UdpSocket>,
    handler: &Arc<Handler>,
    server: &Arc<Server>,
    tasks: &mut JoinSet<()>,
    packet: &mut [u8],
    out: &mut Vec<u8>,
) -> io::Result<bool> {
    for _ in 0..BURST {
        let (size, client) = match socket.try_recv_from(packet) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        // Nobody is there to answer (RFC 768: port 0 is no port).
        if client.port() == 0 {
            continue;
        }
        let origin = Origin {
            client,
            transport: Transport::Udp,
            server,
        };
        let Some(query) = packet.get(..size) else {
            continue;
        };
        match handler.begin(query, origin, Instant::now(), out) {
            Step::Answered => send(socket, out, client),
            Step::Silence => {}
            Step::Pending(_) if tasks.len() >= PENDING => handler.metrics().dropped_queries.inc(),
            Step::Pending(pending) => {
                let (socket, handler) = (socket.clone(), handler.clone());
                tasks.spawn(async move {
                    let mut out = Vec::new();
                    handler.finish(pending, &mut out).await;
                    send(&socket, &out, client);
                });
            }
        }
    }
    Ok(true)
}

/// Sends an answer. If the kernel cannot take it now the client asks again, as with any datagram that is lost.
fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.try_send_to(answer, client) {
        tracing::debug!(%client, %error, "an answer could not be sent");
    }
}
