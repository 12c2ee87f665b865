//! What changes, told to everyone who watches: one watch on the store serves all watches of clients.
//!
//! A change is parsed once, however many look at it, and its plain JSON line is written once. Each resource keeps its
//! recent changes, so a watch from a recent revision starts without the store; an older one reads the store's history.
//!
//! Invariant: when [`Changes::revision`] says R, every change up to R has been put into its resource's channel.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::kinds::KINDS;
use super::object;
use crate::store::{self, Event, Revision, Store};

/// Changes kept for a resource: so many, and so many bytes.
const KEPT: usize = 1024;
const KEPT_BYTES: usize = 256 << 10;
/// Changes that a slow watcher may be behind before it has to read history instead.
const CHANNEL: usize = 512;

/// A change, with what has been made of it.
#[derive(Debug)]
pub struct Change {
    /// As the store told it.
    pub event: Event,
    new: OnceLock<Option<Value>>,
    old: OnceLock<Option<Value>>,
    /// The plain JSON line of a watch without selectors.
    pub line: OnceLock<Bytes>,
}

impl From<Event> for Change {
    fn from(event: Event) -> Self {
        Self {
            event,
            new: OnceLock::new(),
            old: OnceLock::new(),
            line: OnceLock::new(),
        }
    }
}

impl Change {
    /// The object after the change; none if it was deleted.
    pub fn new_object(&self) -> Option<&Value> {
        let parse = |bytes: &Bytes| object::decode(bytes, self.event.revision).ok();
        self.new
            .get_or_init(|| self.event.value.as_ref().and_then(parse))
            .as_ref()
    }

    /// The object before the change, with the change's revision; none if it was created.
    pub fn old_object(&self) -> Option<&Value> {
        let parse = |bytes: &Bytes| object::decode(bytes, self.event.revision).ok();
        self.old
            .get_or_init(|| self.event.before.as_ref().and_then(parse))
            .as_ref()
    }
}

fn size(event: &Event) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    length(&event.value) + length(&event.before)
}

struct Resource {
    /// As bytes: what has been made of a change goes when those who watch have it.
    recent: VecDeque<Event>,
    bytes: usize,
    /// Every later change is in `recent`.
    since: Revision,
    channel: broadcast::Sender<Arc<Change>>,
}

impl Resource {
    fn add(&mut self, event: Event) {
        self.bytes += size(&event);
        self.recent.push_back(event.clone());
        while self.recent.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.recent.pop_front() else {
                break;
            };
            self.bytes -= size(&oldest);
            self.since = oldest.revision;
        }
        // Nobody may be listening.
        let _ = self.channel.send(Arc::new(event.into()));
    }
}

/// The recent changes of all resources.
pub struct Changes {
    resources: HashMap<&'static str, Mutex<Resource>>,
    revision: AtomicU64,
    ended: watch::Sender<bool>,
}

/// Where a watch begins.
pub enum Start {
    /// These first, then what the channel brings.
    Recent(Vec<Arc<Change>>, broadcast::Receiver<Arc<Change>>),
    /// That is too long ago: ask the store.
    History,
}

fn lock(resource: &Mutex<Resource>) -> MutexGuard<'_, Resource> {
    // A panic while a change was added left at worst a wrong count of bytes.
    resource.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Changes {
    /// Nothing has changed since `revision`.
    pub fn new(revision: Revision) -> Arc<Self> {
        let resource = || {
            Mutex::new(Resource {
                recent: VecDeque::new(),
                bytes: 0,
                since: revision,
                channel: broadcast::channel(CHANNEL).0,
            })
        };
        Arc::new(Self {
            resources: KINDS.iter().map(|kind| (kind.plural, resource())).collect(),
            revision: AtomicU64::new(revision),
            ended: watch::Sender::new(false),
        })
    }

    /// Every change up to this revision has been told.
    pub fn revision(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    /// Comes when all watches are to end; at once if they already were.
    pub fn end(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.subscribe();
        async move {
            // That nobody is left who could say it is an end too.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// Ends all watches.
    pub fn close(&self) {
        self.ended.send_replace(true);
    }

    /// Changes of a resource after a revision.
    pub fn after(&self, plural: &str, revision: Revision) -> Start {
        let Some(resource) = self.resources.get(plural) else {
            return Start::History;
        };
        let resource = lock(resource);
        if revision < resource.since {
            return Start::History;
        }
        let from = resource
            .recent
            .partition_point(|event| event.revision <= revision);
        let change = |event: &Event| Arc::new(event.clone().into());
        let recent = resource.recent.range(from..).map(change).collect();
        Start::Recent(recent, resource.channel.subscribe())
    }

    fn tell(&self, events: Vec<Event>) {
        let Some(last) = events.last().map(|event| event.revision) else {
            return;
        };
        for event in events {
            let plural = event.key.split('/').nth(2).unwrap_or_default();
            if let Some(resource) = self.resources.get(plural) {
                lock(resource).add(event);
            }
        }
        self.revision.store(last, Ordering::Release);
    }

    /// What has happened was missed: watches have to ask the store for everything up to `revision`.
    fn forget(&self, revision: Revision) {
        for resource in self.resources.values() {
            let mut resource = lock(resource);
            resource.recent.clear();
            resource.bytes = 0;
            resource.since = revision;
            // Receivers see that the channel was replaced, and go to the store.
            resource.channel = broadcast::channel(CHANNEL).0;
        }
        self.revision.store(revision, Ordering::Release);
    }

    /// Tells changes for as long as the store lives.
    pub async fn follow(self: Arc<Self>, store: Arc<dyn Store>) {
        loop {
            match store.watch("/registry/", self.revision()).await {
                Ok(mut watch) => loop {
                    match watch.recv().await {
                        Some(Ok(events)) => self.tell(events),
                        Some(Err(error)) => break self.missed(&*store, error).await,
                        None => return,
                    }
                },
                Err(error) => self.missed(&*store, error).await,
            }
        }
    }

    async fn missed(&self, store: &dyn Store, error: store::Error) {
        tracing::warn!("watch the store from revision {}: {error}", self.revision());
        if let store::Error::Compacted { .. } = error
            && let Ok(now) = store.revision().await
        {
            self.forget(now);
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: Revision, key: &str) -> Event {
        Event {
            revision,
            key: key.to_owned(),
            value: Some(Bytes::from_static(b"{}")),
            before: None,
        }
    }

    #[tokio::test]
    async fn the_end_is_heard_before_and_after_it_comes() {
        let changes = Changes::new(5);
        let before = changes.end();
        let waiting = tokio::time::timeout(Duration::from_millis(20), changes.end()).await;
        assert!(waiting.is_err(), "nothing has ended yet");
        changes.close();
        before.await;
        changes.end().await;
    }

    fn revisions(start: Start) -> Vec<Revision> {
        let Start::Recent(mut all, mut channel) = start else {
            return Vec::new();
        };
        while let Ok(change) = channel.try_recv() {
            all.push(change);
        }
        all.iter().map(|change| change.event.revision).collect()
    }

    #[test]
    fn a_watch_gets_what_came_after_its_revision_of_its_resource() {
        let changes = Changes::new(10);
        assert!(matches!(changes.after("pods", 9), Start::History));
        let early = changes.after("pods", 10);
        changes.tell(vec![
            event(11, "/registry/pods/d/a"),
            event(12, "/registry/nodes/n1"),
        ]);
        changes.tell(vec![event(13, "/registry/pods/d/b")]);
        assert_eq!(changes.revision(), 13);
        assert_eq!(revisions(early), [11, 13]);
        assert_eq!(revisions(changes.after("pods", 11)), [13]);
        assert_eq!(revisions(changes.after("pods", 99)), [0; 0]);
    }

    #[test]
    fn what_is_no_longer_kept_is_history() {
        let changes = Changes::new(0);
        for revision in 1..=KEPT as u64 + 5 {
            changes.tell(vec![event(revision, "/registry/pods/d/a")]);
        }
        assert!(matches!(changes.after("pods", 4), Start::History));
        assert_eq!(revisions(changes.after("pods", 5)).len(), KEPT);
    }
}
