//! Several streams on one connection, whatever carries them: WebSocket channels or SPDY streams.
//!
//! A connection is read by one future, which feeds [`Input`]s, and written by another, which drains what [`Output`]s
//! send. All queues are bounded, and a full one stops whoever feeds it.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// The most that is read from a process or socket at a time.
pub const CHUNK: usize = 32 * 1024;
/// Messages that wait to be written.
const OUTGOING: usize = 16;

/// What a client sends on a stream, until it sends no more.
pub type Input = mpsc::Receiver<Bytes>;

/// Something to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Bytes of a stream.
    Data(u32, Bytes),
    /// The stream's end; of a WebSocket channel nothing is written.
    End(u32),
    /// The stream is given up; likewise.
    Reset(u32),
    /// SPDY: the answer to a stream that the client has opened.
    Accept(u32),
    /// SPDY: the answer to a ping.
    Pong(u32),
}

/// The client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// What is written to a stream.
#[derive(Clone, Debug)]
pub struct Output {
    stream: u32,
    queue: mpsc::Sender<Outgoing>,
}

/// The queue of a connection's writer.
pub fn queue() -> (mpsc::Sender<Outgoing>, mpsc::Receiver<Outgoing>) {
    mpsc::channel(OUTGOING)
}

impl Output {
    /// Of a stream or channel.
    pub fn new(stream: u32, queue: &mpsc::Sender<Outgoing>) -> Self {
        Self {
            stream,
            queue: queue.clone(),
        }
    }

    /// Sends bytes; waits while too much waits to be written.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send(&self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        self.put(Outgoing::Data(self.stream, bytes.into())).await
    }

    /// There will be no more.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn end(&self) -> Result<(), Gone> {
        self.put(Outgoing::End(self.stream)).await
    }

    /// Gives the stream up.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn reset(&self) -> Result<(), Gone> {
        self.put(Outgoing::Reset(self.stream)).await
    }

    async fn put(&self, what: Outgoing) -> Result<(), Gone> {
        self.queue.send(what).await.map_err(|_| Gone)
    }
}

/// Copies what a process or socket gives, to its end; does not send the stream's end.
///
/// # Errors
/// The client is gone. A reader that fails has ended: a terminal whose process is gone says EIO.
pub async fn copy_out(mut from: impl AsyncRead + Unpin, to: &Output) -> Result<(), Gone> {
    loop {
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
        match from.read_buf(&mut chunk).await {
            Ok(0) => return Ok(()),
            Ok(_) => to.send(chunk.freeze()).await?,
            Err(error) => {
                tracing::debug!("the output of a stream: {error}");
                return Ok(());
            }
        }
    }
}

/// Copies what a client sends, to its end, and then shuts the writer down. A writer that takes no more is no error of
/// the client: the rest is dropped.
pub async fn copy_in(from: &mut Input, mut to: impl AsyncWrite + Unpin) {
    while let Some(bytes) = from.recv().await {
        if let Err(error) = to.write_all(&bytes).await {
            tracing::debug!("the input of a stream: {error}");
            // Read on, so that other streams of the connection do not wait for this one.
            while from.recv().await.is_some() {}
            return;
        }
    }
    if let Err(error) = to.shutdown().await {
        tracing::debug!("end the input of a stream: {error}");
    }
}
