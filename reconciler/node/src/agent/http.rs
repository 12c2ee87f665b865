//! One HTTP request to a container, for probes and hooks.

mod tls;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Of an answer, what is shown.
const BODY: usize = 10 << 10;

/// Nothing to connect to.
pub const NO_ADDRESS: &str = "the pod has no address";

/// What a container answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// The beginning of its body.
    pub body: String,
}

/// The number of a port that is given by number or by the name it has in the container.
///
/// # Errors
/// No such name, or the number is out of range.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok())
            .ok_or_else(|| format!("couldn't find port: {name:?}"))?,
    };
    u16::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

/// Asks a container. Certificates are not checked, as kubelets do not.
///
/// # Errors
/// It could not be reached, or did not answer in time; said as kubelets do.
pub async fn get(
    action: &HTTPGetAction,
    container: &Container,
    pod: Option<IpAddr>,
    limit: Duration,
) -> Result<Answer, String> {
    let port = port(&action.port, container)?;
    let host = action.host.clone().filter(|host| !host.is_empty());
    let authority = match (&host, pod) {
        (Some(host), _) => format!("{host}:{port}"),
        (None, Some(ip)) => SocketAddr::new(ip, port).to_string(),
        (None, None) => return Err(NO_ADDRESS.to_owned()),
    };
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let secure = action.scheme.as_deref() == Some("HTTPS");
    let url = format!(
        "{}://{authority}{path}",
        if secure { "https" } else { "http" }
    );
    let mut request = Request::get(&path)
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("Get {url:?}: {error}"))?;
    let headers = request.headers_mut();
    let set = HeaderValue::from_str(&authority).map_err(|error| format!("Get {url:?}: {error}"))?;
    headers.insert(HOST, set);
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-probe/1.36"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    for header in action.http_headers.iter().flatten() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_str(&header.value);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
    let exchange = async {
        let stream = TcpStream::connect(&authority)
            .await
            .map_err(|error| format!("dial tcp {authority}: connect: {}", plain(&error)))?;
        if secure {
            let peer = stream.peer_addr().map_err(|error| error.to_string())?.ip();
            let stream = tls::connect(stream, host.as_deref(), peer).await?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        }
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("Get {url:?}: {error}")),
        Err(_) => Err(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

/// `connection refused`, without the number that follows.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_lowercase().chain(letters).collect())
        .unwrap_or_default()
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let talk = async move {
        let response = sender.send_request(request).await.map_err(|error| {
            if error.is_incomplete_message() {
                "EOF".to_owned()
            } else {
                error.to_string()
            }
        })?;
        let code = response.status().as_u16();
        let mut body = response.into_body();
        let mut text = Vec::new();
        while text.len() < BODY {
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        text.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => break,
            }
        }
        text.truncate(BODY);
        Ok(Answer {
            code,
            body: String::from_utf8_lossy(&text).into_owned(),
        })
    };
    // Both on this task: leaving it drops the connection.
    let mut connection = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        // Its own error is also told to the request.
        _ = &mut connection => talk.await,
    }
}
