//! Where objects come from: an API server or a folder of manifests. Both say the same [`Event`]s.

mod cidrs;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use serde_json::Value;
use source::kube::{Objects, Server, Watched};
use source::{Consumer, Events};

use crate::intern::Interner;
use crate::model::{Event, Kind};
use crate::objects::{self, Key, Reduced, Unusable};
use cidrs::Cidrs;

/// A source, ready to run.
pub type Source = source::Source<Proxied>;

/// Objects in a page of a list.
const PAGE: u32 = 500;

/// What the proxy wants: Services and EndpointSlices, the own Node and, where the server has them, ServiceCIDRs.
#[derive(Clone, Debug)]
pub struct Proxied {
    /// The own node's name: of other Nodes nothing is said.
    pub node: Arc<str>,
}

impl Consumer for Proxied {
    type Kind = Kind;
    type Key = Key;
    type Event = Event;
    type Interner = Interner;

    const NAME: &'static str = "a proxy";

    fn kind_of(kind: &str, api_version: Option<&str>) -> Option<Kind> {
        objects::kind_of(kind, api_version)
    }

    fn reduce(kind: Kind, value: Value) -> Result<Reduced, Unusable> {
        objects::parse(kind, value)
    }

    fn key_in(kind: Kind, value: &Value) -> Option<Key> {
        Some(Key::new(kind, objects::name_of(value)?))
    }

    fn key_of(event: &Event) -> Option<Key> {
        Key::of(event)
    }

    fn gone(key: Key) -> Event {
        key.gone()
    }

    fn restarted(kind: Kind) -> Event {
        Event::Restarted(kind)
    }

    fn listed(kind: Kind) -> Event {
        Event::Listed(kind)
    }

    fn intern(interner: &mut Interner, event: &mut Event) {
        interner.event(event);
    }

    fn node_of(kind: Kind, value: &Value) -> Option<String> {
        let name = value.pointer("/metadata/name").and_then(Value::as_str);
        (kind == Kind::Node).then(|| name.unwrap_or_default().to_owned())
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::Services, Kind::Slices, Kind::Node]
    }

    fn wants(&self, _: Kind, node: Option<&str>) -> bool {
        node.is_none_or(|name| *name == *self.node)
    }

    async fn watch(&self, server: &Server, events: &Events<Event>) {
        let config = watcher::Config::default().page_size(PAGE);
        let services = config
            .clone()
            .fields("spec.clusterIP!=None")
            .labels("!service.kubernetes.io/service-proxy-name");
        let slices = config.clone().labels("!service.kubernetes.io/headless");
        let node = config
            .clone()
            .fields(&format!("metadata.name={}", self.node));
        tokio::join!(
            server.watch::<Objects<Self, Service>>(services, events),
            server.watch::<Objects<Self, EndpointSlice>>(slices, events),
            server.watch::<Objects<Self, Node>>(node, events),
            server.watch::<Cidrs>(config, events),
        );
    }
}

impl Watched<Proxied> for Service {
    const KIND: Kind = Kind::Services;
}

impl Watched<Proxied> for EndpointSlice {
    const KIND: Kind = Kind::Slices;
}

impl Watched<Proxied> for Node {
    const KIND: Kind = Kind::Node;
}
