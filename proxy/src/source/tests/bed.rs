//! A scripted server, a source that watches it, and what the source says.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use source::Kube;
use source::scripted::Server;

use crate::model::{Event, Kind};
use crate::source::Proxied;

/// A server, a source that watches it, and what the source has said so far.
pub(super) struct Bed {
    pub(super) server: Server,
    pub(super) events: mpsc::Receiver<Vec<Event>>,
    /// Services by name, with their first address.
    pub(super) services: BTreeMap<String, String>,
    /// Slices by name, with the number of their endpoints.
    pub(super) slices: BTreeMap<String, usize>,
    pub(super) node: Option<String>,
    pub(super) cidrs: Vec<String>,
    /// Lists that have begun and lists that are whole, of all kinds.
    pub(super) lists: BTreeMap<Kind, (usize, usize)>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bed {
    /// The test lays answers ready first. Kinds it does not mention are empty and quiet.
    pub(super) async fn start(prepare: impl FnOnce(&Server)) -> Self {
        let server = Server::start().await;
        prepare(&server);
        for plural in ["services", "endpointslices", "nodes", "servicecidrs"] {
            server.list(plural, 100, &[]);
            drop(server.watch(plural));
        }
        let url = format!("http://{}", server.address);
        let consumer = Proxied { node: "n1".into() };
        let kube = Kube::new(None, Some(&url), consumer).await.unwrap();
        let (sender, events) = mpsc::channel(4);
        Self {
            server,
            events,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            node: None,
            cidrs: Vec::new(),
            lists: BTreeMap::new(),
            task: tokio::spawn(kube.run(sender)),
        }
    }

    fn fold(&mut self, event: Event) {
        match event {
            Event::Service(service) => {
                let address = service.cluster_ips[0].to_string();
                self.services.insert(service.name.to_string(), address);
            }
            Event::ServiceGone(name) => {
                self.services.remove(&name.to_string());
            }
            Event::Slice(slice) => {
                self.slices
                    .insert(slice.name.to_string(), slice.endpoints.len());
            }
            Event::SliceGone(name) => {
                self.slices.remove(&name.to_string());
            }
            Event::Node(node) => {
                let zone = node.and_then(|node| node.zone);
                self.node = zone.map(|zone| zone.to_string());
            }
            Event::ServiceCidrs(nets) => {
                self.cidrs = nets.iter().map(ToString::to_string).collect();
            }
            Event::Restarted(kind) => self.lists.entry(kind).or_default().0 += 1,
            Event::Listed(kind) => self.lists.entry(kind).or_default().1 += 1,
        }
    }

    pub(super) async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while !so(self) {
            match tokio::time::timeout_at(end, self.events.recv()).await {
                Ok(Some(batch)) => batch.into_iter().for_each(|event| self.fold(event)),
                Ok(None) => panic!("the source ended before {what}"),
                Err(_) => panic!("not {what}: {:?} {:?}", self.services, self.lists),
            }
        }
    }

    pub(super) async fn until_service(&mut self, name: &str, address: &str) {
        let name = format!("shop/{name}");
        self.until(&format!("{name} has {address}"), |bed| {
            bed.services.get(&name).is_some_and(|now| now == address)
        })
        .await;
    }
}

pub(super) fn slice(name: &str, version: u32, endpoints: usize) -> Value {
    let endpoints: Vec<_> = (1..=endpoints)
        .map(|last| json!({"addresses": [format!("10.1.0.{last}")], "conditions": {"ready": true}}))
        .collect();
    json!({
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": version.to_string(),
            "labels": {"kubernetes.io/service-name": "a"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

pub(super) fn node(version: u32, zone: &str) -> Value {
    json!({"metadata": {"name": "n1", "resourceVersion": version.to_string(),
        "labels": {"topology.kubernetes.io/zone": zone}}})
}
