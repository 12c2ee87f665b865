//! Port-forward: connections of a client to ports in a Pod.
//!
//! With SPDY each connection is a pair of streams, `data` and `error`, that share a `requestid`. With
//! `v4.channel.k8s.io` each port asked for is one connection, made at once, and a pair of channels; both begin with the
//! port's number.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::link::{self, Gone, Input, Output};
use super::query::Query;
use super::reply::refuse;
use super::spdy::{self, Opened};
use super::upgrade::{self, Agreed, Carrier, Connection};
use super::websocket::{self, Channels};
use super::{Answer, State, full_name, refusal};
use crate::directory::Entry;
use crate::runtime::Runtime;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";
const PLAIN: &str = "portforward.k8s.io";

/// For the second stream of a pair to come.
const PAIRING: Duration = Duration::from_secs(30);
/// Channels are numbered by a byte.
const MOST_PORTS: usize = 127;
/// Messages of a client that wait for a port.
const WAITING: usize = 2;

/// Where connections go.
struct Pod {
    runtime: Arc<dyn Runtime>,
    sandbox: String,
    /// For errors.
    name: String,
    uid: String,
}

/// Answers `/portForward`.
///
/// # Errors
/// The answer that refuses it.
pub fn answer(
    state: &State,
    entry: &Entry,
    query: &Query,
    request: &mut Request<Incoming>,
) -> Answer {
    let sandbox = entry.live_sandbox().map_err(|error| refusal(&error))?;
    let pod = Pod {
        runtime: Arc::clone(&state.runtime),
        sandbox: sandbox.id.clone(),
        name: full_name(entry),
        uid: entry.pod.uid.clone(),
    };
    let agreed = upgrade::agree(request, &[TUNNEL, CHANNELS], true, &[PLAIN])?;
    let channels = agreed.carrier == Carrier::WebSocket && agreed.protocol != TUNNEL;
    let ports = match channels {
        true => ports(query).map_err(|error| refuse(StatusCode::BAD_REQUEST, error))?,
        false => Vec::new(),
    };
    let Agreed {
        carrier,
        reply,
        upgrade,
        ..
    } = agreed;
    state.spawn(async move {
        let connection = match upgrade.await {
            Ok(upgraded) => Connection::new(upgraded),
            Err(error) => return tracing::debug!("upgrade a connection: {error}"),
        };
        match carrier {
            Carrier::Spdy => spdy::carry(connection, |opened| pairs(opened, pod)).await,
            Carrier::WebSocket if channels => by_channels(connection, ports, pod).await,
            Carrier::WebSocket => {
                let socket = websocket::open(connection).await;
                let (outer, inner) = tokio::io::duplex(4 * link::CHUNK);
                tokio::join!(
                    websocket::tunnel(socket, outer),
                    spdy::carry(inner, |opened| pairs(opened, pod)),
                );
            }
        }
    });
    Ok(reply)
}

/// The ports of `ports=80,443` or `port=80`.
///
/// # Errors
/// There is none, or one is no port.
pub fn ports(query: &Query) -> Result<Vec<u16>, String> {
    let ports = query
        .all("ports")
        .chain(query.all("port"))
        .flat_map(|list| list.split(','))
        .map(|port| match port.trim().parse() {
            Ok(0) | Err(_) => Err(format!("unable to parse {port:?} as a port")),
            Ok(port) => Ok(port),
        })
        .collect::<Result<Vec<u16>, _>>()?;
    match ports.len() {
        0 => Err("query parameter \"port\" is required".to_owned()),
        1..=MOST_PORTS => Ok(ports),
        many => Err(format!("{many} ports are more than {MOST_PORTS}")),
    }
}

async fn by_channels(connection: Connection, ports: Vec<u16>, pod: Pod) {
    let socket = websocket::open(connection).await;
    let (queue, outgoing) = link::queue();
    let mut inputs = Vec::new();
    let mut connections = Vec::new();
    for (data, port) in (0..).step_by(2).zip(ports) {
        let (sender, input) = mpsc::channel(WAITING);
        inputs.extend([Some(sender), None]);
        connections.push((
            port,
            input,
            Output::new(data, &queue),
            Output::new(data + 1, &queue),
        ));
    }
    drop(queue);
    let pod = &pod;
    let work = async {
        for (port, _, data, error) in &connections {
            let number = port.to_le_bytes().to_vec();
            if data.send(number.clone()).await.is_err() || error.send(number).await.is_err() {
                return;
            }
        }
        let all = connections
            .into_iter()
            .map(async |(port, input, data, error)| {
                if forward(pod, port, input, &data, &error).await.is_err() {
                    tracing::debug!("a client left before port {port} had ended");
                }
            });
        futures_util::future::join_all(all).await;
    };
    let channels = Channels {
        inputs,
        closable: false,
    };
    websocket::carry(socket, channels, outgoing, work).await;
}

/// Puts streams together as they come, and forwards each pair.
async fn pairs(mut opened: mpsc::Receiver<Opened>, pod: Pod) {
    let pod = Arc::new(pod);
    let mut single: HashMap<String, (Opened, tokio::time::Instant)> = HashMap::new();
    let mut running = JoinSet::new();
    loop {
        let oldest = single.values().map(|(_, since)| *since + PAIRING).min();
        let late = async {
            match oldest {
                Some(time) => tokio::time::sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = opened.recv() => match stream {
                Some(stream) => {
                    let id = stream.header("requestid").to_owned();
                    match single.remove(&id) {
                        Some((first, _)) => {
                            let pod = Arc::clone(&pod);
                            running.spawn(async move { pair(first, stream, &pod).await });
                        }
                        None => {
                            single.insert(id, (stream, tokio::time::Instant::now()));
                        }
                    }
                }
                None => break,
            },
            Some(_) = running.join_next() => {}
            () = late => {
                let now = tokio::time::Instant::now();
                let old = single.extract_if(|_, (_, since)| *since + PAIRING <= now);
                for (id, (stream, _)) in old {
                    tracing::debug!("request {id:?} of a port-forward has one stream only");
                    if stream.output.reset().await.is_err() {
                        return;
                    }
                }
            }
        }
    }
    while running.join_next().await.is_some() {}
}

async fn pair(one: Opened, other: Opened, pod: &Pod) {
    let (data, error) = match (one.header("streamtype"), other.header("streamtype")) {
        ("data", "error") => (one, other),
        ("error", "data") => (other, one),
        (one_kind, other_kind) => {
            tracing::debug!("a port-forward with streams {one_kind:?} and {other_kind:?}");
            for stream in [one, other] {
                if stream.output.reset().await.is_err() {
                    return;
                }
            }
            return;
        }
    };
    let port = data.header("port").to_owned();
    let outcome = match port.parse::<u16>() {
        Ok(port) if port > 0 => {
            let forwarded = forward(pod, port, data.input, &data.output, &error.output);
            tokio::select! {
                outcome = forwarded => outcome,
                // The client has given the data stream up; it waits for the end of the other.
                _ = data.life => error.output.end().await,
            }
        }
        _ => {
            let text = format!("unable to parse {port:?} as a port");
            fail(&data.output, &error.output, text).await
        }
    };
    if outcome.is_err() {
        tracing::debug!("a client left during a port-forward");
    }
}

async fn fail(data: &Output, error: &Output, text: String) -> Result<(), Gone> {
    error.send(text).await?;
    error.end().await?;
    data.reset().await
}

/// One connection, to the end of what the Pod sends.
async fn forward(
    pod: &Pod,
    port: u16,
    mut input: Input,
    data: &Output,
    error: &Output,
) -> Result<(), Gone> {
    let stream = match pod.runtime.dial(&pod.sandbox, port).await {
        Ok(stream) => stream,
        Err(failed) => {
            let text = format!(
                "error forwarding port {port} to pod {}, uid {}: {failed}",
                pod.name, pod.uid
            );
            return fail(data, error, text).await;
        }
    };
    let (from, to) = tokio::io::split(stream);
    let up = async {
        link::copy_in(&mut input, to).await;
        // The client has said all; the Pod may go on.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = link::copy_out(from, data) => outcome?,
        () = up => {}
    }
    data.end().await?;
    error.end().await
}
