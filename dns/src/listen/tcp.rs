//! Queries over connections (RFC 7766): several at a time on each, answered as they are done.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{count_panic, stop_told};
use crate::handler::{Handler, Origin, Step};
use crate::limits;
use crate::metrics::{Server, Transport};

/// Connections at a time: of all clients, and of one.
const CONNECTIONS: usize = 2048;
const CONNECTIONS_OF_CLIENT: u32 = 64;

/// How long a connection may go without a whole query, or take to accept an answer.
const IDLE: Duration = Duration::from_secs(10);

/// Queries of a connection under way at a time; more wait in its buffers.
const UNDER_WAY: usize = 64;

/// How long the listener is left alone after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the listener until `stopped`; then ends when the queries under way are answered.
pub async fn serve(
    listener: TcpListener,
    handler: Arc<Handler>,
    server: Arc<Server>,
    mut stopped: watch::Receiver<bool>,
) {
    let counts = Arc::new(Counts::default());
    let mut tasks = JoinSet::new();
    let until = stopped.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop_told(&mut stopped) => break,
            Some(ended) = tasks.join_next() => {
                count_panic(ended, &handler);
                continue;
            }
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let entry = if tasks.len() < CONNECTIONS {
            Counts::enter(&counts, client.ip())
        } else {
            None
        };
        let Some(entry) = entry else {
            handler.metrics().closed_connections.inc();
            continue;
        };
        let (handler, server, until) = (handler.clone(), server.clone(), until.clone());
        tasks.spawn(async move {
            let _entry = entry;
            if let Err(error) = converse(stream, client, handler, server, until).await {
                tracing::debug!(%client, %error, "a connection ended");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        count_panic(ended, &handler);
    }
}

/// Answers a connection's queries until it is closed, idle, or `stopped`.
async fn converse(
    mut stream: TcpStream,
    client: SocketAddr,
    handler: Arc<Handler>,
    server: Arc<Server>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.split();
    let (mut arrived, mut out) = (Vec::new(), Vec::new());
    let mut chunk = [0; 2048];
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    let mut deadline = Instant::now() + IDLE;
    loop {
        while under_way.len() < UNDER_WAY
            && let Some(query) = take_message(&mut arrived)
        {
            deadline = Instant::now() + IDLE;
            let origin = Origin {
                client,
                transport: Transport::Tcp,
                server: &server,
            };
            match handler.begin(&query, origin, std::time::Instant::now(), &mut out) {
                Step::Answered => send(&mut writer, &out).await?,
                // Over a connection, silence would make the client wait for nothing.
                Step::Silence => return Ok(()),
                Step::Pending(pending) => {
                    let handler = &handler;
                    under_way.push(async move {
                        let mut out = Vec::new();
                        handler.finish(pending, &mut out).await;
                        out
                    });
                }
            }
        }
        if !open && under_way.is_empty() {
            return Ok(());
        }
        tokio::select! {
            Some(answer) = under_way.next(), if !under_way.is_empty() => {
                send(&mut writer, &answer).await?;
                deadline = Instant::now() + IDLE;
            }
            read = reader.read(&mut chunk), if open && under_way.len() < UNDER_WAY => match read? {
                0 => open = false,
                size => arrived.extend_from_slice(chunk.get(..size).unwrap_or_default()),
            },
            () = tokio::time::sleep_until(deadline), if under_way.is_empty() => return Ok(()),
            () = stop_told(&mut stopped), if open => open = false,
        }
    }
}

/// Takes the first whole message from the bytes that arrived: two bytes of length, then the message (RFC 1035 4.2.2).
fn take_message(arrived: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (length, rest) = arrived.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let message = rest.get(..length)?.to_vec();
    arrived.drain(..2 + length);
    Some(message)
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), answer: &[u8]) -> io::Result<()> {
    // Answers are limited to what the length can say.
    let Ok(length) = u16::try_from(answer.len()) else {
        return Ok(());
    };
    let mut framed = Vec::with_capacity(2 + answer.len());
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(answer);
    tokio::time::timeout(IDLE, writer.write_all(&framed))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

/// Open connections of each client.
#[derive(Default)]
struct Counts(Mutex<HashMap<IpAddr, u32>>);

/// A connection that is counted while this lives.
struct Entry {
    counts: Arc<Counts>,
    client: IpAddr,
}

impl Counts {
    /// Counts a connection, unless the client has too many.
    fn enter(counts: &Arc<Self>, client: IpAddr) -> Option<Entry> {
        let client = limits::key(client);
        let mut all = counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(client).or_insert(0);
        if *count >= CONNECTIONS_OF_CLIENT {
            return None;
        }
        *count += 1;
        Some(Entry {
            counts: counts.clone(),
            client,
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut all = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.client);
            }
        }
    }
}
