//! Kubernetes' objects reduced to model values, as kube-proxy reads them: what cannot be used is left
//! out and named in a complaint, and the good rest is used.
//!
//! The selectors that the API server applies for a watch are applied here too: a folder has none.
//! Names are held to Kubernetes' own rules, because they become parts of rule names and comments.
//!
//! Reference: <https://kubernetes.io/docs/reference/networking/virtual-ips/>.

mod address;
mod node;
mod service;
mod slice;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::{Event, ObjectName, Protocol};

pub use address::{parse_ip, parse_net};

/// An object reduced.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduced {
    /// What it is: an object, or (of a kind that is not proxied) its absence.
    pub event: Event,
    /// What was left out, by object and field; for the log.
    pub complaints: Vec<String>,
}

/// Why an object is of no use at all: one sentence with kind, name and cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

/// Reads an object of `kind` (`Service`, `EndpointSlice`, `Node`); `None` for all other kinds.
pub fn parse(kind: &str, value: Value) -> Option<Result<Reduced, Unusable>> {
    match kind {
        "Service" => Some(typed::<Service>(kind, value).and_then(|object| reduce_service(&object))),
        "EndpointSlice" => {
            Some(typed::<EndpointSlice>(kind, value).and_then(|object| reduce_slice(&object)))
        }
        "Node" => Some(typed::<Node>(kind, value).map(|object| reduce_node(&object))),
        _ => None,
    }
}

/// Decodes; the error names the object as far as it can be named.
fn typed<T: DeserializeOwned>(kind: &str, value: Value) -> Result<T, Unusable> {
    let word = |field: &str| {
        let text = value.pointer(field).and_then(Value::as_str);
        text.unwrap_or("?").to_owned()
    };
    let name = format!("{}/{}", word("/metadata/namespace"), word("/metadata/name"));
    serde_json::from_value(value).map_err(|error| Unusable(format!("{kind} {name}: {error}")))
}

/// Reduces a Service: one that is proxied, or `ServiceGone`.
pub fn reduce_service(object: &Service) -> Result<Reduced, Unusable> {
    let name = object_name("Service", &object.metadata)?;
    let mut said = Complaints::about("Service", &name);
    let event = match service::reduce(object, &name, &mut said) {
        Some(service) => Event::Service(service),
        None => Event::ServiceGone(name),
    };
    Ok(Reduced {
        event,
        complaints: said.lines,
    })
}

/// Reduces an EndpointSlice: one that counts, or `SliceGone`.
pub fn reduce_slice(object: &EndpointSlice) -> Result<Reduced, Unusable> {
    let name = object_name("EndpointSlice", &object.metadata)?;
    let mut said = Complaints::about("EndpointSlice", &name);
    let event = match slice::reduce(object, &name, &mut said) {
        Some(slice) => Event::Slice(slice),
        None => Event::SliceGone(name),
    };
    Ok(Reduced {
        event,
        complaints: said.lines,
    })
}

/// Reduces a Node; whether it is the own one is for the caller to know.
pub fn reduce_node(object: &Node) -> Reduced {
    let name = object.metadata.name.as_deref().unwrap_or("?");
    let mut said = Complaints {
        object: format!("Node {name}"),
        lines: Vec::new(),
    };
    Reduced {
        event: Event::Node(Some(node::reduce(object, &mut said))),
        complaints: said.lines,
    }
}

/// Namespace (`default` if there is none) and name, each as Kubernetes allows it.
pub fn object_name(kind: &str, metadata: &ObjectMeta) -> Result<ObjectName, Unusable> {
    let Some(name) = metadata.name.as_deref() else {
        return Err(Unusable(format!("a {kind} has no metadata.name")));
    };
    let namespace = match metadata.namespace.as_deref() {
        None | Some("") => "default",
        Some(namespace) => namespace,
    };
    for part in [namespace, name] {
        if !is_name(part, 253) {
            return Err(Unusable(format!(
                "{kind} with the name {part:?}: not a name that Kubernetes allows"
            )));
        }
    }
    Ok(ObjectName::new(namespace, name))
}

/// A DNS subdomain of RFC 1123: lower case letters, digits, `-`, `.`; ends are letters or digits.
fn is_name(text: &str, longest: usize) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= longest
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes
            .iter()
            .all(|byte| plain(byte) || matches!(byte, b'-' | b'.'))
}

/// A port's name: empty, or a DNS label.
fn port_name(text: Option<&str>) -> Option<Arc<str>> {
    let text = text.unwrap_or("");
    (text.is_empty() || (is_name(text, 63) && !text.contains('.'))).then(|| text.into())
}

fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// 1 … 65535.
fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|&port| port != 0)
}

/// Collects what is wrong with one object. Past a limit it only says that there is more: an object
/// may hold thousands of bad lines.
struct Complaints {
    object: String,
    lines: Vec<String>,
}

impl Complaints {
    const MOST: usize = 10;

    fn about(kind: &str, name: &ObjectName) -> Self {
        Self {
            object: format!("{kind} {name}"),
            lines: Vec::new(),
        }
    }

    fn say(&mut self, what: impl std::fmt::Display) {
        match self.lines.len() {
            len if len < Self::MOST => self.lines.push(format!("{}: {what}", self.object)),
            Self::MOST => self.lines.push(format!("{}: and more", self.object)),
            _ => {}
        }
    }
}

/// The label of objects, if it is there (its value, even empty, does not matter).
fn has_label(metadata: &ObjectMeta, label: &str) -> bool {
    let labels = metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(label))
}
