//! A scripted server, a source that watches it, and what the source says.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::Kube;
use crate::sample::{Event, Key, Kind, Sample};
use crate::scripted::Server;

/// A server, a source that watches it, and what the source has said so far.
pub(super) struct Bed {
    pub(super) server: Server,
    pub(super) events: mpsc::Receiver<Vec<Event>>,
    /// Services by name, with their first address.
    pub(super) services: BTreeMap<String, String>,
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
        for plural in ["services", "endpointslices", "nodes"] {
            server.list(plural, 100, &[]);
            drop(server.watch(plural));
        }
        let url = format!("http://{}", server.address);
        let kube = Kube::new(None, Some(&url), Sample).await.unwrap();
        let (sender, events) = mpsc::channel(4);
        Self {
            server,
            events,
            services: BTreeMap::new(),
            lists: BTreeMap::new(),
            task: tokio::spawn(kube.run(sender)),
        }
    }

    fn fold(&mut self, event: Event) {
        match event {
            Event::There(Key(Kind::Service, name), words, _) => {
                self.services.insert(name, words.concat());
            }
            Event::Gone(Key(Kind::Service, name)) => {
                self.services.remove(&name);
            }
            Event::Restarted(kind) => self.lists.entry(kind).or_default().0 += 1,
            Event::Listed(kind) => self.lists.entry(kind).or_default().1 += 1,
            Event::There(..) | Event::Gone(_) => {}
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

    pub(super) fn lists_of(&self, kind: Kind) -> (usize, usize) {
        self.lists.get(&kind).copied().unwrap_or_default()
    }

    pub(super) async fn until_service(&mut self, name: &str, address: &str) {
        let name = format!("shop/{name}");
        self.until(&format!("{name} has {address}"), |bed| {
            bed.services.get(&name).is_some_and(|now| now == address)
        })
        .await;
    }
}
