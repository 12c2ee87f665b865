//! Talking to processes: exec and attach, over frames to exec-in and to the shim.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::{Child, Stdio};
use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex,
};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::frame::{self, Decoder, Hello};
use super::{Inner, blocking, container, failed, sandbox, socket, stage};
use crate::runtime::{ContainerState, Error, Output, Session, Streams};

const BUFFER: usize = 64 * 1024;
/// Of the output of a command that is run to its end.
const OUTPUT_MAX: usize = 16 * 1024;

/// Frames from a stage.
struct Frames<R> {
    from: R,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// The next one; `None` when the stage has ended.
    async fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, Error> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            if let Some(frame) = self.decoder.next().map_err(Error::Failed)? {
                return Ok(Some(frame));
            }
            match self.from.read(&mut buffer).await {
                Ok(0) => return Ok(None),
                Ok(length) => self.decoder.push(&buffer[..length]),
                // A stage that was killed while something was under way to it.
                Err(_) => return Ok(None),
            }
        }
    }
}

impl Inner {
    pub(super) async fn exec(
        &self,
        id: &str,
        command: &[String],
        streams: Streams,
    ) -> Result<Session, Error> {
        let (stream, decoder, child) = self.start_exec(id, command, streams).await?;
        Ok(session(stream, decoder, streams, Some(child)))
    }

    pub(super) async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<Output, Error> {
        let late = || {
            Error::Timeout(format!(
                "command {command:?} timed out after {} s",
                limit.as_secs_f64()
            ))
        };
        let streams = Streams {
            stdout: true,
            stderr: true,
            ..Streams::default()
        };
        let run = async {
            let (stream, decoder, child) = self.start_exec(id, command, streams).await?;
            let mut child = Reaped(Some(child));
            let mut frames = Frames {
                from: stream,
                decoder,
            };
            let output = collect(&mut frames).await;
            drop(frames);
            sandbox::reap(child.0.take()).await;
            output
        };
        // Dropped half-way, the socket ends, and exec-in kills the command.
        timeout(limit, run).await.unwrap_or_else(|_| Err(late()))
    }

    pub(super) async fn attach(&self, id: &str, streams: Streams) -> Result<Session, Error> {
        let what = || format!("attach to container {id}");
        let tty = self.running(id)?;
        let stream = socket::connect(&self.container_folder(id)).map_err(failed(what()))?;
        let stream = stream.ok_or_else(|| Error::Failed(format!("{}: it has ended", what())))?;
        let mut stream = UnixStream::from_std(stream).map_err(failed(what()))?;
        let hello = Hello {
            command: Vec::new(),
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            tty,
        };
        send_hello(&mut stream, &hello)
            .await
            .map_err(failed(what()))?;
        Ok(session(
            stream,
            Decoder::default(),
            Streams { tty, ..streams },
            None,
        ))
    }

    /// Whether a running container has a terminal.
    fn running(&self, id: &str) -> Result<bool, Error> {
        let containers = self.containers();
        let status = containers
            .get(id)
            .ok_or_else(|| container::unknown(id))?
            .status();
        match status.state {
            ContainerState::Running => Ok(status.config.tty),
            _ => Err(Error::Failed(format!(
                "container {} is not running",
                status.config.name
            ))),
        }
    }

    async fn start_exec(
        &self,
        id: &str,
        command: &[String],
        streams: Streams,
    ) -> Result<(UnixStream, Decoder, Child), Error> {
        self.running(id)?;
        let what = || format!("exec in container {id}");
        let (own, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed(what()))?;
        own.set_nonblocking(true).map_err(failed(what()))?;
        let mut own = UnixStream::from_std(own).map_err(failed(what()))?;
        let mut process = self.stage(stage::EXEC_IN, &self.container_folder(id));
        process
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let spawn = move || process.spawn().map_err(failed("execute exec-in"));
        let mut child = Reaped(Some(blocking(spawn).await?));
        let hello = Hello {
            command: command.to_vec(),
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            tty: streams.tty,
        };
        send_hello(&mut own, &hello).await.map_err(failed(what()))?;
        let mut frames = Frames {
            from: own,
            decoder: Decoder::default(),
        };
        match frames.next().await? {
            Some((frame::STARTED, _)) => match child.0.take() {
                Some(child) => Ok((frames.from, frames.decoder, child)),
                None => Err(Error::Failed(what())),
            },
            Some((frame::ERROR, text)) => {
                Err(Error::Invalid(String::from_utf8_lossy(&text).into_owned()))
            }
            _ => Err(Error::Failed(format!(
                "{}: exec-in ended; the container may have",
                what()
            ))),
        }
    }
}

async fn send_hello(stream: &mut UnixStream, hello: &Hello) -> std::io::Result<()> {
    let payload = serde_json::to_vec(hello)?;
    if payload.len() > frame::MAX {
        return Err(std::io::Error::other("the command is too long"));
    }
    let mut bytes = Vec::new();
    frame::encode(frame::HELLO, &payload, &mut bytes);
    stream.write_all(&bytes).await
}

/// A child that is waited for also when a future is dropped. It ends by itself when its socket does.
struct Reaped(Option<Child>);

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            tokio::task::spawn_blocking(move || child.wait());
        }
    }
}

async fn collect(frames: &mut Frames<UnixStream>) -> Result<Output, Error> {
    let mut bytes = Vec::new();
    while let Some((kind, payload)) = frames.next().await? {
        match kind {
            frame::STDOUT | frame::STDERR => {
                let room = OUTPUT_MAX.saturating_sub(bytes.len());
                bytes.extend(payload.into_iter().take(room));
            }
            frame::EXIT => {
                return Ok(Output {
                    code: code_of(&payload),
                    text: String::from_utf8_lossy(&bytes).into_owned(),
                });
            }
            _ => {}
        }
    }
    Err(Error::Failed("the command's exec-in was killed".into()))
}

fn code_of(payload: &[u8]) -> i32 {
    payload.try_into().map_or(-1, i32::from_be_bytes)
}

/// Starts the task that carries a session's bytes.
fn session(
    stream: UnixStream,
    decoder: Decoder,
    streams: Streams,
    child: Option<Child>,
) -> Session {
    let pipe = |wanted: bool| {
        if wanted {
            let (a, b) = duplex(BUFFER);
            (Some(a), Some(b))
        } else {
            (None, None)
        }
    };
    let (stdin, stdin_from) = pipe(streams.stdin);
    let (stdout, stdout_to) = pipe(streams.stdout);
    let (stderr, stderr_to) = pipe(streams.stderr && !streams.tty);
    let (resize, sizes) = mpsc::channel(4);
    let (end, ended) = oneshot::channel();
    let (from, to) = stream.into_split();
    tokio::spawn(async move {
        let mut end = end;
        let frames = Frames { from, decoder };
        let code = tokio::select! {
            code = output(frames, stdout_to, stderr_to) => Some(code),
            // The session has been dropped.
            () = end.closed() => None,
            // Of input nothing is left to do, but the process goes on.
            () = input(to, stdin_from, sizes) => None,
        };
        sandbox::reap(child).await;
        if let Some(code) = code {
            let _ = end.send(code);
        }
    });
    Session {
        stdin: stdin.map(|stream| Box::pin(stream) as Pin<Box<dyn AsyncWrite + Send>>),
        stdout: stdout.map(|stream| Box::pin(stream) as Pin<Box<dyn AsyncRead + Send>>),
        stderr: stderr.map(|stream| Box::pin(stream) as Pin<Box<dyn AsyncRead + Send>>),
        resize: streams.tty.then_some(resize),
        end: Box::pin(async {
            ended
                .await
                .unwrap_or_else(|_| Err(Error::Failed("the session's task has ended".into())))
        }),
    }
}

async fn output(
    mut frames: Frames<impl AsyncRead + Unpin>,
    mut stdout: Option<DuplexStream>,
    mut stderr: Option<DuplexStream>,
) -> Result<i32, Error> {
    while let Some((kind, payload)) = frames.next().await? {
        let to = match kind {
            frame::STDOUT => &mut stdout,
            frame::STDERR => &mut stderr,
            frame::EXIT => return Ok(code_of(&payload)),
            _ => continue,
        };
        if let Some(stream) = to
            && stream.write_all(&payload).await.is_err()
        {
            // Nobody reads it any more.
            *to = None;
        }
    }
    Err(Error::Failed("the process's stage was killed".into()))
}

/// Carries input and sizes on; returns never, so that the output decides on the end.
async fn input(
    mut to: impl AsyncWrite + Unpin,
    mut stdin: Option<DuplexStream>,
    mut sizes: mpsc::Receiver<(u16, u16)>,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut resizable = true;
    loop {
        let mut bytes = Vec::new();
        let read = async {
            match &mut stdin {
                Some(stream) => stream.read(&mut buffer).await.unwrap_or(0),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            length = read => {
                frame::encode(frame::STDIN, &buffer[..length], &mut bytes);
                if length == 0 {
                    stdin = None;
                }
            }
            size = sizes.recv(), if resizable => match size {
                Some((columns, rows)) => {
                    let [a, b] = columns.to_be_bytes();
                    let [c, d] = rows.to_be_bytes();
                    frame::encode(frame::RESIZE, &[a, b, c, d], &mut bytes);
                }
                None => resizable = false,
            },
        }
        if to.write_all(&bytes).await.is_err() {
            // The stage has ended; what it said last is still to be read.
            std::future::pending::<()>().await;
        }
    }
}
