//! Agrees with a client on what to speak instead of HTTP.

use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::reply::{Reply, empty, refuse};

/// Names the protocols of SPDY streams.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// What an upgraded connection is.
pub type Connection = TokioIo<Upgraded>;

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Messages.
    WebSocket,
    /// SPDY/3.1 frames.
    Spdy,
}

/// What both sides have agreed on.
pub struct Agreed {
    /// What carries the streams.
    pub carrier: Carrier,
    /// Which of the offered protocols; empty if the client named none.
    pub protocol: &'static str,
    /// 101
    pub reply: Reply,
    /// The connection, once the reply has been sent.
    pub upgrade: OnUpgrade,
}

/// Agrees on the first protocol that the client names and we have. A WebSocket client that names none gets `nameless`
/// if there is such.
///
/// # Errors
/// 400 without an upgrade, 403 when there is nothing to agree on.
pub fn agree(
    request: &mut Request<Incoming>,
    websocket: &[&'static str],
    nameless: bool,
    spdy: &[&'static str],
) -> Result<Agreed, Box<Reply>> {
    let headers = request.headers();
    let upgrade = header(headers.get(UPGRADE)).to_ascii_lowercase();
    let carrier = match upgrade.as_str() {
        "websocket" => Carrier::WebSocket,
        "spdy/3.1" => Carrier::Spdy,
        _ => return Err(refuse(StatusCode::BAD_REQUEST, "Upgrade request required")),
    };
    let mut reply = empty(StatusCode::SWITCHING_PROTOCOLS);
    let (name, offered) = match carrier {
        Carrier::WebSocket => (SEC_WEBSOCKET_PROTOCOL, websocket),
        Carrier::Spdy => (STREAM_PROTOCOL, spdy),
    };
    let asked: Vec<&str> = headers
        .get_all(&name)
        .iter()
        .flat_map(|value| header(Some(value)).split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
        .collect();
    let common = asked
        .iter()
        .find_map(|asked| offered.iter().find(|offered| *offered == asked));
    let protocol = match common {
        Some(protocol) => *protocol,
        None if asked.is_empty() && nameless && carrier == Carrier::WebSocket => "",
        None => {
            return Err(refuse(
                StatusCode::FORBIDDEN,
                format!(
                    "unable to upgrade: unable to negotiate protocol: client supports {asked:?}, server accepts \
                     {offered:?}"
                ),
            ));
        }
    };
    if carrier == Carrier::WebSocket {
        let key = headers.get(SEC_WEBSOCKET_KEY);
        let version = header(headers.get(SEC_WEBSOCKET_VERSION));
        let (Some(key), "13") = (key, version) else {
            return Err(refuse(
                StatusCode::BAD_REQUEST,
                "a WebSocket needs Sec-WebSocket-Key and Sec-WebSocket-Version: 13",
            ));
        };
        let accept = derive_accept_key(key.as_bytes());
        let accept = HeaderValue::from_str(&accept)
            .map_err(|error| refuse(StatusCode::BAD_REQUEST, error.to_string()))?;
        reply.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(
        UPGRADE,
        HeaderValue::from_static(match carrier {
            Carrier::WebSocket => "websocket",
            Carrier::Spdy => "SPDY/3.1",
        }),
    );
    if !protocol.is_empty() {
        headers.insert(name, HeaderValue::from_static(protocol));
    }
    Ok(Agreed {
        carrier,
        protocol,
        reply,
        upgrade: hyper::upgrade::on(request),
    })
}

fn header(value: Option<&HeaderValue>) -> &str {
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
