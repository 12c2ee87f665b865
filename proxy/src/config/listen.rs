//! Where `/healthz` and `/metrics` are served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a listener shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
    /// On this port of the node's primary address, or of 127.0.0.1 as long as that is not known.
    Node(u16),
}

impl Listen {
    /// The address to bind, if any.
    pub fn resolve(self, node: Option<IpAddr>) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
            Self::Node(port) => {
                let ip = node.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                Some(SocketAddr::new(ip, port))
            }
        }
    }
}

/// An address as written, perhaps without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Off,
    At(IpAddr, Option<u16>),
}

impl Written {
    /// With a port for where none is written.
    pub(super) fn with_port(self, port: u16) -> Listen {
        match self {
            Self::Off => Listen::Off,
            Self::At(ip, written) => Listen::At(SocketAddr::new(ip, written.unwrap_or(port))),
        }
    }
}

/// The loopback address of the family of `bind_address`, which kube-proxy's defaults follow.
pub(super) fn loopback(bind_address: Option<IpAddr>) -> IpAddr {
    match bind_address {
        Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

pub(super) fn listen(text: &str) -> Result<Written, String> {
    if text.is_empty() {
        return Ok(Written::Off);
    }
    match address_and_port(text) {
        Some((_, Some(0))) => Err("a port is 1 to 65535".to_owned()),
        Some((ip, port)) => Ok(Written::At(ip, port)),
        None => Err(
            "write IP:PORT (127.0.0.1:10249, [::1]:10249), an IP alone, or nothing to turn it off"
                .to_owned(),
        ),
    }
}

/// An IP address, with a port if one is written; IPv6 stands in brackets if it has a port.
pub(super) fn address_and_port(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip(), Some(address.port())));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse().ok().map(|ip| (ip, None))
}
