//! Kubernetes' objects reduced to model values, as kube-proxy reads them: what cannot be used is left
//! out and named in a complaint, and the good rest is used.
//!
//! The selectors that the API server applies for a watch are applied here too: a folder has none.
//! Names are held to Kubernetes' own rules, because they become parts of rule names and comments.
//!
//! Reference: <https://kubernetes.io/docs/reference/networking/virtual-ips/>.

mod address;
mod key;
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

use crate::model::{Event, Kind, ObjectName, Protocol};

pub use address::{parse_ip, parse_net};
pub use key::Key;

/// An object reduced: what it is, or (of a kind that is not proxied) its absence.
pub type Reduced = source::Reduced<Event>;

/// Why an object is of no use at all.
pub type Unusable = source::Unusable<Key>;

/// The kinds that count, with their group and version.
const KINDS: [(&str, &str, Kind); 3] = [
    ("Service", "v1", Kind::Services),
    ("EndpointSlice", "discovery.k8s.io/v1", Kind::Slices),
    ("Node", "v1", Kind::Node),
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
    match kind {
        Kind::Services => reduce_service(&typed::<Service>(kind, value)?),
        Kind::Slices => reduce_slice(&typed::<EndpointSlice>(kind, value)?),
        Kind::Node => Ok(reduce_node(&typed::<Node>(kind, value)?)),
    }
}

/// Decodes; the error names the object as far as it can be named.
fn typed<T: DeserializeOwned>(kind: Kind, value: Value) -> Result<T, Unusable> {
    let object = name_of(&value);
    // Whatever it calls itself is not a name, so it is quoted in case it holds anything odd.
    let shown = format!(
        "{:?}",
        value.pointer("/metadata/name").unwrap_or(&Value::Null)
    );
    serde_json::from_value(value).map_err(|error| Unusable {
        text: match &object {
            Some(object) => format!("{} {object}: {error}", word_of(kind)),
            None => format!("{} {shown}: {error}", word_of(kind)),
        },
        object: object.map(|object| Key::new(kind, object)),
    })
}

fn word_of(kind: Kind) -> &'static str {
    let known = KINDS.iter().find(|(_, _, known)| *known == kind);
    known.map_or("object", |(word, _, _)| word)
}

/// Reduces a Service: one that is proxied, or `ServiceGone`.
pub fn reduce_service(object: &Service) -> Result<Reduced, Unusable> {
    let name = object_name("Service", &object.metadata)?;
    let mut said = Complaints::about("Service", &name);
    let event = match service::reduce(object, &name, &mut said) {
        Some(service) => Event::Service(Arc::new(service)),
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
        Some(slice) => Event::Slice(Arc::new(slice)),
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

/// Namespace and name, each as Kubernetes allows it.
fn object_name(kind: &str, metadata: &ObjectMeta) -> Result<ObjectName, Unusable> {
    let name = metadata.name.as_deref().unwrap_or_default();
    checked_name(metadata.namespace.as_deref(), name).ok_or_else(|| Unusable {
        object: None,
        text: match name {
            "" => format!("a {kind} has no metadata.name"),
            _ => format!(
                "{kind} {name:?} in namespace {:?}: not a name that Kubernetes allows",
                metadata.namespace.as_deref().unwrap_or("default")
            ),
        },
    })
}

/// Namespace and name of an object as it came, if they are names that Kubernetes allows.
pub fn name_of(value: &Value) -> Option<ObjectName> {
    let word = |field: &str| value.pointer(field)?.as_str();
    checked_name(word("/metadata/namespace"), word("/metadata/name")?)
}

/// The namespace is `default` if there is none.
fn checked_name(namespace: Option<&str>, name: &str) -> Option<ObjectName> {
    let namespace = namespace.filter(|text| !text.is_empty());
    let namespace = namespace.unwrap_or("default");
    let allowed = is_name(namespace, 253) && is_name(name, 253);
    allowed.then(|| ObjectName::new(namespace, name))
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
