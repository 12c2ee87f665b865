//! WebSockets: channels by the first byte of each message, or one stream of bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::link::Outgoing;
use super::upgrade::Connection;

/// The largest message that is taken.
const LARGEST: usize = 16 << 20;
/// How often a client is asked whether it is there.
const PING: Duration = Duration::from_secs(15);
/// For the client to say goodbye as well.
const FAREWELL: Duration = Duration::from_secs(5);
/// `v5.channel.k8s.io`: the next byte is a channel that the client has closed.
const CLOSE: u8 = 255;

type Socket = WebSocketStream<Connection>;

/// Speaks WebSocket on a connection whose handshake is done.
pub async fn open(connection: Connection) -> Socket {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LARGEST))
        .max_frame_size(Some(LARGEST));
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// Where the messages of each channel go; `None`: they are dropped.
pub struct Channels {
    /// By number.
    pub inputs: Vec<Option<mpsc::Sender<Bytes>>>,
    /// Whether channel 255 closes others.
    pub closable: bool,
}

/// Carries channels until `work` is done and all it has sent is written, or until the client is gone; then `work` is
/// dropped.
pub async fn carry(
    socket: Socket,
    channels: Channels,
    outgoing: mpsc::Receiver<Outgoing>,
    work: impl Future<Output = ()>,
) {
    let (sink, stream) = socket.split();
    let mut reading = Box::pin(read(stream, channels));
    let done = async { tokio::join!(work, write(sink, outgoing)) };
    tokio::select! {
        ((), ()) = done => {
            if tokio::time::timeout(FAREWELL, reading).await.is_err() {
                tracing::debug!("a client did not answer the end of its WebSocket");
            }
        }
        () = &mut reading => {}
    }
}

async fn read(mut stream: SplitStream<Socket>, mut channels: Channels) {
    while let Some(message) = stream.next().await {
        let mut bytes = match message {
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Close(_)) => return,
            // Pings are answered by the library.
            Ok(_) => continue,
            Err(error) => return broken(&error),
        };
        if bytes.is_empty() {
            continue;
        }
        let channel = bytes.split_to(1)[0];
        if channel == CLOSE && channels.closable {
            let closed = bytes.first().map(|channel| usize::from(*channel));
            if let Some(input) = closed.and_then(|closed| channels.inputs.get_mut(closed)) {
                *input = None;
            }
            continue;
        }
        if let Some(Some(input)) = channels.inputs.get(usize::from(channel))
            && !bytes.is_empty()
            && input.send(bytes).await.is_err()
        {
            tracing::trace!("nobody reads channel {channel} any more");
        }
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut outgoing: mpsc::Receiver<Outgoing>) {
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    loop {
        let message = tokio::select! {
            out = outgoing.recv() => match out {
                Some(Outgoing::Data(channel, bytes)) => {
                    // A channel is one byte; those that are handed out are.
                    let Ok(channel) = u8::try_from(channel) else { continue };
                    let mut message = BytesMut::with_capacity(bytes.len() + 1);
                    message.extend_from_slice(&[channel]);
                    message.extend_from_slice(&bytes);
                    Message::Binary(message.freeze())
                }
                Some(_) => continue,
                None => break,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        if let Err(error) = sink.send(message).await {
            return broken(&error);
        }
    }
    let close = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    if let Err(error) = sink.send(Message::Close(Some(close))).await {
        broken(&error);
    }
}

/// One stream of bytes, for SPDY within: how it is cut into messages means nothing. Runs until either end closes.
pub async fn tunnel(socket: Socket, inner: DuplexStream) {
    let (mut sink, mut stream) = socket.split();
    let (mut from, mut to) = tokio::io::split(inner);
    let reading = async {
        while let Some(message) = stream.next().await {
            match message {
                Ok(Message::Binary(bytes)) => {
                    if to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Ok(Message::Close(_)) => break,
                Ok(_) => {}
                Err(error) => {
                    broken(&error);
                    break;
                }
            }
        }
        if let Err(error) = to.shutdown().await {
            tracing::debug!("end a SPDY stream in a WebSocket: {error}");
        }
    };
    let writing = async {
        let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
        let mut chunk = BytesMut::new();
        loop {
            chunk.reserve(32 * 1024);
            let message = tokio::select! {
                read = from.read_buf(&mut chunk) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(_) => Message::Binary(chunk.split().freeze()),
                },
                _ = pings.tick() => Message::Ping(Bytes::new()),
            };
            if let Err(error) = sink.send(message).await {
                return broken(&error);
            }
        }
        if let Err(error) = sink.close().await {
            broken(&error);
        }
    };
    // When one way has ended, the other has a moment to say goodbye.
    let (mut reading, mut writing) = (Box::pin(reading), Box::pin(writing));
    let late = tokio::select! {
        () = &mut reading => tokio::time::timeout(FAREWELL, writing).await,
        () = &mut writing => tokio::time::timeout(FAREWELL, reading).await,
    };
    if late.is_err() {
        tracing::debug!("a client did not answer the end of its WebSocket");
    }
}

fn broken(error: &Error) {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => {}
        error => tracing::debug!("a client's WebSocket broke off: {error}"),
    }
}
