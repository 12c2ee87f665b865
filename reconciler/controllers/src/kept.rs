//! All objects of one kind, kept by one watch that every controller of the process shares.
//!
//! A controller plans from what is kept here, so it must not plan before its own last write has come back: it would
//! make the same Pod twice. [`Kept::seen`] and [`Kept::seen_gone`] wait for that, as long as it takes: a watch that
//! breaks is begun anew, and a list that was asked for after the write has it. They compare resource versions as
//! numbers, which holds wherever these are a store's revisions (here, and with etcd).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::Instant;

/// How many objects one answer to a list holds.
const PAGE: u32 = 500;
/// How long a write may take to come back before the log says so.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first and the longest pause before a broken watch is begun anew.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long a watch must have gone without an error for the next pause to be short again.
const CALM: Duration = Duration::from_secs(10);

/// A kind whose objects can be kept.
pub trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}
impl<K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Kind
    for K
{
}

/// One object's change. A new object has no `old`, one that is gone has no `new`.
#[derive(Debug)]
pub struct Change<K> {
    /// As it was kept before.
    pub old: Option<Arc<K>>,
    /// As it is kept now.
    pub new: Option<Arc<K>>,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        Self {
            old: self.old.clone(),
            new: self.new.clone(),
        }
    }
}

impl<K> Change<K> {
    /// The newest state that is known: `new`, or `old` of an object that is gone.
    pub fn latest(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Both states that there are, the old one first.
    pub fn states(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(&self.new)
    }
}

/// All objects of kind `K`. Clones share them.
pub struct Kept<K: Kind> {
    store: Store<K>,
    listeners: Arc<Mutex<Vec<UnboundedSender<Change<K>>>>>,
    progress: watch::Sender<Progress>,
}

/// How far the watch has come.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// The highest revision that it told.
    revision: u64,
    /// Lists asked for so far.
    asked: u64,
    /// The last of them that came whole.
    listed: u64,
}

impl<K: Kind> Clone for Kept<K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            listeners: self.listeners.clone(),
            progress: self.progress.clone(),
        }
    }
}

impl<K: Kind> Kept<K> {
    /// Everything in `api`, and the watch that keeps it, which must be run for anything to be kept. It never ends.
    pub fn new(api: Api<K>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (kept, writer) = Self::empty();
        let keeping = keep(api, kept.clone(), writer);
        (kept, keeping)
    }

    fn empty() -> (Self, Writer<K>) {
        let writer = Writer::<K>::default();
        let kept = Self {
            store: writer.as_reader(),
            listeners: Arc::default(),
            progress: watch::Sender::default(),
        };
        (kept, writer)
    }

    /// Waits for the first list.
    pub async fn ready(&self) {
        // Not the store's own `wait_until_ready`, which wakes only the last of several that wait.
        let mut progress = self.progress.subscribe();
        // Fails only without a sender, and `self` has one.
        _ = progress.wait_for(|now| now.listed > 0).await;
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// Those of one namespace, in no order.
    pub fn within(&self, namespace: &str) -> Vec<Arc<K>> {
        self.store
            .state_filter(|object| object.meta().namespace.as_deref() == Some(namespace))
    }

    /// The object of this name; `namespace` is "" for kinds that have none.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = ObjectRef::<K>::new(name);
        self.store.get(&if namespace.is_empty() {
            key
        } else {
            key.within(namespace)
        })
    }

    /// What is kept, as kube's own controllers read it.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// All changes from now on, in order and none left out, after what is kept already (as new objects). What a
    /// change tells is kept before it is told.
    pub fn changes(&self) -> impl Stream<Item = Change<K>> + Send + use<K> {
        let (sender, receiver) = unbounded_channel();
        let mut listeners = self.lock();
        let present = self.store.state();
        listeners.push(sender);
        drop(listeners);
        let present = stream::iter(present.into_iter().map(|object| Change {
            old: None,
            new: Some(object),
        }));
        let coming = stream::unfold(receiver, async |mut receiver| {
            Some((receiver.recv().await?, receiver))
        });
        present.chain(coming)
    }

    /// Waits until `written`, as the server answered, has come back by the watch.
    pub async fn seen(&self, written: &K) {
        let Some(revision) = revision(written) else {
            return;
        };
        let name = written.name_any();
        let namespace = written.namespace().unwrap_or_default();
        let held = || {
            self.get(&namespace, &name)
                .as_deref()
                .and_then(self::revision)
        };
        self.wait(&name, |newest| {
            newest >= revision || held().is_some_and(|held| held >= revision)
        })
        .await;
    }

    /// Waits until the object is no longer kept, is kept as being deleted, or is another one of its name.
    pub async fn seen_gone(&self, gone: &K) {
        let name = gone.name_any();
        let namespace = gone.namespace().unwrap_or_default();
        self.wait(&name, |_| {
            let held = self.get(&namespace, &name);
            held.is_none_or(|held| {
                held.uid() != gone.uid() || held.meta().deletion_timestamp.is_some()
            })
        })
        .await;
    }

    async fn wait(&self, name: &str, caught_up: impl Fn(u64) -> bool) {
        let mut progress = self.progress.subscribe();
        let asked = progress.borrow().asked;
        let waiting = progress.wait_for(|now| now.listed > asked || caught_up(now.revision));
        let mut waiting = std::pin::pin!(waiting);
        if tokio::time::timeout(PATIENCE, &mut waiting).await.is_err() {
            let kind = K::kind(&());
            tracing::warn!(
                "watch {kind}: the change of {name} has not been told for {PATIENCE:?}; waiting on"
            );
            // Fails only without a sender, and `self` has one.
            _ = waiting.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<UnboundedSender<Change<K>>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what an event of the watch says, then tells the listeners.
    fn take(&self, writer: &mut Writer<K>, event: watcher::Event<K>) {
        let mut listeners = self.lock();
        let (changes, newest) = match &event {
            watcher::Event::Apply(object) => {
                let old = self.store.get(&ObjectRef::from_obj(object));
                writer.apply_watcher_event(&event);
                (
                    vec![Change {
                        old,
                        new: self.store.get(&ObjectRef::from_obj(object)),
                    }],
                    revision(object),
                )
            }
            watcher::Event::Delete(object) => {
                writer.apply_watcher_event(&event);
                // The event has the last state, which is newer than the kept one.
                (
                    vec![Change {
                        old: Some(Arc::new(object.clone())),
                        new: None,
                    }],
                    revision(object),
                )
            }
            watcher::Event::Init | watcher::Event::InitApply(_) => {
                writer.apply_watcher_event(&event);
                (Vec::new(), None)
            }
            watcher::Event::InitDone => {
                let before = by_key(self.store.state());
                writer.apply_watcher_event(&event);
                let after = by_key(self.store.state());
                let newest = after
                    .values()
                    .filter_map(|object| revision(object.as_ref()))
                    .max();
                (differences(before, after), newest)
            }
        };
        for change in changes {
            listeners.retain(|listener| listener.send(change.clone()).is_ok());
        }
        drop(listeners);
        // Told even when the numbers stay, since an object may be gone.
        self.progress.send_modify(|progress| {
            progress.revision = newest.unwrap_or(0).max(progress.revision);
            match event {
                watcher::Event::Init => progress.asked += 1,
                watcher::Event::InitDone => progress.listed = progress.asked,
                _ => {}
            }
        });
    }
}

type Key = (Option<String>, Option<String>);

fn by_key<K: Kind>(objects: Vec<Arc<K>>) -> BTreeMap<Key, Arc<K>> {
    let key = |object: &Arc<K>| (object.meta().namespace.clone(), object.meta().name.clone());
    objects
        .into_iter()
        .map(|object| (key(&object), object))
        .collect()
}

/// What a list after a broken watch has changed. An object that was replaced by another of its name is gone first.
fn differences<K: Kind>(
    mut before: BTreeMap<Key, Arc<K>>,
    after: BTreeMap<Key, Arc<K>>,
) -> Vec<Change<K>> {
    let mut changes = Vec::new();
    for (key, new) in after {
        let mut old = before.remove(&key);
        if let Some(replaced) = old.take_if(|old| old.uid() != new.uid()) {
            changes.push(Change {
                old: Some(replaced),
                new: None,
            });
        }
        if old
            .as_ref()
            .is_none_or(|old| old.meta().resource_version != new.meta().resource_version)
        {
            changes.push(Change {
                old,
                new: Some(new),
            });
        }
    }
    changes.extend(before.into_values().map(|old| Change {
        old: Some(old),
        new: None,
    }));
    changes
}

fn revision<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

async fn keep<K: Kind>(api: Api<K>, kept: Kept<K>, mut writer: Writer<K>) {
    let kind = K::kind(&()).into_owned();
    let config = watcher::Config::default().page_size(PAGE);
    let mut events = std::pin::pin!(watcher(api, config).backoff(Retry::default()));
    let mut told = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                told = false;
                // Nobody here reads who wrote which field, and it is a third of an object.
                kept.take(
                    &mut writer,
                    event.modify(|object| object.meta_mut().managed_fields = None),
                );
            }
            Err(error) if told => tracing::debug!("watch {kind}: {error}"),
            Err(error) => {
                told = true;
                tracing::warn!("watch {kind}: {error}; trying again until it works");
            }
        }
    }
}

/// Pauses that grow. kube resets them at every event, and the announcement of a list is one, even if the list fails;
/// so only a reset after some calm counts.
pub(crate) struct Retry {
    next: Duration,
    last: Option<Instant>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            next: PAUSE.0,
            last: None,
        }
    }
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE.1);
        self.last = Some(Instant::now());
        Some(pause)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        if self.last.is_none_or(|last| last.elapsed() > CALM) {
            self.next = PAUSE.0;
        }
    }
}

#[cfg(test)]
mod tests;
