//! A folder, a source that reads it, and what the source says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::Folder;
use crate::sample::{Event, Sample};

/// A source that runs, and what it has said so far.
pub(super) struct Bed {
    pub(super) folder: tempfile::TempDir,
    events: mpsc::Receiver<Vec<Event>>,
    /// What is kept of each object, by `Kind namespace/name`.
    pub(super) objects: BTreeMap<String, Vec<String>>,
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
        let consumer = Sample;
        Self {
            folder,
            events,
            objects: BTreeMap::new(),
            listed: false,
            task: tokio::spawn(Folder { path, consumer }.run(sender)),
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
            Event::There(key, words, _) => {
                self.objects.insert(key.to_string(), words);
            }
            Event::Gone(key) => {
                self.objects.remove(&key.to_string());
            }
            Event::Listed(_) => self.listed = true,
            Event::Restarted(_) => {}
        }
    }

    /// Waits until what was said is so.
    pub(super) async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        while !so(self) {
            match tokio::time::timeout_at(end, self.events.recv()).await {
                Ok(Some(batch)) => batch.into_iter().for_each(|event| self.fold(event)),
                Ok(None) => panic!("the source ended before {what}"),
                Err(_) => panic!("not {what}: {:?}", self.objects),
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

    pub(super) fn address(&self, name: &str) -> Option<&str> {
        let words = self.objects.get(&format!("Service shop/{name}"))?;
        words.first().map(String::as_str)
    }

    pub(super) async fn until_address(&mut self, name: &str, address: &str) {
        let what = format!("{name} has {address}");
        self.until(&what, |bed| bed.address(name) == Some(address))
            .await;
    }
}
