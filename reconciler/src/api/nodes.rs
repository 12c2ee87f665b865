//! What only the node can answer: logs, exec, attach and port-forward are handed on to the node that has the Pod.
//!
//! The node agent speaks the kubelet's paths (`/containerLogs/NS/POD/CONTAINER`, `/exec/…`, `/attach/…`,
//! `/portForward/NS/POD`) over TLS, shows a certificate of our authority, and knows us by our client certificate. An
//! upgraded connection is copied byte for byte: whatever the client and the node agree on passes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::kinds::{self, Subresource};
use super::request::{Query, Target};
use super::rest::answer::{self, Reply};
use super::status::{Cause, Status};
use super::{Api, object};

/// To reach a node.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// For the node to begin its answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Where a node listens that does not say so.
const PORT: i64 = 10250;

/// Answers a request for a stream of a Pod.
///
/// # Errors
/// As recorded from the reference; 503 when the node cannot be reached.
pub async fn stream(
    api: &Arc<Api>,
    target: &Target,
    stream: Subresource,
    query: &Query,
    request: &mut Request<Incoming>,
) -> Result<Reply, Status> {
    let method = request.method().clone();
    match (stream, &method) {
        (Subresource::Log, &Method::GET) => {}
        (Subresource::Log, _) => return Err(Status::method_not_allowed()),
        (_, &Method::GET | &Method::POST) => {}
        _ => return Err(Status::method_not_allowed()),
    }
    let name = target.name.as_deref().unwrap_or_default();
    let key = target.kind.key(target.namespace.as_deref(), name);
    let entry = api
        .store
        .get(&key)
        .await?
        .ok_or_else(|| Status::not_found(target.kind, name))?;
    let pod = object::decode(&entry.value, entry.revision)
        .map_err(|error| answer::unreadable(&key, &error))?;
    if stream == Subresource::Log {
        log_options(name, query)?;
    }
    let container = match stream {
        Subresource::PortForward => None,
        _ => Some(container(&pod, stream, query.text("container"))?),
    };
    let node = object::text(&pod, &["spec", "nodeName"]).to_owned();
    if node.is_empty() {
        return match stream {
            Subresource::Log => Ok(answer::reply(204, "text/plain", "")),
            _ => Err(Status::bad_request(format!(
                "pod {name} does not have a host assigned"
            ))),
        };
    }
    let upgrades = request.headers().contains_key(UPGRADE);
    if stream != Subresource::Log && !upgrades {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let folder = match stream {
        Subresource::Log => "containerLogs",
        Subresource::Exec => "exec",
        Subresource::Attach => "attach",
        _ => "portForward",
    };
    // Names are segments of a path: checked when the Pod was made, and by the path of this request.
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let mut path = format!("/{folder}/{namespace}/{name}");
    if let Some(container) = container {
        path = format!("{path}/{container}");
    }
    if let Some(query) = request.uri().query() {
        path = format!("{path}?{query}");
    }
    let place = place(api, &node).await?;
    // Without `Retry-After`: kubectl would try ten times before it says what is wrong.
    let away = |error: String| {
        Status::new(
            503,
            "ServiceUnavailable",
            format!("error dialing backend: node {node}: {error}"),
        )
    };
    let mut onward = Request::new(Empty::<Bytes>::new());
    *onward.method_mut() = method;
    *onward.uri_mut() = path
        .parse()
        .map_err(|error| Status::bad_request(format!("{path}: {error}")))?;
    *onward.headers_mut() = request.headers().clone();
    for header in ["authorization", "accept-encoding"] {
        onward.headers_mut().remove(header);
    }
    onward.headers_mut().remove(CONTENT_LENGTH);
    onward.headers_mut().remove(TRANSFER_ENCODING);
    let host =
        HeaderValue::from_str(&place.to_string()).map_err(|error| away(error.to_string()))?;
    onward.headers_mut().insert(HOST, host);
    let reply = send(api, &place, onward).await.map_err(away)?;
    if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(switch(request, reply));
    }
    if stream == Subresource::Log && !reply.status().is_success() {
        return Err(refused(name, reply).await);
    }
    Ok(pass_on(reply))
}

/// The most that is read of why a node refuses.
const REFUSAL: usize = 16 * 1024;

/// Why a node does not give a log, as a Status. To those who asked for an upgrade its text is passed on as it is: they
/// know both.
async fn refused(pod: &str, reply: Response<Incoming>) -> Status {
    let code = reply.status().as_u16();
    let text = match Limited::new(reply.into_body(), REFUSAL).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => format!("the node's answer broke off: {error}"),
    };
    match code {
        400 => Status::bad_request(text),
        404 => Status::new(404, "NotFound", text),
        500 => Status::new(
            500,
            "InternalError",
            format!("Internal error occurred: {text}"),
        ),
        code => Status::new(
            code,
            "Unknown",
            format!("the node refuses the log of pod {pod}: {text}"),
        ),
    }
}

/// An answer of the node, as it comes.
fn pass_on(reply: Response<Incoming>) -> Reply {
    let (mut parts, body) = reply.into_parts();
    parts.headers.remove(CONNECTION);
    parts.headers.remove(TRANSFER_ENCODING);
    let body = body.map_err(|error| tracing::debug!("the answer of a node broke off: {error}"));
    // What has been sent of it is all there is: the stream just ends.
    let body =
        http_body_util::StreamBody::new(futures_util::stream::unfold(Some(body), async |body| {
            let mut body = body?;
            match body.frame().await {
                Some(Ok(frame)) => Some((Ok(frame), Some(body))),
                Some(Err(())) | None => None,
            }
        }));
    Response::from_parts(parts, body.boxed_unsync())
}

/// Both sides have agreed to speak something else: copies it.
fn switch(request: &mut Request<Incoming>, reply: Response<Incoming>) -> Reply {
    let client = hyper::upgrade::on(request);
    let mut answer = answer::reply(101, "", "");
    *answer.headers_mut() = reply.headers().clone();
    let node = hyper::upgrade::on(reply);
    // Ends when either side does.
    tokio::spawn(async move {
        let (client, node) = match tokio::try_join!(client, node) {
            Ok(both) => both,
            Err(error) => return tracing::debug!("upgrade a stream to a node: {error}"),
        };
        let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut node).await {
            tracing::debug!("a stream to a node broke off: {error}");
        }
    });
    answer
}

/// The container that is meant.
fn container(pod: &Value, stream: Subresource, asked: &str) -> Result<String, Status> {
    let name = object::name(pod);
    let names = |list: &str| -> Vec<String> {
        object::list(pod, &["spec", list])
            .iter()
            .map(|container| object::text(container, &["name"]).to_owned())
            .collect()
    };
    let own = names("containers");
    if asked.is_empty() {
        let default = object::at(
            pod,
            &[
                "metadata",
                "annotations",
                "kubectl.kubernetes.io/default-container",
            ],
        );
        let default = default
            .and_then(Value::as_str)
            .filter(|name| own.iter().any(|own| own == name));
        return match (default, own.as_slice()) {
            (_, [one]) => Ok(one.clone()),
            (Some(one), _) if stream != Subresource::Log => Ok(one.to_owned()),
            _ => Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                own.join(" ")
            ))),
        };
    }
    let all = [own, names("initContainers"), names("ephemeralContainers")].concat();
    if all.iter().any(|known| known == asked) {
        return Ok(asked.to_owned());
    }
    Err(Status::bad_request(format!(
        "container {asked} is not valid for pod {name}"
    )))
}

fn log_options(pod: &str, query: &Query) -> Result<(), Status> {
    let mut causes = Vec::new();
    for (field, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        if let Some(number) = query.number(field)?
            && number < least
        {
            let detail = match least {
                0 => "must be greater than or equal to 0".to_owned(),
                _ => "must be greater than 0".to_owned(),
            };
            causes.push(Cause::invalid(field, &json!(number), &detail));
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("", "PodLogOptions", pod, &causes))
}

/// Where a node's agent listens.
struct Place {
    host: String,
    port: u16,
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

async fn place(api: &Api, node: &str) -> Result<Place, Status> {
    let nodes = kinds::find("", "v1", "nodes").ok_or_else(Status::unknown_resource)?;
    let entry = api
        .store
        .get(&nodes.key(None, node))
        .await?
        .ok_or_else(|| Status::not_found(nodes, node))?;
    let value = object::decode(&entry.value, entry.revision)
        .map_err(|error| answer::unreadable(&entry.key, &error))?;
    let addresses = object::list(&value, &["status", "addresses"]);
    let of = |kind: &str| {
        let found = addresses
            .iter()
            .find(|address| object::text(address, &["type"]) == kind)?;
        // A name would have to be looked up, for as long as somebody else's DNS likes.
        object::text(found, &["address"]).parse::<IpAddr>().ok()
    };
    let host = of("InternalIP").or_else(|| of("ExternalIP"));
    let host = host.map(|ip| ip.to_string()).ok_or_else(|| {
        Status::new(
            503,
            "ServiceUnavailable",
            format!(
                "no preferred addresses found for node {node:?}; it has not reported its status"
            ),
        )
    })?;
    let port = object::number(
        &value,
        &["status", "daemonEndpoints", "kubeletEndpoint", "Port"],
    )
    .unwrap_or(PORT);
    let port = u16::try_from(port).map_err(|_| {
        Status::new(
            503,
            "ServiceUnavailable",
            format!("node {node:?} says that its agent listens on port {port}"),
        )
    })?;
    Ok(Place { host, port })
}

async fn send(
    api: &Api,
    place: &Place,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, String> {
    let connect = async {
        let tcp = TcpStream::connect((place.host.as_str(), place.port)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(place.host.clone()).map_err(std::io::Error::other)?;
        TlsConnector::from(Arc::clone(&api.node_tls))
            .connect(name, tcp)
            .await
    };
    let tls = tokio::time::timeout(CONNECT_TIME, connect)
        .await
        .map_err(|_| format!("connect to {place}: timed out"))?
        .map_err(|error| format!("connect to {place}: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
        .await
        .map_err(|error| format!("speak HTTP to {place}: {error}"))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!("a connection to a node broke off: {error}");
        }
    });
    tokio::time::timeout(ANSWER_TIME, sender.send_request(request))
        .await
        .map_err(|_| format!("ask {place}: no answer"))?
        .map_err(|error| format!("ask {place}: {error}"))
}
