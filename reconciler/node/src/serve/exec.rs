//! Exec and attach: a process's streams, and how it ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, watch};

use super::link::{self, Gone, Input, Output};
use super::path::{PodTarget, Verb};
use super::query::Query;
use super::reply::refuse;
use super::upgrade::{self, Agreed, Carrier, Connection};
use super::websocket::{self, Channels};
use super::{Answer, State, refusal, spdy};
use crate::directory::Entry;
use crate::runtime::{Error, Runtime, Session, Streams};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// The first of all: how it ended is told in plain words.
const V1: &str = "channel.k8s.io";

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const ERROR: u32 = 3;
const RESIZE: u32 = 4;

/// Messages of a client that wait for the process.
const WAITING: usize = 2;
/// For a SPDY client to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// A process has ended, but another holds its output open: that long nothing must come before it is left.
const QUIET: Duration = Duration::from_millis(500);

/// What a client and a process say to each other.
struct Link {
    stdin: Option<Input>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    resize: Option<Input>,
    error: Output,
}

/// What is to be run, or joined.
struct Wanted {
    runtime: Arc<dyn Runtime>,
    container: String,
    /// `None` is attach.
    command: Option<Vec<String>>,
    streams: Streams,
    /// How it ended is told in plain words.
    plain: bool,
}

/// Answers `/exec` and `/attach`.
///
/// # Errors
/// The answer that refuses it.
pub fn answer(
    state: &State,
    entry: &Entry,
    target: &PodTarget,
    query: &Query,
    request: &mut Request<Incoming>,
) -> Answer {
    let container = entry
        .running(&target.container)
        .map_err(|error| refusal(&error))?;
    let tty = query.flag(&["tty"]);
    let streams = Streams {
        stdin: query.flag(&["stdin", "input"]),
        stdout: query.flag(&["stdout", "output"]),
        // A terminal has one output.
        stderr: query.flag(&["stderr", "error"]) && !tty,
        tty,
    };
    if !(streams.stdin || streams.stdout || streams.stderr) {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    let command = match target.verb {
        Verb::Attach => None,
        _ => {
            let words: Vec<String> = query.all("command").map(str::to_owned).collect();
            if words.is_empty() {
                return Err(refuse(
                    StatusCode::BAD_REQUEST,
                    "you must specify at least one command for the container",
                ));
            }
            Some(words)
        }
    };
    let agreed = upgrade::agree(request, &[V5, V4, V1], true, &[V4])?;
    let wanted = Wanted {
        runtime: Arc::clone(&state.runtime),
        container: container.id.clone(),
        command,
        streams,
        plain: !matches!(agreed.protocol, V5 | V4),
    };
    let Agreed {
        carrier,
        protocol,
        reply,
        upgrade,
    } = agreed;
    state.spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let connection = Connection::new(upgraded);
                match carrier {
                    Carrier::WebSocket => by_websocket(connection, wanted, protocol == V5).await,
                    Carrier::Spdy => by_spdy(connection, wanted).await,
                }
            }
            Err(error) => tracing::debug!("upgrade a connection: {error}"),
        }
    });
    Ok(reply)
}

async fn by_websocket(connection: Connection, wanted: Wanted, closable: bool) {
    let socket = websocket::open(connection).await;
    let (queue, outgoing) = link::queue();
    let mut channels = Channels {
        inputs: vec![None; 5],
        closable,
    };
    let mut input = |channel: u32, is_wanted: bool| {
        let place = usize::try_from(channel).ok()?;
        let (sender, receiver) = mpsc::channel(WAITING);
        *channels.inputs.get_mut(place)? = is_wanted.then_some(sender);
        is_wanted.then_some(receiver)
    };
    let streams = wanted.streams;
    let link = Link {
        stdin: input(STDIN, streams.stdin),
        resize: input(RESIZE, streams.tty),
        stdout: streams.stdout.then(|| Output::new(STDOUT, &queue)),
        stderr: streams.stderr.then(|| Output::new(STDERR, &queue)),
        error: Output::new(ERROR, &queue),
    };
    drop(queue);
    let work = async {
        // The reference's first message: an empty one.
        if let Some(first) = link.stdout.as_ref().or(link.stderr.as_ref())
            && first.send(Bytes::new()).await.is_err()
        {
            return;
        }
        talk(wanted, link).await;
    };
    websocket::carry(socket, channels, outgoing, work).await;
}

async fn by_spdy(connection: Connection, wanted: Wanted) {
    spdy::carry(connection, |mut opened| async move {
        let streams = wanted.streams;
        let (mut stdin, mut resize) = (None, None);
        let (mut stdout, mut stderr, mut error) = (None, None, None);
        // What its client sends on the others means nothing; they are kept open.
        let mut others = Vec::new();
        let all = async {
            while error.is_none()
                || (streams.stdin && stdin.is_none())
                || (streams.stdout && stdout.is_none())
                || (streams.stderr && stderr.is_none())
                || (streams.tty && resize.is_none())
            {
                let Some(stream) = opened.recv().await else {
                    return false;
                };
                match stream.header("streamtype") {
                    "error" => error = Some(stream.output.clone()),
                    "stdin" if streams.stdin => {
                        stdin = Some(stream.input);
                        others.push(stream.life);
                        continue;
                    }
                    "resize" if streams.tty => {
                        resize = Some(stream.input);
                        others.push(stream.life);
                        continue;
                    }
                    "stdout" if streams.stdout => stdout = Some(stream.output.clone()),
                    "stderr" if streams.stderr => stderr = Some(stream.output.clone()),
                    other => tracing::debug!("a stream of type {other:?} is not expected"),
                }
                others.push(stream.life);
            }
            true
        };
        match tokio::time::timeout(OPENING, all).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return tracing::debug!("a client did not open its streams"),
        }
        let Some(error) = error else { return };
        let link = Link {
            stdin,
            stdout,
            stderr,
            resize,
            error,
        };
        talk(wanted, link).await;
    })
    .await;
}

/// Runs it, to its end or the client's; tells how it ended.
async fn talk(wanted: Wanted, link: Link) {
    let begun = match &wanted.command {
        Some(command) => {
            wanted
                .runtime
                .exec(&wanted.container, command, wanted.streams)
                .await
        }
        None => {
            wanted
                .runtime
                .attach(&wanted.container, wanted.streams)
                .await
        }
    };
    let Link {
        stdin,
        stdout,
        stderr,
        resize,
        error,
    } = link;
    let outcome = match begun {
        Ok(session) => {
            let outcome = converse(session, stdin, &stdout, &stderr, resize).await;
            match wanted.command {
                Some(_) => outcome,
                // Attaching has worked, however the container ended: that stands in its status.
                None => outcome.map(|outcome| outcome.map(|_| 0)),
            }
        }
        Err(error) => Ok(Err(error)),
    };
    // The client has gone: there is nobody to tell.
    let Ok(outcome) = outcome else { return };
    let status = match wanted.plain {
        true => plain(&outcome),
        false => status(&outcome).to_string(),
    };
    let told = async {
        for output in [&stdout, &stderr].into_iter().flatten() {
            output.end().await?;
        }
        if !status.is_empty() {
            error.send(status).await?;
        }
        error.end().await
    };
    if told.await.is_err() {
        tracing::debug!("a client left before it was told how its process ended");
    }
}

/// Copies until the process has ended and all it has written is sent.
async fn converse(
    session: Session,
    stdin: Option<Input>,
    stdout: &Option<Output>,
    stderr: &Option<Output>,
    resize: Option<Input>,
) -> Result<Result<i32, Error>, Gone> {
    let (ended, end) = watch::channel(false);
    let outputs = async {
        tokio::try_join!(
            drain(session.stdout, stdout, end.clone()),
            drain(session.stderr, stderr, end.clone()),
        )
    };
    let process = async {
        let outcome = session.end.await;
        ended.send_replace(true);
        outcome
    };
    let inputs = async {
        tokio::join!(feed(stdin, session.stdin), sizes(resize, session.resize));
        // Input that has ended ends nothing.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        (outcome, outputs) = async { tokio::join!(process, outputs) } => outputs.map(|_| outcome),
        () = inputs => Err(Gone),
    }
}

async fn feed(from: Option<Input>, to: Option<crate::runtime::Writer>) {
    if let (Some(mut from), Some(to)) = (from, to) {
        link::copy_in(&mut from, to).await;
    }
}

/// Copies an output to its end; once the process has ended, only as long as something comes.
async fn drain(
    from: Option<impl AsyncRead + Unpin>,
    to: &Option<Output>,
    mut ended: watch::Receiver<bool>,
) -> Result<(), Gone> {
    use tokio::io::AsyncReadExt;
    let (Some(mut from), Some(to)) = (from, to) else {
        return Ok(());
    };
    let mut chunk = bytes::BytesMut::new();
    loop {
        chunk.reserve(link::CHUNK);
        let read = tokio::select! {
            biased;
            read = from.read_buf(&mut chunk) => read,
            () = async {
                // An error means that the process future is gone, and this one with it.
                if ended.wait_for(|ended| *ended).await.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(QUIET).await;
            } => return Ok(()),
        };
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => to.send(chunk.split().freeze()).await?,
            // A terminal whose processes are gone says EIO.
            Err(error) => {
                tracing::debug!("the output of a process: {error}");
                return Ok(());
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    #[serde(default)]
    width: u16,
    #[serde(default)]
    height: u16,
}

/// Columns and rows; a client without a terminal says 0 and means nothing.
pub fn size(text: &[u8]) -> Option<(u16, u16)> {
    let size: Size = serde_json::from_slice(text).ok()?;
    (size.width > 0 && size.height > 0).then_some((size.width, size.height))
}

async fn sizes(from: Option<Input>, to: Option<mpsc::Sender<(u16, u16)>>) {
    let (Some(mut from), Some(to)) = (from, to) else {
        return;
    };
    // A line each; SPDY may cut them anywhere.
    let mut rest = Vec::new();
    while let Some(bytes) = from.recv().await {
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'}') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Some(size) = size(&line)
                && to.send(size).await.is_err()
            {
                return;
            }
        }
        // No size is that long.
        if rest.len() > 1024 {
            rest.clear();
        }
    }
}

/// How it ended, for `v4` and later.
pub fn status(outcome: &Result<i32, Error>) -> Value {
    match outcome {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!(
                "command terminated with non-zero exit code: command terminated with exit code {code}"
            ),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!(
                "Internal error occurred: error executing command in container: {error}"
            ),
            "reason": "InternalError",
            "details": {"causes": [{"message": format!("error executing command in container: {error}")}]},
            "code": 500,
        }),
    }
}

fn plain(outcome: &Result<i32, Error>) -> String {
    match outcome {
        Ok(0) => String::new(),
        Ok(code) => {
            format!("command terminated with non-zero exit code: exit status {code}")
        }
        Err(error) => format!("error executing command in container: {error}"),
    }
}
