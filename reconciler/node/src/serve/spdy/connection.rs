//! A connection: one future reads frames and feeds streams, another writes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter,
};
use tokio::sync::{mpsc, oneshot};

use super::Opened;
use super::frame::{self, Control, FIN, Head};
use super::headers;
use crate::serve::link::{self, CHUNK, Outgoing, Output};

/// Pieces of a stream that wait for whoever reads it.
const WAITING: usize = 16;
/// Streams that wait to be taken up.
const OPENING: usize = 64;
/// Streams that a client may have open: ports of a page with many connections.
const MOST_STREAMS: usize = 4096;
/// How often a client is asked whether it is there.
const PING: Duration = Duration::from_secs(15);
/// For the client to close the connection.
const FAREWELL: Duration = Duration::from_secs(5);

/// A stream as the reader knows it.
struct Stream {
    /// None once the client has sent all.
    input: Option<mpsc::Sender<Bytes>>,
    /// Dropped when it is over.
    life: oneshot::Sender<Infallible>,
}

/// Carries streams until `work` is done and all it has sent is written, or until the client is gone; then `work` is
/// dropped. `work` gets the streams that the client opens.
pub async fn carry<F>(
    connection: impl AsyncRead + AsyncWrite,
    work: impl FnOnce(mpsc::Receiver<Opened>) -> F,
) where
    F: Future<Output = ()>,
{
    let (from, to) = tokio::io::split(connection);
    let (queue, outgoing) = link::queue();
    let (opening, opened) = mpsc::channel(OPENING);
    let mut reading = Box::pin(read(from, opening, queue.downgrade()));
    let work = work(opened);
    let worked = async {
        // The reader lends the queue to streams only while this lives: then the writer knows that nothing will come.
        let _queue = queue;
        work.await;
    };
    let done = async { tokio::join!(worked, write(to, outgoing)) };
    tokio::select! {
        ((), written) = done => {
            broken(written);
            if tokio::time::timeout(FAREWELL, reading).await.is_err() {
                tracing::debug!("a client did not close its SPDY connection");
            }
        }
        outcome = &mut reading => broken(outcome),
    }
}

fn broken(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!("a client's SPDY connection broke off: {error}");
    }
}

fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

async fn read(
    from: impl AsyncRead + Unpin,
    opening: mpsc::Sender<Opened>,
    queue: mpsc::WeakSender<Outgoing>,
) -> io::Result<()> {
    let mut from = BufReader::with_capacity(CHUNK, from);
    let mut reader = headers::Reader::new();
    let mut streams: HashMap<u32, Stream> = HashMap::new();
    loop {
        // The end between two frames is a proper one.
        if from.fill_buf().await?.is_empty() {
            return Ok(());
        }
        let mut head = [0; 8];
        from.read_exact(&mut head).await?;
        match frame::head(head).map_err(wrong)? {
            Head::Data {
                stream,
                flags,
                length,
            } => {
                let input = streams.get(&stream).and_then(|stream| stream.input.clone());
                pass(&mut from, length, input).await?;
                if flags & FIN != 0
                    && let Some(stream) = streams.get_mut(&stream)
                {
                    stream.input = None;
                }
            }
            Head::Control {
                kind,
                flags,
                length,
            } => {
                let mut body = vec![0; length];
                from.read_exact(&mut body).await?;
                // Nothing more is sent: the client will be told goodbye.
                let Some(queue) = queue.upgrade() else {
                    continue;
                };
                match frame::control(kind, &body).map_err(wrong)? {
                    Control::Open { stream, headers } => {
                        let headers = reader.read(headers).map_err(wrong)?;
                        streams.retain(|_, stream| !stream.life.is_closed());
                        if streams.len() >= MOST_STREAMS {
                            return Err(wrong(format!("more than {MOST_STREAMS} streams")));
                        }
                        let (sender, input) = mpsc::channel(WAITING);
                        let (life, lives) = oneshot::channel();
                        let known = Stream {
                            input: (flags & FIN == 0).then_some(sender),
                            life,
                        };
                        if streams.insert(stream, known).is_some() {
                            return Err(wrong(format!("stream {stream} is opened twice")));
                        }
                        let sent = queue.send(Outgoing::Accept(stream)).await;
                        let opened = Opened {
                            headers,
                            input,
                            output: Output::new(stream, &queue),
                            life: lives,
                        };
                        if sent.is_err() || opening.send(opened).await.is_err() {
                            tracing::debug!("stream {stream} is opened, but nobody takes it up");
                        }
                    }
                    Control::Headers(headers) => drop(reader.read(headers).map_err(wrong)?),
                    Control::Reset(stream) => drop(streams.remove(&stream)),
                    Control::Ping(number) if number % 2 == 1 => {
                        if queue.send(Outgoing::Pong(number)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Control::Ping(_) | Control::GoAway | Control::Other => {}
                }
            }
        }
    }
}

/// Hands the body of a data frame on, in pieces.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    mut length: usize,
    input: Option<mpsc::Sender<Bytes>>,
) -> io::Result<()> {
    while length > 0 {
        let mut piece = BytesMut::with_capacity(length.min(CHUNK));
        let limit = u64::try_from(length.min(CHUNK)).map_err(io::Error::other)?;
        if (&mut *from).take(limit).read_buf(&mut piece).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length -= piece.len();
        if let Some(input) = &input
            && input.send(piece.freeze()).await.is_err()
        {
            tracing::trace!("nobody reads this stream any more");
        }
    }
    Ok(())
}

async fn write(
    to: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(CHUNK, to);
    let mut writer = headers::Writer::new().map_err(wrong)?;
    let mut last = 0;
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    let mut number: u32 = 0;
    loop {
        let next = match outgoing.try_recv() {
            Ok(next) => Some(next),
            Err(mpsc::error::TryRecvError::Disconnected) => None,
            Err(mpsc::error::TryRecvError::Empty) => {
                to.flush().await?;
                tokio::select! {
                    next = outgoing.recv() => next,
                    _ = pings.tick() => {
                        // Ours are even.
                        number = number.wrapping_add(2);
                        to.write_all(&frame::ping(number)).await?;
                        continue;
                    }
                }
            }
        };
        match next {
            Some(Outgoing::Data(stream, bytes)) => {
                to.write_all(&frame::data(stream, 0, bytes.len())).await?;
                to.write_all(&bytes).await?;
            }
            Some(Outgoing::End(stream)) => to.write_all(&frame::data(stream, FIN, 0)).await?,
            Some(Outgoing::Reset(stream)) => to.write_all(&frame::reset(stream)).await?,
            Some(Outgoing::Accept(stream)) => {
                last = stream;
                let headers = writer.write(&[]).map_err(wrong)?;
                to.write_all(&frame::reply(stream, &headers)).await?;
            }
            Some(Outgoing::Pong(number)) => to.write_all(&frame::ping(number)).await?,
            None => break,
        }
    }
    to.write_all(&frame::go_away(last)).await?;
    to.flush().await
}
