//! Where objects come from: an API server or a folder of manifests. Both say the same [`Event`]s.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use serde_json::Value;
use source::kube::{Objects, Server, Watched};
use source::{Consumer, Events};

use crate::model::{Event, Kind};
use crate::objects::{self, Key, Reduced, Unusable};

/// A source, ready to run: `Folder`, with the folder's path, or `Kube`.
pub type Source = source::Source<Named>;

/// Objects in a page of a list. Small, because the text of a page is in memory at once, and the most that it takes is
/// what the process keeps: with 5,000 Services and their slices, 500 would be 2 MB more.
const PAGE: u32 = 200;

/// Pods that have ended have no address any more, whatever they say: it may be another's by now.
const LIVE: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// What the DNS wants: all Services and all EndpointSlices, and some Pods.
#[derive(Clone, Debug)]
pub struct Named {
    /// Which Pods.
    pub pods: Pods,
}

/// Which Pods are wanted. A cluster may have a hundred times as many as a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pods {
    /// None: nothing needs them.
    None,
    /// Those of the node, to name clients.
    OfNode(Arc<str>),
    /// All: for names of Pods that are verified.
    All,
}

impl Consumer for Named {
    type Kind = Kind;
    type Key = Key;
    type Event = Event;
    // The zone has its own copies.
    type Interner = ();

    const NAME: &'static str = "a DNS";

    fn kind_of(kind: &str, api_version: Option<&str>) -> Option<Kind> {
        objects::kind_of(kind, api_version)
    }

    fn reduce(kind: Kind, value: Value) -> Result<Reduced, Unusable> {
        objects::parse(kind, value)
    }

    fn key_in(kind: Kind, value: &Value) -> Option<Key> {
        Some(Key(kind, objects::name_of(value)?))
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

    fn node_of(kind: Kind, value: &Value) -> Option<String> {
        let node = value.pointer("/spec/nodeName").and_then(Value::as_str);
        (kind == Kind::Pods).then(|| node.unwrap_or_default().to_owned())
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = vec![Kind::Services, Kind::Slices];
        if self.pods != Pods::None {
            kinds.push(Kind::Pods);
        }
        kinds
    }

    fn wants(&self, kind: Kind, node: Option<&str>) -> bool {
        match &self.pods {
            _ if kind != Kind::Pods => true,
            Pods::None => false,
            Pods::OfNode(own) => node == Some(own),
            Pods::All => true,
        }
    }

    async fn watch(&self, server: &Server, events: &Events<Event>) {
        let config = watcher::Config::default().page_size(PAGE);
        let pods = async {
            let fields = match &self.pods {
                Pods::None => return,
                Pods::OfNode(node) => format!("spec.nodeName={node},{LIVE}"),
                Pods::All => LIVE.to_owned(),
            };
            let config = config.clone().fields(&fields);
            server.watch::<Objects<Self, Pod>>(config, events).await;
        };
        tokio::join!(
            server.watch::<Objects<Self, Service>>(config.clone(), events),
            server.watch::<Objects<Self, EndpointSlice>>(config.clone(), events),
            pods,
        );
    }
}

impl Watched<Named> for Service {
    const KIND: Kind = Kind::Services;
}

impl Watched<Named> for EndpointSlice {
    const KIND: Kind = Kind::Slices;
}

impl Watched<Named> for Pod {
    const KIND: Kind = Kind::Pods;
}
