//! A consumer for the tests of this crate: it keeps a word or two of Services, EndpointSlices and its own Node.

use std::fmt;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use serde_json::Value;

use crate::kube::{Objects, Server, Watched};
use crate::{Consumer, Events, Outcome, Reduced, Unusable};

/// Wants all Services and slices, and the Node `n1`.
#[derive(Clone, Debug)]
pub(crate) struct Sample;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Service,
    EndpointSlice,
    Node,
}

/// A kind, and `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) Kind, pub(crate) String);

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} {}", self.0, self.1)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// Its cluster IP (of a Service), its addresses, or its zone (of a Node); and the names of its ports.
    There(Key, Vec<String>, Vec<String>),
    Gone(Key),
    Restarted(Kind),
    Listed(Kind),
}

const KINDS: [(&str, &str, Kind); 3] = [
    ("Service", "v1", Kind::Service),
    ("EndpointSlice", "discovery.k8s.io/v1", Kind::EndpointSlice),
    ("Node", "v1", Kind::Node),
];

fn text(value: &Value, path: &str) -> Option<String> {
    value.pointer(path)?.as_str().map(str::to_owned)
}

fn unusable(object: Option<Key>, cause: &str) -> Unusable<Key> {
    let text = match &object {
        Some(key) => format!("{key}: {cause}"),
        None => cause.to_owned(),
    };
    Unusable { object, text }
}

impl Consumer for Sample {
    type Kind = Kind;
    type Key = Key;
    type Event = Event;
    type Interner = ();

    const NAME: &'static str = "a test";

    fn kind_of(kind: &str, api_version: Option<&str>) -> Option<Kind> {
        let known = KINDS.iter().find(|(name, version, _)| {
            *name == kind && api_version.is_none_or(|stated| stated == *version)
        });
        known.map(|&(_, _, kind)| kind)
    }

    fn reduce(kind: Kind, value: Value) -> Outcome<Self> {
        let Some(key) = Self::key_in(kind, &value) else {
            return Err(unusable(None, "no name"));
        };
        let lists = ["/spec/ports", "/ports"].map(|path| value.pointer(path));
        let mut ports = Vec::new();
        for port in lists
            .into_iter()
            .flatten()
            .filter_map(Value::as_array)
            .flatten()
        {
            if !port.get("port").is_some_and(Value::is_u64) {
                return Err(unusable(Some(key), "a port that is no number"));
            }
            ports.extend(text(port, "/name"));
        }
        let words = match kind {
            Kind::Service => text(&value, "/spec/clusterIP").into_iter().collect(),
            Kind::EndpointSlice => {
                let endpoints = value.get("endpoints").and_then(Value::as_array);
                let endpoints = endpoints.into_iter().flatten();
                endpoints
                    .filter_map(|endpoint| text(endpoint, "/addresses/0"))
                    .collect()
            }
            Kind::Node => {
                let zone = text(&value, "/metadata/labels/topology.kubernetes.io~1zone");
                zone.into_iter().collect()
            }
        };
        Ok(Reduced {
            event: Event::There(key, words, ports),
            complaints: Vec::new(),
        })
    }

    fn key_in(kind: Kind, value: &Value) -> Option<Key> {
        let name = text(value, "/metadata/name").filter(|name| !name.starts_with('-'))?;
        let namespace = text(value, "/metadata/namespace");
        let namespace = namespace.as_deref().unwrap_or("default");
        Some(Key(kind, format!("{namespace}/{name}")))
    }

    fn key_of(event: &Event) -> Option<Key> {
        match event {
            Event::There(key, ..) | Event::Gone(key) => Some(key.clone()),
            Event::Restarted(_) | Event::Listed(_) => None,
        }
    }

    fn gone(key: Key) -> Event {
        Event::Gone(key)
    }

    fn restarted(kind: Kind) -> Event {
        Event::Restarted(kind)
    }

    fn listed(kind: Kind) -> Event {
        Event::Listed(kind)
    }

    fn node_of(kind: Kind, value: &Value) -> Option<String> {
        (kind == Kind::Node).then(|| text(value, "/metadata/name"))?
    }

    fn kinds(&self) -> Vec<Kind> {
        KINDS.map(|(_, _, kind)| kind).to_vec()
    }

    fn wants(&self, kind: Kind, node: Option<&str>) -> bool {
        kind != Kind::Node || node == Some("n1")
    }

    async fn watch(&self, server: &Server, events: &Events<Event>) {
        let config = watcher::Config::default().page_size(500);
        tokio::join!(
            server.watch::<Objects<Self, Service>>(config.clone(), events),
            server.watch::<Objects<Self, EndpointSlice>>(config.clone(), events),
            server.watch::<Objects<Self, Node>>(config, events),
        );
    }
}

impl Watched<Sample> for Service {
    const KIND: Kind = Kind::Service;
}

impl Watched<Sample> for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;
}

impl Watched<Sample> for Node {
    const KIND: Kind = Kind::Node;
}
