//! Kubernetes' objects reduced to model values: what cannot be used is left out and named in a complaint, and the good
//! rest is used.
//!
//! Only the fields that the DNS needs are decoded; all others may be anything. Names are held to Kubernetes' rules,
//! because they become labels of DNS names.

mod key;
mod pod;
mod service;
mod slice;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::{Event, Kind, ObjectName, Port, Protocol};

pub use key::Key;

/// An object reduced: what it is, or (of one without names) its absence.
pub type Reduced = source::Reduced<Event>;

/// Why an object is of no use at all.
pub type Unusable = source::Unusable<Key>;

/// The kinds that count, with their group and version.
const KINDS: [(&str, &str, Kind); 3] = [
    ("Service", "v1", Kind::Services),
    ("EndpointSlice", "discovery.k8s.io/v1", Kind::Slices),
    ("Pod", "v1", Kind::Pods),
];

/// Which kind counts under this name; without an `api_version` (as in typed lists) by name alone.
pub fn kind_of(kind: &str, api_version: Option<&str>) -> Option<Kind> {
    let known = KINDS.iter().find(|(name, version, _)| {
        *name == kind && api_version.is_none_or(|stated| stated == *version)
    });
    known.map(|&(_, _, kind)| kind)
}

/// Reads an object.
pub fn parse(kind: Kind, value: Value) -> Result<Reduced, Unusable> {
    let word = word_of(kind);
    let Some(name) = name_of(&value) else {
        let shown = |field| value.pointer(field).unwrap_or(&Value::Null);
        return Err(Unusable {
            object: None,
            text: format!(
                "{word} {} in namespace {}: not a name that Kubernetes allows",
                shown("/metadata/name"),
                shown("/metadata/namespace")
            ),
        });
    };
    let mut said = Complaints {
        object: format!("{word} {name}"),
        lines: Vec::new(),
    };
    let event = match kind {
        Kind::Services => decoded(value).map(|object| service::reduce(object, &name, &mut said)),
        Kind::Slices => decoded(value).map(|object| slice::reduce(object, &name, &mut said)),
        Kind::Pods => decoded(value).map(|object| pod::reduce(object, &name, &mut said)),
    };
    match event {
        Ok(event) => Ok(Reduced {
            event,
            complaints: said.lines,
        }),
        Err(error) => Err(Unusable {
            text: format!("{word} {name}: {error}"),
            object: Some(Key(kind, name)),
        }),
    }
}

fn decoded<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

fn word_of(kind: Kind) -> &'static str {
    let known = KINDS.iter().find(|(_, _, known)| *known == kind);
    known.map_or("object", |(word, _, _)| word)
}

/// Namespace (`default` if there is none) and name of an object as it came, if they are names that Kubernetes allows.
pub fn name_of(value: &Value) -> Option<ObjectName> {
    let word = |field: &str| value.pointer(field)?.as_str();
    let namespace = word("/metadata/namespace").filter(|text| !text.is_empty());
    let (namespace, name) = (namespace.unwrap_or("default"), word("/metadata/name")?);
    let allowed = is_label(namespace) && is_name(name);
    allowed.then(|| ObjectName {
        namespace: namespace.into(),
        name: name.into(),
    })
}

/// A DNS subdomain of RFC 1123: lower case letters, digits, `-`, `.`; ends are letters or digits.
fn is_name(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= 253
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes
            .iter()
            .all(|byte| plain(byte) || matches!(byte, b'-' | b'.'))
}

/// A DNS label of RFC 1123.
fn is_label(text: &str) -> bool {
    text.len() <= 63 && !text.contains('.') && is_name(text)
}

/// What an address says if it can be that of one host: not unspecified, not multicast, not broadcast. An IPv4-mapped
/// IPv6 address is the IPv4 address, as it is for Go.
fn address(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is not an IP address"))?;
    let ip = ip.to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    match ip.is_unspecified() || ip.is_multicast() || broadcast {
        true => Err(format!("{ip} is not the address of one host")),
        false => Ok(ip),
    }
}

/// In order, each once. An empty text is one that is not there.
fn addresses<'a>(
    texts: impl IntoIterator<Item = &'a String>,
    field: &str,
    said: &mut Complaints,
) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for text in texts.into_iter().filter(|text| !text.trim().is_empty()) {
        match address(text) {
            Ok(ip) if ips.contains(&ip) => {}
            Ok(ip) => ips.push(ip),
            Err(cause) => said.say(format_args!("{field}: {cause}")),
        }
    }
    ips
}

#[derive(Deserialize)]
struct Metadata {
    labels: Option<BTreeMap<String, Option<String>>>,
    annotations: Option<BTreeMap<String, Option<String>>>,
}

/// A port of a Service or of an EndpointSlice.
#[derive(Deserialize)]
struct WirePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<i64>,
}

/// The ports that can be used, each once. One without a number (in a slice: all ports) has no record.
fn ports(wire: Option<Vec<WirePort>>, field: &str, said: &mut Complaints) -> Box<[Port]> {
    let mut ports = Vec::new();
    for port in wire.into_iter().flatten() {
        let name = port.name.unwrap_or_default();
        let Some(number) = port.port.filter(|&number| number != 0) else {
            continue;
        };
        let protocol = match port.protocol.as_deref() {
            None | Some("" | "TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(word) => {
                said.say(format_args!("{field} {name:?}: unknown protocol {word:?}"));
                continue;
            }
        };
        let Ok(number) = u16::try_from(number) else {
            said.say(format_args!("{field} {name:?}: {number} is no port number"));
            continue;
        };
        if !name.is_empty() && !is_label(&name) {
            said.say(format_args!(
                "{field}: the name {name:?} is not a DNS label"
            ));
            continue;
        }
        let port = Port {
            name: Arc::from(name),
            protocol,
            number,
        };
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports.into()
}

/// Collects what is wrong with one object. Past a limit it only says that there is more: an object may hold thousands
/// of bad lines.
struct Complaints {
    object: String,
    lines: Vec<String>,
}

impl Complaints {
    const MOST: usize = 10;

    fn say(&mut self, what: impl std::fmt::Display) {
        match self.lines.len() {
            len if len < Self::MOST => self.lines.push(format!("{}: {what}", self.object)),
            Self::MOST => self.lines.push(format!("{}: and more", self.object)),
            _ => {}
        }
    }
}
