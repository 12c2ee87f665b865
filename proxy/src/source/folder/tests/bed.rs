//! A folder, a source that reads it, and what the source says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::model::{Event, Slice};
use crate::source::folder::Folder;

/// A source that runs, and what it has said so far: Services with their first address.
pub(super) struct Bed {
    pub(super) folder: tempfile::TempDir,
    events: mpsc::Receiver<Vec<Event>>,
    pub(super) services: BTreeMap<String, String>,
    pub(super) slices: BTreeMap<String, Arc<Slice>>,
    pub(super) node: Option<String>,
    pub(super) listed: bool,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bed {
    pub(super) fn start(prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let path = folder.path().join("manifests");
        let (sender, events) = mpsc::channel(4);
        let source = Folder {
            path,
            node: "n1".into(),
        };
        Self {
            folder,
            events,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            node: None,
            listed: false,
            task: tokio::spawn(source.run(sender)),
        }
    }

    pub(super) fn with_folder(prepare: impl FnOnce(&Path)) -> Self {
        Self::start(|root| {
            let path = root.join("manifests");
            fs::create_dir(&path).unwrap();
            prepare(&path);
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("manifests").join(name)
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
                self.slices.insert(slice.name.to_string(), slice);
            }
            Event::SliceGone(name) => {
                self.slices.remove(&name.to_string());
            }
            Event::Node(node) => {
                let zone = node.and_then(|node| node.zone);
                self.node = zone.map(|zone| zone.to_string());
            }
            Event::Listed(_) => self.listed = true,
            Event::Restarted(_) | Event::ServiceCidrs(_) => {}
        }
    }

    /// Waits until what was said is so.
    pub(super) async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        while !so(self) {
            match tokio::time::timeout_at(end, self.events.recv()).await {
                Ok(Some(batch)) => batch.into_iter().for_each(|event| self.fold(event)),
                Ok(None) => panic!("the source ended before {what}"),
                Err(_) => panic!("not {what}: {:?} {:?}", self.services, self.slices),
            }
        }
    }

    /// Whatever is said for a while.
    pub(super) async fn for_a_while(&mut self) {
        let end = tokio::time::Instant::now() + Duration::from_millis(400);
        while let Ok(Some(batch)) = tokio::time::timeout_at(end, self.events.recv()).await {
            batch.into_iter().for_each(|event| self.fold(event));
        }
    }

    pub(super) async fn until_address(&mut self, name: &str, address: &str) {
        let name = format!("shop/{name}");
        self.until(&format!("{name} has {address}"), |bed| {
            bed.services.get(&name).is_some_and(|now| now == address)
        })
        .await;
    }
}
